"""Markets, providers, symbols and instruments, found by name, by page and by id."""

from typing import Any

import pytest

from resolvers.paging import cursor_of
from tests.api import Api
from tests.schema.conftest import NOW
from tests.schema.recorded import CLOCK, MANY

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = """
query Page($first: Int, $after: String, $last: Int, $before: String) {
  symbols(provider: "replay", first: $first, after: $after, last: $last, before: $before) {
    totalCount
    edges { cursor node { id symbol } }
    nodes { symbol }
    pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
  }
}
"""
ALL = [*sorted(["COIN", *MANY]), "stock_HALF"]
NODE = """
query Node($id: ID!) {
  node(id: $id) {
    __typename
    id
    ... on Market { market: name }
    ... on Provider { name }
    ... on Symbol { symbol exchange: market }
  }
}
"""


async def page(api: Api, **arguments: Any) -> dict[str, Any]:
    return (await api.ask(PAGE, **arguments)).data["symbols"]


def names(connection: dict[str, Any]) -> list[str]:
    return [edge["node"]["symbol"] for edge in connection["edges"]]


async def test_markets_know_who_offers_them(api: Api) -> None:
    answer = await api.ask("{ markets { name providers { name markets { name } } } }")

    both = {"name": "crypto"}, {"name": "stocks"}
    offered = [{"name": name, "markets": list(both)} for name in ("replay", "sim")]
    assert answer.data["markets"] == [
        {"name": "crypto", "providers": offered},
        {"name": "stocks", "providers": offered},
    ]


async def test_a_provider_says_what_it_is_and_what_it_can(api: Api) -> None:
    answer = await api.ask(
        """{ providers {
          name title attribution simulated disabled capabilities
          limits { maxBars maxPages } clock { now } health { state reason }
        } }"""
    )

    replay, sim, alpaca = answer.data["providers"]
    assert (replay["name"], replay["simulated"], replay["disabled"]) == ("replay", False, None)
    assert (sim["name"], sim["simulated"]) == ("sim", True)
    assert replay["capabilities"][:2] == ["SYMBOLS", "HISTORY"]
    assert replay["limits"] == {"maxBars": 10_000, "maxPages": 10}
    assert replay["clock"]["now"] == CLOCK
    assert sim["clock"]["now"] == NOW
    assert replay["attribution"]
    assert sim["capabilities"][-4:] == ["LIVE_BARS", "LIVE_TRADES", "LIVE_BOOKS", "LIVE_TICKERS"]
    assert (alpaca["name"], alpaca["capabilities"]) == ("alpaca", [])
    assert "ALPACA_KEY_ID" in alpaca["disabled"]


async def test_providers_of_a_market_leave_out_the_others(api: Api) -> None:
    answer = await api.ask('{ providers(market: "stocks") { name } }')

    assert [provider["name"] for provider in answer.data["providers"]] == ["replay", "sim"]


async def test_an_instruments_amounts_are_exact_strings(api: Api) -> None:
    answer = await api.ask(
        """{ instrument(provider: "sim", symbol: "BTC/USDT") {
          provider market symbol type base quote tickSize lotSize minQuantity maxQuantity
          minNotional orderTypes timeInForce calendar active
        } }"""
    )

    rules = answer.data["instrument"]
    assert (rules["base"], rules["quote"], rules["type"]) == ("BTC", "USDT", "SPOT")
    assert rules["tickSize"] == "0.01"
    assert rules["minNotional"] == "5"
    assert rules["maxQuantity"] is None
    assert rules["calendar"] == "24/7"


async def test_symbols_come_by_market_and_name_fifty_at_a_time(api: Api) -> None:
    absent = (await api.ask('{ symbols(provider: "replay") { edges { node { symbol } } } }')).data
    null = await page(api, first=None, last=None)

    assert names(absent["symbols"]) == names(null) == ALL[:50]
    assert null["totalCount"] == len(ALL) == 62
    assert [node["symbol"] for node in null["nodes"]] == names(null)


@pytest.mark.parametrize("size", [1, 7, 62, 500])
async def test_walking_forwards_meets_every_symbol_once(api: Api, size: int) -> None:
    met, connection = [], await page(api, first=size)
    met += names(connection)
    while connection["pageInfo"]["hasNextPage"]:
        connection = await page(api, first=size, after=connection["pageInfo"]["endCursor"])
        met += names(connection)

    assert met == ALL


@pytest.mark.parametrize("size", [1, 7, 62, 500])
async def test_walking_backwards_meets_every_symbol_once(api: Api, size: int) -> None:
    query = PAGE.replace("first: $first, ", "").replace("$first: Int, ", "")
    met: list[str] = []
    before = None
    while True:
        connection = (await api.ask(query, last=size, before=before)).data["symbols"]
        met = names(connection) + met
        if not connection["pageInfo"]["hasPreviousPage"]:
            break
        before = connection["pageInfo"]["startCursor"]

    assert met == ALL


