"""Serve until told to stop, and say in a few lines what is served."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from market.calendars import calendar
from market.clock import Clock
from market.errors import BargraphError
from web.app import build_app
from web.bootstrap import Wired, wire
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings

log = logging.getLogger(__name__)

_GRACE = 5
"""Seconds that requests under way get to finish."""
_PARENT_PAUSE = 1.0
_QUERY = (
    '{ candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1h"}, last: 3) '
    "{ candles { time open high low close } } }"
)


class AddressInUse(BargraphError):
    """The address to serve on cannot be had."""

    code = "ADDRESS_IN_USE"


async def serve(settings: Settings, *, clock: Clock, stop_with_parent: bool = False) -> None:
    """Serve until a signal, the loss of the embedded servers or, if asked, the parent's end.

    Raises `BargraphError` for what keeps it from starting or from going on.
    """
    metrics = Metrics()
    parent = os.getppid()
    with _listening(settings.host, settings.port) as listener:
        async with wire(settings, clock=clock, meter=ChainMeter(metrics)) as wired:
            config = uvicorn.Config(
                build_app(wired, metrics),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
                ws="websockets-sansio",
                ws_per_message_deflate=False,
            )
            server = uvicorn.Server(config)
            print(banner(wired, listener), flush=True)  # noqa: T201 - it is for people to read
            await _until_over(server, wired, listener, parent if stop_with_parent else None)


async def _until_over(
    server: uvicorn.Server, wired: Wired, listener: socket.socket, parent: int | None
) -> None:
    """Run *server* and whatever must end it, and raise what one of them failed with."""
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    watches = [asyncio.create_task(_warm_calendars(), name="calendars")]
    ends = []
    if wired.embedded is not None:
        ends.append(asyncio.create_task(wired.embedded.watch(), name="embedded servers"))
    if parent is not None:
        ends.append(asyncio.create_task(_parent_ends(parent), name="parent"))
    try:
        await asyncio.wait([serving, *ends], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for end in ends:
            if end.done():
                end.result()
    finally:
        for task in (*ends, *watches):
            task.cancel()
        await asyncio.gather(*ends, *watches, return_exceptions=True)


async def _warm_calendars() -> None:
    """Load the exchange calendar before somebody waits for it: that takes half a second."""
    await asyncio.to_thread(calendar, "XNYS")


async def _parent_ends(parent: int) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it on every system
        await asyncio.sleep(_PARENT_PAUSE)
    log.warning("The process that started this one has ended")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            message = f"cannot serve on HOST={host} PORT={port}: {error.strerror}"
            raise AddressInUse(message) from error
        yield listener


def banner(wired: Wired, listener: socket.socket) -> str:
    """Return a dozen lines at most: where to look, what is connected, what to try."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    settings = wired.settings
    stores = (("candles", settings.database_url), ("cache", settings.redis_url))
    kinds = ", ".join(f"{name} {'embedded' if url is None else 'external'}" for name, url in stores)
    if wired.embedded is not None:
        kinds += f" (in {settings.data_dir})"
    ready = [entry.name for entry in wired.registry.entries() if entry.provider]
    off = [entry for entry in wired.registry.entries() if not entry.provider]
    lines = [
        f"Bargraph serves {url}/graphql",
        f"GraphiQL   {url}/graphiql",
        f"Health     {url}/readyz   Metrics {url}/metrics",
        f"Stores     {kinds}",
        f"Providers  {', '.join(ready) or 'none'}",
        *(f"Disabled   {entry.name}: {entry.disabled}" for entry in off[:4]),
        f"Try        curl -G {url}/graphql --data-urlencode 'query={_QUERY}'",
    ]
    return "\n".join(lines)
