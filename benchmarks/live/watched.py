"""Serve as `python -m web serve` does, and tell on another port which tasks run.

python -m benchmarks.live.watched PORT
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import Counter

import orjson
import uvloop

from benchmarks.candles.load import HOST
from web.clock import SystemClock
from web.serve import serve
from web.settings import load_settings


async def main(port: int) -> None:
    async with await asyncio.start_server(_tell, HOST, port):
        await serve(load_settings(), clock=SystemClock())


async def _tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    gc.collect()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    writer.write(orjson.dumps(Counter(_work(task) for task in others)))
    await writer.drain()
    writer.close()


def _work(task: asyncio.Task[object]) -> str:
    """Return what *task* runs: its name may have a number in it."""
    return getattr(task.get_coro(), "__qualname__", "unknown")


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    uvloop.run(main(int(sys.argv[1])))
