"""Alpaca's REST as far as symbols, bars and trades need it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.alpaca_server.market import IEX_SHARE, PAIRS, STOCKS
from tests.exchange_server.market import MINUTE

if TYPE_CHECKING:
    from tests.alpaca_server.server import AlpacaServer

DELAY = 15 * MINUTE
LIVE_ACCOUNT, PAPER_ACCOUNT = ACCOUNT_PATHS = ("/v2/account", "/paper/v2/account")


def routes(server: AlpacaServer) -> list[web.RouteDef]:
    async def assets(request: web.Request) -> web.Response:
        listed = [
            asset.json()
            for asset in server.assets.values()
            if asset.asset_class == request.query.get("asset_class")
        ]
        return web.json_response(listed)

    async def stock_bars(request: web.Request) -> web.Response:
        return _refused(server, request) or _bars(server, request)

    async def crypto_bars(request: web.Request) -> web.Response:
        return _bars(server, request)

    async def stock_trades(request: web.Request) -> web.Response:
        return _refused(server, request) or _trades(server, request)

    async def crypto_trades(request: web.Request) -> web.Response:
        return _trades(server, request)

    return [
        web.get("/v2/assets", assets),
        web.get("/v2/stocks/bars", stock_bars),
        web.get("/v2/stocks/trades", stock_trades),
        web.get("/v1beta3/crypto/us/bars", crypto_bars),
        web.get("/v1beta3/crypto/us/trades", crypto_trades),
    ]


def account_of(
    server: AlpacaServer, path: str, shown: tuple[str | None, str | None]
) -> web.Response:
    """Answer with the account that the keys *shown* open at *path*."""
    account = server.accounts.get((path, (shown[0] or "", shown[1] or "")))
    if account is None:
        return web.json_response({"message": "forbidden."}, status=403)
    return web.json_response(account)


def _refused(server: AlpacaServer, request: web.Request) -> web.Response | None:
    feed = request.query.get("feed", "sip")
    if feed not in server.feeds:
        said = f"your subscription does not permit querying {feed} data"
        return web.json_response({"message": said}, status=403)
    if feed == "sip" and server.delayed and _end(request) > (server.now - DELAY) * 1_000_000:
        said = "subscription does not permit querying recent SIP data"
        return web.json_response({"message": said}, status=403)
    return None


def _bars(server: AlpacaServer, request: web.Request) -> web.Response:
    query = request.query
    asset = server.assets.get(query["symbols"])
    if asset is None:
        return web.json_response({"message": "invalid symbol"}, status=400)
    share = IEX_SHARE if query.get("feed") == "iex" else 1.0
    bars = server.history(asset).bars(
        query["timeframe"], adjustment=query.get("adjustment", "raw"), share=share
    )
    faults = server.faults
    rows = []
    since, until = _nanoseconds(query["start"]) // 1_000_000, _end(request) // 1_000_000
    for row in bars.rows(since, until):
        time = row["t"]
        if time == faults.nulls_at:
            row["c"] = None
        if time == faults.high_below_low_at:
            row["h"], row["l"] = row["l"], row["h"]
        row["t"] = written((time + faults.shift) * 1_000_000)
        rows.append((time * 1_000_000, row))
    return _page(server, request, "bars", rows)


def _trades(server: AlpacaServer, request: web.Request) -> web.Response:
    asset = server.assets.get(request.query["symbols"])
    if asset is None:
        return web.json_response({"message": "invalid symbol"}, status=400)
    rows = [(time, row) for time, row in server.trades_of(asset) if time // 1_000_000 < server.now]
    return _page(server, request, "trades", rows)


def _page(
    server: AlpacaServer, request: web.Request, kind: str, rows: list[tuple[int, dict[str, Any]]]
) -> web.Response:
    """Answer with the rows between start and end, from where the token says."""
    query = request.query
    since, until = _nanoseconds(query["start"]), _end(request)
    wanted = [row for time, row in rows if since <= time <= until]
    begin = int(query.get("page_token", 0))
    cap = 10_000 if server.faults.page_cap is None else server.faults.page_cap
    limit = min(int(query["limit"]), cap)
    end = begin + limit
    more = end < len(wanted) or server.faults.endless_pages
    symbol = query["symbols"]
    page = {symbol: wanted[begin:end]} if wanted[begin:end] else {}
    return web.json_response({kind: page, "next_page_token": str(end) if more else None})


def _end(request: web.Request) -> int:
    return _nanoseconds(request.query["end"])


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def written(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    return f"{whole}.{rest:09d}Z" if rest else f"{whole}Z"


LISTED = {asset.symbol: asset for asset in (*STOCKS, *PAIRS)}
