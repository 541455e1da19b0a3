"""A connection to one of Alpaca's streams through alpaca-py, driven message by message.

Of alpaca-py's stream classes the address, the handshake and the keys are used. Its loop is not: it
connects again after a loss without a word, and takes an error message for something to log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
import websockets
from alpaca.common.enums import BaseURL
from alpaca.data.enums import CryptoFeed, DataFeed
from alpaca.data.live import CryptoDataStream, StockDataStream
from alpaca.data.live.websocket import DataStream

from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.faults import LineLost

# At its lowest level websockets writes down what is sent, and so the keys.
_quiet = logging.getLogger("plugins.alpaca.websockets")
_quiet.setLevel(logging.WARNING)

_PARAMETERS = {
    "open_timeout": 10,
    # A connection that is gone without a word is noticed within 20 seconds.
    "ping_interval": 10,
    "ping_timeout": 10,
    "close_timeout": 1,
    "max_size": 4 * 1024 * 1024,
    "max_queue": 32,
    "logger": _quiet,
}
_SLOT_SECONDS = 10.0
"""How long Alpaca may take to notice that an earlier connection is gone."""
# What alpaca-py raises during the handshake is Alpaca's message, without its number.
_REFUSALS = {
    "auth failed": "it refused the keys",
    "insufficient subscription": "the account's data subscription excludes this feed",
    "connection limit exceeded": "the account has another connection to this stream",
}


class AlpacaSocket:
    """One stream: of crypto where *feed* is None, else of stocks. All raise `LineLost`."""

    def __init__(self, feed: str | None, keys: Keys, addresses: Addresses) -> None:
        base = addresses.stream or BaseURL.MARKET_DATA_STREAM.value
        path = f"/v2/{feed}" if feed else f"/v1beta3/crypto/{CryptoFeed.US.value}"
        shared: dict[str, Any] = {
            "api_key": keys.id.get_secret_value(),
            "secret_key": keys.secret.get_secret_value(),
            "raw_data": True,
            "websocket_params": dict(_PARAMETERS),
            "url_override": base + path,
        }
        self._stream: DataStream = (
            StockDataStream(feed=DataFeed(feed), **shared) if feed else CryptoDataStream(**shared)
        )

    async def open(self) -> None:
        try:
            await self._stream._start_ws()  # noqa: SLF001 - the handshake alone has no other name
        except ValueError as error:
            reason = _REFUSALS.get(str(error), "it refused the connection")
            raise LineLost(reason, retry_after=_SLOT_SECONDS) from None
        except (OSError, websockets.WebSocketException, TimeoutError):
            raise LineLost("its stream cannot be reached") from None
        except (LookupError, TypeError, AttributeError):
            raise LineLost("its message could not be read") from None

    async def ask(self, action: str, channels: Mapping[str, Sequence[str]]) -> None:
        message = msgpack.packb({"action": action, **channels})
        try:
            await self._connection.send(message)
        except (OSError, websockets.WebSocketException):
            raise LineLost("its stream broke off") from None

    async def receive(self) -> Sequence[Mapping[str, Any]]:
        try:
            packed = await self._connection.recv()
        except (OSError, websockets.WebSocketException):
            raise LineLost("its stream broke off") from None
        try:
            messages = msgpack.unpackb(packed)
        except Exception:
            # msgpack raises half of what Python has for bytes that it cannot read.
            raise LineLost("its message could not be read") from None
        if not isinstance(messages, list):
            raise LineLost("its message could not be read")
        return messages

    async def close(self) -> None:
        await self._stream.close()

    @property
    def _connection(self) -> Any:
        return self._stream._ws  # noqa: SLF001 - see `open`
