"""What the executor writes in one pass is what GraphQL's own executor would have answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest
import strawberry
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.schema.config import StrawberryConfig

from datasources.found import Answer
from datasources.meter import NoMeter
from market.bars import CLOSED, FROM_TRADES, NATIVE, Bars
from market.instrument import Listing, Series
from market.timeframe import Timeframe
from schema.candles import CandleWindow
from schema.encoding import BarEncoder, selection_of
from schema.errors import format_error
from schema.executor import BarExecutor
from schema.scalars import SCALARS

MINUTE = 60_000
START = 1_735_689_600_000
SERIES = Series(Listing("sim", "crypto", "BTC/USDT"), Timeframe.parse("1m"))
FIELDS = [
    *("time", "open", "high", "low", "close", "volume", "trades", "vwap"),
    *("isClosed", "revision", "updatedAt", "source", "__typename"),
]


@strawberry.type
class Query:
    @strawberry.field
    def window(self, info: strawberry.Info) -> CandleWindow:
        return CandleWindow(answer=info.context.answer)


class Lookups(NoMeter):
    """Counts the chunks that were asked for."""

    def __init__(self) -> None:
        self.hits = self.misses = 0

    def lookup(self, layer: str, *, hit: bool) -> None:
        assert layer == "encoded"
        self.hits += hit
        self.misses += not hit


@dataclass
class Shared:
    lookups: Lookups
    encoder: BarEncoder


def shared_with(max_bytes: int = 10**6) -> Shared:
    lookups = Lookups()
    return Shared(lookups, BarEncoder(max_bytes=max_bytes, meter=lookups))


@dataclass
class Context:
    answer: Answer
    shared: Shared
    takes_fragments: bool
    fragments: int = 0


SCHEMA = strawberry.Schema(
    Query,
    execution_context_class=BarExecutor,
    config=StrawberryConfig(scalar_map=SCALARS, enable_experimental_incremental_execution=True),
)


def answer_of(bars: Bars) -> Answer:
    return Answer(SERIES, bars, (), has_earlier=False, as_of=START, heads={})


def bars_of(n: int, *, seed: int = 1, closed: int | None = None, stored: bool = True) -> Bars:
    """*n* minutes, the first *closed* of them closed (all but one by default)."""
    random = np.random.default_rng(seed)
    flags = np.full(n, CLOSED, np.uint8)
    flags[n - 1 if closed is None else closed :] = 0
    flags |= random.choice(np.array([0, NATIVE, FROM_TRADES], np.uint8), n)
    prices = random.uniform(0.0001, 100_000, (4, n))
    vwap = np.where(random.random(n) < 0.3, np.nan, prices[0])
    return Bars.of(
        START + np.arange(n) * MINUTE,
        prices[0],
        prices.max(axis=0, initial=0),
        prices.min(axis=0, initial=1e9),
        prices[3],
        random.choice([0.0, 1.0, 1e-8, 12.5, 1e15, 3e22], n),
        vwap=vwap,
        trades=random.integers(-1, 50, n),
        revision=random.integers(1, 4, n) if stored else 0,
        updated=START + random.integers(0, 10**6, n),
        flags=flags,
    )


async def both(
    query: str, bars: Bars, variables: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any], Context]:
    """Return what the ordinary executor and the short cut answer, as a client reads it."""
    answers = []
    for takes_fragments in (False, True):
        context = Context(answer_of(bars), shared_with(), takes_fragments)
        result = await SCHEMA.execute(query, variable_values=variables, context_value=context)
        errors = [error.formatted for error in result.errors or []]
        answers.append(orjson.loads(orjson.dumps({"data": result.data, "errors": errors})))
    return answers[0], answers[1], context


async def test_rows_and_columns_are_written_in_one_pass_each() -> None:
    query = f"{{ window {{ candles {{ {' '.join(FIELDS)} }} columns {{ time close }} }} }}"

    ordinary, written, context = await both(query, bars_of(1200))

    assert written == ordinary
    assert ordinary["errors"] == []
    assert context.fragments == 2
    assert context.shared.lookups.misses == 3


async def test_a_second_request_writes_only_the_bars_that_are_not_kept() -> None:
    bars = bars_of(1200)
    query = "{ window { candles { time close } } }"
    context = Context(answer_of(bars), shared_with(), takes_fragments=True)

    first = await SCHEMA.execute(query, context_value=context)
    second = await SCHEMA.execute(query, context_value=context)

    assert orjson.dumps(second.data) == orjson.dumps(first.data)
    assert (context.shared.lookups.hits, context.shared.lookups.misses) == (3, 3)


async def test_a_correction_is_written_anew() -> None:
    bars = bars_of(1200)
    shared = shared_with()
    query = "{ window { candles { close revision } } }"
    before = Context(answer_of(bars), shared, takes_fragments=True)
    await SCHEMA.execute(query, context_value=before)
    close, revision = bars.close.copy(), bars.revision.copy()
    close[700], revision[700] = 1.5, revision[700] + 1
    corrected = bars.with_columns(close=close, revision=revision)

    after = Context(answer_of(corrected), shared, takes_fragments=True)
    result = await SCHEMA.execute(query, context_value=after)

    rows = orjson.loads(orjson.dumps(result.data))["window"]["candles"]
    assert rows[700] == {"close": 1.5, "revision": int(revision[700])}
    assert (shared.lookups.hits, shared.lookups.misses) == (2, 4)


async def test_a_minute_that_comes_where_another_is_withdrawn_is_written_anew() -> None:
    bars = bars_of(6, closed=6).with_columns(revision=np.ones(6), flags=np.full(6, CLOSED))
    shared = shared_with()
    query = "{ window { candles { time } } }"
    with_first, with_second = (bars.take(np.array(kept)) for kept in ([0, 1, 3], [0, 2, 3]))

    for seen in (with_first, with_second):
        context = Context(answer_of(seen), shared, takes_fragments=True)
        result = await SCHEMA.execute(query, context_value=context)

    rows = orjson.loads(orjson.dumps(result.data))["window"]["candles"]
    assert [row["time"] for row in rows] == with_second.time.tolist()


async def test_bars_that_are_not_stored_are_never_kept() -> None:
    context = Context(
        answer_of(bars_of(50, stored=False)),
        shared_with(),
        takes_fragments=True,
    )

    await SCHEMA.execute("{ window { candles { close } } }", context_value=context)

    assert context.fragments == 1
    assert context.shared.encoder.kept_bytes == 0


async def test_what_is_kept_never_exceeds_its_bound() -> None:
    shared = shared_with(50_000)

    for n in range(20):
        name = f"a{n}"
        context = Context(answer_of(bars_of(1200)), shared, takes_fragments=True)
        await SCHEMA.execute(f"{{ window {{ candles {{ {name}: close }} }} }}", None, context)

    assert 0 < shared.encoder.kept_bytes <= 50_000


@pytest.mark.parametrize(
    ("column", "value"), [("close", np.nan), ("volume", np.inf), ("revision", 2**31)]
)
@pytest.mark.parametrize("selection", ["candles", "columns"])
async def test_a_value_that_graphql_refuses_gives_its_errors(
    column: str, value: float, selection: str
) -> None:
    bars = bars_of(10)
    values = getattr(bars, column).copy()
    values[3] = value
    field = "time " + column
    query = f"{{ window {{ {selection} {{ {field} }} hasEarlier }} }}"

    ordinary, written, context = await both(query, bars.with_columns(**{column: values}))

    assert ordinary["errors"]
    assert written == ordinary
    assert context.fragments == 0


@pytest.mark.parametrize(
    "names", [["a" * 90_000], [f"a{n}" for n in range(600)]], ids=["long", "many"]
)
def test_a_selection_is_compiled_once_unless_a_client_makes_it_very_long(names: list[str]) -> None:
    usual, long = (("time", "time"),), tuple((name, "time") for name in names)

    assert selection_of(usual, "Candle") is selection_of(usual, "Candle")
    assert selection_of(long, "Candle") is not selection_of(long, "Candle")
    assert selection_of(long, "Candle") == selection_of(long, "Candle")


async def test_a_value_that_graphql_refuses_is_a_bug_of_ours_and_masked() -> None:
    bars = bars_of(3).with_columns(revision=np.full(3, 2**31))
    context = Context(answer_of(bars), shared_with(), takes_fragments=True)

    result = await SCHEMA.execute("{ window { candles { revision } } }", context_value=context)

    shown = format_error(result.errors[0])
    assert shown["extensions"]["code"] == "INTERNAL"
    assert str(2**31) not in shown["message"]


async def test_streamed_rows_go_the_ordinary_way() -> None:
    query = "{ window { candles @stream(initialCount: 1) { close } } }"
    context = Context(answer_of(bars_of(3)), shared_with(10), takes_fragments=True)

    await SCHEMA.execute(query, context_value=context)

    assert context.fragments == 0


async def test_middleware_sees_every_field() -> None:
    class Watching(strawberry.extensions.SchemaExtension):
        seen: ClassVar[list[str]] = []

        def resolve(self, _next, root, info, *args, **kwargs):
            self.seen.append(info.field_name)
            return _next(root, info, *args, **kwargs)

    schema = strawberry.Schema(
        Query,
        execution_context_class=BarExecutor,
        extensions=[Watching],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    context = Context(answer_of(bars_of(3)), shared_with(10), takes_fragments=True)

    result = await schema.execute("{ window { candles { close } } }", context_value=context)

    assert result.errors is None
    assert Watching.seen.count("close") == 3
    assert context.fragments == 0


NAMES = st.sampled_from(["a", "b", "time", "close", "close2", "__proto__", "é".encode().hex()])


@st.composite
def selections(draw: st.DrawFn) -> str:
    """Fields of a candle with aliases, fragments and directives; valid by construction."""
    used: dict[str, str] = {}
    parts = []
    for _ in range(draw(st.integers(1, 8))):
        field = draw(st.sampled_from(FIELDS))
        name = draw(st.one_of(st.just(field), NAMES))
        if name.startswith("__") and name != "__typename":
            name = "proto"
        if used.setdefault(name, field) != field:
            continue
        text = field if name == field else f"{name}: {field}"
        directive = draw(
            st.sampled_from(
                [
                    "",
                    "@include(if: true)",
                    "@include(if: $yes)",
                    "@skip(if: $yes)",
                    "@skip(if: false)",
                ]
            )
        )
        text = f"{text} {directive}"
        wrapping = draw(st.sampled_from(["{}", "... {{ {} }}", "... on Candle {{ {} }}"]))
        parts.append(wrapping.format(text))
    return " ".join(parts)


@settings(max_examples=300)
@given(
    data=st.data(),
    n=st.integers(0, 40),
    seed=st.integers(0, 1000),
    yes=st.booleans(),
    named=st.booleans(),
)
async def test_any_selection_of_rows_is_answered_like_the_ordinary_executor_does(
    data: st.DataObject, n: int, seed: int, yes: bool, named: bool
) -> None:
    first, second = data.draw(selections()), data.draw(selections())
    closed = data.draw(st.integers(0, max(0, n)))
    fragment = f"fragment F on Candle {{ {first} }}" if named else ""
    inside = "...F" if named else first
    query = (
        f"query Q($yes: Boolean!) {{ window {{ candles {{ {inside} }} "
        f"again: candles {{ {second} }} hasEarlier @include(if: $yes) }} }} {fragment}"
    )

    ordinary, written, context = await both(
        query, bars_of(n, seed=seed, closed=closed), {"yes": yes}
    )

    assert written == ordinary
    if not ordinary["errors"]:
        assert context.fragments == 2


@settings(max_examples=100)
@given(data=st.data(), n=st.integers(0, 30), seed=st.integers(0, 1000))
async def test_any_selection_of_columns_is_answered_like_the_ordinary_executor_does(
    data: st.DataObject, n: int, seed: int
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True))
    names = [
        data.draw(st.sampled_from([field, f"x{i}: {field}"])) for i, field in enumerate(chosen)
    ]
    query = f"{{ window {{ columns {{ {' '.join(names)} }} }} }}"

    ordinary, written, context = await both(query, bars_of(n, seed=seed))

    assert ordinary["errors"] == []
    assert written == ordinary
    assert context.fragments == 1
