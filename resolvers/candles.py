"""Turn what a client asked for into a request for bars, with every default resolved."""

from __future__ import annotations

from dataclasses import dataclass

from datasources.found import Request
from market.buckets import grid
from market.calendars import calendar
from market.errors import BadInput, UnknownName
from market.instrument import Adjustment, Instrument, Listing, Series, Session
from market.timeframe import Timeframe
from market.zones import check_zone
from plugins.base import History
from resolvers.directory import Directory

# Years 1 to 9999, what a date can be in any of the databases and clients.
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999

LAST = 500
"""Bars of a window for which nobody said how many."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A series in a client's words; what is None takes its default."""

    provider: str
    symbol: str
    timeframe: str
    market: str | None = None
    timezone: str | None = None
    session: Session | None = None
    adjustment: Adjustment | None = None
    feed: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Which bars of a series."""

    since: int | None
    until: int | None
    last: int
    include_forming: bool = True


def cut_of(
    since: int | None, until: int | None, last: int | None, include_forming: bool | None
) -> Cut:
    """Return the cut that a client's words mean: what is null takes its default."""
    return Cut(since, until, LAST if last is None else last, include_forming is not False)


async def series_of(directory: Directory, asked: Asked) -> tuple[Series, Instrument]:
    """Return the series that is meant. Raises `UnknownName`, `BadInput`, `AmbiguousSymbol`."""
    timeframe = Timeframe.parse(asked.timeframe)
    instrument = await directory.instrument(asked.provider, asked.symbol, asked.market)
    return _series(directory, asked, instrument, timeframe), instrument


def series_for(directory: Directory, asked: Asked, instrument: Instrument) -> Series:
    """Return the series of an *instrument* already found."""
    return _series(directory, asked, instrument, Timeframe.parse(asked.timeframe))


def _series(
    directory: Directory, asked: Asked, instrument: Instrument, timeframe: Timeframe
) -> Series:
    rules = calendar(instrument.calendar)
    provider = directory.provider(instrument.provider)
    offer = provider.history(instrument) if isinstance(provider, History) else None
    adjustments, feeds = (offer.adjustments, offer.feeds) if offer else ((), ())
    if asked.adjustment is not None and asked.adjustment not in adjustments:
        message = f"{asked.provider} does not offer {asked.adjustment}-adjusted bars."
        raise BadInput(message, field="adjustment")
    if asked.feed is not None and asked.feed not in feeds:
        raise UnknownName("feed", asked.feed, feeds, field="feed")
    listing = Listing(
        provider=instrument.provider,
        market=instrument.market,
        symbol=instrument.symbol,
        adjustment=asked.adjustment,
        feed=asked.feed,
        dataset=provider.description.dataset,
    )
    session = asked.session or Session.ALL
    return Series(
        listing=listing,
        timeframe=timeframe,
        timezone=check_zone(asked.timezone) if asked.timezone is not None else rules.zone,
        # What trades around the clock has one session; the same bars must have one name.
        session=Session.ALL if rules.around_the_clock else session,
        calendar=instrument.calendar,
    )


async def request_for(directory: Directory, asked: Asked, cut: Cut, *, max_bars: int) -> Request:
    """Return the request that is meant. Raises what `series_of` and `request_of` raise."""
    series, instrument = await series_of(directory, asked)
    return request_of(series, instrument, cut, max_bars=max_bars)


def request_of(series: Series, instrument: Instrument, cut: Cut, *, max_bars: int) -> Request:
    """Return the request. Raises `BadInput` for one that can never be answered."""
    for field, value in (("since", cut.since), ("until", cut.until)):
        if value is not None and not EARLIEST <= value <= LATEST:
            raise BadInput(f"{field} must lie in the years 1 to 9999, not {value}.", field=field)
    if cut.since is not None and cut.until is not None and cut.since > cut.until:
        raise BadInput("since must not be after until.", field="since")
    if not 1 <= cut.last <= max_bars:
        raise BadInput(f"last must be from 1 to {max_bars}, not {cut.last}.", field="last")
    grid(series)
    return Request(
        series=series,
        instrument=instrument,
        since=cut.since,
        until=cut.until,
        last=cut.last,
        include_forming=cut.include_forming,
    )
