"""How far the import of each file has come. Imports that ended have no row."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson

from db.binary import clipped
from db.errors import store_failures
from market.window import DAY

_MOST = 1_000
_FORGOTTEN_AFTER = 30 * DAY
_READ = "SELECT state::text FROM import_progress WHERE job = $1"
_KEEP = """
    INSERT INTO import_progress (job, state, updated_at) VALUES ($1, $2::jsonb, from_epoch_ms($3))
    ON CONFLICT (job) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at
"""
_END = "DELETE FROM import_progress WHERE job = $1"
# What nobody went on with for a month, and the oldest of more than so many.
_PRUNE = """
    DELETE FROM import_progress WHERE updated_at < from_epoch_ms($1) OR job IN (
        SELECT job FROM import_progress ORDER BY updated_at DESC OFFSET $2
    )
"""


class ImportProgress:
    """The table of unfinished imports. All methods raise `StoreUnavailable`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def get(self, job: str) -> dict[str, Any] | None:
        """Return what was kept last for *job*, None if it never began or has ended."""
        with store_failures():
            state = await self._pool.fetchval(_READ, job)
        return None if state is None else dict(orjson.loads(state))

    async def keep(self, job: str, state: dict[str, Any], *, now: int) -> None:
        """Note where *job* stands at *now* (ms)."""
        with store_failures():
            await self._pool.execute(_KEEP, job, orjson.dumps(state).decode(), clipped(now))

    async def end(self, job: str, *, now: int) -> None:
        """Forget *job*, and what was forgotten by everybody else."""
        with store_failures():
            await self._pool.execute(_END, job)
            await self._pool.execute(_PRUNE, clipped(now - _FORGOTTEN_AFTER), _MOST)
