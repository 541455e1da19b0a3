"""Build the feed of a key: what its provider can push decides which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from datasources.ask import ask_of
from datasources.fetching import Fetcher
from datasources.found import Base, Head
from datasources.health import HealthBoard
from datasources.live.announcer import Announcer
from datasources.live.bars_feed import BarsFeed, FeedTools
from datasources.live.broadcaster import Broadcaster
from datasources.live.keeper import Feed
from datasources.live.keys import FeedKey, Kind
from datasources.live.leases import Lease
from datasources.live.pacing import PACING, Pacing
from datasources.live.quotes_feed import QuotesFeed
from datasources.live.writer import BatchWriter
from db.candles import CandleStore
from market.instrument import Instrument, Listing
from plugins.base import Provider
from plugins.registry import Registry


class FeedOpener:
    """Opens feeds over what the process has. *settle* in ms."""

    def __init__(
        self,
        registry: Registry,
        *,
        store: CandleStore,
        writer: BatchWriter,
        fetcher: Fetcher,
        health: HealthBoard,
        moved: Callable[[Mapping[Base, Head]], Awaitable[None]],
        broadcaster: Broadcaster,
        settle: int,
        pacing: Pacing = PACING,
    ) -> None:
        self._registry = registry
        self._broadcaster = broadcaster
        self._tools = FeedTools(store, writer, fetcher, health, moved, settle, pacing)

    async def open(self, key: FeedKey, lease: Lease) -> Feed:
        """Return the feed of *key*.

        Raises `LookupError` for what this process does not have, `BargraphError` for a provider
        that cannot say what it lists.
        """
        provider = self._registry.get(key.listing.provider)
        if provider.description.dataset != key.listing.dataset:
            raise LookupError("it belongs to another dataset")
        instrument = await _instrument(provider, key.listing)
        if key.kind is not Kind.BARS:
            return QuotesFeed(
                key,
                instrument,
                provider,
                broadcaster=self._broadcaster,
                health=self._tools.health,
                pacing=self._tools.pacing,
            )
        ask = ask_of(key.base, instrument, provider)
        announcer = Announcer(key, self._tools.store, self._broadcaster, lease)
        return BarsFeed(ask, self._tools, announcer)


async def _instrument(provider: Provider, listing: Listing) -> Instrument:
    for instrument in await provider.symbols():
        if (instrument.market, instrument.symbol) == (listing.market, listing.symbol):
            return instrument
    raise LookupError(f"{listing.symbol} is not listed")
