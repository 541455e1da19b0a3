"""Which stored series a series is built from, the most trusted first (promise 5 of the API)."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from datasources.found import Base
from market.buckets import Buckets, Grid
from market.calendars import calendar
from market.instrument import Instrument, Series, Session
from market.timeframe import DAY_FRAME, MINUTE_FRAME, SECOND_FRAME, Timeframe, Unit
from market.window import Mask
from plugins.base import History, HistoryOffer, NativeFrame, Provider, TradesHistory

# A native bar series is read by at most this many frames, so that a want costs few calls.
_NATIVES_TRIED = 2


def offer_of(provider: Provider, instrument: Instrument) -> HistoryOffer | None:
    """Return what of *instrument*'s past *provider* offers, None if it gives no history."""
    if not _gives_history(type(provider)):
        return None
    return cast("History", provider).history(instrument)


@lru_cache(maxsize=1024)
def _gives_history(kind: type[Provider]) -> bool:
    # `isinstance` would look at every member of the protocol each time.
    return issubclass(kind, History)


def bases_of(series: Series, instrument: Instrument, provider: Provider) -> tuple[Base, ...]:
    """Return the bases of *series* in the order in which they are asked.

    Minutes come before every native frame, because only they build every other frame alike. A
    series under a minute comes from a native frame of seconds, else from trades.
    """
    offer = offer_of(provider, instrument)
    frames = offer.frames if offer else ()
    bases = []
    short = series.timeframe.unit is Unit.SECOND
    if not short and any(frame.timeframe == MINUTE_FRAME for frame in frames):
        bases.append(Base(series.listing, MINUTE_FRAME, native=False))
    if series.timeframe != MINUTE_FRAME:
        bases.extend(
            Base(series.listing, frame.timeframe, native=True)
            for frame in matching_natives(series, instrument, tuple(frames))
        )
    if short and not bases and isinstance(provider, TradesHistory):
        bases.append(Base(series.listing, SECOND_FRAME, native=False))
    return tuple(bases)


@lru_cache(maxsize=4096)
def matching_natives(
    series: Series, instrument: Instrument, frames: tuple[NativeFrame, ...]
) -> tuple[NativeFrame, ...]:
    """Return native frames that may build *series*, the coarsest first.

    Whether their edges really meet is asked bucket by bucket, by `builds`. No frame of weeks is
    among them: on which day they begin differs among providers, so weeks are made of days.
    """
    zone = calendar(instrument.calendar).zone
    longest = series.timeframe.nominal
    fitting = [
        frame
        for frame in frames
        if frame.timeframe.nominal <= longest
        and frame.timeframe != MINUTE_FRAME
        and frame.timeframe.unit is not Unit.WEEK
        and frame.session is series.session
        and (_counts_elapsed(frame.timeframe) or (frame.timezone or zone) == series.timezone)
        and _divides(frame.timeframe, series.timeframe)
    ]
    fitting.sort(key=lambda frame: frame.timeframe.nominal, reverse=True)
    return tuple(fitting[:_NATIVES_TRIED])


def _counts_elapsed(timeframe: Timeframe) -> bool:
    return timeframe.step is not None


def _divides(fine: Timeframe, coarse: Timeframe) -> bool:
    """Whether buckets of *coarse* can be whole buckets of *fine* at all."""
    if fine == coarse:
        return True
    if fine.step is not None and coarse.step is not None:
        return coarse.step % fine.step == 0
    # Days, weeks, months and years are made of days; of longer frames only by luck.
    return fine == DAY_FRAME or fine.step is not None


def native_grid(base: Base, instrument: Instrument, offer: HistoryOffer) -> Grid:
    """Return the grid on which the bars of *base* stand at the provider."""
    rules = calendar(instrument.calendar)
    for frame in offer.frames:
        if base.native and frame.timeframe == base.timeframe:
            return Grid(
                base.timeframe,
                zone=frame.timezone or rules.zone,
                session=frame.session,
                calendar=rules,
            )
    return Grid(base.timeframe, zone="UTC", session=Session.ALL, calendar=calendar("24/7"))


def builds(fine: Grid, coarse: Buckets) -> Mask:
    """Return, for each bucket, whether both its edges are edges of *fine*."""
    return fine.opens_at(coarse.opens) & fine.opens_at(coarse.closes)
