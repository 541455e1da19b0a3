"""What a refusal carries: facts, and names that exist."""

from market.errors import AmbiguousSymbol, UnknownName, nearest


def test_the_nearest_three_names_come_likeliest_first():
    known = ["binance", "binanceus", "bitfinex", "kraken", "kucoin", "alpaca"]

    assert nearest("binanse", known)[0] == "binance"
    assert len(nearest("bi", known)) <= 3


def test_case_does_not_hide_a_name():
    assert nearest("KRAKEN", ["kraken", "alpaca"]) == ("kraken",)


def test_an_unknown_name_is_shown_short_and_kept_whole():
    refused = UnknownName("provider", "x" * 5000, ["binance"], field="provider")

    assert len(str(refused)) < 200
    assert refused.name == "x" * 5000


def test_an_ambiguous_symbol_names_its_markets():
    refused = AmbiguousSymbol("ABC", ["crypto", "stocks"])

    assert refused.choices == ("crypto", "stocks")
    assert refused.field == "market"
    assert refused.code == "AMBIGUOUS_SYMBOL"
