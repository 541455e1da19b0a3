"""All tails of trades, order books and tickers in this process: one for each that is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from datasources.live.broadcaster import Break, Broadcaster
from datasources.live.events import FeedState, Status
from datasources.live.fanout import Fanout, Reader
from datasources.live.keys import FeedKey, Kind
from datasources.live.quotes import QuoteEvent
from datasources.live.tails import Wishes
from market.clock import Clock
from market.quotes import OrderBook, Ticker


@dataclass(slots=True)
class _Tail:
    readers: Fanout[QuoteEvent] = field(default_factory=Fanout)
    newest: QuoteEvent | None = None
    """The newest state of a book or a ticker, for those who come later."""
    taken: int = 0
    task: asyncio.Task[None] | None = None
    joined: asyncio.Event = field(default_factory=asyncio.Event)


class QuoteTails:
    """Opens tails for viewers and closes them after the last one."""

    def __init__(self, broadcaster: Broadcaster, wishes: Wishes) -> None:
        self._broadcaster = broadcaster
        self._wishes = wishes
        self._tails: dict[FeedKey, _Tail] = {}

    @asynccontextmanager
    async def open(self, key: FeedKey, clock: Clock) -> AsyncIterator[Reader[QuoteEvent]]:
        """Yield what is pushed from now on; of a book or a ticker also its newest state.

        Raises `TooManyFeeds`. *clock* is the provider's.
        """
        async with self._wishes.wanting(key):
            tail = self._tails.get(key)
            if tail is None:
                tail = self._tails[key] = _Tail()
                tail.task = asyncio.create_task(
                    self._follow(key, tail, clock), name=f"tail {key.listing.symbol} {key.kind}"
                )
            with tail.readers.reading() as reader:
                try:
                    await tail.joined.wait()
                    if tail.newest is not None:
                        reader.put(tail.newest, _passing(tail.newest))
                    yield reader
                finally:
                    if len(tail.readers) == 1:
                        self._tails.pop(key, None)
                        await _end(tail)

    def newest(self, key: FeedKey) -> QuoteEvent | None:
        """Return the newest state of a book or a ticker that is followed, if one is known."""
        tail = self._tails.get(key)
        return tail.newest if tail is not None else None

    async def aclose(self) -> None:
        """Stop following; viewers that are left see their tails end."""
        tails = list(self._tails.values())
        self._tails.clear()
        for tail in tails:
            await _end(tail)
            tail.readers.end()

    async def _follow(self, key: FeedKey, tail: _Tail, clock: Clock) -> None:
        async with self._broadcaster.listen(key.name) as inbox:
            tail.joined.set()
            async for message in inbox:
                event = _event(key.kind, message, clock)
                if event is None:
                    continue
                tail.taken += 1
                event = replace(event, number=tail.taken)
                if isinstance(event.quote, OrderBook | Ticker):
                    tail.newest = event
                tail.readers.put(event, _passing(event))


async def _end(tail: _Tail) -> None:
    if tail.task is not None:
        tail.task.cancel()
        await asyncio.gather(tail.task, return_exceptions=True)


def _event(kind: Kind, message: bytes | Break, clock: Clock) -> QuoteEvent | None:
    if isinstance(message, bytes):
        return QuoteEvent.unpacked(kind, message)
    if message is Break.AWAY:
        return QuoteEvent(None, Status(FeedState.DISCONNECTED, clock.now(), "Redis is away."))
    return None


def _passing(event: QuoteEvent) -> str | None:
    """Return what a later event makes obsolete: every state of a ticker is whole.

    Those of a book are too, but readers tell what changed from each to the next.
    """
    if event.quote is None:
        return "status"
    return "state" if isinstance(event.quote, Ticker) else None
