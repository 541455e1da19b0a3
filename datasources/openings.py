"""Which listings were asked for here for the first time, for whoever prepares what comes next.

A day later a request counts as the first again: what was prepared may have failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from datasources.found import Request
from market.instrument import Listing
from market.lru import LRU
from market.window import MINUTE

_REMEMBERED = 20_000
_MOST_WAITING = 1_000
_AGAIN_SECONDS = 86_400.0


class Openings:
    """The first request for each listing, in their order. Those that find no room come again."""

    def __init__(self, *, again_in: float = _AGAIN_SECONDS) -> None:
        """*again_in* is seconds."""
        self._again_in = again_in
        self._seen: LRU[Listing, float] = LRU(max_count=_REMEMBERED)
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(_MOST_WAITING)

    def note(self, requests: Sequence[Request]) -> None:
        """Take note of *requests*. Those for less than a minute open nothing."""
        now = asyncio.get_running_loop().time()
        for request in requests:
            listing = request.series.listing
            seen = self._seen.get(listing)
            if request.series.timeframe.nominal < MINUTE or (
                seen is not None and now - seen < self._again_in
            ):
                continue
            if self._waiting.full():
                return
            self._seen.put(listing, now)
            self._waiting.put_nowait(request)

    async def next(self) -> Request:
        """Wait for a listing that is asked for the first time."""
        return await self._waiting.get()

    def forget(self, listing: Listing) -> None:
        """Let the next request for *listing* count as its first."""
        self._seen.pop(listing)
