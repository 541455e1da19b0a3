"""What a server process holds at a moment, and what of it has grown."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass

import asyncpg
import orjson
import psutil
from redis.asyncio import Redis

from benchmarks.candles.load import HOST, get

_POOL = re.compile(r'^bargraph_pool_connections\{pool="(\w+)",state="(\w+)"\} (\S+)$', re.MULTILINE)
_SERVED = re.compile(r"^bargraph_live_(?:connections|operations)\{\S+\} (\S+)$", re.MULTILINE)
_FEEDS = re.compile(r'^bargraph_live\{what="feeds"\} (\S+)$', re.MULTILINE)
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bargraph'"
_LISTENING = 1
"""Connections to Redis besides the pool: the one that everything arrives on."""


@dataclass(frozen=True, slots=True)
class Store:
    """Connections to one store: as it counts them, and of the pool how many are lent and may be."""

    connected: int
    lent: int
    limit: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """*tasks* of asyncio by what they run; *descriptors* besides connections to the stores.

    *served* is how many connections and operations of live transport there are, *feeds* how many
    upstreams run, *resident* the memory in bytes.
    """

    tasks: Counter[str]
    descriptors: int
    stores: dict[str, Store]
    served: int
    feeds: int
    resident: int

    def __str__(self) -> str:
        stores = ", ".join(f"{store.connected} to {name}" for name, store in self.stores.items())
        return (
            f"{self.served} served, {self.feeds} feeds, {self.tasks.total()} tasks, connections: "
            f"{stores}, {self.descriptors} other descriptors, {self.resident / 1e6:.1f} MB"
        )

    def grown(self, before: Holdings) -> list[str]:
        """Return what there is more of than *before*, memory left out.

        A pool may have opened more of what it may open, as long as it has it back.
        """
        found = []
        if self.served > before.served:
            found.append(f"{self.served} connections and operations still served")
        if self.tasks.total() > before.tasks.total():
            more = self.tasks - before.tasks
            found += [f"{count} more tasks of {work}" for work, count in sorted(more.items())]
        if self.descriptors > before.descriptors:
            found.append(f"{self.descriptors - before.descriptors} more file descriptors")
        for name, store in self.stores.items():
            known = before.stores[name]
            if store.lent > known.lent:
                found.append(f"{store.lent - known.lent} more connections to {name} lent")
            if store.connected > max(known.connected, store.limit + _LISTENING):
                found.append(f"{store.connected} connections to {name}, over {store.limit}")
        return found


class Watcher:
    """Looks at one server: its process, its stores, and its port *tasks* (see `watched`)."""

    def __init__(
        self,
        port: int,
        process: psutil.Process,
        tasks: int,
        postgres: asyncpg.Connection,
        redis: Redis,
    ) -> None:
        self.port = port
        self._process = process
        self._tasks = tasks
        self._postgres = postgres
        self._redis = redis

    async def look(self) -> Holdings:
        """Return what the server holds now. Raises `LoadFailed`, `OSError` if it does not tell."""
        text = (await get(self.port, "/metrics")).decode()
        pools = {(pool, state): int(float(n)) for pool, state, n in _POOL.findall(text)}
        reader, writer = await asyncio.open_connection(HOST, self._tasks)
        tasks = Counter(orjson.loads(await reader.read()))
        writer.close()
        connected = {
            "postgres": await self._postgres.fetchval(_CONNECTED),
            "redis": len(await self._redis.client_list()) - 1,
        }
        return Holdings(
            tasks=tasks,
            descriptors=self._process.num_fds() - sum(connected.values()),
            stores={
                name: Store(count, pools[name, "used"], pools[name, "limit"])
                for name, count in connected.items()
            },
            served=sum(int(float(count)) for count in _SERVED.findall(text)),
            feeds=sum(int(float(count)) for count in _FEEDS.findall(text)),
            resident=self._process.memory_info().rss,
        )
