"""What is asked of every server, byte for byte, and what each has to send for it."""

from __future__ import annotations

from typing import Any

import orjson

PROTOCOL = "graphql-transport-ws"
SYMBOL = "BTC/USDT"
SUBSCRIBE: dict[str, Any] = {
    "operationName": "Live",
    "query": """subscription Live($series: SeriesInput!) {
  bars(series: $series) {
    ... on BarUpdate { candles { time open high low close volume isClosed } cursor }
  }
}""",
    "variables": {"series": {"provider": "sim", "symbol": SYMBOL, "timeframe": "1m"}},
}

_ID_LENGTH = 36
_CURSORS_DIFFER = 8
"""Characters, for numbers of one digit more or less."""

CHANNEL = "bench:bars"
"""Where the peers listen for what to send."""


class WrongMessage(Exception):
    """A server that does not send what it was asked for; its speed would say nothing."""


def update(bar: dict[str, Any], cursor: str) -> bytes:
    """Return the value of the field `bars` that shows *bar* running."""
    return orjson.dumps({"candles": [bar], "cursor": cursor})


def check_message(message: bytes, expected: bytes) -> None:
    """Raise `WrongMessage` unless *message* carries *expected*, an `update`, and nothing else.

    Cursors are a server's own: only that one is there is looked at, as long as the others.
    """
    told, update = orjson.loads(message), orjson.loads(expected)
    cursor = told["payload"]["data"]["bars"].get("cursor", "")
    meant = {"id": told["id"], "type": "next", "payload": {"data": {"bars": update}}}
    if abs(len(cursor) - len(update["cursor"])) <= _CURSORS_DIFFER:
        update["cursor"] = cursor
    if told != meant or len(told["id"]) != _ID_LENGTH:
        raise WrongMessage(f"{message!r}, not {expected!r}")
