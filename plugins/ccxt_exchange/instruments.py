"""An exchange's markets in our words: exact rules, native frames, rows a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from market.errors import UnknownName
from market.instrument import Instrument, InstrumentType
from market.timeframe import DAY_FRAME, Timeframe, Unit
from market.window import DAY
from plugins.base import HistoryOffer, NativeFrame

MARKET = "crypto"
CAUTIOUS_LIMIT = 100
"""Rows a call where the exchange's own limit is not known; every exchange gives as many."""

# ccxt's numbers for what its `precision` means (ccxt.base.decimal_to_precision).
_DECIMAL_PLACES = 2
_TICK_SIZE = 4
_TYPES = {
    kind.value: kind
    for kind in (
        InstrumentType.SPOT,
        InstrumentType.SWAP,
        InstrumentType.FUTURE,
        InstrumentType.OPTION,
    )
}


def instruments_of(exchange: Any, *, provider: str) -> tuple[Instrument, ...]:
    """Return the loaded markets of *exchange* that we have a type for, sorted by symbol."""
    markets: Mapping[str, Mapping[str, Any]] = exchange.markets or {}
    return tuple(
        _instrument(exchange, market, provider=provider)
        for _, market in sorted(markets.items())
        if market.get("type") in _TYPES
    )


def frames_of(exchange: Any) -> Mapping[Timeframe, str]:
    """Return the frames whose bars stand on our grid, with what ccxt calls each.

    Those are the seconds, minutes and hours that divide a day, and the day; all count from midnight
    UTC. Weeks and longer are left out: where they begin differs by exchange (KuCoin's weeks on a
    Thursday) and ccxt does not tell; from days they come out right.
    """
    if exchange.has.get("fetchOHLCV") is not True:
        return {}
    found: dict[Timeframe, str] = {}
    for name in exchange.timeframes or ():
        try:
            frame = Timeframe.parse(name)
        except UnknownName:
            continue
        if frame == DAY_FRAME or (frame.step is not None and DAY % frame.step == 0):
            found.setdefault(frame, name)
    return dict(sorted(found.items(), key=lambda pair: pair[0].nominal))


def offer_of(exchange: Any, instrument: Instrument, *, frames: Iterable[Timeframe]) -> HistoryOffer:
    """Return what of *instrument*'s past *exchange* serves, given all of its *frames*."""
    native = (
        NativeFrame(frame)
        for frame in frames
        # Contracts have no bars of seconds where spot has them, and ccxt lists the two as one.
        if frame.unit is not Unit.SECOND or instrument.type is InstrumentType.SPOT
    )
    limit = None
    # What was taken off the list can still be asked about by those who stored its bars.
    if instrument.symbol in (exchange.markets or ()):
        limit = exchange.feature_value(instrument.symbol, "fetchOHLCV", "limit")
    return HistoryOffer(frames=tuple(native), page_limit=int(limit or CAUTIOUS_LIMIT))


def _instrument(exchange: Any, market: Mapping[str, Any], *, provider: str) -> Instrument:
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    amount, cost = limits.get("amount") or {}, limits.get("cost") or {}
    order_types, time_in_force = _orders(exchange, market["symbol"])
    return Instrument(
        provider=provider,
        market=MARKET,
        symbol=market["symbol"],
        type=_TYPES[market["type"]],
        base=market.get("base"),
        quote=market.get("quote"),
        tick_size=_step(precision.get("price"), mode=exchange.precisionMode),
        lot_size=_step(precision.get("amount"), mode=exchange.precisionMode),
        min_quantity=_exact(amount.get("min")),
        max_quantity=_exact(amount.get("max")),
        min_notional=_exact(cost.get("min")),
        order_types=order_types,
        time_in_force=time_in_force,
        active=market.get("active") is not False,
    )


def _orders(exchange: Any, symbol: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = {"limit": "createLimitOrder", "market": "createMarketOrder"}
    order_types = tuple(name for name, method in known.items() if exchange.has.get(method) is True)
    offered = exchange.feature_value(symbol, "createOrder", "timeInForce") or {}
    return order_types, tuple(sorted(name for name, has in offered.items() if has is True))


def _step(precision: object, *, mode: int) -> Decimal | None:
    """Return the smallest step. Significant digits give none: their step moves with the price."""
    if mode == _DECIMAL_PLACES and isinstance(precision, int | float):
        return Decimal(1).scaleb(-int(precision))
    return _exact(precision) if mode == _TICK_SIZE else None


def _exact(number: object) -> Decimal | None:
    """Return the decimal that was written, which a float still prints; None for none and for 0."""
    if number is None:
        return None
    try:
        value = Decimal(str(number))
    except InvalidOperation:
        return None
    if not value.is_finite() or value == 0:
        return None
    return Decimal(int(value)) if value == int(value) else value.normalize()
