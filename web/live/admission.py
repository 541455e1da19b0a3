"""Who may open another socket or stream: caps for each address and for the process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from starlette.requests import HTTPConnection

from web.graphql_request import RequestRefused
from web.live.origin import Origins


class ForeignOrigin(RequestRefused):
    """A page of another origin that nobody allowed."""

    code = "FORBIDDEN"
    status: ClassVar[int] = 403


class TooManyConnections(RequestRefused):
    """An address, or the process, has all the connections it may have."""

    code = "RATE_LIMITED"
    status: ClassVar[int] = 429

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "5"}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"retryAfter": 5}


class GoingAway(RequestRefused):
    """The process ends: another one, or the next, will answer."""

    code = "GOING_AWAY"
    status: ClassVar[int] = 503

    def __init__(self) -> None:
        super().__init__("The server is going away: try again.")

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}


class Admission:
    """The connections of one process: at most *most*, and *per_address* of one *address*."""

    def __init__(
        self,
        *,
        origins: Origins,
        most: int,
        per_address: int,
        address: Callable[[HTTPConnection], str],
    ) -> None:
        self._origins = origins
        self._most = most
        self._per_address = per_address
        self._address = address
        self._by_address: Counter[str] = Counter()
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed = False

    def check_open(self) -> None:
        """Raise `GoingAway` where nobody is let in any more."""
        if self.closed:
            raise GoingAway

    def check(self, asked: HTTPConnection) -> None:
        """Raise the `RequestRefused` that keeps *asked* out, if any does."""
        self.check_open()
        if not self._origins.allows(asked.headers.get("origin"), asked.headers.get("host")):
            raise ForeignOrigin("Pages of this origin may not connect.")
        if self._open >= self._most:
            raise TooManyConnections(f"The server has {self._most} live connections already.")
        if self._by_address[self._address(asked)] >= self._per_address:
            raise TooManyConnections(
                f"An address may have {self._per_address} live connections at a time."
            )

    @contextmanager
    def enter(self, asked: HTTPConnection) -> Iterator[None]:
        """Count *asked*, which `check` let pass, as long as it lasts.

        Nothing may be waited for between the two, or of many at once more get in than may.
        """
        address = self._address(asked)
        self._open += 1
        self._by_address[address] += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._open -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            if not self._open:
                self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody is left."""
        await self._empty.wait()
