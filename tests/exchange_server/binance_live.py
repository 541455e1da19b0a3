"""Binance's market streams: trades, klines, tickers, and changes of the book to join a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.exchange_server.binance import STEPS
from tests.exchange_server.live import Channel, Dealt, Levels, Message, Row

if TYPE_CHECKING:
    from tests.exchange_server.server import ExchangeServer

_KINDS = {"trade": "trades", "ticker": "ticker", "depth": "book"}


def routes(server: ExchangeServer) -> list[web.RouteDef]:
    async def depth(request: web.Request) -> web.Response:
        symbol = _symbols(server)[request.query["symbol"].lower()]
        limit = int(request.query.get("limit", 100))
        sequence, bids, asks = await server.live.snapshot(symbol, limit)
        return web.json_response(
            {"lastUpdateId": sequence, "bids": _written(bids), "asks": _written(asks)}
        )

    async def stream(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(autoping=False, timeout=0.1)
        await ws.prepare(request)
        await server.live.serve(BinanceSocket(server, ws, request))
        return ws

    return [
        web.get("/binance/api/v3/depth", depth),
        web.get("/binance/{host}/ws/{number}", stream),
    ]


class BinanceSocket:
    exchange = "binance"

    def __init__(
        self, server: ExchangeServer, ws: web.WebSocketResponse, request: web.Request
    ) -> None:
        self.ws = ws
        self.request = request
        self.channels: dict[Channel, Any] = {}
        self._server = server

    async def hear(self, message: Message) -> None:
        channels = [self._channel(name) for name in message["params"]]
        answer: Message = {"result": None, "id": message["id"]}
        if any(channel.symbol in self._server.live.refuses for channel in channels):
            reason = {"code": 2, "msg": "Invalid request: invalid stream"}
            answer = {"error": reason, "id": message["id"]}
        elif message["method"] == "SUBSCRIBE":
            self.channels |= dict.fromkeys(channels)
        else:
            for channel in channels:
                self.channels.pop(channel, None)
        await self._server.live.send(self, answer)

    def bar(self, channel: Channel, row: Row, *, final: bool) -> Message:
        time, *values = row
        open_, high, low, close, volume = (
            None if value is None else f"{value:.8f}" for value in values
        )
        kline = {
            "t": time,
            "T": time + STEPS[channel.detail] - 1,
            "s": _id(channel),
            "i": channel.detail,
            "f": 100,
            "L": 200,
            "o": open_,
            "c": close,
            "h": high,
            "l": low,
            "v": volume,
            "n": 100,
            "x": final,
            "q": "1.0000",
            "V": "500",
            "Q": "0.500",
            "B": "0",
        }
        return {"e": "kline", "E": self._server.now, "s": _id(channel), "k": kline}

    def trades(self, channel: Channel, dealt: Sequence[Dealt]) -> list[Message]:
        return [
            {
                "e": "trade",
                "E": one.time + 2,
                "s": _id(channel),
                "t": one.id,
                "p": f"{one.price:.8f}",
                "q": f"{one.amount:.8f}",
                "T": one.time,
                "m": False,
                "M": True,
            }
            for one in dealt
        ]

    def ticker(self, channel: Channel, prices: Message) -> Message:
        names = {
            "last": "c",
            "bid": "b",
            "bid_size": "B",
            "ask": "a",
            "ask_size": "A",
            "volume": "v",
        }
        told = {names[name]: f"{value:.8f}" for name, value in prices.items() if value is not None}
        return {
            "e": "24hrTicker",
            "E": self._server.now,
            "s": _id(channel),
            "C": self._server.now - 1,
            **told,
        }

    def book(self, channel: Channel, bids: Levels, asks: Levels, *, first: int) -> Message:
        return {
            "e": "depthUpdate",
            "E": self._server.now,
            "s": _id(channel),
            "U": first,
            "u": first + len(bids) + len(asks) - 1,
            "b": _written(bids),
            "a": _written(asks),
        }

    def _channel(self, name: str) -> Channel:
        """Read `btcusdt@kline_1m`, `btcusdt@depth@100ms`, `btcusdt@trade`, `btcusdt@ticker`."""
        market_id, what, *_ = name.split("@")
        symbol = _symbols(self._server)[market_id]
        if what.startswith("kline_"):
            return Channel("bars", symbol, what.removeprefix("kline_"))
        return Channel(_KINDS[what], symbol)


def _symbols(server: ExchangeServer) -> dict[str, str]:
    return {(m.base + m.quote).lower(): symbol for symbol, m in server.markets.items()}


def _id(channel: Channel) -> str:
    return channel.symbol.replace("/", "")


def _written(levels: Levels) -> list[list[str]]:
    return [[f"{price:.8f}", f"{amount:.8f}"] for price, amount in levels]
