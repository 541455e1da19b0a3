"""Keep answers in Redis and in the process, in chunks of fixed time, until history is revised.

A chunk holds settled bars for good and the newest ones for a moment. It names the generation of
each base it was built from; a base whose generation moved makes it void, in every process, because
the generations in force are read from Redis with the chunks, in one round trip.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from datasources.cache_writer import MOST_SENT, Batch, CacheWriter
from datasources.found import Base, Found, Head, Want
from datasources.meter import Meter
from datasources.packing import Packer, spans_in, spans_out, unpack
from market.bars import Bars
from market.instrument import Listing, Series
from market.lru import LRU
from market.window import Spans, Times, Window

log = logging.getLogger(__name__)

_MOST_HELD = 1_000_000
_MOST_ANNOUNCED = 50_000
_MOST_NAMED = 10_000
# Bars per chunk, so that a chart of 500 reads one or two.
_CHUNK_BARS = 512
_MOMENT = 0.002
"""Seconds for which packing lets answers go first."""
_MOST_UNPACKED = 1_000
_MOST_CHUNKS = 64
"""Chunks one want looks up at the most, the newest; the store is the better source for more."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is kept of one stretch of a series; by base its generation and position when read."""

    bars: Bars
    settled: Spans
    fresh: Spans
    as_of: int
    generations: Mapping[str, int]
    positions: Mapping[str, int]
    size: int

    @property
    def lasting(self) -> Bars:
        """The bars that are settled."""
        if self.settled == self.fresh:
            return self.bars
        return self.bars.inside(self.settled)


