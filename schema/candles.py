"""Candles as clients see them: a window of bars in rows or columns, its gaps and its summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from math import isnan
from typing import cast

import strawberry

from datasources.cursors import CandleCursor
from datasources.found import Answer, Gap, GapReason, Request
from market.bars import FROM_TRADES, NATIVE, Bars
from market.instrument import Adjustment, Series, Session
from resolvers.candles import Asked
from resolvers.summary import Trend, summarise
from schema.context import Info
from schema.encoding import BarEncoder, Selection, write_columns, write_rows
from schema.enums import BarSource
from schema.scalars import Timestamp


@strawberry.input(
    name="SeriesInput",
    description="Which bars: what is left out takes the default of the instrument.",
)
class SeriesInput:
    provider: str = strawberry.field(description="Who supplies the bars, by name: `sim`.")
    symbol: str = strawberry.field(description="The provider's name of the instrument.")
    timeframe: str = strawberry.field(
        description="A bar's length: a count and one of `s m h d w M y`. `1m` is a minute, `1M` a "
        "month; any count goes: `7m`, `3M`."
    )
    market: str | None = strawberry.field(
        default=None, description="The asset class; needed only where a symbol is ambiguous."
    )
    timezone: str | None = strawberry.field(
        default=None,
        description="IANA zone that days begin in. Default: the instrument's calendar zone; UTC "
        "for what trades around the clock.",
    )
    session: Session | None = strawberry.field(
        default=None, description="Which part of a trading day counts. Default: ALL."
    )
    adjustment: Adjustment | None = strawberry.field(
        default=None, description="What past prices are corrected for, where offered."
    )
    feed: str | None = strawberry.field(
        default=None, description="Which of the provider's feeds, where it has several."
    )

    def asked(self) -> Asked:
        return Asked(
            provider=self.provider,
            symbol=self.symbol,
            timeframe=self.timeframe,
            market=self.market,
            timezone=self.timezone,
            session=self.session,
            adjustment=self.adjustment,
            feed=self.feed,
        )


@strawberry.type(name="Series", description="Which bars a window holds, every default resolved.")
class SeriesType:
    provider: str = strawberry.field(description="Who supplies the bars.")
    market: str = strawberry.field(description="The asset class.")
    symbol: str = strawberry.field(description="The provider's name of the instrument.")
    timeframe: str = strawberry.field(description="A bar's length, in lowest terms: 60m is 1h.")
    timezone: str = strawberry.field(description="The zone that days begin in.")
    session: Session = strawberry.field(description="Which part of a trading day counts.")
    adjustment: Adjustment | None = strawberry.field(
        description="What past prices are corrected for; null: the provider's default."
    )
    feed: str | None = strawberry.field(description="The feed; null: the provider's default.")

    @classmethod
    def of(cls, series: Series) -> SeriesType:
        listing = series.listing
        return cls(
            provider=listing.provider,
            market=listing.market,
            symbol=listing.symbol,
            timeframe=str(series.timeframe),
            timezone=series.timezone,
            session=series.session,
            adjustment=listing.adjustment,
            feed=listing.feed,
        )


@strawberry.type(description="The bar of one bucket of time.")
class Candle:
    time: Timestamp = strawberry.field(description="When the bucket opens.")
    open: float = strawberry.field(description="The first price.")
    high: float = strawberry.field(description="The highest price.")
    low: float = strawberry.field(description="The lowest price.")
    close: float = strawberry.field(description="The last price, so far if the bar is forming.")
    volume: float = strawberry.field(description="What was traded, in units of the base.")
    trades: int | None = strawberry.field(description="How many trades; null where unknown.")
    vwap: float | None = strawberry.field(
        description="The volume-weighted average price; null where unknown or nothing was traded."
    )
    is_closed: bool = strawberry.field(description="Whether the bucket's time is over.")
    revision: int = strawberry.field(
        description="Grows with every correction; 0 while the bar is not stored. Of a coarser bar "
        "the sum over its minutes."
    )
    updated_at: Timestamp = strawberry.field(description="The provider's time of the newest input.")
    source: BarSource = strawberry.field(description="What the bar was made of.")


@strawberry.type(description="The same bars as arrays of equal length, oldest first.")
class CandleColumns:
    time: list[Timestamp] = strawberry.field(description="When each bucket opens.")
    open: list[float] = strawberry.field(description="First prices.")
    high: list[float] = strawberry.field(description="Highest prices.")
    low: list[float] = strawberry.field(description="Lowest prices.")
    close: list[float] = strawberry.field(description="Last prices.")
    volume: list[float] = strawberry.field(description="What was traded, in units of the base.")
    trades: list[int | None] = strawberry.field(description="Numbers of trades, where known.")
    vwap: list[float | None] = strawberry.field(
        description="Volume-weighted average prices, where known."
    )
    is_closed: list[bool] = strawberry.field(description="Whether each bucket's time is over.")
    revision: list[int] = strawberry.field(description="Revisions; 0: not stored.")
    updated_at: list[Timestamp] = strawberry.field(
        description="The provider's time of each newest input."
    )
    source: list[BarSource] = strawberry.field(description="What each bar was made of.")


@strawberry.type(name="Gap", description="A stretch of whole buckets without bars.")
class GapType:
    since: Timestamp = strawberry.field(description="Where it begins.")
    until: Timestamp = strawberry.field(description="Where it ends, not included.")
    reason: GapReason = strawberry.field(description="Why there are no bars.")


@strawberry.type(description="What the bars of a window did.")
class SeriesSummary:
    first: Candle | None = strawberry.field(description="The oldest bar; null if there is none.")
    last: Candle | None = strawberry.field(description="The newest bar.")
    highest: Candle | None = strawberry.field(description="The first bar with the highest price.")
    lowest: Candle | None = strawberry.field(description="The first bar with the lowest price.")
    change: float | None = strawberry.field(description="From the first price to the last.")
    change_percent: float | None = strawberry.field(
        description="The change in percent of the first price."
    )
    trend: Trend | None = strawberry.field(description="The direction of the change.")
    sentence: str = strawberry.field(
        description="All of it in one sentence that a screen reader can speak."
    )


@dataclass(frozen=True, slots=True)
class BarRows:
    """Bars that `schema.executor` completes as a list of `Candle`.

    *encoder* keeps what it wrote of *series*; without one, as for an event that is written once and
    not asked for again, nothing is kept.
    """

    series: Series
    bars: Bars
    encoder: BarEncoder | None = None

    def __iter__(self) -> Iterator[Candle]:
        return iter(rows_of(self.bars))

    def written(self, selection: Selection) -> bytes:
        """Return the JSON of the selected fields. Raises `Unencodable`."""
        if self.encoder is None:
            return b"[" + write_rows(self.bars, selection) + b"]"
        return self.encoder.rows(self.series, self.bars, selection)


@dataclass(frozen=True, slots=True)
class BarColumns:
    """The bars of an answer, which `schema.executor` completes as `CandleColumns`."""

    answer: Answer

    def written(self, selection: Selection) -> bytes:
        """Return the JSON of the selected fields. Raises `Unencodable`."""
        return write_columns(self.answer.bars, selection)


@strawberry.type(
    description="The bars that open in a window, oldest first; where bars are missing, a gap says "
    "why."
)
class CandleWindow:
    answer: strawberry.Private[Answer]
    request: strawberry.Private[Request | None] = None

    @strawberry.field(description="Which bars these are.")
    def series(self) -> SeriesType:
        return SeriesType.of(self.answer.series)

    @strawberry.field(description="The bars as rows, oldest first.")
    def candles(self, info: Info) -> list[Candle]:
        # The executor completes both in one pass, or makes objects of them if it must.
        return cast(
            list[Candle],
            BarRows(self.answer.series, self.answer.bars, info.context.shared.encoder),
        )

    @strawberry.field(description="The same bars as columns.")
    def columns(self) -> CandleColumns:
        return cast(CandleColumns, BarColumns(self.answer))

    @strawberry.field(description="Where there are no bars, and why. Oldest first.")
    def gaps(self) -> list[GapType]:
        return [_gap(gap) for gap in self.answer.gaps]

    @strawberry.field(
        description="Whether the selection holds earlier bars: ask again until the first of these."
    )
    def has_earlier(self) -> bool:
        return self.answer.has_earlier

    @strawberry.field(
        description="Where a subscription to these bars goes on, with nothing missed or repeated."
    )
    async def cursor(self, info: Info) -> str:
        return str(CandleCursor.of(self.answer, await info.context.shared.store_id()))

    @strawberry.field(description="What the bars did.")
    def summary(self) -> SeriesSummary:
        return _summary(self.answer)


def columns_of(bars: Bars) -> CandleColumns:
    return CandleColumns(
        time=[Timestamp(instant) for instant in bars.time.tolist()],
        open=bars.open.tolist(),
        high=bars.high.tolist(),
        low=bars.low.tolist(),
        close=bars.close.tolist(),
        volume=bars.volume.tolist(),
        trades=[count if count >= 0 else None for count in bars.trades.tolist()],
        vwap=[None if isnan(price) else price for price in bars.vwap.tolist()],
        is_closed=bars.is_closed.tolist(),
        revision=bars.revision.tolist(),
        updated_at=[Timestamp(instant) for instant in bars.updated.tolist()],
        source=[_source(flags) for flags in bars.flags.tolist()],
    )


def rows_of(bars: Bars) -> list[Candle]:
    columns = columns_of(bars)
    names = [field.name for field in fields(Candle)]
    rows = zip(*(getattr(columns, name) for name in names), strict=True)
    return [Candle(**dict(zip(names, row, strict=True))) for row in rows]


@lru_cache(maxsize=256)
def _source(flags: int) -> BarSource:
    if flags & NATIVE:
        return BarSource.NATIVE
    return BarSource.TRADES if flags & FROM_TRADES else BarSource.MINUTES


def _gap(gap: Gap) -> GapType:
    return GapType(since=Timestamp(gap.since), until=Timestamp(gap.until), reason=gap.reason)


def _summary(answer: Answer) -> SeriesSummary:
    facts = summarise(answer.series, answer.bars)

    def candle(position: int | None) -> Candle | None:
        if position is None:
            return None
        return rows_of(answer.bars.take(slice(position, position + 1)))[0]

    return SeriesSummary(
        first=candle(facts.first),
        last=candle(facts.last),
        highest=candle(facts.highest),
        lowest=candle(facts.lowest),
        change=facts.change,
        change_percent=facts.change_percent,
        trend=facts.trend,
        sentence=facts.sentence,
    )