async def test_last_counts_from_the_end_unless_first_is_given_too(api: Api) -> None:
    last = await api.ask('{ symbols(provider: "replay", last: 2) { edges { node { symbol } } } }')
    variable = await page(api, last=2)
    both = await page(api, first=50, last=2)

    assert names(last.data["symbols"]) == names(variable) == ALL[-2:]
    assert names(both) == ALL[48:50]


async def test_first_and_last_written_into_the_document_mean_the_same_as_variables(
    api: Api,
) -> None:
    literal = await api.ask(
        '{ symbols(provider: "replay", first: 4, last: 2) { edges { node { symbol } } } }'
    )

    assert names(literal.data["symbols"]) == names(await page(api, first=4, last=2)) == ALL[2:4]


async def test_a_page_goes_on_after_a_symbol_that_is_gone(api: Api) -> None:
    connection = await page(api, first=2, after=cursor_of(("crypto", "MANY05x")))

    assert names(connection) == ["MANY06", "MANY07"]


async def test_an_empty_page_has_no_cursors(api: Api) -> None:
    connection = await page(api, first=0)

    assert connection["edges"] == connection["nodes"] == []
    assert connection["pageInfo"] == {
        "hasPreviousPage": False,
        "hasNextPage": True,
        "startCursor": None,
        "endCursor": None,
    }


@pytest.mark.parametrize("count", [-1, 501])
async def test_a_page_out_of_bounds_is_refused(api: Api, count: int) -> None:
    answer = await api.ask(PAGE, first=count)

    assert answer.codes == ["BAD_USER_INPUT"]
    assert "from 0 to 500" in answer.error["message"]


@pytest.mark.parametrize("cursor", ["", "x", "bm90IG91cnM", "\x00", "é"])
async def test_a_foreign_cursor_is_refused(api: Api, cursor: str) -> None:
    answer = await api.ask(PAGE, after=cursor)

    assert answer.codes == ["BAD_USER_INPUT"]
    assert answer.error["extensions"]["field"] == "after"


async def test_a_search_finds_symbol_base_and_quote_in_any_case(api: Api) -> None:
    query = """query Search($search: String, $type: InstrumentType, $market: String) {
      symbols(provider: "sim", search: $search, type: $type, market: $market) {
        edges { node { symbol } } totalCount
      }
    }"""

    async def found(**by: str) -> list[str]:
        return names((await api.ask(query, **by)).data["symbols"])

    assert await found(search="btc") == ["BTC/USDT"]
    assert await found(search="usd", market="stocks") == ["AAPL", "MSFT", "SPY"]
    assert await found(type="STOCK") == ["AAPL", "MSFT", "SPY"]
    assert len(await found(search="")) == 8
    assert await found(search="%") == await found(search=".*") == []


async def test_every_id_finds_its_entity_again_and_no_two_are_alike(api: Api) -> None:
    answer = await api.ask(
        """{ markets { id } providers { id }
             sim: symbols(provider: "sim") { nodes { id } }
             replay: symbols(provider: "replay", first: 100) { nodes { id } } }"""
    )
    data = answer.data
    ids = [entity["id"] for kind in ("markets", "providers") for entity in data[kind]]
    ids += [node["id"] for provider in ("sim", "replay") for node in data[provider]["nodes"]]

    found = [(await api.ask(NODE, id=each)).data["node"] for each in ids]

    assert [node["id"] for node in found] == ids
    assert len(set(ids)) == len(ids) == 2 + 3 + 8 + 62
    assert [node["__typename"] for node in found[:6]] == [
        *("Market", "Market", "Provider", "Provider", "Provider", "Symbol")
    ]
    assert {node["symbol"] for node in found[13:]} == set(ALL)


@pytest.mark.parametrize(
    "id",
    [
        *("", "1", "x" * 5000, "\x00", "é", "VXNlcjox", "W10", "WyJTeW1ib2wiXQ"),
        cursor_of(("Symbol", "sim", "crypto", "DOGE/USDT")),
        cursor_of(("Symbol", "sim", "stocks", "BTC/USDT")),
        cursor_of(("Symbol", "nobody", "crypto", "BTC/USDT")),
        cursor_of(("Symbol", "sim", "nowhere", "BTC/USDT")),
        cursor_of(("Provider", "nobody")),
        cursor_of(("Provider", "sim", "more")),
        cursor_of(("Market", "nowhere")),
        cursor_of(("Nobody", "1")),
    ],
)
async def test_an_id_of_nothing_reads_as_nothing(api: Api, id: str) -> None:
    answer = await api.ask(NODE, id=id)

    assert answer.data["node"] is None


async def test_a_symbol_knows_its_provider_and_its_rules(api: Api) -> None:
    answer = await api.ask(
        """{ symbols(provider: "sim", search: "SPY") { nodes {
          symbol market base quote type provider { name } instrument { calendar symbol }
        } } }"""
    )

    (symbol,) = answer.data["symbols"]["nodes"]
    assert symbol["provider"] == {"name": "sim"}
    assert symbol["instrument"] == {"calendar": "XNYS", "symbol": "SPY"}
    assert (symbol["market"], symbol["type"]) == ("stocks", "STOCK")
