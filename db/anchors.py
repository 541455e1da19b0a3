"""When each replay was first started, shared by all processes and kept across restarts."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg

from db.errors import store_failures

_KEEP = """
    INSERT INTO replay_anchor (dataset, anchored_at) VALUES ($1, $2)
    ON CONFLICT (dataset) DO NOTHING
"""
_READ = "SELECT anchored_at FROM replay_anchor WHERE dataset = $1"


async def anchored_at(pool: asyncpg.Pool, dataset: str, now: int) -> int:
    """Return when *dataset* was first replayed: *now* if it never was. Both ms, UTC.

    Raises `StoreUnavailable`.
    """
    with store_failures():
        await pool.execute(_KEEP, dataset, datetime.fromtimestamp(now / 1000, UTC))
        anchored: datetime = await pool.fetchval(_READ, dataset)
    return round(anchored.timestamp() * 1000)
