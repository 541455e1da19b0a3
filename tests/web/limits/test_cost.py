"""What operations cost: bars times series, lists by their length, and every example admitted."""

from collections.abc import Mapping
from typing import Any

import pytest
from graphql import get_introspection_query, get_operation_ast, parse
from hypothesis import given
from hypothesis import strategies as st

from db.accounts.repositories.layouts import MOST_LAYOUTS
from db.accounts.repositories.presets import MOST_PRESETS
from schema.build import build_schema
from web.limits.cost import NAME_LENGTH, Costs, _Weighing
from web.limits.sizes import DOCUMENT_BYTES, LENGTHS

SCHEMA = build_schema().core
MAX_BARS = 10_000
COSTS = Costs(SCHEMA, available=100_000, max_bars=MAX_BARS)
SERIES = 'series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"}'


def cost(query: str, **variables: Any) -> int:
    document = parse(query)
    operation = get_operation_ast(document)
    assert operation is not None
    return COSTS.of(document, operation, variables)[0].requested


def window(last: str, fields: str = "time open high low close volume", also: str = "") -> str:
    return f"query Q{also} {{ candles({SERIES} {last}) {{ candles {{ {fields} }} }} }}"


def test_a_window_costs_a_point_a_bar() -> None:
    thousand, five_thousand = cost(window("last: 1000")), cost(window("last: 5000"))

    assert five_thousand - thousand == 4_000
    assert 5_000 <= five_thousand < 5_010


def test_without_last_a_window_costs_its_default_and_never_more_than_a_window_holds() -> None:
    assert cost(window("")) == cost(window("last: 500")) == cost(window("last: null"))
    assert cost(window("last: 2000000000")) == cost(window(f"last: {MAX_BARS}"))


@pytest.mark.parametrize("also", ["($n: Int)", "($n: Int = 3)"])
def test_variables_say_how_many_bars_and_their_defaults_where_they_do_not(also: str) -> None:
    by_variable = window("last: $n", also=also)

    assert cost(by_variable, n=700) == cost(window("last: 700"))
    assert cost(by_variable) == cost(window("last: 3" if "=" in also else ""))
    assert cost(by_variable, n=None) == cost(window(""))
    assert cost(by_variable, n="many") == cost(window(""))
    assert cost(by_variable, n=-5) == cost(window("last: 0"))


def test_asking_each_bar_for_more_values_than_it_has_costs_more_a_bar() -> None:
    aliases = " ".join(f"a{n}: close" for n in range(120))

    assert cost(window("last: 1000", aliases)) > 10 * cost(window("last: 1000", "close")) - 100


def test_rows_and_columns_of_one_window_count_together() -> None:
    rows = "candles { time open high low close volume trades vwap }"
    both = f"{{ candles({SERIES} last: 1000) {{ {rows} columns {{ time close open high low }} }} }}"

    assert 2_000 <= cost(both) < 2_020


def test_a_watchlist_costs_its_series_times_its_bars() -> None:
    def watchlist(symbols: int, bars: int) -> int:
        return cost(
            f'{{ symbols(provider: "sim", first: {symbols}) {{ nodes {{ symbol '
            f'candles(timeframe: "1m", last: {bars}) {{ candles {{ time close }} }} }} }} }}'
        )

    assert 5_000 <= watchlist(50, 100) < 5_300
    assert watchlist(500, 1000) > 500_000
    assert watchlist(10, 100) * 2 == pytest.approx(watchlist(20, 100), rel=0.01)


def test_last_counts_for_a_connection_that_is_read_from_its_end() -> None:
    page = '{{ symbols(provider: "sim", {}) {{ edges {{ node {{ symbol }} }} }} }}'

    assert cost(page.format("last: 2")) == cost(page.format("first: 2")) < 20
    assert cost(page.format("last: 200")) == cost(page.format("first: 200")) > 400
    assert cost(page.format("first: null")) == cost(page.format("first: 50"))


def test_a_fragment_costs_what_it_does_where_it_is_spread() -> None:
    fragment = (
        'fragment F on SymbolConnection { nodes { candles(timeframe: "1m", last: 10) '
        "{ candles { time } } } }"
    )
    two = '{{ a: symbols(provider: "sim", first: {}) {{ ...F }} }} '

    assert cost(two.format(500) + fragment) == pytest.approx(
        100 * cost(two.format(5) + fragment), rel=0.02
    )


