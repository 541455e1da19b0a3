"""What the local exchange does wrong when a test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web

from tests.exchange_server.market import Candles

Respond = Callable[[], web.Response]


@dataclass(slots=True)
class Faults:
    """Faults of single answers are queued and used up; those of candles last until changed."""

    page_cap: int | None = None
    """Rows a page at the most, whatever is documented."""
    truncate_pages: int = 0
    """How many coming pages lose the second half of their rows."""
    ignores_since: bool = False
    ignores_until: bool = False
    newest_first: bool = False
    """Where more rows match than fit, the newest are given instead of the oldest."""
    newest_only: int | None = None
    """How many newest candles of every timeframe exist."""
    answers_stretch_only: bool = False
    """Rows beyond *since* + limit steps are not given, as many exchanges do."""
    nulls: dict[int, int] = field(default_factory=dict)
    """By opening time, the column (1 open .. 5 volume) that is null."""
    repeats_rows: bool = False
    shuffles_rows: bool = False
    high_below_low_at: int | None = None
    _answers: deque[tuple[str, Respond | None]] = field(default_factory=deque)

    def refuse(
        self, status: int, *, times: int = 1, retry_after: float | str | None = None, on: str = ""
    ) -> None:
        """Answer the next *times* calls whose path contains *on* with an HTTP status."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        for _ in range(times):
            self._answers.append((on, lambda: web.Response(status=status, headers=headers)))

    def say(self, body: str, *, times: int = 1, on: str = "", kind: str = "text/html") -> None:
        """Answer the next *times* calls whose path contains *on* with *body* and status 200."""
        for _ in range(times):
            self._answers.append((on, lambda: web.Response(text=body, content_type=kind)))

    def hang(self, *, times: int = 1, on: str = "") -> None:
        """Leave the next *times* calls whose path contains *on* without an answer."""
        self._answers.extend([(on, None)] * times)

    async def before(self, path: str) -> web.Response | None:
        """Return the faulty answer to a call of *path*, None if it is to be answered well."""
        for queued in self._answers:
            on, respond = queued
            if on in path:
                self._answers.remove(queued)
                if respond is None:
                    await asyncio.Event().wait()
                    break
                return respond()
        return None

    def page(
        self, candles: Candles, *, since: int | None, until: int | None, limit: int, step: int
    ) -> list[list[float | None]]:
        """Return the rows that the exchange gives of *candles*, all it ever had."""
        if self.newest_only is not None:
            candles = candles.take(slice(max(0, len(candles.time) - self.newest_only), None))
        wants = np.ones(len(candles.time), dtype=bool)
        if since is not None and not self.ignores_since:
            wants = wants & (candles.time >= since)
            if self.answers_stretch_only:
                wants = wants & (candles.time < since + limit * step)
        if until is not None and not self.ignores_until:
            wants = wants & (candles.time <= until)
        return self._spoilt(candles.take(wants), since=since, limit=limit)

    def _spoilt(
        self, candles: Candles, *, since: int | None, limit: int
    ) -> list[list[float | None]]:
        limit = min(limit, self.page_cap or limit)
        newest = since is None or self.ignores_since or self.newest_first
        excess = max(0, len(candles.time) - limit)
        page = candles.take(slice(excess, None) if newest else slice(0, limit))
        if self.truncate_pages:
            self.truncate_pages -= 1
            page = page.take(slice(0, (len(page.time) + 1) // 2))
        rows: list[list[float | None]] = [list(row) for row in page.rows()]
        for row in rows:
            if row[0] in self.nulls:
                row[self.nulls[int(row[0])]] = None
            if row[0] == self.high_below_low_at:
                row[2], row[3] = row[3], row[2]
        if self.repeats_rows:
            rows = [row for row in rows for _ in range(2)]
        return rows[::-1] if self.shuffles_rows else rows
