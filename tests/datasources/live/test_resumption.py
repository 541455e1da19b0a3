"""Whoever resumes from any cursor it ever got ends with exactly the store's closed bars."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from datasources.cursors import CandleCursor
from datasources.live.events import Status
from datasources.live.tail_events import TailEvent
from db.candles import CandleStore
from market.bars import CLOSED, Bars
from market.clock import FixedClock
from market.instrument import Session
from market.window import MINUTE
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import Process, Viewer, Writer, opened_process, until
from tests.datasources.live.streaming import LISTED, PushesBars
from tests.fakes import row

pytestmark = on_embedded

PAST = RUNNING - 60 * MINUTE
"""Since when bars are compared; snapshots of every series reach back that far."""


@dataclass(frozen=True)
class Watched:
    """A series in a client's words."""

    timeframe: str
    zone: str | None = None
    session: Session = Session.ALL


AROUND_THE_CLOCK = (
    Watched("1m"),
    Watched("5m"),
    Watched("7m", "America/New_York"),
    Watched("1h", "Asia/Kolkata"),
    Watched("1d", "America/New_York"),
)
IN_SESSIONS = (
    Watched("1m", session=Session.REGULAR),
    Watched("5m"),
    Watched("7m", session=Session.REGULAR),
    Watched("1h", session=Session.EXTENDED),
    Watched("1d", session=Session.REGULAR),
)


@dataclass
class Client:
    """One that drops and comes back, with what it had and from where it had come then."""

    process: Process
    watched: Watched
    viewer: Viewer
    past: list[tuple[Bars, CandleCursor]] = field(default_factory=list)

    @classmethod
    async def begin(cls, process: Process, watched: Watched) -> Client:
        series = process.series(watched.timeframe, zone=watched.zone, session=watched.session)
        client = cls(process, watched, Viewer(process, series, None))
        await client._follow()
        return client

    async def _follow(self) -> None:
        viewer = self.viewer
        viewer.seen = self._note
        viewer.start()
        await viewer.until(lambda: viewer.events, "a beginning")

    def _note(self, event: TailEvent) -> None:
        if not isinstance(event, Status):
            self.past.append((self.viewer.bars, event.cursor))

    async def resume(self, process: Process, back: int) -> None:
        """Come back to *process* as it was so many events ago."""
        await self.viewer.stop()
        bars, cursor = self.past[-1 - back % len(self.past)]
        self.viewer = Viewer(process, self.viewer.series, cursor)
        self.viewer.bars = bars
        await self._follow()


steps = st.one_of(
    st.tuples(st.just("grow"), st.integers(1, 50)),
    st.tuples(st.just("close"), st.integers(1, 8)),
    st.tuples(st.just("close"), st.integers(1, 2)),
    st.tuples(st.just("skip"), st.integers(1, 3)),
    st.tuples(st.just("correct"), st.integers(1, 20)),
    st.tuples(st.just("push again"), st.integers(1, 5)),
    st.tuples(st.just("lose"), st.integers(0, 6)),
    st.tuples(st.just("resume"), st.integers(0, 100)),
    st.tuples(st.just("resume"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.just(0)),
)


@pytest.mark.parametrize(
    ("calendar_name", "watched"),
    [("24/7", AROUND_THE_CLOCK), ("XNYS", IN_SESSIONS)],
    ids=["around the clock", "in sessions"],
)
@settings(
    max_examples=8,
    # What fails waits in vain: making it smaller would take minutes.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=st.lists(steps, min_size=4, max_size=16))
async def test_any_cursor_leads_to_the_bars_of_the_store(
    calendar_name: str,
    watched: Sequence[Watched],
    store: CandleStore,
    pool: asyncpg.Pool,
    redis: Redis,
    redis_prefix: str,
    script: list[tuple[str, int]],
) -> None:
    provider = PushesBars(FixedClock(NOW), calendar_name=calendar_name)
    version, prefix = 0, f"{redis_prefix}{uuid4().hex[:8]}:"
    async with AsyncExitStack() as stack:
        feeding = await stack.enter_async_context(opened_process(provider, store, redis, prefix))
        serving = await stack.enter_async_context(
            opened_process(provider, CandleStore(pool), redis, prefix, feeds=False)
        )
        backfill = Writer(serving, CandleStore(pool))
        # The listing is stored already, as nearly all are.
        await backfill.correct(LISTED, row(LISTED))
        clients = [await Client.begin(serving, series) for series in watched]
        for client in clients:
            stack.push_async_callback(client.viewer.stop)
        for step, count in script:
            minute = provider.clock.now() // MINUTE * MINUTE
            match step:
                case "grow":
                    provider.tick(provider.clock.now() + 1 + count * 7 % 9_000)
                case "close":
                    for n in range(1, count + 1):
                        provider.tick(minute + n * MINUTE + 100)
                case "skip":
                    for n in range(1, count + 1):
                        provider.market.rows.pop(minute + n * MINUTE, None)
                case "correct" | "push again":
                    version += 1
                    wrong = minute - count * MINUTE
                    other = row(wrong, version=version)
                    if step == "correct":
                        await backfill.correct(wrong, other)
                    else:
                        provider.market.rows[wrong] = other
                        provider.push_row(wrong, other, flags=CLOSED)
                case "lose":
                    provider.streams.lose()
                    provider.clock.at += count * 30_000
                case "resume":
                    for n, client in enumerate(clients):
                        await client.resume((feeding, serving)[count % 2], count + n)
                case _:
                    for client in clients:
                        await client.viewer.until(lambda client=client: client.viewer.live)
            # So that no two things happen at once that follow each other.
            provider.clock.at += 1_000
        await until(lambda: len(provider.streams.open) == 1, "a stream")
        provider.tick((provider.clock.now() // MINUTE + 2) * MINUTE)

        for client in clients:
            await client.viewer.until(lambda client=client: client.viewer.live)
            await client.viewer.until_it_holds(PAST)
