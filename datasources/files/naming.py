"""What the name of a file says of its bars: `{provider}_{symbol}_{timeframe}[_{anything}]`.

The symbol ends before the first part that is a timeframe with its unit, because what follows may
look like one too. A file name holds no slash, so `BTCUSDT`, `BTC-USDT` and `BTC_USDT` all stand for
`BTC/USDT` where that is what the provider lists, or where the end is a currency known as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from db.stored import SeriesKey
from market.errors import UnknownName
from market.timeframe import Timeframe

_QUOTES = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD", "EUR", "GBP", "JPY", "TRY", "BRL"),
    *("BTC", "ETH", "BNB"),
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Said:
    """Whose bars a file holds, as far as its name or its user says; None where neither does."""

    provider: str | None = None
    symbol: str | None = None
    timeframe: Timeframe | None = None
    market: str | None = None
    dataset: str | None = None

    def over(self, other: Said) -> Said:
        """Return what this says, and what *other* does where this says nothing."""
        return Said(
            self.provider or other.provider,
            self.symbol or other.symbol,
            self.timeframe or other.timeframe,
            self.market or other.market,
            other.dataset if self.dataset is None else self.dataset,
        )


def said_by_name(stem: str) -> Said:
    """Return what the file name *stem* says, nothing where it is not of the form."""
    parts = stem.split("_")
    for index in range(2, len(parts)):
        timeframe = _timeframe(parts[index])
        if timeframe is not None and _NAME.fullmatch(parts[0]):
            return Said(parts[0], "_".join(parts[1:index]), timeframe)
    return Said()


def listed_as(symbol: str, listed: Iterable[str]) -> list[str]:
    """Return those of the *listed* symbols that *symbol* may stand for; itself alone if listed."""
    names = list(listed)
    if symbol in names:
        return [symbol]
    bare = _bare(symbol)
    return [name for name in names if _bare(name) == bare]


def pair_of(symbol: str) -> tuple[str, str] | None:
    """Return base and quote of what looks like a pair: `BTC/USDT`, `BTC-USDT`, `BTCUSDT`."""
    parts = re.split(r"[/_-]", symbol.partition(":")[0])
    if len(parts) == 2 and all(parts):
        return parts[0].upper(), parts[1].upper()
    for quote in _QUOTES:
        if len(parts) == 1 and symbol.upper().endswith(quote) and len(symbol) > len(quote) + 1:
            return symbol[: -len(quote)].upper(), quote
    return None


def file_name(key: SeriesKey, ending: str) -> str:
    """Return a name that says what it can of *key*; the label in the file says all of it."""
    symbol = re.sub(r"[^A-Za-z0-9.-]+", "-", key.listing.symbol)
    return f"{key.listing.provider}_{symbol}_{key.timeframe}.{ending}"


def _bare(symbol: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", symbol).upper()


def _timeframe(part: str) -> Timeframe | None:
    if part.isdigit():
        return None
    try:
        return Timeframe.parse(part)
    except UnknownName:
        return None
