"""The local exchange's sockets: routes, a log of calls, and how a ccxt client is pointed at it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from tests.exchange_server import accounts, binance, binance_live, kraken, kraken_live
from tests.exchange_server.accounts import Account
from tests.exchange_server.faults import Faults
from tests.exchange_server.live import Live
from tests.exchange_server.market import MINUTE, Candles, Market

DEFAULT_MARKETS = (
    Market("BTC", "USDT"),
    Market("ETH", "USDT"),
    Market("BTC", "USD"),
    # Nothing is traded in two of three minutes.
    Market("RARE", "USDT", trades_in=lambda minutes: minutes % 3 == 2),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached the exchange, a faulty answer or not."""

    exchange: str
    path: str
    query: dict[str, str]


@dataclass(slots=True)
class ExchangeServer:
    """*now* is the exchange's time in milliseconds: later candles do not exist yet."""

    now: int
    markets: dict[str, Market]
    faults: Faults = field(default_factory=Faults)
    live: Live = field(default_factory=Live)
    calls: list[Call] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    """By the key that opens them."""
    url: str = ""
    _made: dict[tuple[str, int, int], Candles] = field(default_factory=dict)

    def candles(self, market: Market, step: int) -> Candles:
        """Return all that *market* has in candles of *step*, the forming one included."""
        key = (market.symbol, step, self.now // MINUTE)
        if key not in self._made:
            self._made[key] = market.candles(market.listed, self.now + 1, step=step)
        return self._made[key]

    def asked(self, path: str) -> list[Call]:
        """Return the calls whose path contains *path*, oldest first."""
        return [call for call in self.calls if path in call.path]

    def configure(self, exchange: Any) -> None:
        """Point a ccxt exchange here, with a throttle that does not slow tests."""
        world = "-testnet" if exchange.isSandboxModeEnabled else ""
        exchange.urls["api"] = self._local(exchange.urls["api"], exchange.id + world)
        exchange.rateLimit = 1
        exchange.tokenBucket = None
        exchange.init_rest_rate_limiter()
        exchange.timeout_on_exit = 0
        if exchange.id == "binance":
            exchange.options |= {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
                "fetchMargins": False,
            }

    def _local(self, urls: Any, exchange_id: str) -> Any:
        if isinstance(urls, dict):
            return {name: self._local(url, exchange_id) for name, url in urls.items()}
        if not isinstance(urls, str):
            return urls
        url = urlsplit(urls)
        if url.scheme in {"ws", "wss"}:
            # ccxt tells binance's markets apart by the host.
            base = self.url.replace("http", "ws", 1)
            return f"{base}/{exchange_id}/{url.hostname}{url.path}"
        return f"{self.url}/{exchange_id}{url.path}"


@asynccontextmanager
async def exchange_server(
    *, now: int, markets: Sequence[Market] = DEFAULT_MARKETS
) -> AsyncIterator[ExchangeServer]:
    """Serve on a free port of the loopback address until left, in a thread with its own loop."""
    server = ExchangeServer(now=now, markets={market.symbol: market for market in markets})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="exchange server")
    thread.start()
    server.live.attach(loop)
    runner = web.AppRunner(_app(server), shutdown_timeout=0.1, access_log=None)
    try:
        await _in(loop, _start(runner, server))
        yield server
    finally:
        await _in(loop, runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _app(server: ExchangeServer) -> web.Application:
    # aiohttp passes the second argument by this name.
    @web.middleware
    async def logged(request: web.Request, handler: Any) -> web.StreamResponse:
        _, exchange, *rest = request.path.split("/")
        server.calls.append(Call(exchange, "/" + "/".join(rest), dict(request.query)))
        return await server.faults.before(request.path) or await handler(request)

    app = web.Application(middlewares=[logged])
    for side in (accounts, binance, binance_live, kraken, kraken_live):
        app.add_routes(side.routes(server))
    return app


async def _start(runner: web.AppRunner, server: ExchangeServer) -> None:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"


async def _in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
