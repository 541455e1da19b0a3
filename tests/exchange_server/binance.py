"""Binance's public REST as far as symbols, candles and the time need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.exchange_server.market import MINUTE, Market

if TYPE_CHECKING:
    from tests.exchange_server.server import ExchangeServer

LIMIT = 1000
STEPS = {
    "1m": MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": 60 * MINUTE,
    "4h": 240 * MINUTE,
    "1d": 1440 * MINUTE,
}


def routes(server: ExchangeServer) -> list[web.RouteDef]:
    async def time(_: web.Request) -> web.Response:
        return web.json_response({"serverTime": server.now})

    async def exchange_info(_: web.Request) -> web.Response:
        markets = [_market(m) for m in server.markets.values() if m.quote != "USD"]
        return web.json_response(
            {"timezone": "UTC", "serverTime": server.now, "rateLimits": [], "symbols": markets}
        )

    async def klines(request: web.Request) -> web.Response:
        query = request.query
        market = {_id(m): m for m in server.markets.values()}.get(query.get("symbol", ""))
        step = STEPS.get(query.get("interval", ""))
        if market is None:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        if step is None:
            return web.json_response({"code": -1120, "msg": "Invalid interval."}, status=400)
        rows = server.faults.page(
            server.candles(market, step),
            since=int(query["startTime"]) if "startTime" in query else None,
            until=int(query["endTime"]) if "endTime" in query else None,
            limit=min(int(query.get("limit", 500)), LIMIT),
            step=step,
        )
        return web.json_response([_row(row, step) for row in rows])

    base = "/binance/api/v3"
    return [
        web.get(f"{base}/time", time),
        web.get(f"{base}/exchangeInfo", exchange_info),
        web.get(f"{base}/klines", klines),
        web.get("/binance-testnet/api/v3/exchangeInfo", exchange_info),
    ]


def _id(market: Market) -> str:
    return market.base + market.quote


def _row(row: list[float | None], step: int) -> list[Any]:
    time, *values = row
    assert time is not None
    written = [None if value is None else f"{value:.8f}" for value in values]
    return [int(time), *written, int(time) + step - 1, "0.0", 1, "0.0", "0.0", "0"]


def _market(market: Market) -> dict[str, Any]:
    return {
        "symbol": _id(market),
        "status": "TRADING",
        "baseAsset": market.base,
        "baseAssetPrecision": 8,
        "quoteAsset": market.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": ["SPOT"],
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "0.01000000",
                "maxPrice": "1000000.00000000",
                "tickSize": "0.01000000",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": "0.00001000",
                "maxQty": "9000.00000000",
                "stepSize": "0.00001000",
            },
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
        ],
    }
