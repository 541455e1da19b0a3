"""Answer a request for candles again without asking GraphQL's executor what it means.

While the ordinary executor answers a request, it notes what each window turned out to ask of the
chain and which of its fields were selected. If all else in the answer stays as it is, the same
request can be answered from those notes: the chain is asked, and its answers are written into the
holes. What cannot be written so, an error above all, is left to the ordinary executor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.values import get_argument_values, get_variable_values

from datasources.cursors import CandleCursor
from datasources.found import Answer, Request
from resolvers.candles import Asked, Cut, cut_of
from schema.encoding import BarEncoder, Selection, write_columns

Fields = tuple[tuple[str, str], ...]
"""Response names with the fields they stand for, in order."""


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The selected fields of a `CandleWindow`: response name, field, and what of it is selected."""

    fields: tuple[tuple[str, str, Selection | Fields | None], ...]

    @property
    def needs_store(self) -> bool:
        return any(field == "cursor" for _, field, _ in self.fields)

    def write(self, answer: Answer, encoder: BarEncoder, store: UUID | None) -> bytes:
        """Return the window as JSON. Raises `Unencodable`."""
        parts = [
            orjson.dumps(name) + b":" + _value(answer, field, selected, encoder, store)
            for name, field, selected in self.fields
        ]
        return b"{" + b",".join(parts) + b"}"


@dataclass(frozen=True, slots=True)
class Window:
    """A window in a response: what it asked for, how it is written, and its field at the root."""

    path: tuple[str | int, ...]
    request: Request
    plan: WindowPlan
    node: FieldNode | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A response as JSON with holes, and the windows that fill them, in order."""

    pieces: tuple[bytes, ...]
    windows: tuple[Window, ...]
    follows_variables: bool
    """Whether other variables of the same operation would change nothing but the requests."""

    @property
    def requests(self) -> list[Request]:
        return [window.request for window in self.windows]

    @property
    def needs_store(self) -> bool:
        return any(window.plan.needs_store for window in self.windows)

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))

    def write(self, answers: Sequence[Answer], encoder: BarEncoder, store: UUID | None) -> bytes:
        """Return the response's data as JSON. Raises `Unencodable`."""
        parts = [self.pieces[0]]
        for piece, window, answer in zip(self.pieces[1:], self.windows, answers, strict=True):
            parts += [window.plan.write(answer, encoder, store), piece]
        return b"".join(parts)


@dataclass(slots=True)
class Notes:
    """What the executor learns of one request on its way, for answering it again."""

    windows: list[Window] = field(default_factory=list)
    lasting: bool = True
    """Whether all else in the answer stays as it is while the listings do."""
    fields: int = 0
    """How many fields the answer has so far, but for those of bars and gaps."""
    documents: dict[int, tuple[object, bytes]] = field(default_factory=dict)
    """JSON documents in the answer by their `id`, and their text."""
    document_bytes: int = 0
    """How long these are together, each as often as it stands there."""

    def prepared(self, data: dict[str, Any]) -> Prepared | None:
        """Return how to answer again what was answered by *data*, None if that takes more."""
        if not self.lasting or not self.windows:
            return None
        # Of a bare value at the root nobody said that it lasts.
        if not all(isinstance(value, dict | list) for value in data.values()):
            return None
        holed = _copied(data)
        for window in self.windows:
            *way, last = window.path
            inner: Any = holed
            for step in way:
                inner = inner[step]
            inner[last] = orjson.Fragment(_HOLE)
        pieces = tuple(orjson.dumps(holed).split(_HOLE))
        # Windows are noted in the order in which they were answered, holes stand in the answer's.
        order = {tuple(path): n for n, path in enumerate(_holes(holed, []))}
        windows = tuple(sorted(self.windows, key=lambda w: order[w.path]))
        # What stands beside windows at the root may have been asked for by variables, too.
        only_windows = len(windows) == len(data) and all(w.node is not None for w in windows)
        return Prepared(pieces, windows, only_windows)


# No JSON text holds this character: strings escape it.
_HOLE = b"\x00"
# Types whose fields say the same while the listings do.
LASTING = frozenset(
    {
        *("CandleWindow", "Candle", "CandleColumns", "Gap", "Series", "SeriesSummary"),
        *("SymbolConnection", "SymbolEdge", "Symbol", "PageInfo", "Instrument", "Market"),
    }
)


def _copied(value: Any) -> Any:
    """Return *value* with containers of its own."""
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value


def _holes(value: Any, path: list[str | int]) -> Iterator[list[str | int]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _holes(inner, [*path, name])
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _holes(inner, [*path, at])
    elif isinstance(value, orjson.Fragment):
        yield path


@dataclass(frozen=True, slots=True)
class ByVariables:
    """An operation whose windows, all at its root, are asked for by its variables."""

    schema: GraphQLSchema
    node: OperationDefinitionNode

    def asked(
        self, prepared: Prepared, variables: dict[str, Any] | None
    ) -> list[tuple[Asked, Cut]] | None:
        """Return what each window asks for, None where the executor must say what is wrong."""
        definitions = self.node.variable_definitions or ()
        values = get_variable_values(self.schema, definitions, variables or {}, max_errors=1)
        if isinstance(values, list):
            return None
        assert self.schema.query_type is not None
        field = self.schema.query_type.fields["candles"]
        asked = []
        for window in prepared.windows:
            assert window.node is not None
            try:
                given = get_argument_values(field, window.node, values)
            except GraphQLError:
                return None
            cut = cut_of(given["since"], given["until"], given["last"], given["includeForming"])
            asked.append((Asked(**given["series"]), cut))
        return asked


def steers_by_variables(document: DocumentNode) -> bool:
    """Whether a variable decides by a directive which fields are answered."""

    class Finder(Visitor):
        found = False

        def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
            if any(isinstance(argument.value, VariableNode) for argument in node.arguments or ()):
                self.found = True

    finder = Finder()
    visit(document, finder)
    return finder.found


PREPARABLE = frozenset({"candles", "columns", "gaps", "series", "hasEarlier", "cursor"})


def _value(
    answer: Answer,
    field: str,
    selected: Selection | Fields | None,
    encoder: BarEncoder,
    store: UUID | None,
) -> bytes:
    match field, selected:
        case "candles", Selection():
            return encoder.rows(answer.series, answer.bars, selected)
        case "columns", Selection():
            return write_columns(answer.bars, selected)
        case "gaps", tuple():
            gaps = [
                {"since": g.since, "until": g.until, "reason": g.reason.name, "__typename": "Gap"}
                for g in answer.gaps
            ]
            return orjson.dumps([_selected(gap, selected) for gap in gaps])
        case "series", tuple():
            return orjson.dumps(_selected(_series(answer), selected))
        case "cursor", None:
            return orjson.dumps(str(CandleCursor.of(answer, store)))
        case "hasEarlier", None:
            return orjson.dumps(answer.has_earlier)
        case _:
            return orjson.dumps("CandleWindow")


def _selected(facts: dict[str, Any], fields: Fields) -> dict[str, Any]:
    return {name: facts[field] for name, field in fields}


def _series(answer: Answer) -> dict[str, Any]:
    series = answer.series
    listing = series.listing
    return {
        "provider": listing.provider,
        "market": listing.market,
        "symbol": listing.symbol,
        "timeframe": str(series.timeframe),
        "timezone": series.timezone,
        "session": series.session.name,
        "adjustment": listing.adjustment.name if listing.adjustment else None,
        "feed": listing.feed,
        "__typename": "Series",
    }
