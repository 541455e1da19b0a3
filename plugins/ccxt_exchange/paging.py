"""What an exchange's pages prove: which stretches of time are known, and which it never had.

An exchange is asked for *count* rows from *since* on. What comes back proves less than it seems:

- Fewer rows than asked for are not the end: the exchange may allow fewer than documented, or cut a
  page. Only an answer without any row from a time on ends what follows it.
- A first row later than asked for means either that nothing was traded before it, or that the
  exchange does not look at *since* or no longer has what is older. Looking further back decides: an
  older row shows that the exchange does reach back, so nothing was traded.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from market.window import Spans, Window

MAX_ASKS = 20
"""Calls that one window may take. What they leave open stays unknown."""

_NO_EXCHANGE_BEFORE = 1_262_304_000_000  # 2010-01-01

Row = tuple[float, float, float, float, float]
"""Open, high, low, close, volume."""
Rows = Mapping[int, Row | None]
"""Rows by opening time; None where the exchange named the time but not all of its values."""


class Ask(Protocol):
    """One call: at most *count* rows that open at *since* or later, and not after *until*."""

    def __call__(
        self, since: int, count: int, until: int | None = None
    ) -> Coroutine[Any, Any, Rows]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows inside the window, oldest first, and what is known of the rest of it."""

    rows: dict[int, Row]
    covered: Spans
    not_offered: Spans


async def read_window(
    ask: Ask, window: Window, *, step: int, limit: int, now: int, max_asks: int = MAX_ASKS
) -> Answer:
    """Return what the exchange has in *window*, in bars of *step* milliseconds.

    *limit* is the number of rows it is believed to give a call, *now* its time before the first:
    nothing later is returned or covered.
    """
    past = Window(window.since, min(window.until, now))
    reading = _Reading(ask, past, step=step, limit=limit, asks_left=max_asks)
    await reading.run()
    return reading.answer()


@dataclass(slots=True)
class _Reading:
    ask: Ask
    window: Window
    step: int
    limit: int
    asks_left: int
    oldest: int | None = None
    rows: dict[int, Row | None] = field(default_factory=dict)
    covered: list[Window] = field(default_factory=list)
    not_offered: list[Window] = field(default_factory=list)

    async def run(self) -> None:
        whole = self.window.aligned(self.step)
        # A bar belongs to the window that it opens in.
        start = whole.since if whole.since == self.window.since else whole.since + self.step
        end = whole.until
        cursor = max(start, -(-_NO_EXCHANGE_BEFORE // self.step) * self.step)
        self.not_offered.append(Window(start, min(cursor, end)))
        while cursor < end and self.asks_left:
            count = min(self.limit, (end - cursor) // self.step)
            page = await self._page(cursor, count)
            times = [time for time in page if time >= cursor]
            if not times:
                reach = min(cursor + count * self.step, end)
                self.covered.append(Window(cursor, reach))
                cursor = reach
                continue
            oldest, newest = min(times), max(times)
            await self._before_first(cursor, min(oldest, end))
            self.covered.append(Window(oldest, newest + self.step))
            cursor = newest + self.step

    async def _before_first(self, since: int, until: int) -> None:
        """Decide what is true of [since, until), after which the first row came."""
        while since < until and self.asks_left:
            # Half of a page for what is missing leaves half for what is older.
            fits = (until - since) // self.step < self.limit
            edge = until if fits else since + max(1, self.limit // 2) * self.step
            page = await self._page(edge - self.limit * self.step, self.limit, until=edge - 1)
            oldest = min(page, default=edge)
            if oldest >= edge:
                verdict = self.covered if await self._reaches_back(since) else self.not_offered
                verdict.append(Window(since, edge))
            else:
                self.covered.append(Window(max(since, oldest), edge))
                # An exchange that gives the newest of what was asked for has older rows yet.
                await self._before_first(since, oldest)
            since = edge

    async def _reaches_back(self, time: int) -> bool:
        """Return whether the exchange has anything older than *time*, or answers by stretches."""
        if self.oldest is None and self.asks_left:
            page = await self._page(_NO_EXCHANGE_BEFORE, self.limit)
            self.oldest = min(page, default=_NO_EXCHANGE_BEFORE)
        return self.oldest is not None and self.oldest < time

    async def _page(self, since: int, count: int, until: int | None = None) -> Rows:
        self.asks_left -= 1
        page = await self.ask(since, count, until)
        self.rows.update(
            (time, row)
            for time, row in page.items()
            if self.window.since <= time < self.window.until
        )
        return page

    def answer(self) -> Answer:
        unknown = (Window(t, t + self.step) for t, row in self.rows.items() if row is None)
        covered = Spans(self.covered).clip(self.window) - Spans(unknown)
        return Answer(
            rows={time: row for time, row in sorted(self.rows.items()) if row is not None},
            covered=covered,
            not_offered=Spans(self.not_offered).clip(self.window) - covered,
        )


async def find_first(
    asks: Mapping[int, Ask], since: int, *, limit: int, now: int, max_asks: int = 2 * MAX_ASKS
) -> int | None:
    """Return the time of the oldest row at or after *since*, None if there is none.

    *asks* are keyed by bar length in milliseconds; the shortest is what is looked for. Exchanges
    that answer only for the stretch asked about are searched by their longer bars first, each of
    which is then looked into. Raises `LookupError` if *max_asks* calls did not settle it.
    """
    steps = sorted(asks)
    since = max(since, _NO_EXCHANGE_BEFORE)
    page = await asks[steps[0]](since, limit)
    if times := [time for time in page if time >= since]:
        return min(times)
    search = _Search(asks, limit=limit, asks_left=max_asks - 1)
    return await search.first(steps[::-1], Window(since, now))


@dataclass(slots=True)
class _Search:
    asks: Mapping[int, Ask]
    limit: int
    asks_left: int

    async def first(self, steps: Sequence[int], stretch: Window) -> int | None:
        """Return the oldest row of the last of *steps*, which descend, inside *stretch*."""
        step, *finer = steps
        cursor = stretch.since // step * step
        while cursor < stretch.until:
            if not self.asks_left:
                raise LookupError("the oldest bar was not found within the allowed calls")
            self.asks_left -= 1
            page = await self.asks[step](cursor, self.limit)
            for time in sorted(page):
                if stretch.since < time + step and time < stretch.until:
                    inside = Window(max(stretch.since, time), min(stretch.until, time + step))
                    found = await self.first(finer, inside) if finer else time
                    # The bar that *stretch* begins in may owe all it holds to what came before.
                    if found is not None and found >= stretch.since:
                        return found
            cursor = max((*page, cursor + (self.limit - 1) * step)) + step
        return None
