"""The eight simulated symbols: how each is traded, and how it behaves."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from market.instrument import Instrument, InstrumentType

ORDER_TYPES = ("market", "limit", "stop", "stop_limit")


@dataclass(frozen=True, slots=True)
class Simulated:
    """*busy* is the chance that one of a minute's 16 slots holds a trade at a usual time.

    *unit* is the smallest amount traded: a power of two, so that any sum of amounts is exact, and a
    multiple of the lot. *size* is how many units a usual trade has. *deviation* is the standard
    deviation of a minute's return.
    """

    instrument: Instrument
    home: float
    decimals: int
    deviation: float
    busy: float
    unit: float
    size: float


def _crypto(
    base: str, *, home: float, tick: str, lot: str, deviation: float, busy: float, unit: float
) -> Simulated:
    instrument = Instrument(
        provider="sim",
        market="crypto",
        symbol=f"{base}/USDT",
        type=InstrumentType.SPOT,
        base=base,
        quote="USDT",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        min_quantity=Decimal(lot),
        min_notional=Decimal(5),
        order_types=ORDER_TYPES,
        time_in_force=("GTC", "IOC", "FOK"),
    )
    return Simulated(instrument, home, _decimals(tick), deviation, busy, unit, size=12.0)


def _stock(symbol: str, *, home: float, deviation: float, busy: float) -> Simulated:
    instrument = Instrument(
        provider="sim",
        market="stocks",
        symbol=symbol,
        type=InstrumentType.STOCK,
        base=symbol,
        quote="USD",
        calendar="XNYS",
        tick_size=Decimal("0.01"),
        lot_size=Decimal(1),
        min_quantity=Decimal(1),
        min_notional=Decimal(1),
        order_types=ORDER_TYPES,
        time_in_force=("DAY", "GTC", "IOC", "FOK"),
    )
    return Simulated(instrument, home, 2, deviation, busy, unit=1.0, size=90.0)


def _decimals(tick: str) -> int:
    return len(tick.partition(".")[2])


LISTINGS = (
    _crypto("BTC", home=30000, tick="0.01", lot="0.00000001", deviation=7e-4, busy=0.6, unit=2**-8),
    _crypto("ETH", home=2000, tick="0.01", lot="0.000001", deviation=9e-4, busy=0.5, unit=2**-5),
    _crypto("SOL", home=80, tick="0.01", lot="0.001", deviation=1.2e-3, busy=0.3, unit=2**-3),
    _crypto("XRP", home=0.6, tick="0.0001", lot="0.1", deviation=1.1e-3, busy=0.2, unit=8.0),
    _crypto("ADA", home=0.5, tick="0.0001", lot="0.1", deviation=1.1e-3, busy=0.08, unit=16.0),
    _stock("AAPL", home=150, deviation=5e-4, busy=0.5),
    _stock("MSFT", home=250, deviation=5e-4, busy=0.4),
    _stock("SPY", home=400, deviation=3e-4, busy=0.7),
)
