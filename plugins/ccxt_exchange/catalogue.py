"""Which exchange ids exist, read from the installed package's file names.

Importing ccxt takes half a second and 100 MB, so a wrong setting must be found without it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from market.errors import UnknownName

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
    spec = find_spec("ccxt")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return frozenset(
        path.stem for folder in folders for path in Path(folder, "async_support").glob("[!_]*.py")
    )


def title_of(exchange_id: str) -> str:
    """Return what people call the exchange. Raises `UnknownName` for an id that ccxt lacks."""
    if exchange_id not in exchange_ids():
        raise UnknownName("ccxt exchange", exchange_id, exchange_ids(), field="CCXT_EXCHANGES")
    return _TITLES.get(exchange_id, exchange_id.capitalize())