class Cache:
    """The first link of the chain. While Redis is away it finds nothing and says so once."""

    name = "cache"

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        meter: Meter,
        forming_ttl: int,
        ttl: int = 6 * 3600,
        storeless_ttl: int = 60,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        """*forming_ttl* in ms of the provider's time, the other times in seconds."""
        self._redis = redis
        self._prefix = prefix
        self._meter = meter
        self._forming_ttl = forming_ttl
        self._ttl = ttl
        self._storeless_ttl = storeless_ttl
        self._max_bytes = max_bytes
        self._held: LRU[str, Chunk] = LRU(max_count=_MOST_HELD, max_weight=max_bytes)
        self._announced: LRU[Base, Head] = LRU(max_count=_MOST_ANNOUNCED)
        self._unsaid: Mapping[Base, Head] = {}
        self._unpacked: list[tuple[Want, Found]] = []
        self._packing: asyncio.TimerHandle | None = None
        self._writer = CacheWriter(redis, ttl=ttl, told=self._note_sent)
        self._away = False
        self._refusing = False

    async def sent(self) -> None:
        """Return once what was kept so far has been sent to Redis, or given up."""
        self._pack()
        await self._writer.all_sent()

    async def fetch(self, wants: Sequence[Want]) -> list[Found]:
        """Return what is kept of each want, whole chunks of it. One round trip."""
        self._pack()
        chunks = [self._chunk_keys(want) for want in wants]
        heads = list(dict.fromkeys(base for want in wants for base in want.bases))
        absent = [k for keys in chunks for k in keys if k not in self._held]
        asked = [*map(self._head_key, heads), *absent]
        await self._writer.sent(asked)
        try:
            values = await self._redis.mget(asked)
        except (RedisError, OSError) as error:
            self._note_away(error)
            return [Found.nothing() for _ in wants]
        self._note_back()
        if self._unsaid:
            # What others hold, and what just came, may be from before a revision.
            await self.moved({})
            return [Found.nothing() for _ in wants]
        in_force = {
            base: head
            for base, value in zip(heads, values[: len(heads)], strict=True)
            if (head := _head_in(value)) is not None
        }
        for base in heads:
            # Whoever flushed Redis took the heads with it; then they are announced again.
            if base in in_force:
                self._announced.put(base, in_force[base])
            else:
                self._announced.pop(base)
        arrived = {
            key: chunk
            for key, value in zip(absent, values[len(heads) :], strict=True)
            if (chunk := _chunk_in(value)) is not None
        }
        found = []
        for want, keys in zip(wants, chunks, strict=True):
            mine = {base: in_force[base] for base in want.bases if base in in_force}
            found.append(self._found(want, keys, mine, arrived))
        return found

    def keep(self, wants: Sequence[Want], found: Sequence[Found]) -> None:
        """Keep what was *found* for each want, in chunks, and the heads it was found at.

        That is done a moment later, so that the answer goes first: in this process before anything
        is looked up again, in Redis when it has taken it in.
        """
        self._unpacked += zip(wants, found, strict=True)
        if len(self._unpacked) > _MOST_UNPACKED:
            self._pack()
        elif self._packing is None:
            self._packing = asyncio.get_running_loop().call_later(_MOMENT, self._pack)

    async def moved(self, heads: Mapping[Base, Head]) -> None:
        """Announce where bases stand after a write, which voids what older generations built.

        While Redis is away that waits until it is back.
        """
        unsaid = {**self._unsaid, **heads}
        batch = Batch()
        for base, head in unsaid.items():
            self._advance(batch, base, head)
        try:
            if batch:
                await self._writer.now(batch)
        except (RedisError, OSError) as error:
            newest = list({**self._unsaid, **heads}.items())[-_MOST_ANNOUNCED:]
            self._unsaid = dict(newest)
            self._note_away(error)
        else:
            self._unsaid = dict(self._unsaid.items() - unsaid.items())

    @property
    def held_bytes(self) -> int:
        """What the chunks held in this process take."""
        return self._held.weight

    def _found(
        self,
        want: Want,
        keys: Iterable[str],
        heads: Mapping[Base, Head],
        arrived: Mapping[str, Chunk],
    ) -> Found:
        in_force = {base_name(base): head.generation for base, head in heads.items()}
        bars: list[Bars] = []
        settled: list[Window] = []
        fresh: list[Window] = []
        passing: list[int] = []
        for key in keys:
            held = self._held.get(key)
            self._meter.lookup("process", hit=held is not None)
            if held is None:
                self._meter.lookup("redis", hit=key in arrived)
            chunk = held or arrived.get(key)
            if chunk is not None and _is_void(chunk, in_force):
                self._held.pop(key)
                chunk = None
            if chunk is None:
                continue
            if held is None:
                self._hold(key, chunk)
            settled += chunk.settled
            if chunk.fresh != chunk.settled and 0 <= want.now - chunk.as_of < self._forming_ttl:
                bars.append(chunk.bars)
                fresh += chunk.fresh
                passing.append(chunk.as_of)
                # Of what is not settled a change may have been logged since it was read.
                heads = {base: _no_later(base, head, chunk) for base, head in heads.items()}
            else:
                bars.append(chunk.lasting)
                fresh += chunk.settled
        as_of = min(passing, default=0)
        return Found(Bars.concat(bars), Spans(settled), Spans(fresh), as_of, heads=heads)

    def _pack(self) -> None:
        if self._packing is not None:
            self._packing.cancel()
            self._packing = None
        unpacked, self._unpacked = self._unpacked, []
        batch = Batch()
        for want, truth in unpacked:
            self._pack_one(batch, want, truth)
            if batch.size >= MOST_SENT:
                self._writer.offer(batch)
                batch = Batch()
        if batch:
            self._writer.offer(batch)

    def _pack_one(self, batch: Batch, want: Want, found: Found) -> None:
        generations, positions = {}, {}
        for base, head in found.heads.items():
            self._advance(batch, base, head)
            name = base_name(base)
            generations[name], positions[name] = head.generation, head.position
        bars = found.bars.inside(found.fresh)
        unrevised = _unrevised(bars, found.settled)
        packer = Packer(bars)
        for key, window in self._chunk_keys(want).items():
            fresh = found.fresh.clip(window)
            if not fresh:
                continue
            settled = fresh if found.settled == found.fresh else found.settled.clip(window)
            # What the store could not take in has no revision yet, whatever is known of its base.
            stored = bool(found.heads) and not _any_in(unrevised, window)
            built_from = generations if stored else {}
            held = self._held.get(key)
            if (
                held
                and (held.settled, held.fresh, held.generations) == (settled, fresh, built_from)
                and (fresh == settled or held.as_of >= found.as_of)
            ):
                continue
            facts = {
                "settled": spans_out(settled),
                "fresh": spans_out(fresh),
                "as_of": found.as_of,
                "generations": built_from,
                "positions": positions if stored else {},
            }
            value = packer.pack(*bars.positions(window), facts)
            batch.chunks[key] = (value, self._ttl if stored else self._storeless_ttl)
            batch.size += len(value)
            # Not the bars at hand: a slice would keep all they were cut from.
            if len(value) <= self._max_bytes and (chunk := _chunk_in(value)) is not None:
                self._hold(key, chunk)

    def _advance(self, batch: Batch, base: Base, head: Head) -> None:
        if self._announced.get(base) == Head(head.id, head.position, head.generation):
            return
        value = f"{head.id}:{head.position}:{head.generation}"
        batch.heads[self._head_key(base)] = (value, head.position)

    def _hold(self, key: str, chunk: Chunk) -> None:
        """Keep *chunk* in the process, if a generation can ever make it void."""
        if chunk.generations:
            self._held.put(key, chunk, weight=chunk.size)

    def _chunk_keys(self, want: Want) -> dict[str, Window]:
        """Return the keys of the chunks that *want* touches, oldest first, by their windows."""
        length = want.series.timeframe.nominal * _CHUNK_BARS
        numbers: set[int] = set()
        for span in want.spans:
            first, last = span.since // length, (span.until - 1) // length
            numbers.update(range(max(first, last - _MOST_CHUNKS + 1), last + 1))
        start = f"{self._prefix}chunk:{_series_name(want.series)}:"
        return {
            f"{start}{number}": Window(number * length, (number + 1) * length)
            for number in sorted(numbers)[-_MOST_CHUNKS:]
        }

    def _head_key(self, base: Base) -> str:
        return f"{self._prefix}head:{base_name(base)}"

    def _note_sent(self, error: Exception | None) -> None:
        if error is None:
            self._refusing = False
        else:
            self._note_away(error)

    def _note_away(self, error: Exception) -> None:
        if isinstance(error, ResponseError):
            # It is there, but full or a replica: what it holds can still be read.
            if not self._refusing:
                log.warning("Redis takes nothing in: %s", type(error).__name__)
            self._refusing = True
            return
        if not self._away:
            log.warning("Redis is away, going on without the cache: %s", type(error).__name__)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.warning("Redis is back")
        self._away = False


