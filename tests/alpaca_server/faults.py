"""What the local Alpaca's REST does wrong when a test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

Respond = Callable[[], web.StreamResponse]


@dataclass(slots=True)
class Faults:
    """Faults of single answers are queued and used up; the others last until changed."""

    page_cap: int | None = None
    """Rows a page at the most, whatever was asked for."""
    nulls_at: int | None = None
    """When the bar opens that has no close."""
    high_below_low_at: int | None = None
    shift: int = 0
    """Milliseconds that bars are off their grid."""
    endless_pages: bool = False
    """Every page says that there is another."""
    _answers: deque[tuple[str, Respond | None]] = field(default_factory=deque)

    def refuse(
        self,
        status: int,
        *,
        times: int = 1,
        on: str = "",
        retry_after: int | None = None,
        resets_at: int | None = None,
        message: str = "no",
    ) -> None:
        """Answer the next *times* calls whose path contains *on* with an HTTP status."""
        headers = {"Retry-After": retry_after, "X-RateLimit-Reset": resets_at}
        sent = {name: str(value) for name, value in headers.items() if value is not None}
        for _ in range(times):
            self._answers.append(
                (
                    on,
                    lambda: web.json_response({"message": message}, status=status, headers=sent),
                )
            )

    def say(self, body: str, *, times: int = 1, on: str = "") -> None:
        """Answer the next *times* calls whose path contains *on* with *body* and status 200."""
        for _ in range(times):
            self._answers.append((on, lambda: web.Response(text=body)))

    def hang(self, *, times: int = 1, on: str = "") -> None:
        """Leave the next *times* calls whose path contains *on* without an answer."""
        self._answers.extend([(on, None)] * times)

    async def before(self, path: str) -> web.StreamResponse | None:
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
