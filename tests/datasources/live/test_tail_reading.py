"""Buckets of live series are read from the store, and from the chain as far as its answer goes."""

from __future__ import annotations

from collections.abc import Sequence

from datasources.found import Answer, Request
from datasources.live.tail_reading import TailReads, Told
from market.buckets import grid
from market.clock import FixedClock
from market.errors import BargraphError
from market.window import MINUTE, Spans, Window
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import ProcessOpener
from tests.datasources.live.streaming import PushesBars

NEXT = RUNNING + MINUTE


@on_embedded
async def test_an_answer_from_before_a_bar_closed_leaves_it_unread(
    open_process: ProcessOpener,
) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with open_process(provider, feeds=False) as process:
        series, instrument, links = process.series("1m"), process.instrument, process.links
        buckets = grid(series).opening_in(Window(RUNNING, NEXT))
        begun = await links.answers.answer([Request(series, instrument, RUNNING, NEXT, last=20)])
        provider.clock.at = NEXT + 6_000

        async def begun_before(_: Sequence[Request]) -> Sequence[Answer | BargraphError]:
            return begun

        async with process.sources.tails.open(series, instrument) as (tail, followed):
            asked, told = [(tail, buckets)], Told(0, 0, followed.told)
            (late,) = await TailReads(links.aggregates, begun_before).read(asked, told)
            (reading,) = await TailReads(links.aggregates, links.answers.answer).read(asked, told)

    assert followed.told > NEXT
    assert (late.bars.time.tolist(), late.unread) == ([], Spans.of(RUNNING, NEXT))
    assert (reading.bars.time.tolist(), reading.unread) == ([RUNNING], Spans())
