"""Recorded bars as if they happened now: what lies after the clock does not exist yet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from market.bars import Bars
from market.clock import Clock, Pace
from market.errors import UnknownName
from market.instrument import Instrument, Listing
from market.quotes import Ticker
from market.timeframe import Timeframe
from market.window import Spans, Window
from plugins.base import Description, HistoryOffer, NativeFrame, Page, Stream
from plugins.paced import PacedStream
from plugins.replay.clock import Anchor, ReplayClock, dataset_id
from plugins.replay.recording import Recording
from plugins.replay.recordings import Recordings
from plugins.replay.scripts import NewestPrice, RecordedBars

PAGE_LIMIT = 20_000


class ReplayProvider:
    """The recordings of one folder, by one clock. Of a forming bar it tells the opening only.

    A recording knows how a bar ended and not how it got there. Whatever else were shown of it
    before its close would come from its future, so open, high, low and close are its opening
    price and its volume is 0 until then.
    """

    def __init__(self, recordings: Recordings, *, base: Clock, anchor: Anchor) -> None:
        self._clock = ReplayClock(base, anchor)
        self._pace = Pace(self._clock, speed=float(anchor.speed))
        self._recordings: dict[tuple[str, str], dict[Timeframe, Recording]] = {}
        for recording in recordings.served:
            key = (recording.instrument.market, recording.instrument.symbol)
            self._recordings.setdefault(key, {})[recording.timeframe] = recording
        self._instruments = tuple(
            next(iter(frames.values())).instrument for frames in self._recordings.values()
        )
        self._description = Description(
            name="replay",
            title="Replay",
            markets=tuple(sorted({instrument.market for instrument in self._instruments})),
            attribution=f"Recorded bars from {recordings.folder}",
            dataset=dataset_id(recordings.digest, anchor.replay_from, anchor.speed),
        )

    @property
    def description(self) -> Description:
        return self._description

    @property
    def clock(self) -> Clock:
        return self._clock

    async def symbols(self) -> Sequence[Instrument]:
        """Return every recorded symbol, by name."""
        return self._instruments

    async def aclose(self) -> None:
        """Nothing is open: the files were read when the folder was loaded."""

    def history(self, instrument: Instrument) -> HistoryOffer:
        """Return the recorded timeframes; days begin at the calendar's midnight."""
        frames = self._frames(instrument)
        return HistoryOffer(
            frames=tuple(NativeFrame(frame, timezone=None) for frame in frames),
            page_limit=PAGE_LIMIT,
            local=True,
            whole=True,
        )

    async def first_time(self, listing: Listing, timeframe: Timeframe, since: int) -> int | None:
        """Return the first opening at or after *since* that the recording vouches for.

        Of what is shorter than a day that is, at the start of a recorded day, its midnight: the
        minutes before the first row are known to be empty. None if it has not come yet, or for a
        timeframe that is not recorded.
        """
        recording = self._frames(listing).get(timeframe)
        first = None if recording is None else recording.first_time(since)
        return first if first is not None and first <= self._clock.now() else None

    async def bars(self, listing: Listing, timeframe: Timeframe, window: Window) -> Page:
        """Return the recorded bars of *window* that have opened by now."""
        recording = self._recording(listing, timeframe)
        now = self._clock.now()
        past = Window(window.since, min(window.until, now))
        covered = recording.covered_in(past)
        return Page(
            bars=_opened(recording, window, now),
            covered=covered,
            not_offered=Spans((past,)) - covered,
        )

    def streamed_frames(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """Return the recorded timeframes."""
        return tuple(self._frames(instrument))

    def stream_bars(self, listing: Listing, timeframe: Timeframe) -> Stream[Bars]:
        """Push each bar at its opening as `bars` shows it then, and whole at its close.

        Raises `UnknownName`.
        """
        recording = self._recording(listing, timeframe)
        return PacedStream(self._pace, Bars.empty(), partial(RecordedBars, recording))

    def stream_ticker(self, listing: Listing) -> Stream[Ticker | None]:
        """Push each opening and closing price as the last one. Raises `UnknownName`."""
        recordings = tuple(self._frames(listing).values())
        return PacedStream[Ticker | None](self._pace, None, partial(NewestPrice, recordings))

    def _recording(self, listing: Listing, timeframe: Timeframe) -> Recording:
        frames = self._frames(listing)
        if timeframe not in frames:
            raise UnknownName("timeframe", str(timeframe), map(str, frames), field="timeframe")
        return frames[timeframe]

    def _frames(self, asked: Instrument | Listing) -> dict[Timeframe, Recording]:
        frames = self._recordings.get((asked.market, asked.symbol))
        if frames is None:
            known = (instrument.symbol for instrument in self._instruments)
            raise UnknownName("symbol", asked.symbol, known, field="symbol")
        return frames


def _opened(recording: Recording, window: Window, now: int) -> Bars:
    first = int(np.searchsorted(recording.bars.time, window.since))
    opened = recording.opened_by(min(window.until - 1, now))
    bars = recording.bars.take(slice(first, max(first, opened)))
    if not len(bars) or recording.closes[opened - 1] <= now:
        return bars
    # Bars of one timeframe never overlap, so only the last can be running.
    return Bars.concat((bars.take(slice(0, -1)), recording.opening(opened - 1)))
