"""Decide which pushed bars are final and which still grow. No input or output."""

from __future__ import annotations

from market.bars import CLOSED, Bars
from market.window import Window

_MOST_HELD = 500
"""Bars that may be open at once; a stream that pushes more of them says what nobody asked for."""


class GrowingBars:
    """Bars of one base as they were last pushed, until they are final.

    Bars that open inside *doubted* were open when the stream was joined: what it says of them may
    be half of them, so they are never final by its word. Of older ones only what is marked CLOSED
    is taken for whole: a correction.
    """

    def __init__(self) -> None:
        self._open: dict[int, Bars] = {}
        self._final: dict[int, Bars] = {}
        self._past = Bars.empty()
        self.doubted = Window(0, 0)
        self.final_before = 0
        """Every bar that opens earlier is final, or doubted."""

    def push(self, bars: Bars) -> None:
        """Take in what the stream pushed, oldest first; the latest word on a bar counts."""
        for n, time in enumerate(bars.time.tolist()):
            bar = bars.take(slice(n, n + 1))
            if bar.flags[0] & CLOSED:
                self._open.pop(time, None)
                self._final[time] = bar
                # It runs no more, whatever history said a moment ago.
                self._past = self._past.take(self._past.time > time)
                continue
            if time < self.final_before:
                # Already told as final: a trade that came late.
                self._final[time] = bar
                continue
            self._open[time] = bar
        if len(bars):
            self.ended(int(bars.time[-1]))
        while len(self._open) > _MOST_HELD:
            del self._open[min(self._open)]

    def ended(self, before: int) -> None:
        """Take every bar that opens before this time as final: its time is over."""
        for time in sorted(time for time in self._open if time < before):
            self._final[time] = self._open.pop(time)
        self.final_before = max(self.final_before, before)

    def take_final(self) -> tuple[Bars, int | None]:
        """Return the bars that became final, once, and when the newest opened that is in doubt.

        Those in doubt are left out: only history knows how they ended.
        """
        final, self._final = self._final, {}
        sure = [final[time] for time in sorted(final) if self._is_sure(final[time])]
        doubtful = [time for time in final if not self._is_sure(final[time])]
        return Bars.concat(sure), max(doubtful, default=None)

    def recall(self, bars: Bars, through: int) -> None:
        """Take in what history says: of all that opens before *through*, and of the running bar.

        Where it has a bar, what the stream said of that one is forgotten. Where it has none, a bar
        that the stream saw whole is final: history may lag behind.
        """
        told = set(bars.time.tolist())
        for time in [time for time in self._open if time < through]:
            bar = self._open.pop(time)
            if time not in told and self._is_sure(bar):
                self._final[time] = bar
        self.final_before = max(self.final_before, through)
        self._past = bars.take(bars.time >= through).last(1)

    def running(self) -> Bars:
        """Return the newest bar that is not final, one or none.

        Of one in doubt, history and the stream each know a part: whichever knows more trades tells
        of them, and the extremes are those of both.
        """
        past = self._past.take(self._past.time >= self.final_before)
        if not self._open:
            return past
        time = max(self._open)
        pushed = self._open[time]
        if time < self.final_before or (len(past) and past.time[0] > time):
            return past
        if time >= self.doubted.until or not len(past) or past.time[0] != time:
            return pushed
        fuller = pushed if pushed.volume[0] >= past.volume[0] else past
        return fuller.with_columns(
            open=past.open,
            high=past.high.clip(min=pushed.high),
            low=past.low.clip(max=pushed.low),
            close=pushed.close,
            updated=pushed.updated,
        )

    def _is_sure(self, bar: Bars) -> bool:
        time = int(bar.time[0])
        corrected = time < self.doubted.since and bool(bar.flags[0] & CLOSED)
        return time >= self.doubted.until or corrected
