"""The local Alpaca's sockets: routes, a log of calls, its streams, and what a client needs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack
from aiohttp import web
from pydantic import SecretStr

from plugins.alpaca import Addresses, Keys
from tests.alpaca_server.faults import Faults
from tests.alpaca_server.market import Asset, History
from tests.alpaca_server.rest import ACCOUNT_PATHS, LISTED, account_of, routes, written
from tests.alpaca_server.stream import StreamEndpoint
from tests.exchange_server.market import MINUTE

KEY_ID, SECRET = "PKTESTTESTTESTTEST", "ThisIsTheSecretOfTheTests"
_PATHS = {"iex": "/v2/iex", "sip": "/v2/sip", "crypto": "/v1beta3/crypto/us"}
# Where in a minute its trades are, in nanoseconds, and how they are numbered there.
_TRADES = (1_000_000_000, 20_000_000_500, 59_999_900_000)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached Alpaca, a faulty answer or not."""

    path: str
    query: dict[str, str]


@dataclass(slots=True)
class AlpacaServer:
    """*now* is Alpaca's time in milliseconds: minutes that are not over do not exist yet."""

    now: int
    loop: asyncio.AbstractEventLoop
    assets: dict[str, Asset] = field(default_factory=lambda: dict(LISTED))
    faults: Faults = field(default_factory=Faults)
    feeds: set[str] = field(default_factory=lambda: {"iex", "sip"})
    delayed: bool = False
    """Whether the account may not see the newest quarter of an hour of sip."""
    calls: list[Call] = field(default_factory=list)
    accounts: dict[tuple[str, tuple[str, str]], Any] = field(default_factory=dict)
    """What an account says, by its path and the keys that open it."""
    url: str = ""
    streams: dict[str, StreamEndpoint] = field(default_factory=dict)
    _histories: dict[tuple[str, int], History] = field(default_factory=dict)

    @property
    def keys(self) -> Keys:
        return Keys(SecretStr(KEY_ID), SecretStr(SECRET))

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.url, self.url, self.url.replace("http", "ws"))

    def asked(self, path: str) -> list[Call]:
        """Return the calls whose path contains *path*, oldest first."""
        return [call for call in self.calls if path in call.path]

    def stream(self, name: str) -> StreamEndpoint:
        """Return the endpoint of `iex`, `sip` or `crypto`."""
        return self.streams[name]

    def rows(self, symbol: str, frame: str = "1Min", **cut: Any) -> list[dict[str, Any]]:
        """Return all bars there are, with their times in ms."""
        chosen = {"adjustment": "raw", "share": 1.0} | cut
        return list(self.history(self.assets[symbol]).bars(frame, **chosen).rows())

    def history(self, asset: Asset) -> History:
        key = (asset.symbol, self.now // MINUTE)
        if key not in self._histories:
            self._histories[key] = History(asset, self.now)
        return self._histories[key]

    def bar(self, symbol: str, time: int, *, kind: str = "b", **changed: Any) -> dict[str, Any]:
        """Return the message of a minute that is over."""
        made = {"o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 5.0, "n": 3, "vw": 10.5}
        return {"T": kind, "S": symbol, **made, "t": stamp(time), **changed}

    async def move(self, symbol: str, milliseconds: int) -> None:
        """Let time pass, and push what happens meanwhile to who is subscribed to *symbol*."""
        asset, since = self.assets[symbol], self.now
        self.now += milliseconds
        trades = [
            {"T": "t", "S": symbol, **row, "t": msgpack.Timestamp.from_unix_nano(time)}
            for time, row in self.trades_of(asset)
            if since <= time // 1_000_000 < self.now
        ]
        bars = [
            {"T": "b", "S": symbol, **row, "t": stamp(row["t"])}
            for row in self.history(asset)
            .bars("1Min", adjustment="raw", share=1.0)
            .rows(since // MINUTE * MINUTE, self.now // MINUTE * MINUTE - MINUTE)
        ]
        # What is quoted lies a thousandth around what is traded at the moment.
        price = next(row["p"] for _, row in reversed(list(self.trades_of(asset))))
        bid, ask = price * 0.999, price * 1.001
        at = stamp(self.now)
        quote = {"T": "q", "S": symbol, "bp": bid, "bs": 1.0, "ap": ask, "as": 2.0, "t": at}
        sides = {"b": [{"p": bid, "s": 1.0}], "a": [{"p": ask, "s": 2.0}]}
        book = {"T": "o", "S": symbol, **sides, "t": at, "r": True}
        stream = self.streams["crypto" if asset.asset_class == "crypto" else "iex"]
        if stream.connected:
            await stream.push_subscribed(*trades, quote, book, *bars)

    def trades_of(self, asset: Asset) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the time in nanoseconds and the JSON of three trades a minute of the last hours."""
        since = self.now // MINUTE * MINUTE - 300 * MINUTE
        for minute in asset.market.candles(since, self.now).rows():
            for number, offset in enumerate(_TRADES):
                time = minute[0] * 1_000_000 + offset
                row: dict[str, Any] = {
                    "t": written(time),
                    "p": minute[1 + number],
                    "s": 1.5,
                    "i": minute[0] // MINUTE * 10 + number,
                }
                if asset.asset_class == "us_equity":
                    row |= {"x": "V", "z": "C", "c": ["@"]}
                yield time, row


def stamp(milliseconds: int) -> msgpack.Timestamp:
    """Return a time as the streams write it."""
    return msgpack.Timestamp.from_unix_nano(milliseconds * 1_000_000)


@asynccontextmanager
async def alpaca_server(*, now: int) -> AsyncIterator[AlpacaServer]:
    """Serve on a free port of the loopback address until left, in a thread with its own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="alpaca server")
    thread.start()
    server = AlpacaServer(now, loop)

    def run(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    for name, path in _PATHS.items():
        server.streams[name] = StreamEndpoint(path, KEY_ID, SECRET, run)
    runner = web.AppRunner(_app(server), shutdown_timeout=0.1, access_log=None)
    try:
        await run(_start(runner, server))
        yield server
    finally:
        await run(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _app(server: AlpacaServer) -> web.Application:
    # aiohttp passes the second argument by this name.
    @web.middleware
    async def checked(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in _PATHS.values():
            return await handler(request)
        server.calls.append(Call(request.path, dict(request.query)))
        fault = await server.faults.before(request.path)
        if fault is not None:
            return fault
        shown = (request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY"))
        if request.path in ACCOUNT_PATHS:
            return account_of(server, request.path, shown)
        if shown != (KEY_ID, SECRET):
            return web.json_response({"message": "forbidden."}, status=403)
        return await handler(request)

    app = web.Application(middlewares=[checked])
    app.add_routes(routes(server))
    for endpoint in server.streams.values():
        app.router.add_get(endpoint.path, endpoint.serve)
    return app


async def _start(runner: web.AppRunner, server: AlpacaServer) -> None:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
