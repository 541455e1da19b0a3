"""Whatever is asked, the answer is a typed error or an empty window: never a bug, never a crash."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from tests.api import Api, Asked, served_with, settings_over
from tests.fakes import FakeProvider, Market
from tests.schema.listings import Unreachable, in_two_markets
from tests.schema.recorded import CLOCK, OPENING

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_BARS = 10_000
CANDLES = """
query Candles($series: SeriesInput!, $since: Timestamp, $until: Timestamp, $last: Int) {
  candles(series: $series, since: $since, until: $until, last: $last) {
    columns { time } gaps { since until reason } hasEarlier cursor summary { sentence }
  }
}
"""
SYMBOLS = """
query Symbols(
  $provider: String!, $market: String, $search: String, $first: Int, $after: String,
  $last: Int, $before: String
) {
  symbols(
    provider: $provider, market: $market, search: $search,
    first: $first, after: $after, last: $last, before: $before
  ) { totalCount edges { cursor } pageInfo { hasNextPage } }
}
"""
INSTRUMENT = """
query Instrument($provider: String!, $symbol: String!, $market: String) {
  instrument(provider: $provider, symbol: $symbol, market: $market) { symbol }
}
"""
COIN = {"provider": "replay", "symbol": "COIN", "timeframe": "1m"}
HOSTILE = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\r\nX-Injected: 1",
    "\u202e\u0301\U0001f600",
    "x" * 20_000,
    "../../../../etc/passwd",
    "'; DROP TABLE series; --",
    "COIN' OR '1'='1",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "*",
    "%s%n",
    "NaN",
    "-1",
    "1e999",
    "null",
]


async def candles(api: Api, asked: Mapping[str, Any] = COIN, **cut: Any) -> Asked:
    return await api.ask(CANDLES, series=asked, **cut)


def refused(answer: Asked, field: str | None = None) -> dict[str, Any]:
    assert answer.status == 200
    assert answer.codes == ["BAD_USER_INPUT"], answer.body
    if field is not None:
        assert answer.error["extensions"]["field"] == field
    return answer.error


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [
        ({"provider": "reply"}, "replay"),
        ({"symbol": "COYN"}, "COIN"),
        ({"timeframe": "15x"}, "15m"),
        ({"timezone": "Europe/Berlim"}, "Europe/Berlin"),
        ({"market": "cripto"}, "crypto"),
    ],
)
async def test_an_unknown_name_comes_with_the_nearest_three(
    api: Api, wrong: dict[str, str], suggested: str
) -> None:
    error = refused(await candles(api, COIN | wrong), field=next(iter(wrong)))

    suggestions = error["extensions"]["suggestions"]
    assert suggested in suggestions
    assert len(suggestions) <= 3
    assert suggested in error["message"]


@pytest.mark.parametrize("query", ["providers", "symbols", "instrument"])
async def test_an_unknown_market_is_refused_everywhere(api: Api, query: str) -> None:
    text = {
        "providers": '{ providers(market: "crpto") { name } }',
        "symbols": '{ symbols(provider: "sim", market: "crpto") { totalCount } }',
        "instrument": '{ instrument(provider: "sim", symbol: "SPY", market: "crpto") { symbol } }',
    }[query]

    error = refused(await api.ask(text), field="market")

    assert error["extensions"]["suggestions"][0] == "crypto"


async def test_a_symbol_of_another_market_is_unknown(api: Api) -> None:
    answer = await api.ask(INSTRUMENT, provider="sim", symbol="SPY", market="crypto")

    refused(answer, field="symbol")


@pytest.mark.parametrize(
    "cut",
    [
        {"last": 0},
        {"last": -1},
        {"last": MAX_BARS + 1},
        {"last": 2**31 - 1},
        {"since": CLOCK, "until": OPENING},
        {"since": -(2**53) + 1},
        {"until": 2**53 - 1},
    ],
)
async def test_a_cut_that_can_never_be_answered_is_refused(api: Api, cut: dict[str, int]) -> None:
    refused(await candles(api, **cut), field=next(iter(cut)))


async def test_a_refusal_of_too_many_bars_states_the_limit(api: Api) -> None:
    error = refused(await candles(api, last=MAX_BARS + 1))

    assert str(MAX_BARS) in error["message"]


@pytest.mark.parametrize(
    "cut",
    [
        {"last": 2**63},
        {"last": 1e30},
        {"last": 1.5},
        {"last": "5"},
        {"last": True},
        {"last": [1, 2]},
        {"since": 2**63},
        {"since": 1e30},
        {"since": 0.5},
        {"since": "0"},
        {"since": "NaN"},
        {"since": True},
        {"since": {"a": 1}},
        {"until": -(2**63)},
        {"until": [0]},
    ],
)
async def test_a_number_of_another_kind_is_refused(api: Api, cut: dict[str, Any]) -> None:
    answer = await candles(api, **cut)

    assert answer.codes == ["BAD_USER_INPUT"]
    assert answer.status in {200, 400}


@pytest.mark.parametrize(
    "literal",
    [
        "last: 9223372036854775808",
        "last: 1e30",
        "last: 1.5",
        'last: "5"',
        "since: 9223372036854775808",
        "since: 1e30",
        "since: 0.5",
        'since: "NaN"',
        "since: {a: 1}",
        "since: RED",
        "since: [1]",
        "since: 1" + "0" * 400,
        "since: 1e999",
    ],
)
async def test_a_literal_of_another_kind_is_refused(api: Api, literal: str) -> None:
    series = 'series: {provider: "replay", symbol: "COIN", timeframe: "1m"}'

    answer = await api.ask("{ candles(%s, %s) { hasEarlier } }" % (series, literal))  # noqa: UP031

    assert set(answer.codes) == {"BAD_USER_INPUT"} or "GRAPHQL_VALIDATION_FAILED" in answer.codes


async def test_a_whole_number_written_as_a_float_is_a_whole_number(api: Api) -> None:
    answer = await candles(api, since=float(OPENING), until=OPENING + 60_000.0)

    assert answer.data["candles"]["columns"]["time"] == [OPENING]


@pytest.mark.parametrize("timeframe", ["1s", "1m", "7m", "1h", "1d", "1w", "1M", "100y"])
@pytest.mark.parametrize("symbol", ["COIN", "stock_HALF"])
async def test_a_window_of_thousands_of_years_is_answered(
    api: Api, symbol: str, timeframe: str
) -> None:
    earliest, latest = -62_135_596_800_000, 253_402_300_799_999

    answer = await candles(
        api,
        COIN | {"symbol": symbol, "timeframe": timeframe},
        since=earliest,
        until=latest,
        last=MAX_BARS,
    )

    window = answer.data["candles"]
    assert window["gaps"]
    assert len(window["columns"]["time"]) < 1000
    assert all(gap["since"] < gap["until"] for gap in window["gaps"])


@pytest.mark.parametrize("year", [1, 1699, 1970, 9999])
async def test_a_date_without_bars_is_an_empty_window_with_its_gap(api: Api, year: int) -> None:
    since = (year - 1970) * 31_556_952_000
    since = min(max(since, -62_135_596_800_000), 253_402_300_799_999 - 86_400_000)

    answer = await candles(api, since=since, until=since + 86_400_000)

    window = answer.data["candles"]
    assert window["columns"]["time"] == []
    assert (window["gaps"][0]["since"], window["gaps"][-1]["until"]) == (since, since + 86_400_000)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("field", ["provider", "symbol", "timeframe", "market", "timezone", "feed"])
async def test_a_hostile_name_is_an_unknown_name(api: Api, field: str, hostile: str) -> None:
    error = refused(await candles(api, COIN | {field: hostile}), field=field)

    assert len(error["message"]) < 400


@pytest.mark.parametrize("zone", ["UTC\x00", "/etc/localtime", "posix/UTC/../..", "localtime"])
async def test_a_zone_never_names_a_file(api: Api, zone: str) -> None:
    refused(await candles(api, COIN | {"timezone": zone}), field="timezone")


async def test_an_adjustment_that_is_not_offered_is_refused(api: Api) -> None:
    refused(await candles(api, COIN | {"adjustment": "SPLIT"}), field="adjustment")


async def test_a_symbol_in_two_markets_is_ambiguous_until_one_is_named(
    embedded: EmbeddedServers, database_url: str
) -> None:
    over = settings_over(embedded, database_url)
    clock = FixedClock(CLOCK)
    fake = in_two_markets(clock, "BOTH", markets=("crypto", "stocks"))
    async with served_with(over, {"fake": lambda _: fake}, clock=clock) as api:
        asked = {"provider": "fake", "symbol": "BOTH", "timeframe": "1m"}

        ambiguous = await candles(api, asked, last=1)
        rules = await api.ask(INSTRUMENT, provider="fake", symbol="BOTH")
        named = await candles(api, asked | {"market": "stocks"}, last=1)

    assert ambiguous.codes == rules.codes == ["AMBIGUOUS_SYMBOL"]
    assert ambiguous.error["extensions"]["choices"] == ["crypto", "stocks"]
    assert named.data["candles"]["columns"]["time"] == [CLOCK - 60_000]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broken(embedded: EmbeddedServers, database_url: str) -> AsyncIterator[Api]:
    """A server whose providers do not answer: one says so, one has a bug."""
    clock = FixedClock(CLOCK)
    away = FakeProvider(clock, {"COIN": Market()}, name="away")
    away.failing = lambda call: True
    over = settings_over(embedded, database_url)
    providers = {
        "away": lambda _: away,
        "limited": lambda _: Unreachable(clock, "limited", retry_after=7.5),
        "buggy": lambda _: Unreachable(clock, "buggy", bug="password=hunter2"),
    }
    async with served_with(over, providers, clock=clock) as api:
        yield api


async def test_a_provider_that_does_not_answer_is_named(broken: Api) -> None:
    asked = {"provider": "away", "symbol": "COIN", "timeframe": "1m"}

    answer = await candles(broken, asked, since=OPENING, until=CLOCK)

    assert answer.codes == ["PROVIDER_UNAVAILABLE"]
    assert answer.error["extensions"]["provider"] == "away"


async def test_a_provider_that_names_a_time_to_wait_has_it_passed_on(broken: Api) -> None:
    answer = await broken.ask('{ symbols(provider: "limited") { totalCount } }')

    assert answer.codes == ["PROVIDER_UNAVAILABLE"]
    assert answer.error["extensions"] == {
        "code": "PROVIDER_UNAVAILABLE",
        "provider": "limited",
        "retryAfter": 7.5,
    }


async def test_a_bug_is_masked_and_its_id_finds_it_in_the_log(
    broken: Api, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await broken.ask('{ symbols(provider: "buggy") { totalCount } }')

    error = answer.error
    assert answer.codes == ["INTERNAL"]
    assert error["message"] == "Internal server error."
    assert "hunter2" not in str(answer.body)
    (record,) = [r for r in caplog.records if error["extensions"]["errorId"] in r.getMessage()]
    assert record.exc_info is not None
    assert "hunter2" in str(record.exc_info[1])


ANY_NUMBER = (
    st.integers()
    | st.integers(-(2**31), 2**31 - 1)
    | st.sampled_from([0, 1, 500, MAX_BARS, MAX_BARS + 1, OPENING, CLOCK, -OPENING, 2**53])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none()
    | st.text(max_size=5)
)
ANY_NAME = st.text(max_size=30) | st.sampled_from(
    [*HOSTILE, "replay", "sim", "COIN", "BTC/USDT", "stock_HALF", "crypto", "1m", "7m", "1w", "UTC"]
)
FRAMES = st.from_regex(r"[0-9]{1,6}(s|m|h|d|w|M|y|min|mon)?", fullmatch=True) | ANY_NAME
ASKED = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(["replay", "sim"]) | ANY_NAME,
        "symbol": st.sampled_from(["COIN", "stock_HALF", "SPY"]) | ANY_NAME,
        "timeframe": FRAMES,
    },
    optional={
        "market": st.none() | ANY_NAME,
        "timezone": st.none() | ANY_NAME | st.sampled_from(["Asia/Kathmandu", "Africa/Cairo"]),
        "session": st.sampled_from([None, "REGULAR", "EXTENDED", "ALL", "regular"]) | ANY_NAME,
        "adjustment": st.sampled_from([None, "RAW", "SPLIT"]) | ANY_NAME,
        "feed": st.none() | ANY_NAME,
    },
)
CUTS = st.fixed_dictionaries(
    {}, optional={"since": ANY_NUMBER, "until": ANY_NUMBER, "last": ANY_NUMBER}
)
arbitrarily = settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def assert_no_bug(answer: Asked) -> None:
    assert answer.status < 500, answer.body
    assert "INTERNAL" not in answer.codes, answer.body
    if answer.errors:
        assert {error["message"] for error in answer.errors}


@given(ASKED, CUTS)
@arbitrarily
async def test_no_series_and_no_cut_is_ever_a_bug(
    api: Api, asked: dict[str, Any], cut: dict[str, Any]
) -> None:
    assert_no_bug(await candles(api, asked, **cut))


@given(
    st.fixed_dictionaries(
        {"provider": st.sampled_from(["replay", "sim"]) | ANY_NAME},
        optional={
            "market": st.none() | ANY_NAME,
            "search": st.none() | ANY_NAME,
            "first": ANY_NUMBER,
            "last": ANY_NUMBER,
            "after": ANY_NAME,
            "before": ANY_NAME,
        },
    )
)
@arbitrarily
async def test_no_page_of_symbols_is_ever_a_bug(api: Api, variables: dict[str, Any]) -> None:
    assert_no_bug(await api.ask(SYMBOLS, **variables))


@given(ANY_NAME, ANY_NAME, st.none() | ANY_NAME)
@arbitrarily
async def test_no_instrument_and_no_id_is_ever_a_bug(
    api: Api, provider: str, symbol: str, market: str | None
) -> None:
    assert_no_bug(await api.ask(INSTRUMENT, provider=provider, symbol=symbol, market=market))
    node = await api.ask("query Node($id: ID!) { node(id: $id) { id } }", id=symbol)
    assert node.data["node"] is None


async def test_lists_that_lead_to_each_other_do_not_multiply_without_end(api: Api) -> None:
    inner = " ".join(f"a{n}: name" for n in range(12))
    query = f"{{ {'markets { providers { ' * 14} {inner} {'} } ' * 14} }}"

    refused = await api.ask(query)

    assert refused.codes == ["COST_EXCEEDED"]
    assert "100000" in refused.error["message"]


async def test_null_where_a_default_would_have_done_is_the_callers_mistake(api: Api) -> None:
    query = 'query Q($name: String = "sim") { symbols(provider: $name) { totalCount } }'

    refused = await api.ask(query, name=None)

    assert refused.codes == ["BAD_USER_INPUT"]
    assert "$name" in refused.error["message"]
