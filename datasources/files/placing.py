"""Where the bars of a file belong: the stored series they go to, and the grid they stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datasources.files.label import Label, UnreadableFile
from datasources.files.naming import Said, listed_as, pair_of
from db.stored import SeriesFacts, SeriesKey
from market.buckets import Grid
from market.calendars import calendar
from market.errors import AmbiguousSymbol, ProviderUnavailable, UnknownName
from market.instrument import Instrument, Listing
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, Mask, Times, Window
from market.zones import day_starts, local_day
from plugins.base import History, Provider
from plugins.registry import ProviderDisabled, Registry

ASK_SECONDS = 5.0
"""How long a provider is given to say what it lists. Without an answer the name has to do."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The series, and the zone in which its days begin. *zone* None: bars are on their grid."""

    key: SeriesKey
    facts: SeriesFacts
    zone: str | None
    calendar_name: str = "24/7"

    def opens(self, time: Times) -> Times:
        """Return the openings that *time* stands for.

        Bars of days and longer that are stamped at midnight UTC are labels of dates: each begins
        at its date's midnight in the zone.
        """
        if self.zone in {None, "UTC"} or self.key.timeframe.step is not None:
            return time
        assert self.zone is not None
        labels = time % DAY == 0
        return np.where(labels, day_starts(self.zone, time // DAY), time)

    def closes(self, time: Times) -> tuple[Times, Mask]:
        """Return when the bars that open at *time* close, and which of them no grid has."""
        timeframe = self.key.timeframe
        if not len(time):
            return time, np.zeros(0, np.bool_)
        if self.zone is None:
            return time + timeframe.nominal, np.zeros(len(time), np.bool_)
        first, last = int(time.min()), int(time.max())
        if timeframe.step is not None:
            # Not by the grid: between the days of a sparse file lie millions of minutes.
            dates = np.arange(local_day(self.zone, first), local_day(self.zone, last) + 2)
            days = np.unique(day_starts(self.zone, dates))
            at = np.searchsorted(days, time, side="right") - 1
            off = (time - days[at]) % timeframe.step != 0
            return np.minimum(time + timeframe.step, days[at + 1]), off
        grid = Grid(timeframe, zone=self.zone, calendar=calendar(self.calendar_name))
        buckets = grid.opening_in(Window(first, last + 1))
        if not len(buckets):
            return time + timeframe.nominal, np.ones(len(time), np.bool_)
        at = np.maximum(np.searchsorted(buckets.opens, time, side="right") - 1, 0)
        return buckets.closes[at], np.asarray(buckets.opens[at] != time)


def place_labelled(label: Label, asked: Said, *, name: str) -> Placement:
    """Return where the bars of a labelled file belong, by other names where they are *asked* for.

    Raises `UnreadableFile` for the file called *name* where that cannot be.
    """
    if label.computed:
        raise UnreadableFile(
            name, "its bars were computed from finer ones, and are no bars of the provider"
        )
    timeframe = label.key.timeframe
    if asked.timeframe not in {None, timeframe}:
        raise UnreadableFile(name, f"it holds bars of {timeframe}, not {asked.timeframe}")
    said = label.key.listing
    listing = Listing(
        provider=asked.provider or said.provider,
        market=asked.market or said.market,
        symbol=asked.symbol or said.symbol,
        adjustment=said.adjustment,
        feed=said.feed,
        dataset=said.dataset if asked.dataset is None else asked.dataset,
    )
    zone = "UTC" if timeframe == MINUTE_FRAME else None
    hours = "24/7" if label.facts.around_the_clock else "XNYS"
    return Placement(SeriesKey(listing, timeframe), label.facts, zone, hours)


async def place(said: Said, registry: Registry, *, name: str) -> Placement:
    """Return where the bars of a file without a label belong.

    A provider that this server has is asked what it lists. Raises `UnreadableFile` for the file
    called *name* where something is not said, `UnknownName` and `AmbiguousSymbol`.
    """
    provider_name, symbol, timeframe = _whole(said, name)
    provider = _provider(registry, provider_name)
    dataset = said.dataset
    if dataset is None:
        dataset = "" if provider is None else provider.description.dataset
    instrument = None if provider is None else await _instrument(provider, symbol, said.market)
    if instrument is None:
        return place_by_name(replace(said, dataset=dataset), name=name)
    listing = Listing(provider_name, instrument.market, instrument.symbol, dataset=dataset)
    rules = calendar(instrument.calendar)
    return Placement(
        SeriesKey(listing, timeframe),
        SeriesFacts(instrument.base, instrument.quote, rules.around_the_clock),
        _zone(provider, instrument, timeframe) or rules.zone,
        instrument.calendar,
    )


def place_by_name(said: Said, *, name: str) -> Placement:
    """Return where bars belong by what is *said* alone. Raises `UnreadableFile`."""
    provider, symbol, timeframe = _whole(said, name)
    pair = pair_of(symbol) if said.market in {None, "crypto", "forex"} else None
    if said.market is None and pair is None:
        raise UnreadableFile(name, f"what {symbol!r} is does not show: state --market")
    market = said.market or "crypto"
    rules = calendar("XNYS" if market == "stocks" else "24/7")
    base, quote = pair or (None, None)
    written = f"{base}/{quote}" if pair and ":" not in symbol else symbol
    return Placement(
        SeriesKey(Listing(provider, market, written, dataset=said.dataset or ""), timeframe),
        SeriesFacts(base, quote, rules.around_the_clock),
        rules.zone,
        rules.name,
    )


def _whole(said: Said, name: str) -> tuple[str, str, Timeframe]:
    if said.provider is None or said.symbol is None or said.timeframe is None:
        options = {
            "--provider": said.provider,
            "--symbol": said.symbol,
            "--timeframe": said.timeframe,
        }
        lacking = " and ".join(option for option, value in options.items() if value is None)
        raise UnreadableFile(name, f"it says not whose bars it holds: state {lacking}")
    return said.provider, said.symbol, said.timeframe


def _provider(registry: Registry, name: str) -> Provider | None:
    try:
        return registry.get(name)
    except (UnknownName, ProviderDisabled):
        return None


async def _instrument(provider: Provider, symbol: str, market: str | None) -> Instrument | None:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            listed: Sequence[Instrument] = await provider.symbols()
    except (ProviderUnavailable, TimeoutError):
        return None
    if market is not None:
        listed = [one for one in listed if one.market == market]
    names = listed_as(symbol, {one.symbol for one in listed})
    found = [one for one in listed if one.symbol in names]
    if len(found) > 1:
        raise AmbiguousSymbol(symbol, (f"{one.market} {one.symbol}" for one in found))
    if not found and market is None:
        # With a market stated it may be one that is not listed any more.
        raise UnknownName("symbol", symbol, (one.symbol for one in listed), field="symbol")
    return found[0] if found else None


def _zone(provider: Provider | None, instrument: Instrument, timeframe: Timeframe) -> str | None:
    if not isinstance(provider, History):
        return None
    frames = provider.history(instrument).frames
    return next((f.timezone for f in frames if f.timeframe == timeframe), None)
