"""A socket in front of a server that a test can shut, cut, stall and open again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class CuttingProxy:
    """Passes on what clients at the Unix socket *path* and the server at *target* say.

    *connections* counts those that clients made since it was first opened.
    """

    def __init__(self, target: str, path: Path) -> None:
        self.path = path
        self.connections = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def open(self) -> None:
        """Let clients connect."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def shut(self) -> None:
        """Cut all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()
        self.path.unlink(missing_ok=True)

    async def cut(self) -> None:
        """Cut all connections; new ones are welcome."""
        for writer in self._serving.values():
            writer.transport.abort()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def stall(self) -> None:
        """Keep connections, old and new ones, and pass nothing on."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again, first what was held back."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._serving[task] = writer
        try:
            upstream, onward = await asyncio.open_unix_connection(self._target)
            try:
                await asyncio.gather(self._pump(reader, onward), self._pump(upstream, writer))
            finally:
                onward.close()
        except asyncio.CancelledError:
            pass  # it was cut; nobody awaits this task but `cut`
        finally:
            writer.close()
            del self._serving[task]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while some := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(some)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def cutting_proxy(url: str, path: Path) -> AsyncIterator[CuttingProxy]:
    """Yield an open proxy at *path* to the Redis server at *url*, a Unix socket."""
    proxy = CuttingProxy(url.removeprefix("unix://").partition("?")[0], path)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