def test_series_under_aliases_add_up() -> None:
    one = f"candles({SERIES} last: 1000) {{ columns {{ close }} }}"

    assert cost(" ".join(["{", *(f"a{n}: {one}" for n in range(7)), "}"])) == 7 * cost(
        f"{{ {one} }}"
    )


@pytest.mark.parametrize("length", [1, 10, 150])
def test_a_bomb_of_fragments_is_weighed_once_for_each_and_refused(length: int) -> None:
    fragments = " ".join(
        f"fragment F{n} on Market {{ a: providers {{ markets {{ ...F{n + 1} }} }} ...F{n + 1} }}"
        for n in range(length)
    )
    document = parse(f"{{ markets {{ ...F0 }} }} {fragments} fragment F{length} on Market {{ id }}")
    operation = get_operation_ast(document)
    assert operation is not None
    weighing = _Weighing(SCHEMA, MAX_BARS, {})

    weighing.weigh_fragments(document)
    requested = weighing.operation(operation)

    assert weighing.visited == 4 * length + 3
    assert length == 1 or requested > 100_000


def test_lists_that_lead_to_each_other_multiply() -> None:
    levels = [cost("{" + "markets{providers{" * n + "name" + "}}" * n + "}") for n in range(1, 4)]

    assert levels[0] < levels[1] < 100_000 < levels[2]


@pytest.mark.parametrize(
    ("query", "least"),
    [
        (f"subscription {{ bars({SERIES}) {{ __typename }} }}", 500),
        ('subscription { trades(provider: "sim", symbol: "B") { price } }', 100),
        ('subscription { ticker(provider: "sim", symbols: ["A", "B", "C"]) { last } }', 300),
    ],
)
def test_subscriptions_cost_more_than_their_fields_by_what_they_follow(
    query: str, least: int
) -> None:
    assert least < cost(query) < least + 150


def test_symbols_that_a_variable_lists_are_counted() -> None:
    query = 'subscription S($of: [String!]!) { ticker(provider: "sim", symbols: $of) { last } }'

    assert cost(query, of=["A"] * 30) > 3_000


def test_what_graphiql_asks_of_the_schema_is_admitted() -> None:
    assert cost(get_introspection_query()) < 20_000


def test_a_schema_asked_for_in_circles_is_not() -> None:
    inner = "name"
    for _ in range(6):
        inner = f"fields {{ type {{ {inner} }} args {{ type {{ {inner} }} }} }}"

    assert cost(f"{{ __schema {{ types {{ {inner} }} }} }}") > 100_000


def test_no_number_in_a_document_is_too_long_to_be_weighed() -> None:
    first = "9" * 400

    assert cost(f'{{ symbols(provider: "sim", first: {first}) {{ nodes {{ id }} }} }}') > 100_000
    assert cost(
        'query Q($n: Int) { symbols(provider: "sim", first: $n) { nodes { id } } }', n=1e300
    )


def test_only_what_variables_say_makes_a_cost_vary() -> None:
    def varies(query: str) -> bool:
        document = parse(query)
        operation = get_operation_ast(document)
        assert operation is not None
        return not COSTS.of(document, operation, {})[1]

    assert not varies(window("last: 7"))
    assert not varies("query Q($of: SeriesInput!) { candles(series: $of) { cursor } }")
    assert varies(window("last: $n", also="($n: Int)"))


trees = st.recursive(
    st.just("name"), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=15
)


@given(trees, st.integers(0, 4))
def test_what_is_cut_into_fragments_costs_what_it_did(tree: object, every: int) -> None:
    fragments: list[str] = []

    def written(of: object, depth: int, every: int) -> str:
        if of == "name":
            return "name"
        field, inside = (("markets", "Market"), ("providers", "Provider"))[depth % 2]
        inner = " ".join(written(each, depth + 1, every) for each in of)
        if every and depth % every == 0:
            fragments.append(f"fragment F{len(fragments)} on {inside} {{ {inner} }}")
            inner = f"...F{len(fragments) - 1}"
        return f"{field} {{ {inner} }}"

    whole = cost(f"{{ markets {{ {written(tree, 1, 0)} }} }}")
    operation = f"{{ markets {{ {written(tree, 1, every)} }} }}"

    assert cost(" ".join([operation, *fragments])) == whole


