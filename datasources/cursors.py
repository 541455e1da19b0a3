"""The cursor of a candle window: where a subscription goes on with nothing missed or repeated.

It holds the store's id, the log position of each base the bars came from, and the provider's time
through which closes were told.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import orjson

from datasources.found import Answer
from market.errors import BadInput

_VERSION = 1


@dataclass(frozen=True, slots=True)
class CandleCursor:
    """*positions* by stored series id; *store* is None where no store could be asked."""

    store: UUID | None
    positions: Mapping[int, int]
    told_until: int

    @classmethod
    def of(cls, answer: Answer, store: UUID | None) -> CandleCursor:
        """Return where the bars of *answer* go on in *store*."""
        positions = {head.id: head.position for head in answer.heads.values()}
        return cls(store, positions, answer.as_of)

    def covers(self, other: CandleCursor) -> bool:
        """Whether whoever is here has been told all that led to *other*, in the same store."""
        return (
            self.store == other.store
            and self.told_until >= other.told_until
            and all(
                self.positions.get(series, -1) >= position
                for series, position in other.positions.items()
            )
        )

    def __str__(self) -> str:
        store = self.store.hex if self.store else None
        positions = sorted(self.positions.items())
        value = orjson.dumps([_VERSION, store, positions, self.told_until])
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> CandleCursor:
        """Raises `BadInput` for a string that is no cursor of ours."""
        try:
            value = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            version, store, positions, told_until = value
            if version != _VERSION:
                raise ValueError("another version")
            known = None if store is None else UUID(hex=str(store))
            return cls(known, {int(i): int(p) for i, p in positions}, int(told_until))
        except (ValueError, TypeError, OverflowError):
            message = "The cursor is not one that this server gave."
            raise BadInput(message, field="after") from None
