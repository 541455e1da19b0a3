"""Answer a request for candles again without asking GraphQL's executor what it means.

While the ordinary executor answers a request, it notes what each root field turned out to ask of
the chain and which fields of the window were selected. If all of it is bars and plain facts, the
same request can be answered from those notes: the chain is asked, and its answer is written. What
cannot be written so, an error above all, is left to the ordinary executor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from datasources.found import Answer, Request
from resolvers.cursors import CandleCursor
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
class Prepared:
    """A request whose every root field is a window: response names, what is asked, and plans."""

    fields: tuple[tuple[str, Request, WindowPlan], ...]

    @property
    def requests(self) -> list[Request]:
        return [request for _, request, _ in self.fields]

    @property
    def needs_store(self) -> bool:
        return any(plan.needs_store for _, _, plan in self.fields)

    def write(self, answers: Sequence[Answer], encoder: BarEncoder, store: UUID | None) -> bytes:
        """Return the response's data as JSON. Raises `Unencodable`."""
        parts = [
            orjson.dumps(name) + b":" + plan.write(answer, encoder, store)
            for (name, _, plan), answer in zip(self.fields, answers, strict=True)
        ]
        return b"{" + b",".join(parts) + b"}"


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