def _unrevised(bars: Bars, settled: Spans) -> Times:
    """Return the times of the settled bars that have no revision."""
    times: Times = bars.time[bars.revision == 0]
    return times[settled.contains(times)]


def _any_in(times: Times, window: Window) -> bool:
    return bool(len(times)) and bool(((times >= window.since) & (times < window.until)).any())


def _is_void(chunk: Chunk, in_force: Mapping[str, int]) -> bool:
    """Whether *chunk* is of another generation, or of none although the store has one by now.

    What the store had not taken in when it was kept may have been corrected there since.
    """
    if not chunk.generations:
        return bool(in_force)
    return any(in_force.get(name) != number for name, number in chunk.generations.items())


def _no_later(base: Base, head: Head, chunk: Chunk) -> Head:
    """Return *head* at the position at which the bars of *chunk* were read, if that is earlier."""
    position = chunk.positions.get(base_name(base), head.position)
    return replace(head, position=min(head.position, position))


def _chunk_in(value: bytes | str | None) -> Chunk | None:
    if not isinstance(value, bytes) or (unpacked := unpack(value)) is None:
        return None
    bars, facts = unpacked
    return Chunk(
        bars=bars,
        settled=spans_in(facts["settled"]),
        fresh=spans_in(facts["fresh"]),
        as_of=facts["as_of"],
        generations=facts["generations"],
        positions=facts["positions"],
        size=len(value),
    )


def _head_in(value: bytes | str | None) -> Head | None:
    if not isinstance(value, bytes):
        return None
    series_id, position, generation = map(int, value.split(b":"))
    return Head(series_id, position, generation)


def _listing_parts(listing: Listing) -> tuple[str, ...]:
    return (
        listing.provider,
        listing.market,
        listing.symbol,
        listing.adjustment or "",
        listing.feed or "",
        listing.dataset,
    )


@lru_cache(maxsize=_MOST_NAMED)
def base_name(base: Base) -> str:
    return _digest((*_listing_parts(base.listing), str(base.timeframe)))


@lru_cache(maxsize=_MOST_NAMED)
def _series_name(series: Series) -> str:
    cut = (str(series.timeframe), series.timezone, series.session.value, series.calendar)
    return _digest((*_listing_parts(series.listing), *cut))


def _digest(parts: tuple[str, ...]) -> str:
    """Return a short name that no other *parts* have: symbols may hold any character."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
