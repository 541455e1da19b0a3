"""What binance's sockets say and ccxt leaves out: confirmations, refusals, and a bar's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.ccxt_exchange.wire import Wired

KEEP_ALIVE = 20_000
"""Milliseconds between pings. Left to ccxt, a dead connection shows after six minutes."""


class BinanceWired(Wired):
    """Mixed into binance and the exchanges that are binance."""

    streaming: dict[str, Any]
    options: dict[str, Any]

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.streaming = {**self.streaming, "keepAlive": KEEP_ALIVE}
        # ccxt would take the "miniTicker", which has no bid and no ask.
        self.options["watchTickers"] = {**self.options["watchTickers"], "name": "ticker"}

    def handle_subscription_status(self, client: Any, message: Mapping[str, Any]) -> Any:
        names = _asked_by(client, message)
        status = super().handle_subscription_status(client, message)  # type: ignore[misc]  # mixed into an exchange
        self.confirm(names)
        return status

    def handle_ws_error(self, client: Any, message: Mapping[str, Any]) -> None:
        from ccxt.base.errors import ExchangeError  # noqa: PLC0415  # loaded by now, costly before

        names = _asked_by(client, message)
        super().handle_ws_error(client, message)  # type: ignore[misc]  # mixed into an exchange
        client.rejections.pop(str(message.get("id")), None)
        self.refuse(client, names, ExchangeError("the subscription was refused"))

    def handle_ohlcv(self, client: Any, message: Mapping[str, Any]) -> None:
        super().handle_ohlcv(client, message)  # type: ignore[misc]  # mixed into an exchange
        kline = message["k"]
        if kline.get("x") is True:
            kind = "spot" if self.is_spot_url(client) else "contract"  # type: ignore[attr-defined]  # of the exchange
            symbol = self.safe_symbol(kline.get("s"), None, None, kind)  # type: ignore[attr-defined]  # of the exchange
            frame = self.find_timeframe(kline.get("i"))  # type: ignore[attr-defined]  # of the exchange
            self.finals[symbol, frame] = int(kline["t"])


def _asked_by(client: Any, answer: Mapping[str, Any]) -> list[str]:
    """Return the names of the subscriptions that *answer* is about."""
    told = str(answer.get("id"))
    return [
        name
        for name, subscription in client.subscriptions.items()
        if isinstance(subscription, dict)
        and str(subscription.get("id")) == told
        and not subscription.get("unsubscribe")
    ]
