"""Serve the real application, wired as it is in production, from a thread of its own."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from tests.api import forget
from web.app import build_app
from web.bootstrap import wire
from web.clock import SystemClock
from web.meter import ChainMeter
from web.metrics import Metrics
from web.settings import Settings


@contextmanager
def real_server(settings: Settings) -> Iterator[str]:
    """Serve on a loopback port for as long as the context lasts, and yield its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # listening: who comes early waits
        server = Server(settings, listener)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()


class Server(Thread):
    """Runs the application until it is told to stop; `stop` raises what it failed with."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        super().__init__(name="real server")
        self._settings = settings
        self._listener = listener
        self._stopped = False
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure

    def stop(self) -> None:
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True
        self.join()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        metrics = Metrics()
        async with wire(self._settings, clock=SystemClock(), meter=ChainMeter(metrics)) as wired:
            config = uvicorn.Config(build_app(wired, metrics), log_level="warning", lifespan="off")
            self._server = uvicorn.Server(config)
            self._server.should_exit = self._stopped
            await self._server.serve(sockets=[self._listener])
            await forget(wired)
