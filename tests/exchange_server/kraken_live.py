"""Kraken's public channels, version 2: trade, ohlc, ticker, and book with its checksum."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zlib import crc32

from aiohttp import web

from tests.exchange_server.live import Book, Channel, Dealt, Levels, Message, Row

if TYPE_CHECKING:
    from tests.exchange_server.server import ExchangeServer

_KINDS = {"trade": "trades", "ohlc": "bars", "ticker": "ticker", "book": "book"}
_MINUTES = {"1": "1m", "5": "5m", "60": "1h"}
_PAST_TRADES = 50


def routes(server: ExchangeServer) -> list[web.RouteDef]:
    past: dict[str, deque[Dealt]] = {}

    async def channel(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(autoping=False, timeout=0.1)
        await ws.prepare(request)
        status = {"system": "online", "api_version": "v2", "version": "2.0.10"}
        socket = KrakenSocket(server, ws, request, past)
        await server.live.send(socket, {"channel": "status", "type": "update", "data": [status]})
        await server.live.serve(socket)
        return ws

    return [web.get("/kraken/{host}/v2", channel)]


class KrakenSocket:
    exchange = "kraken"

    def __init__(
        self,
        server: ExchangeServer,
        ws: web.WebSocketResponse,
        request: web.Request,
        past: dict[str, deque[Dealt]],
    ) -> None:
        self.ws = ws
        self.request = request
        self.channels: dict[Channel, Any] = {}
        self._server = server
        self._past = past

    async def hear(self, message: Message) -> None:
        method, params = message["method"], message.get("params", {})
        if method == "ping":
            await self._answer(message, method="pong")
            return
        for symbol in params["symbol"]:
            channel = _channel(params, symbol)
            known = any((c.kind, c.symbol) == (channel.kind, symbol) for c in self.channels)
            if symbol in self._server.live.refuses:
                await self._refuse(message, f"Currency pair not supported {symbol}", symbol)
            elif method == "unsubscribe":
                if channel not in self.channels:
                    await self._refuse(message, "Subscription Not Found", symbol)
                    continue
                del self.channels[channel]
                await self._answer(message, success=True, result={**params, "symbol": symbol})
            elif known:
                await self._refuse(message, "Already subscribed", symbol)
            else:
                self.channels[channel] = None
                await self._answer(message, success=True, result={**params, "symbol": symbol})
                await self._server.live.send(self, self._snapshot(channel))

    def bar(self, channel: Channel, row: Row, *, final: bool) -> Message:
        time, *values = row
        names = ("open", "high", "low", "close", "volume")
        minutes = next(n for n, name in _MINUTES.items() if name == channel.detail)
        told = {
            "symbol": channel.symbol,
            **dict(zip(names, values, strict=True)),
            "trades": 12,
            "vwap": values[0],
            "interval_begin": _time(time),
            "interval": int(minutes),
            "timestamp": _time(time + int(minutes) * 60_000),
        }
        return {"channel": "ohlc", "type": "update", "timestamp": _time(time), "data": [told]}

    def trades(self, channel: Channel, dealt: Sequence[Dealt]) -> list[Message]:
        self._past.setdefault(channel.symbol, deque(maxlen=_PAST_TRADES)).extend(dealt)
        return [_trades(channel, "update", dealt)]

    def ticker(self, channel: Channel, prices: Message) -> Message:
        names = {"bid_size": "bid_qty", "ask_size": "ask_qty"}
        told = {names.get(name, name): value for name, value in prices.items()}
        return {
            "channel": "ticker",
            "type": "update",
            "data": [{"symbol": channel.symbol, **told}],
        }

    def book(self, channel: Channel, bids: Levels, asks: Levels, *, first: int) -> Message | None:
        book = self._server.live.books[channel.symbol]
        before: tuple[Levels, Levels] = self.channels[channel]
        after = book.top(int(channel.detail))
        self.channels[channel] = after
        changed = [
            [
                *((price, amount) for price, amount in new if (price, amount) not in old),
                # What is merely out of reach now is not told of.
                *((price, 0) for price, _ in old if price not in side),
            ]
            for old, new, side in zip(before, after, (book.bids, book.asks), strict=True)
        ]
        return self._book(channel, "update", *changed, state=after)

    def _snapshot(self, channel: Channel) -> Message | None:
        if channel.kind == "trades":
            return _trades(channel, "snapshot", tuple(self._past.get(channel.symbol, ())))
        if channel.kind != "book":
            return None
        book = self._server.live.books.setdefault(channel.symbol, Book())
        state = self.channels[channel] = book.top(int(channel.detail))
        return self._book(channel, "snapshot", *state, state=state)

    def _book(
        self,
        channel: Channel,
        kind: str,
        bids: Levels,
        asks: Levels,
        *,
        state: tuple[Levels, Levels],
    ) -> Message:
        told = _checksum(*state)
        if self._server.live.wrong_checksums:
            self._server.live.wrong_checksums -= 1
            told ^= 1
        levels = {
            side: [{"price": price, "qty": amount} for price, amount in changed]
            for side, changed in (("bids", bids), ("asks", asks))
        }
        said = {
            "symbol": channel.symbol,
            **levels,
            "checksum": told,
            "timestamp": _time(self._server.now),
        }
        return {"channel": "book", "type": kind, "data": [said]}

    async def _answer(self, message: Message, **more: Any) -> None:
        answer = {"method": message["method"], "req_id": message.get("req_id"), **more}
        await self._server.live.send(self, answer)

    async def _refuse(self, message: Message, error: str, symbol: str) -> None:
        await self._answer(message, success=False, error=error, symbol=symbol)


def _channel(params: Message, symbol: str) -> Channel:
    kind = _KINDS[params["channel"]]
    if kind == "bars":
        return Channel(kind, symbol, _MINUTES[str(params["interval"])])
    return Channel(kind, symbol, str(params.get("depth", 10)) if kind == "book" else "")


def _trades(channel: Channel, kind: str, dealt: Sequence[Dealt]) -> Message | None:
    told = [
        {
            "symbol": channel.symbol,
            "side": "buy",
            "price": one.price,
            "qty": one.amount,
            "ord_type": "market",
            "trade_id": one.id,
            "timestamp": _time(one.time),
        }
        for one in dealt
    ]
    return {"channel": "trade", "type": kind, "data": told} if told else None


def _checksum(bids: Levels, asks: Levels) -> int:
    """Return the sum that a price of one decimal and an amount of eight have."""
    text = ""
    for price, amount in (*asks[:10], *bids[:10]):
        text += str(int(Decimal(repr(price)) * 10)) + str(int(Decimal(repr(amount)) * 10**8))
    return crc32(text.encode())


def _time(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
