"""What is traded and by which rules: `Instrument`, and `Series`, what bars are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from market.timeframe import Timeframe


class Session(StrEnum):
    """Which part of a trading day counts."""

    REGULAR = "regular"
    EXTENDED = "extended"
    ALL = "all"


class Adjustment(StrEnum):
    """What past prices were corrected for."""

    RAW = "raw"
    SPLIT = "split"
    DIVIDEND = "dividend"
    ALL = "all"


class InstrumentType(StrEnum):
    """The kind of contract."""

    SPOT = "spot"
    SWAP = "swap"
    FUTURE = "future"
    OPTION = "option"
    STOCK = "stock"
    INDEX = "index"
    FOREX = "forex"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A tradable thing at a provider. Amounts are exact; None where the provider states none."""

    provider: str
    market: str
    symbol: str
    type: InstrumentType
    base: str | None = None
    quote: str | None = None
    calendar: str = "24/7"
    """A name `market.calendars.calendar` knows; its zone is the default of every series."""
    tick_size: Decimal | None = None
    lot_size: Decimal | None = None
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    min_notional: Decimal | None = None
    order_types: tuple[str, ...] = ()
    time_in_force: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument as one provider lists it: what its bars are stored under, at any timeframe.

    *dataset* sets stored series apart that share a name but not their truth (another recording,
    another seed); empty for a provider that has one truth.
    """

    provider: str
    market: str
    symbol: str
    adjustment: Adjustment | None = None
    feed: str | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Which bars: a listing, cut to a timeframe in a zone and a session, every default resolved."""

    listing: Listing
    timeframe: Timeframe
    timezone: str = "UTC"
    session: Session = Session.ALL
    calendar: str = "24/7"
