"""An exchange's markets become our instruments, with exact rules and only the frames we can use."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from market.instrument import InstrumentType
from plugins.ccxt_exchange.instruments import CAUTIOUS_LIMIT, frames_of, instruments_of, offer_of

DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE = 2, 3, 4
KUCOIN = {"1m": "1min", "3m": "3min", "5h": "5hour", "1d": "1day", "1w": "1week", "1M": "1month"}


class Exchange:
    """As much of a ccxt exchange as its rules are read from."""

    def __init__(
        self,
        *markets: dict[str, Any],
        precision_mode: int = TICK_SIZE,
        candles: object = True,
        features: dict[str, Any] | None = None,
    ) -> None:
        self.markets = {market["symbol"]: market for market in markets}
        self.precisionMode = precision_mode
        self.has = {"fetchOHLCV": candles, "createLimitOrder": True, "createMarketOrder": None}
        self.timeframes = KUCOIN | {"1s": "1s"}
        self.features = features or {}

    def feature_value(self, symbol: str, method: str, name: str, default: object = None) -> object:
        assert symbol in self.markets
        return self.features.get(f"{method}.{name}", default)


def listed(symbol: str = "BTC/USDT", **facts: Any) -> dict[str, Any]:
    return {"symbol": symbol, "type": "spot", "base": "BTC", "quote": "USDT", **facts}


def names(exchange: Exchange) -> list[str]:
    (instrument,) = instruments_of(exchange, provider="here")
    offer = offer_of(exchange, instrument, frames=frames_of(exchange))
    return [str(native.timeframe) for native in offer.frames]


@pytest.mark.parametrize(
    ("mode", "precision", "step"),
    [
        (TICK_SIZE, 0.1, Decimal("0.1")),
        (TICK_SIZE, 1e-8, Decimal("0.00000001")),
        (TICK_SIZE, 100.0, Decimal(100)),
        (TICK_SIZE, None, None),
        (DECIMAL_PLACES, 8, Decimal("0.00000001")),
        (DECIMAL_PLACES, 0, Decimal(1)),
        (DECIMAL_PLACES, None, None),
        (SIGNIFICANT_DIGITS, 5, None),
    ],
)
def test_a_step_is_exact_whatever_the_exchange_means_by_precision(
    mode: int, precision: float | None, step: Decimal | None
) -> None:
    market = listed(precision={"price": precision, "amount": precision})

    (instrument,) = instruments_of(Exchange(market, precision_mode=mode), provider="here")

    assert instrument.tick_size == step
    assert instrument.lot_size == step


def test_a_limit_of_nothing_is_no_limit() -> None:
    market = listed(limits={"amount": {"min": 0.001, "max": 0.0}, "cost": {"min": None}})

    (instrument,) = instruments_of(Exchange(market), provider="here")

    assert instrument.min_quantity == Decimal("0.001")
    assert instrument.max_quantity is None
    assert instrument.min_notional is None


def test_contracts_are_told_apart_and_what_we_have_no_type_for_is_left_out() -> None:
    markets = [
        listed("BTC/USDT:USDT", type="swap"),
        listed("BTC/USDT:USDT-231229", type="future", active=False),
        listed("BTC/USDT:USDT-231229-40000-C", type="option"),
        listed("BTC/USDT"),
        listed("WEATHER", type="prediction"),
    ]

    found = instruments_of(Exchange(*markets), provider="here")

    assert [(one.symbol, one.type, one.active) for one in found] == [
        ("BTC/USDT", InstrumentType.SPOT, True),
        ("BTC/USDT:USDT", InstrumentType.SWAP, True),
        ("BTC/USDT:USDT-231229", InstrumentType.FUTURE, False),
        ("BTC/USDT:USDT-231229-40000-C", InstrumentType.OPTION, True),
    ]


def test_order_rules_are_those_that_ccxt_vouches_for() -> None:
    offered = {"createOrder.timeInForce": {"IOC": True, "GTC": True, "GTD": False}}

    (instrument,) = instruments_of(Exchange(listed(), features=offered), provider="here")

    assert instrument.order_types == ("limit",)
    assert instrument.time_in_force == ("GTC", "IOC")


def test_weeks_months_and_hours_that_do_not_divide_a_day_are_not_offered() -> None:
    assert names(Exchange(listed())) == ["1s", "1m", "3m", "1d"]


def test_contracts_have_no_bars_of_seconds() -> None:
    assert "1s" not in names(Exchange(listed(type="swap")))


@pytest.mark.parametrize("candles", [False, None, "emulated"])
def test_candles_that_ccxt_would_make_up_from_trades_are_not_offered(candles: object) -> None:
    assert names(Exchange(listed(), candles=candles)) == []


def test_an_unknown_row_limit_is_taken_to_be_low() -> None:
    exchange = Exchange(listed(), features={"fetchOHLCV.limit": None})
    (instrument,) = instruments_of(exchange, provider="here")

    assert offer_of(exchange, instrument, frames=()).page_limit == CAUTIOUS_LIMIT


def test_an_instrument_that_is_no_longer_listed_still_has_an_offer() -> None:
    exchange = Exchange(listed())
    (instrument,) = instruments_of(exchange, provider="here")
    exchange.markets = {}

    offer = offer_of(exchange, instrument, frames=frames_of(exchange))

    assert offer.page_limit == CAUTIOUS_LIMIT
    assert offer.frames
