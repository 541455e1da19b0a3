"""Which exchange ids exist and what each can push, read from the installed package's files.

Importing ccxt takes half a second and 100 MB, so a wrong setting must be found without it, and so
must what an exchange can do: processes that never ask an exchange anything say it too.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from market.errors import UnknownName

_CLASS = re.compile(r"^class (\w+)\((?:[\w.]+\.)?(\w+)\):", re.MULTILINE)
_HAS = re.compile(r"^ +'(watch\w+)': (True|False|None|'emulated'),", re.MULTILINE)


class Pushed(StrEnum):
    """What an exchange may push, under the names that ccxt has for it."""

    BARS = "watchOHLCV"
    TRADES = "watchTrades"
    BOOKS = "watchOrderBook"
    TICKERS = "watchTicker"


# Names that the field writes otherwise than with one capital.
_TITLES = {
    "bitmex": "BitMEX",
    "htx": "HTX",
    "kucoin": "KuCoin",
    "mexc": "MEXC",
    "okx": "OKX",
}


@cache
def exchange_ids() -> frozenset[str]:
    """Return the id of every exchange that the installed ccxt has; none if it is not installed."""
    return frozenset(
        path.stem for folder in _folders() for path in folder.glob("async_support/[!_]*.py")
    )


@cache
def pushed_by(exchange_id: str) -> frozenset[Pushed]:
    """Return what the exchange pushes; nothing for an id that ccxt lacks."""
    says: dict[str, bool] = {}
    for source in reversed(_ancestry(exchange_id)):
        says |= {name: value == "True" for name, value in _HAS.findall(source)}
    return frozenset(pushed for pushed in Pushed if says.get(pushed))


@cache
def family_of(exchange_id: str) -> str | None:
    """Return the id of the oldest class in ccxt.pro that the exchange's derives from, or its own.

    None for one that pushes nothing.
    """
    sources = _ancestry(exchange_id)
    return _CLASS.findall(sources[-1])[0][0] if sources else None


def _ancestry(exchange_id: str) -> list[str]:
    """Return the source of the exchange's class in ccxt.pro, and of those it derives from."""
    for folder in _folders():
        path = folder / "pro" / f"{exchange_id}.py"
        if exchange_id in exchange_ids() and path.is_file():
            source = path.read_text(encoding="utf-8")
            ((name, base),) = _CLASS.findall(source)
            return [source, *(_ancestry(base) if base != name else ())]
    return []


def _folders() -> list[Path]:
    spec = find_spec("ccxt")
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def title_of(exchange_id: str) -> str:
    """Return what people call the exchange. Raises `UnknownName` for an id that ccxt lacks."""
    if exchange_id not in exchange_ids():
        raise UnknownName("ccxt exchange", exchange_id, exchange_ids(), field="CCXT_EXCHANGES")
    return _TITLES.get(exchange_id, exchange_id.capitalize())
