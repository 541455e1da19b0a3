"""Alpaca's assets in our words, and what of their past can be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from market.instrument import Adjustment, Instrument, InstrumentType
from market.timeframe import DAY_FRAME, MINUTE_FRAME, Timeframe, Unit
from plugins.base import HistoryOffer, NativeFrame

STOCKS, CRYPTO = "stocks", "crypto"
PAGE_LIMIT = 10_000
"""Rows of one call."""
ADJUSTMENTS = (Adjustment.RAW, Adjustment.SPLIT, Adjustment.DIVIDEND, Adjustment.ALL)
FEEDS = ("iex", "sip", "otc")
STREAMED_FEEDS = ("iex", "sip")

_WITHIN_DAY = (
    MINUTE_FRAME,
    Timeframe(5, Unit.MINUTE),
    Timeframe(15, Unit.MINUTE),
    Timeframe(30, Unit.MINUTE),
    Timeframe(1, Unit.HOUR),
)
# Frames up to an hour stand on the same grid in UTC and in New York. Days of stocks begin at New
# York's midnight. Those of crypto began at Chicago's until 2025 and begin at UTC's since, and no
# document says what became of the older ones: hours build them right. Longer ones come from days.
_OFFERS = {
    STOCKS: HistoryOffer(
        frames=(
            *(NativeFrame(frame, timezone=None) for frame in _WITHIN_DAY),
            NativeFrame(DAY_FRAME, timezone=None),
        ),
        page_limit=PAGE_LIMIT,
        adjustments=ADJUSTMENTS,
        feeds=FEEDS,
    ),
    CRYPTO: HistoryOffer(
        frames=tuple(NativeFrame(frame) for frame in _WITHIN_DAY), page_limit=PAGE_LIMIT
    ),
}
_NAMES = {Unit.MINUTE: "Min", Unit.HOUR: "Hour", Unit.DAY: "Day"}


def offer_of(market: str) -> HistoryOffer:
    return _OFFERS[market]


def name_of(frame: Timeframe) -> str:
    """Return what Alpaca calls an offered *frame*."""
    return f"{frame.count}{_NAMES[frame.unit]}"


def instruments_of(
    assets: Iterable[Mapping[str, Any]], *, provider: str, market: str
) -> tuple[Instrument, ...]:
    """Return those that are active and tradable, sorted by symbol.

    Raises `KeyError` or `TypeError` for what is no list of assets.
    """
    listed = {
        str(asset["symbol"]): asset
        for asset in assets
        if asset["tradable"] is True and asset["status"] == "active"
    }
    make = _stock if market == STOCKS else _pair
    return tuple(make(provider, symbol, listed[symbol]) for symbol in sorted(listed))


def _stock(provider: str, symbol: str, asset: Mapping[str, Any]) -> Instrument:
    # Without fractions whole shares are traded. Of anything else Alpaca states no rule.
    whole = None if asset.get("fractionable") else Decimal(1)
    return Instrument(
        provider=provider,
        market=STOCKS,
        symbol=symbol,
        type=InstrumentType.STOCK,
        base=symbol,
        quote="USD",
        calendar="XNYS",
        tick_size=_exact(asset.get("price_increment")),
        lot_size=_exact(asset.get("min_trade_increment")) or whole,
        min_quantity=_exact(asset.get("min_order_size")) or whole,
    )


def _pair(provider: str, symbol: str, asset: Mapping[str, Any]) -> Instrument:
    base, _, quote = symbol.partition("/")
    return Instrument(
        provider=provider,
        market=CRYPTO,
        symbol=symbol,
        type=InstrumentType.SPOT,
        base=base,
        quote=quote or None,
        tick_size=_exact(asset.get("price_increment")),
        lot_size=_exact(asset.get("min_trade_increment")),
        min_quantity=_exact(asset.get("min_order_size")),
    )


def _exact(number: object) -> Decimal | None:
    """Return the decimal that was written; None for none and for what is not above 0."""
    if number is None:
        return None
    try:
        value = Decimal(str(number))
    except InvalidOperation:
        return None
    if not value.is_finite() or value <= 0:
        return None
    return Decimal(int(value)) if value == int(value) else value.normalize()
