"""What kraken's sockets (version 2) say and ccxt leaves out: answers, checksums, leaving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

from plugins.ccxt_exchange.wire import Line, Wired

CHECKED_LEVELS = 10
"""How many levels a side the checksum is over."""


class KrakenWired(Wired):
    """Mixed into kraken.

    ccxt has kraken's checksum switched off, never unsubscribes, and leaves whoever asked for
    something that kraken refuses to wait for ever.
    """

    has: dict[str, Any]
    urls: dict[str, Any]

    def __init__(self, config: dict[str, Any]) -> None:
        # By connection and number of the request, the names that an answer will be about.
        self._asked: WeakKeyDictionary[Any, dict[int, tuple[str, ...]]] = WeakKeyDictionary()
        super().__init__(config)
        leaves = ("unWatchTrades", "unWatchOHLCV", "unWatchOrderBook", "unWatchTicker")
        self.has = {**self.has, **dict.fromkeys(leaves, True)}

    def watch(
        self,
        url: str,
        message_hash: str,
        message: Any = None,
        subscribe_hash: Any = None,
        subscription: Any = None,
    ) -> Any:
        new = self._unasked(url, (message_hash,))
        future = super().watch(url, message_hash, message, subscribe_hash, subscription)
        self._remember(url, message, new)
        return future

    def watch_multiple(
        self,
        url: str,
        message_hashes: Sequence[str],
        message: Any = None,
        subscribe_hashes: Sequence[str] | None = None,
        subscription: Any = None,
    ) -> Any:
        new = self._unasked(url, message_hashes)
        future = super().watch_multiple(
            url, message_hashes, message, subscribe_hashes, subscription
        )
        self._remember(url, message, new)
        return future

    def handle_message(self, client: Any, message: Any) -> None:
        super().handle_message(client, message)  # type: ignore[misc]  # mixed into an exchange
        if isinstance(message, dict) and message.get("method") == "subscribe":
            self._answered(client, message)

    def handle_order_book(self, client: Any, message: Mapping[str, Any]) -> None:
        (said,) = message["data"]
        symbol = said["symbol"]
        if message.get("type") == "update" and symbol not in self.orderbooks:
            # Sent before the exchange had read that we left; the snapshot is still to come.
            return
        super().handle_order_book(client, message)  # type: ignore[misc]  # mixed into an exchange
        self.orderbooks[symbol]["checksum"] = said.get("checksum")

    def verify(self, symbol: str, book: Any) -> bool:
        """See docs.kraken.com, "Book checksum (WebSocket v2)"."""
        told = book.get("checksum")
        if told is None:
            return True
        rules = self.market(symbol)["info"]  # type: ignore[attr-defined]  # of the exchange
        price_decimals, lot_decimals = int(rules["pair_decimals"]), int(rules["lot_decimals"])
        return int(told) == checksum(
            book["asks"], book["bids"], price_decimals=price_decimals, lot_decimals=lot_decimals
        )

    async def begin_anew(self, line: Line, symbol: str) -> None:
        # Kraken refuses to subscribe twice; a snapshot comes only to those who left.
        await self.un_watch_order_book(symbol)
        await super().begin_anew(line, symbol)

    async def un_watch_trades(self, symbol: str, params: Any = None) -> None:
        await self._leave("trade", "trade", symbol)

    async def un_watch_ohlcv(self, symbol: str, timeframe: str, params: Any = None) -> None:
        interval = self.timeframes.get(timeframe)  # type: ignore[attr-defined]  # of the exchange
        await self._leave("ohlc", "ohlcv", symbol, interval=interval)

    async def un_watch_order_book(self, symbol: str, params: Any = None) -> None:
        await self._leave("book", "orderbook", symbol)

    async def un_watch_ticker(self, symbol: str, params: Any = None) -> None:
        await self._leave("ticker", "ticker", symbol)

    async def _leave(self, channel: str, unified: str, symbol: str, **more: Any) -> None:
        client = (self.clients or {}).get(self.urls["api"]["ws"]["publicV2"])
        if client is None:
            return
        name = self.get_message_hash(unified, None, symbol)  # type: ignore[attr-defined]  # of the exchange
        subscription = client.subscriptions.pop(name, None)
        depth = subscription.get("limit") if isinstance(subscription, dict) else None
        more = more if depth is None else {**more, "depth": depth}
        await client.send(
            {
                "method": "unsubscribe",
                "params": {"channel": channel, "symbol": [symbol], **more},
                "req_id": self.request_id(),  # type: ignore[attr-defined]  # of the exchange
            }
        )

    def _unasked(self, url: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of *names* that ccxt will subscribe to when told to watch them."""
        client = (self.clients or {}).get(url)
        return tuple(n for n in names if client is None or n not in client.subscriptions)

    def _remember(self, url: str, message: Mapping[str, Any], names: tuple[str, ...]) -> None:
        if names and self.clients:
            self._asked.setdefault(self.clients[url], {})[message["req_id"]] = names

    def _answered(self, client: Any, answer: Mapping[str, Any]) -> None:
        from ccxt.base.errors import ExchangeError  # noqa: PLC0415  # loaded by now, costly before

        request = answer.get("req_id")
        names = self._asked.get(client, {}).pop(request, ()) if isinstance(request, int) else ()
        if answer.get("success") is True:
            self.confirm(names)
        else:
            client.rejections.pop(str(request), None)
            self.refuse(client, names, ExchangeError("the subscription was refused"))


def checksum(
    asks: Sequence[Sequence[float]],
    bids: Sequence[Sequence[float]],
    *,
    price_decimals: int,
    lot_decimals: int,
) -> int:
    """Return kraken's sum over the best levels of both sides, given best first."""
    digits = [
        f"{number:.{decimals}f}".replace(".", "").lstrip("0")
        for side in (asks, bids)
        for price, amount, *_ in side[:CHECKED_LEVELS]
        for number, decimals in ((price, price_decimals), (amount, lot_decimals))
    ]
    return crc32("".join(digits).encode())
