"""Which listings were asked for here for the first time, for whoever prepares what comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from datasources.found import Request
from market.instrument import Listing
from market.lru import LRU
from market.window import MINUTE

_REMEMBERED = 20_000
_MOST_WAITING = 1_000


class Openings:
    """The first request for each listing, in their order. Those that find no room come again."""

    def __init__(self) -> None:
        self._seen: LRU[Listing, bool] = LRU(max_count=_REMEMBERED)
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(_MOST_WAITING)

    def note(self, requests: Sequence[Request]) -> None:
        """Take note of *requests*. Those for less than a minute open nothing."""
        for request in requests:
            listing = request.series.listing
            if listing in self._seen or request.series.timeframe.nominal < MINUTE:
                continue
            if self._waiting.full():
                return
            self._seen.put(listing, True)
            self._waiting.put_nowait(request)

    async def next(self) -> Request:
        """Wait for a listing that is asked for the first time."""
        return await self._waiting.get()

    def forget(self, listing: Listing) -> None:
        """Let the next request for *listing* count as its first."""
        self._seen.pop(listing)
