"""A ccxt exchange whose streams cannot fail, or begin anew, without being noticed.

ccxt dials again by itself when a `watch_*` call finds its connection gone, and what was sent
meanwhile is missing without a word. Here every stream has a `Line`, and a call that would have to
dial again for a line that has begun is refused. ccxt also stops reading a connection, and tells
nobody, after a message that its parsers choke on; here such a message ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from market.errors import ProviderUnavailable

LEAST_SNAPSHOT = 20
"""No exchange gives fewer levels of an order book, unless there are no more."""
HANG_UP_SECONDS = 2.0
"""How long the other side may take to say goodbye."""

_log = logging.getLogger(__name__)


class ConnectionLost(ProviderUnavailable):
    """The connection of a stream is gone, and with it whatever was sent meanwhile."""

    def __init__(self, provider: str) -> None:
        super().__init__(provider, "the connection was lost")


class Line:
    """One stream as the connections see it: which carry it, and by what names ccxt knows it."""

    def __init__(self, confirmed: Callable[[], None]) -> None:
        self.clients: dict[str, Any] = {}
        self.names: set[str] = set()
        self.confirmed = confirmed

    def runs_on(self, client: Any) -> bool:
        return client in self.clients.values()


LINE: ContextVar[Line | None] = ContextVar("line", default=None)
"""The line on whose behalf this task calls `watch_*`."""


class Wired:
    """Mixed into an exchange of ccxt.pro."""

    id: str
    clients: dict[str, Any] | None
    orderbooks: dict[str, Any]

    def __init__(self, config: dict[str, Any]) -> None:
        self.lines: set[Line] = set()
        self.finals: dict[tuple[str, str], int] = {}
        """By symbol and timeframe, the newest bar that the exchange itself called final."""
        self.edges: dict[str, tuple[float | None, float | None]] = {}
        """By symbol, the worst bid and ask of the snapshot that an order book was begun from.

        None for a side that the snapshot had all of.
        """
        self._closing: set[asyncio.Task[None]] = set()
        super().__init__(config)  # type: ignore[call-arg]  # mixed into an exchange

    def watch(
        self,
        url: str,
        message_hash: str,
        message: Any = None,
        subscribe_hash: Any = None,
        subscription: Any = None,
    ) -> Any:
        self._refuse_another_connection(url)
        future = super().watch(url, message_hash, message, subscribe_hash, subscription)  # type: ignore[misc]  # mixed into an exchange
        self._noted(url, (message_hash, subscribe_hash))
        return future

    def watch_multiple(
        self,
        url: str,
        message_hashes: Sequence[str],
        message: Any = None,
        subscribe_hashes: Sequence[str] | None = None,
        subscription: Any = None,
    ) -> Any:
        self._refuse_another_connection(url)
        future = super().watch_multiple(  # type: ignore[misc]  # mixed into an exchange
            url, message_hashes, message, subscribe_hashes, subscription
        )
        self._noted(url, (*message_hashes, *(subscribe_hashes or ())))
        return future

    def client(self, url: str) -> Any:
        known = url in (self.clients or ())
        client = super().client(url)  # type: ignore[misc]  # mixed into an exchange
        if not known:
            client.handle_message = partial(_read, client, client.handle_message)
        return client

    def on_connected(self, client: Any, message: Any = None) -> None:
        super().on_connected(client, message)  # type: ignore[misc]  # mixed into an exchange
        if client.error is not None:
            # It was hung up while it was dialled.
            task = asyncio.ensure_future(client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def fetch_rest_order_book_safe(
        self, symbol: str, limit: int | None = None, params: Any = None
    ) -> Any:
        book = await super().fetch_rest_order_book_safe(symbol, limit, params or {})  # type: ignore[misc]  # mixed into an exchange
        bids, asks = (
            side[-1][0] if len(side) >= (limit or LEAST_SNAPSHOT) else None
            for side in (book["bids"], book["asks"])
        )
        self.edges[symbol] = (bids, asks)
        return book

    def sort_by_2(self, rows: Any, first: Any, second: Any, descending: bool = False) -> Any:
        if (first, second) == ("timestamp", "id"):
            # Ids are text: of one millisecond's trades ccxt would put the tenth before the ninth.
            return sorted(rows, key=lambda row: row[first] or 0, reverse=descending)
        return super().sort_by_2(rows, first, second, descending)  # type: ignore[misc]  # mixed into an exchange

    def confirm(self, names: Iterable[str]) -> None:
        """Tell the lines that go by any of *names* that the exchange has accepted them."""
        told = set(names)
        for line in self.lines:
            if line.names & told:
                line.confirmed()

    def refuse(self, client: Any, names: Iterable[str], error: Exception) -> None:
        """Fail whoever waits for *names*, which the exchange has refused."""
        for name in names:
            client.subscriptions.pop(name, None)
            # Nobody would ever fetch an error that is left for later.
            if name in client.futures:
                client.reject(error, name)

    async def begin_anew(self, line: Line, symbol: str) -> None:
        """Make the next call for *line* subscribe again, and the book of *symbol* start over."""
        self.orderbooks.pop(symbol, None)
        for client in line.clients.values():
            for name in line.names:
                client.subscriptions.pop(name, None)
                client.rejections.pop(name, None)

    def verify(self, symbol: str, book: Any) -> bool:
        """Return whether *book* agrees with the checksum that came with it, where ccxt does not."""
        return True

    def drop(self, client: Any) -> None:
        """Fail everyone who listens to *client*, whose connection cannot be trusted any more."""
        from ccxt.base.errors import NetworkError  # noqa: PLC0415  # loaded by now, costly before

        client.on_error(NetworkError("the connection was lost"))

    async def hang_up(self, client: Any) -> None:
        """Close *client*, which nobody listens to any more."""
        url = client.url
        if self.clients and self.clients.get(url) is client:
            del self.clients[url]
        # With an error set, ccxt does not take the end for that of a newer connection.
        client.error = client.error or ConnectionLost(self.id)
        try:
            async with asyncio.timeout(HANG_UP_SECONDS):
                await client.close()
        except TimeoutError:
            _log.debug("%s did not say goodbye in time", self.id)

    def _refuse_another_connection(self, url: str) -> None:
        line = LINE.get()
        if line is None:
            return
        clients = self.clients or {}
        if any(clients.get(known) is not client for known, client in line.clients.items()):
            raise ConnectionLost(self.id)
        wait = self.ws_dial_delay(url)  # type: ignore[attr-defined]  # of the exchange
        if wait and url not in clients:
            raise ProviderUnavailable(
                self.id, "it could not be reached just now", retry_after=float(wait)
            )

    def _noted(self, url: str, names: Iterable[str | None]) -> None:
        line = LINE.get()
        if line is not None and self.clients:
            self.lines.add(line)
            line.clients[url] = self.clients[url]
            line.names.update(name for name in names if name is not None)


def _read(client: Any, handle: Callable[[Any], None], message: Any) -> None:
    """Let *client* handle *message*, and end its connection if it cannot."""
    if client.error is not None:
        # What still arrives comes after a gap that everyone has been told of.
        return
    try:
        handle(message)
    except Exception as error:
        from ccxt.base.errors import NetworkError  # noqa: PLC0415  # loaded by now, costly before

        _log.warning("a pushed message could not be read: %s", type(error).__name__)
        client.on_error(NetworkError("a message could not be read"))
