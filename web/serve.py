"""Serve until told to stop, and say in a few lines what is served."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
import uvicorn

from market.calendars import calendar
from market.clock import Clock
from market.errors import BargraphError, StoreUnavailable
from web.app import build_app
from web.bootstrap import Wired, wire
from web.http_protocol import BoundedHttpProtocol
from web.live.endpoint import Live
from web.live.frames import FramesProtocol
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings, WrongSettings

log = logging.getLogger(__name__)

_FAREWELL = 1.0
"""Seconds that live connections get to take their leave, before anything else ends."""
_GRACE = 3
"""Seconds that requests under way get to finish."""
_LONGEST_END = 5.0
"""Seconds until the process is ended by force; the embedded servers stop after it, all below 10."""
_PARENT_PAUSE = 1.0
_OTHER_FILES = 1_000
"""Files that a process may have open beside its live connections."""
_SHOWN_DISABLED = 4
_QUERY = (
    '{ candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1h"}, last: 3) '
    "{ candles { time open high low close } } }"
)


class AddressInUse(BargraphError):
    """The address to serve on cannot be had."""

    code = "ADDRESS_IN_USE"


class _Server(uvicorn.Server):
    """A server that leaves signals to us, and sends off those on live connections first.

    uvicorn raises signals once more when it has stopped, which would end the process before it has
    closed what it opened.
    """

    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._live.drain(_FAREWELL)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: Settings,
    *,
    clock: Clock,
    parent: int | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve until a signal, the loss of the embedded servers, or the end of the process *parent*.

    *listener* is a socket that listens already, perhaps for several processes.
    The process has 5 seconds to end, from when it is told to. Raises `BargraphError` for what
    keeps it from starting or from going on.
    """
    serving: asyncio.Future[uvicorn.Server] = asyncio.get_running_loop().create_future()
    _allow_files(settings.max_connections + _OTHER_FILES)
    with listener or listening(settings.host, settings.port) as heard:
        told = asyncio.create_task(_told_to_stop(parent), name="stop")
        running = asyncio.create_task(_run(settings, clock, heard, serving), name="server")
        try:
            await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
            faulthandler.dump_traceback_later(_LONGEST_END, exit=True)
            if serving.done():
                serving.result().should_exit = True
            else:
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        except (asyncpg.exceptions.ClientConfigurationError, StoreUnavailable) as error:
            if settings.database_url is None:
                raise
            # Whoever runs the server may know what the server at that address said.
            said = str(error.__cause__ or "") or error
            raise WrongSettings(f"DATABASE_URL=***: {said}") from error
        finally:
            told.cancel()


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files to *wanted*, as far as we may: many systems begin at 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # macOS says infinity and means 10240
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _told_to_stop(parent: int | None) -> None:
    """Return once a signal says to stop, or the process *parent* has ended."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
        loop.add_signal_handler(signal.SIGHUP, told.set)
    while not told.is_set() and parent in (None, os.getppid()):
        with suppress(TimeoutError):  # no event on every system tells of a parent's end
            await asyncio.wait_for(told.wait(), _PARENT_PAUSE)


async def _run(
    settings: Settings,
    clock: Clock,
    listener: socket.socket,
    serving: asyncio.Future[uvicorn.Server],
) -> None:
    """Wire everything and serve on *listener*; *serving* is given the server once it answers."""
    metrics = Metrics()
    async with wire(settings, clock=clock, meter=ChainMeter(metrics)) as wired:
        app = build_app(wired, metrics)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # whom to believe is a setting of ours
            timeout_graceful_shutdown=_GRACE,
            http=BoundedHttpProtocol,
            ws=FramesProtocol,
            ws_max_size=settings.max_body,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # ours are messages of the protocol, on any server
        )
        server = _Server(config, app.state.live)
        serving.set_result(server)
        print(banner(wired, listener), flush=True)  # noqa: T201 - it is for people to read
        await _until_over(server, wired, listener)


async def _until_over(server: uvicorn.Server, wired: Wired, listener: socket.socket) -> None:
    """Run *server* until it ends or the embedded servers do, and raise what failed."""
    answering = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    warming = asyncio.create_task(_warm_calendars(), name="calendars")
    ends = [answering, asyncio.create_task(wired.background.watch(), name="background")]
    if wired.embedded is not None:
        ends.append(asyncio.create_task(wired.embedded.watch(), name="embedded servers"))
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await answering
        for end in ends:
            if end.done():
                end.result()
    finally:
        for task in (*ends, warming):
            task.cancel()
        await asyncio.gather(*ends, warming, return_exceptions=True)


async def _warm_calendars() -> None:
    """Load the exchange calendar before somebody waits for it: that takes half a second."""
    try:
        await asyncio.to_thread(calendar, "XNYS")
    except Exception:
        log.exception("The exchange calendar did not load")


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens. Raises `AddressInUse`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # until somebody does, others can bind it too
        except OSError as error:
            message = f"cannot serve on HOST={host} PORT={port}: {error.strerror}"
            raise AddressInUse(message) from error
        yield listener


def banner(wired: Wired, listener: socket.socket) -> str:
    """Return a dozen lines at most: where to look, what is connected, what to try."""
    host, port = listener.getsockname()[:2]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is asked about
    url = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    settings = wired.settings
    stores = (("candles", settings.database_url), ("cache", settings.redis_url))
    kinds = ", ".join(f"{name} {'embedded' if url is None else 'external'}" for name, url in stores)
    if wired.embedded is not None:
        kinds += f" (in {settings.data_dir})"
    entries = wired.registry.entries()
    off = [entry for entry in entries if not entry.provider]
    lines = [
        f"Bargraph serves {url}/graphql",
        *([f"GraphiQL   {url}/graphiql"] if settings.shows_graphiql else []),
        f"Health     {url}/readyz   Metrics {url}/metrics",
        f"Stores     {kinds}",
        f"Ready      {', '.join(entry.name for entry in entries if entry.provider) or 'none'}",
        *(f"Disabled   {entry.name}: {_line(entry.disabled)}" for entry in off[:_SHOWN_DISABLED]),
        *([f"Disabled   and {len(off) - _SHOWN_DISABLED} more"] if off[_SHOWN_DISABLED:] else []),
        f"Try        curl -G '{url}/graphql' --data-urlencode 'query={_QUERY}'",
    ]
    return "\n".join(lines)


def _line(reason: str | None) -> str:
    return (reason or "").partition("\n")[0]
