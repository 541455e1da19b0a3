"""What people write on the command line for a series and for an instant; for argparse."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resolvers.candles import Asked

SERIES = "PROVIDER:SYMBOL:TIMEFRAME, such as binance:BTC/USDT:1m"
INSTANT = "a date (2024-01-31), a time with its zone (2024-01-31T14:30:00Z), or milliseconds"


def series_named(text: str) -> Asked:
    """Return the series that `provider:symbol:timeframe` names; the symbol may have colons."""
    # Imported where a series is read: not every command needs what comes with it.
    from market.errors import BadInput  # noqa: PLC0415
    from market.timeframe import Timeframe  # noqa: PLC0415
    from resolvers.candles import Asked  # noqa: PLC0415

    provider, _, rest = text.partition(":")
    symbol, _, timeframe = rest.rpartition(":")
    if not (provider and symbol and timeframe):
        raise argparse.ArgumentTypeError(f"must be {SERIES}, not {text!r}")
    try:
        Timeframe.parse(timeframe)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Asked(provider, symbol, timeframe)


def instant(text: str) -> int:
    """Return milliseconds since 1970 for a date, which begins at midnight UTC, or a time."""
    try:
        at = _milliseconds(text)
    except ValueError:
        at = None
    if at is None or abs(at) > _MOST:
        raise argparse.ArgumentTypeError(f"must be {INSTANT}, not {text!r}")
    return at


def instant_said(at: int) -> str:
    """Return milliseconds since 1970 as a time that `instant` reads."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat().replace("+00:00", "Z")


_MOST = 2**53


def _milliseconds(text: str) -> int | None:
    if re.fullmatch(r"-?\d{9,}", text, re.ASCII):  # what has eight digits is a date
        return int(text)
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        if not re.fullmatch(r"\d{4}-?\d\d-?\d\d", text, re.ASCII):
            return None
        at = at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)
