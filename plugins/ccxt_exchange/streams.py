"""The capabilities to push, one class each, of which a provider is composed as its exchange can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from market.bars import Bars
from market.instrument import Instrument, Listing
from market.quotes import OrderBook, Ticker
from market.timeframe import Timeframe
from plugins.base import HistoryOffer, Stream, Trade
from plugins.ccxt_exchange.catalogue import Pushed
from plugins.ccxt_exchange.pushes import Pushes, pushed_frames


class _Pushing:
    _pushes: Pushes

    if TYPE_CHECKING:

        def history(self, instrument: Instrument) -> HistoryOffer: ...


class PushesBars(_Pushing):
    """The capability `StreamsBars`."""

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """Return minutes, and seconds where the exchange has bars of them.

        Raises `ProviderUnavailable` before `symbols` has answered once: ccxt is not loaded yet.
        """
        return pushed_frames(frame.timeframe for frame in self.history(instrument).frames)

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Stream[Bars]:
        """Push bars as the exchange has them, several states of one bar drawn together to one.

        The bar that was running when the stream began may be half a bar: some exchanges count from
        the subscription on, so only history can tell. Each later one is whole. CLOSED are those
        that binance calls final; of other exchanges ccxt does not pass it on, and a bar is over
        when the next one opens. The first batch may hold past bars. A bar with a value missing is
        left out, or fails the stream if it was pushed before with all of them.
        """
        return self._pushes.bars(listing, timeframe)


class PushesTrades(_Pushing):
    """The capability `StreamsTrades`."""

    def stream_trades(self, listing: Listing) -> Stream[Sequence[Trade]]:
        """Push every trade once, oldest first; the id is "" where the exchange gives none.

        The first batch may reach back before the subscription, since some exchanges begin with
        their newest trades; from its first trade on, none is missing.
        """
        return self._pushes.trades(listing)


class PushesBooks(_Pushing):
    """The capability `StreamsBooks`."""

    def stream_book(self, listing: Listing, depth: int) -> Stream[OrderBook | None]:
        """Push whole states of *depth* levels or more, or as many as the exchange tells.

        The numbers or checksums that an exchange sends are checked; a book that does not add up
        begins anew with a snapshot, and fails the stream if that does not help.
        """
        return self._pushes.book(listing, depth)


class PushesTickers(_Pushing):
    """The capability `StreamsTickers`."""

    def stream_ticker(self, listing: Listing) -> Stream[Ticker | None]:
        """Push the newest prices; where the exchange tells no time, it is that of arrival."""
        return self._pushes.ticker(listing)


CAPABILITIES: Mapping[Pushed, type[_Pushing]] = {
    Pushed.BARS: PushesBars,
    Pushed.TRADES: PushesTrades,
    Pushed.BOOKS: PushesBooks,
    Pushed.TICKERS: PushesTickers,
}