MANY = " ".join(f'"S{n}"' for n in range(200))


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("Mutation", 'testCredential(input: {id: "x"}) { __typename }'),
        ("Subscription", f"bars({SERIES}) {{ __typename }}"),
        ("Subscription", 'ticker(provider: "sim", symbols: ["A", "B", "C"]) { last }'),
    ],
)
@given(nest=trees)
def test_what_is_begun_costs_the_same_by_way_of_fragments(
    kind: str, field: str, nest: object
) -> None:
    fragments: list[str] = []

    def written(of: object, depth: int) -> str:
        if of == "name":
            return field
        inner = " ".join(written(each, depth + 1) for each in of)
        if depth % 2:
            return f"... on {kind} {{ {inner} }}"
        fragments.append(f"fragment F{len(fragments)} on {kind} {{ {inner} }}")
        return f"...F{len(fragments) - 1}"

    document = " ".join([f"{kind.lower()} {{ {written(nest, 0)} }}", *fragments])
    count = document.count(field)

    assert cost(document) == count * cost(f"{kind.lower()} {{ {field} }}")


def test_a_hundred_changes_in_a_fragment_cost_what_a_hundred_do() -> None:
    changes = " ".join(f'a{n}: testCredential(input: {{id: "x"}}) {{ code }}' for n in range(100))

    direct = cost(f"mutation {{ {changes} }}")

    assert direct >= 1_000
    assert cost(f"mutation {{ ...All }} fragment All on Mutation {{ {changes} }}") == direct


def test_symbols_that_a_variables_default_lists_are_counted() -> None:
    ticker = 'ticker(provider: "sim", symbols: $of) { last }'

    by_default = cost(f"subscription S($of: [String!]! = [{MANY}]) {{ {ticker} }}")

    assert by_default == cost(f"subscription S($of: [String!]!) {{ {ticker} }}", of=["A"] * 200)
    assert by_default > 20_000


def test_long_names_in_an_answer_cost_more() -> None:
    long = "a" * 50_000

    assert cost(window("last: 1000", f"{long}: close")) > 100_000
    assert cost(f"{{ candles({SERIES} last: 1000) {{ gaps {{ {long}: since }} }} }}") > 100_000
    assert cost(f"{{ {long}: me {{ id }} }}") > 1_500
    assert (
        cost(
            f"subscription {{ bars({SERIES}) {{ ... on BarSnapshot {{ candles {{ {long}: close }}"
            " } } }"
        )
        > 50_000
    )


def test_no_name_of_the_schema_is_a_long_one() -> None:
    names = {
        name for of in SCHEMA.type_map.values() for name in [*getattr(of, "fields", {}), of.name]
    }

    assert max(map(len, names)) < NAME_LENGTH


def test_lists_of_what_is_ones_own_cost_the_most_they_can_have() -> None:
    assert cost("{ chartLayouts { id } }") >= MOST_LAYOUTS
    assert cost("{ indicatorPresets { id } }") >= MOST_PRESETS
    assert cost("{ credentials { id } }") >= 50


def test_saved_documents_cost_by_their_size_and_all_of_them_are_admitted_once() -> None:
    content = " ".join(f"a{n}: content" for n in range(499))

    assert cost(f"{{ chartLayouts {{ {content} }} }}") > 1_000_000
    assert cost(f'{{ node(id: "x") {{ ... on ChartLayout {{ {content} }} }} }}') > 50_000
    everything = (
        "{ preferences { content } chartLayouts { id name content version } "
        "indicatorPresets { id name content version } }"
    )
    assert 20_000 < cost(everything) < 50_000


@pytest.mark.parametrize("named", [LENGTHS, DOCUMENT_BYTES])
def test_what_is_said_of_fields_is_said_of_fields_there_are(
    named: Mapping[tuple[str, str], int],
) -> None:
    for of, field in named:
        assert field in SCHEMA.type_map[of].fields
