"""What resolvers of one GraphQL request share."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from datasources.backfill.service import BackfillService
from datasources.found import Answer, Request
from datasources.health import HealthBoard
from datasources.recent import RecentAnswers
from db.candles import CandleStore
from market.errors import BargraphError, StoreUnavailable
from resolvers.callers import ANYBODY, Caller
from resolvers.directory import Directory
from resolvers.live_bars import LiveSources
from resolvers.loaders import candle_loader
from schema.encoding import BarEncoder
from schema.prepared import Notes


@dataclass(frozen=True, slots=True)
class Shared:
    """What the whole process shares: wired once, read by every request."""

    directory: Directory
    answers: RecentAnswers
    store: CandleStore
    health: HealthBoard
    live: LiveSources
    backfills: BackfillService
    encoder: BarEncoder
    max_bars: int
    max_pages: int

    async def store_id(self) -> UUID | None:
        """Return the id of the candle store, None while it is away."""
        try:
            return await self.store.store_id()
        except StoreUnavailable:
            return None


@dataclass(slots=True)
class Context:
    """Made anew for each GraphQL request, so that its loaders forget nothing and leak nothing."""

    shared: Shared
    caller: Caller = ANYBODY
    """Who asks."""
    takes_fragments: bool = False
    """Whether whoever sends the answer can send JSON that is written already."""
    fragments: int = 0
    """How many values were written so, past the ordinary executor."""
    notes: Notes = field(default_factory=Notes)
    """What was learnt for answering the same request again."""
    failed: dict[Request, BargraphError] = field(default_factory=dict)
    """What was asked for already and could not be had."""
    candles: DataLoader[Request, Answer] = field(init=False)

    def __post_init__(self) -> None:
        self.candles = candle_loader(self.shared.answers, self.failed)


Info = strawberry.Info[Context, None]
