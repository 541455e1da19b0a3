"""Accounts at the local exchange, opened by signed calls as binance and kraken want them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from aiohttp import web

if TYPE_CHECKING:
    from tests.exchange_server.server import ExchangeServer


@dataclass(slots=True)
class Account:
    """Who has *secret* may see *said*, in the one *world*: `` or `-testnet`."""

    secret: str
    world: str = ""
    said: dict[str, Any] = field(
        default_factory=lambda: {"canTrade": True, "canWithdraw": False, "canDeposit": True}
    )
    balances: list[dict[str, Any]] = field(
        default_factory=lambda: [{"asset": "BTC", "free": "0.50000000", "locked": "0.00000000"}]
    )
    may_read: bool = True


def routes(server: ExchangeServer) -> list[web.RouteDef]:
    def at_binance(world: str) -> web.RouteDef:
        async def account(request: web.Request) -> web.Response:
            known = server.accounts.get(request.headers.get("X-MBX-APIKEY", ""))
            if known is None or known.world != world:
                said = "Invalid API-key, IP, or permissions for action."
                return web.json_response({"code": -2015, "msg": said}, status=401)
            signed, _, signature = request.query_string.partition("&signature=")
            expected = hmac.new(known.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
            if signature != expected:
                said = "Signature for this request is not valid."
                return web.json_response({"code": -1022, "msg": said}, status=400)
            return web.json_response({**known.said, "balances": known.balances})

        return web.get(f"/binance{world}/api/v3/account", account)

    async def balance(request: web.Request) -> web.Response:
        known = server.accounts.get(request.headers.get("API-Key", ""))
        if known is None:
            return web.json_response({"error": ["EAPI:Invalid key"]})
        body = await request.read()
        nonce = parse_qs(body.decode())["nonce"][0].encode()
        path = request.path.removeprefix("/kraken").encode()
        signed = path + hashlib.sha256(nonce + body).digest()
        expected = hmac.new(base64.b64decode(known.secret), signed, hashlib.sha512).digest()
        if base64.b64decode(request.headers.get("API-Sign", "")) != expected:
            return web.json_response({"error": ["EAPI:Invalid signature"]})
        if not known.may_read:
            return web.json_response({"error": ["EGeneral:Permission denied"]})
        return web.json_response({"error": [], "result": {"ZUSD": {"balance": "1.0"}}})

    return [
        at_binance(""),
        at_binance("-testnet"),
        web.post("/kraken/0/private/BalanceEx", balance),
    ]
