"""Wire what drops old bars, in a process that runs jobs.

A part of `web.bootstrap`, which calls it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from db.pruner import Pruner
from market.clock import Clock
from market.errors import UnknownName
from market.instrument import Listing
from market.retention import Retention
from market.window import DAY
from plugins.registry import ProviderDisabled, Registry
from web.background import Background


@asynccontextmanager
async def open_pruner(
    database_url: str,
    retention: Retention,
    *,
    registry: Registry,
    clock: Clock,
    background: Background,
) -> AsyncIterator[Pruner]:
    """Yield the pruner, at work.

    It leaves alone what does not grow old by *clock*, such as a replay, and bars of a provider or a
    dataset that is not there: nobody knows their time.
    """

    def ages(listing: Listing) -> bool:
        try:
            provider = registry.get(listing.provider)
        except (UnknownName, ProviderDisabled):
            return False
        same = provider.description.dataset == listing.dataset
        return same and abs(provider.clock.now() - clock.now()) < DAY

    pruner = Pruner(database_url, retention, clock=clock, ages=ages)
    async with background.running(pruner.run(), name="retention"):
        yield pruner
