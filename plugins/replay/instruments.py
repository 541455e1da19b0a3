"""What is said of the recorded symbols: defaults by name, and `instruments.json` over them.

{"binance_BTCUSDT": {"base": "BTC", "quote": "USDT", "tick_size": "0.01"},
 "lse_VOD": {"type": "stock", "market": "stocks", "calendar": "24/7"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from market.calendars import calendar
from market.errors import BargraphError, UnknownName
from market.instrument import Instrument, InstrumentType

FILE = "instruments.json"
LARGEST_FILE = 1 << 20


class InvalidInstruments(BargraphError):
    """An `instruments.json` that cannot be followed; *symbol* and *field* name the place."""

    code = "INVALID_INSTRUMENTS"

    def __init__(self, reason: str, *, symbol: str = "", field: str = "") -> None:
        place = ", ".join(part for part in (FILE, symbol, field) if part)
        super().__init__(f"{place}: {reason}")
        self.symbol = symbol
        self.field = field
        self.reason = reason


def _known_calendar(name: str) -> str:
    try:
        calendar(name)
    except UnknownName as error:
        raise ValueError(str(error)) from error
    return name


_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
_Amount = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]


class Said(BaseModel):
    """One symbol's entry; what is left out keeps its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: InstrumentType | None = None
    calendar: Annotated[str, AfterValidator(_known_calendar)] | None = None
    market: _Word | None = None
    base: _Word | None = None
    quote: _Word | None = None
    tick_size: _Amount | None = None
    lot_size: _Amount | None = None


_SAID: TypeAdapter[dict[str, Said]] = TypeAdapter(dict[str, Said])


def read_instruments(folder: Path) -> Mapping[str, Said]:
    """Return the entries of the folder's `instruments.json`, none where there is no such file.

    Raises `InvalidInstruments` for the first thing in it that is wrong.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    if path.stat().st_size > LARGEST_FILE:
        raise InvalidInstruments(f"it is larger than {LARGEST_FILE} bytes")
    try:
        return _SAID.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        symbol, field = (*map(str, first["loc"]), "", "")[:2]
        raise InvalidInstruments(first["msg"], symbol=symbol, field=field) from error
    except OSError as error:
        raise InvalidInstruments(error.strerror or "it cannot be read") from error


def instrument_of(symbol: str, said: Said | None) -> Instrument:
    """Return the recorded *symbol*: a stock in New York where it is called `stock_*`, else spot."""
    stock = symbol.startswith("stock_")
    default: dict[str, Any] = {
        "type": InstrumentType.STOCK if stock else InstrumentType.SPOT,
        "market": "stocks" if stock else "crypto",
        "calendar": "XNYS" if stock else "24/7",
    }
    chosen = {} if said is None else said.model_dump(exclude_none=True)
    return Instrument(provider="replay", symbol=symbol, **(default | chosen))
