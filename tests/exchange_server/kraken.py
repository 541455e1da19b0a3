"""Kraken's public REST as far as symbols, candles and the time need it.

Of every interval only the newest 720 candles exist, and *since* leaves out the candle it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.exchange_server.market import MINUTE, Market

if TYPE_CHECKING:
    from tests.exchange_server.server import ExchangeServer

LIMIT = 720
# What Kraken calls its older assets; the newer ones have their own names.
_ASSETS = {"BTC": "XXBT", "ETH": "XETH", "USD": "ZUSD"}


def routes(server: ExchangeServer) -> list[web.RouteDef]:
    async def time(_: web.Request) -> web.Response:
        return _result({"unixtime": server.now // 1000})

    async def assets(_: web.Request) -> web.Response:
        names = {name for m in server.markets.values() for name in (m.base, m.quote)}
        return _result({_asset(name): _currency(name) for name in sorted(names)})

    async def pairs(_: web.Request) -> web.Response:
        return _result({_id(market): _pair(market) for market in server.markets.values()})

    async def ohlc(request: web.Request) -> web.Response:
        query = request.query
        market = {_id(m): m for m in server.markets.values()}.get(query.get("pair", ""))
        if market is None:
            return web.json_response({"error": ["EQuery:Unknown asset pair"]})
        step = int(query.get("interval", 1)) * MINUTE
        after = int(query["since"]) * 1000 if "since" in query else market.listed
        rows = server.faults.page(
            server.candles(market, step).take(slice(-LIMIT, None)),
            since=after + 1,
            until=None,
            limit=LIMIT,
            step=step,
        )
        last = server.now // step * step // 1000
        return _result({_id(market): [_row(row) for row in rows], "last": last})

    base = "/kraken/0/public"
    return [
        web.get(f"{base}/Time", time),
        web.get(f"{base}/Assets", assets),
        web.get(f"{base}/AssetPairs", pairs),
        web.get(f"{base}/OHLC", ohlc),
    ]


def _result(result: dict[str, Any]) -> web.Response:
    return web.json_response({"error": [], "result": result})


def _asset(name: str) -> str:
    return _ASSETS.get(name, name)


def _id(market: Market) -> str:
    return _asset(market.base) + _asset(market.quote)


def _row(row: list[float | None]) -> list[Any]:
    time, *values = row
    assert time is not None
    *prices, volume = (None if value is None else f"{value:.8f}" for value in values)
    return [int(time) // 1000, *prices, prices[-1], volume, 1]


def _currency(name: str) -> dict[str, Any]:
    return {"aclass": "currency", "altname": name, "decimals": 10, "display_decimals": 5}


def _pair(market: Market) -> dict[str, Any]:
    return {
        "altname": market.base.replace("BTC", "XBT") + market.quote,
        "wsname": f"{market.base.replace('BTC', 'XBT')}/{market.quote}",
        "base": _asset(market.base),
        "quote": _asset(market.quote),
        "pair_decimals": 1,
        "lot_decimals": 8,
        "ordermin": "0.0001",
        "costmin": "0.5",
        "tick_size": "0.1",
        "status": "online",
        "fees": [[0, 0.26]],
        "fees_maker": [[0, 0.16]],
        "leverage_buy": [],
        "leverage_sell": [],
    }
