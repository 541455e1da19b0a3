"""Blocking calls to Alpaca's REST through alpaca-py, each bounded in time and in size.

alpaca-py itself waits for ever for an answer, sleeps and tries again on its own, and takes any
amount of text: `_Bounded` replaces the one method of it that speaks HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import requests
from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, AssetStatus
from alpaca.trading.requests import GetAssetsRequest

from plugins.alpaca.account import Addresses, Keys
from plugins.alpaca.faults import Fault

LARGEST_ANSWER = 128 * 1024 * 1024
"""Bytes; the list of all stocks has about 8 MB."""
_PIECE = 64 * 1024
_CLASSES = {"stocks": AssetClass.US_EQUITY, "crypto": AssetClass.CRYPTO}
_PATHS = {"stocks": "/stocks", "crypto": "/crypto/us"}


class _Bounded:
    """Mixed into a client of alpaca-py. *seconds* bound a whole answer; it raises only `Fault`."""

    seconds: float
    _session: requests.Session

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        try:
            with self._session.request(
                method, url, timeout=self.seconds, stream=True, **opts
            ) as answer:
                body = _read(answer, until=time.monotonic() + self.seconds)
        except requests.Timeout:
            raise Fault("it did not answer in time", passing=True) from None
        except requests.RequestException:
            # What it says may quote the URL.
            raise Fault("it cannot be reached, or the connection broke", passing=True) from None
        if answer.status_code != HTTPStatus.OK:
            raise _refusal(answer.status_code, answer.headers, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Fault("its answer could not be read", passing=True) from None


class _Trading(_Bounded, TradingClient):
    pass


class _Stocks(_Bounded, StockHistoricalDataClient):
    pass


class _Crypto(_Bounded, CryptoHistoricalDataClient):
    pass


class Rest:
    """The calls, for as many threads as there are. All raise `Fault`."""

    def __init__(self, keys: Keys, addresses: Addresses, *, seconds: float) -> None:
        own: dict[str, Any] = {
            "api_key": keys.id.get_secret_value(),
            "secret_key": keys.secret.get_secret_value(),
            "raw_data": True,
        }
        self._trading = [
            _Trading(paper=paper, url_override=addresses.trading, **own)
            # A pair of keys opens one of the two; its id tells which, as far as is known.
            for paper in (keys.paper, not keys.paper)
        ]
        self._data: dict[str, _Stocks | _Crypto] = {
            "stocks": _Stocks(url_override=addresses.data, **own),
            "crypto": _Crypto(url_override=addresses.data, **own),
        }
        for client in (*self._trading, *self._data.values()):
            client.seconds = seconds

    def assets(self, market: str, *, attempt: int) -> Any:
        """Return every active asset of *market*; *attempt* 1 asks where its keys do not belong."""
        wanted = GetAssetsRequest(status=AssetStatus.ACTIVE, asset_class=_CLASSES[market])
        return self._trading[attempt].get_all_assets(wanted)

    def page(self, market: str, kind: str, parameters: Mapping[str, str | int]) -> Any:
        """Return one page of `bars` or `trades`."""
        return self._data[market].get(f"{_PATHS[market]}/{kind}", dict(parameters))

    def close(self) -> None:
        for client in (*self._trading, *self._data.values()):
            client._session.close()  # noqa: SLF001 - alpaca-py has no way to close its clients


def account_of(keys: Keys, addresses: Addresses, *, paper: bool, seconds: float) -> Any:
    """Return the account that *keys* open, by a connection that is closed again. Raises `Fault`."""
    client = _Trading(
        api_key=keys.id.get_secret_value(),
        secret_key=keys.secret.get_secret_value(),
        raw_data=True,
        paper=paper,
        url_override=addresses.trading,
    )
    client.seconds = seconds
    try:
        return client.get_account()
    finally:
        client._session.close()  # noqa: SLF001 - alpaca-py has no way to close its clients


def _read(answer: requests.Response, *, until: float) -> bytes:
    pieces, length = [], 0
    for piece in answer.iter_content(_PIECE):
        pieces.append(piece)
        length += len(piece)
        if length > LARGEST_ANSWER:
            raise Fault("its answer was too large")
        if time.monotonic() > until:
            raise Fault("it did not answer in time", passing=True)
    return b"".join(pieces)


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Fault(
            "rate limited",
            rate_limited=True,
            retry_after=_number(headers.get("Retry-After")),
            resets_at=_number(headers.get("X-RateLimit-Reset")),
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Fault(f"it answers with failures ({status})", passing=True)
    said = body[:1000].lower()
    if status == HTTPStatus.FORBIDDEN and b"subscription" in said:
        reason = "the account's data subscription does not include this feed"
        return Fault(reason, recent=b"recent" in said)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Fault("it refused the keys", keys_refused=True)
    return Fault(f"it refused the request ({status})")


def _number(text: str | None) -> float | None:
    """Return the count that a header holds, None for anything else."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
