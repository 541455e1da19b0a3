"""Trades for tests of the store, and their minutes recomputed from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from db.candles import CandleStore
from db.raw_trades import Ingested, RawTradeStore, Telling
from db.stored import SeriesKey
from db.told import US, Proof
from market.bars import Bars
from market.trades import Trades
from market.window import MINUTE, Window
from tests.db.minutes import AROUND

LATE, SETTLE = 2_000, 120_000
PROOF = Proof(late=LATE, settle=SETTLE)


@dataclass(frozen=True, order=True)
class Deal:
    """One trade; the order is that of the venue as far as the store can know it."""

    time: int
    width: int
    id: str
    price: float
    amount: float

    @classmethod
    def of(cls, id: str, time: int, price: float, amount: float = 1.0) -> Deal:
        return cls(time, len(id), id, price, amount)


def columns(deals: Iterable[Deal]) -> Trades:
    deals = list(deals)
    return Trades.of(
        [deal.time for deal in deals],
        [deal.price for deal in deals],
        [deal.amount for deal in deals],
        [deal.id.encode() for deal in deals],
    )


def telling(key: SeriesKey, deals: Iterable[Deal], since: float = 0, until: float = 0) -> Telling:
    """What is told of *key*, all of [since, until) in ms."""
    told = Window(round(since * US), round(until * US))
    return Telling(key, AROUND, columns(deals), told)


async def tell(
    store: CandleStore, key: SeriesKey, deals: Iterable[Deal], since: float = 0, until: float = 0
) -> Ingested:
    (answer,) = await RawTradeStore(store, proof=PROOF).write([telling(key, deals, since, until)])
    return answer


@dataclass(frozen=True)
class MinuteOfTrades:
    open: float
    high: float
    low: float
    close: float
    volume: float
    vwap: float
    trades: int


def recomputed_minutes(deals: Iterable[Deal]) -> dict[int, MinuteOfTrades]:
    """Every minute with a trade, by opening time, each trade counted once."""
    minutes: dict[int, list[Deal]] = {}
    for deal in sorted({(deal.time, deal.id): deal for deal in deals}.values()):
        minutes.setdefault(deal.time - deal.time % MINUTE, []).append(deal)
    made: dict[int, MinuteOfTrades] = {}
    for minute, some in minutes.items():
        volume = math.fsum(deal.amount for deal in some)
        turnover = math.fsum(deal.amount * deal.price for deal in some)
        made[minute] = MinuteOfTrades(
            open=some[0].price,
            high=max(deal.price for deal in some),
            low=min(deal.price for deal in some),
            close=some[-1].price,
            volume=volume,
            vwap=turnover / volume if volume else math.nan,
            trades=len(some),
        )
    return made


def assert_made_of(bars: Bars, deals: Iterable[Deal]) -> None:
    """Prices, volume and counts bit for bit, vwap within 1e-12."""
    expected = recomputed_minutes(deals)
    assert bars.time.tolist() == sorted(expected)
    for n, time in enumerate(bars.time.tolist()):
        minute = expected[time]
        assert (minute.open, minute.high, minute.low, minute.close) == (
            (bars.open[n], bars.high[n], bars.low[n], bars.close[n])
        )
        assert (minute.volume, minute.trades) == (bars.volume[n], bars.trades[n])
        if math.isnan(minute.vwap):
            assert math.isnan(bars.vwap[n])
        else:
            assert math.isclose(minute.vwap, bars.vwap[n], rel_tol=1e-12)


async def trades_in(pool: asyncpg.Pool, key: SeriesKey) -> list[Deal]:
    """Every stored trade of the series, straight from the table."""
    found = await pool.fetch(
        """
        SELECT (extract(epoch FROM r."timestamp") * 1000)::bigint AS time, r.*
        FROM raw_trades r JOIN series s ON s.id = r.series_id WHERE s.symbol = $1
        """,
        key.listing.symbol,
    )
    return sorted(
        Deal.of(row["trade_id"], row["time"], row["price"], row["amount"]) for row in found
    )
