"""What is settled stays as it is when what lies around it is fetched."""

from __future__ import annotations

from uuid import uuid4

import numpy as np

from db.stored import SeriesFacts, Wanted, Write
from market.bars import CLOSED, FROM_TRADES, Bars
from market.clock import FixedClock
from market.window import HOUR, MINUTE, Spans, Window
from tests.datasources.backfill.stage import StageOpener
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between, row

pytestmark = on_embedded

SINCE = RUNNING // HOUR * HOUR - 6 * HOUR
FOLLOWED = Window(SINCE, SINCE + 4 * HOUR)
"""Trades of this time were told, but for a minute at each of three new connections."""
HOLES = [SINCE + n * MINUTE for n in (30, 90, 150)]
UNSETTLED = SINCE + 200 * MINUTE
"""From here on what trades told is not final yet."""


def market() -> FakeProvider:
    rows = Market.of(minutes_between(SINCE - HOUR, NOW))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: rows})


def told() -> Bars:
    """Minutes of trades that the provider's own bars differ from."""
    times = np.array([m for m in minutes_between(FOLLOWED.since, FOLLOWED.until) if m not in HOLES])
    n = len(times)
    return Bars.of(
        times,
        *(np.full(n, value) for value in (10.0, 12.0, 9.0, 11.0, 5.0)),
        vwap=np.full(n, 10.5),
        trades=np.full(n, 7),
        updated=times + MINUTE,
        flags=np.full(n, CLOSED | FROM_TRADES, np.uint8),
    )


async def follow(opened: Opened) -> None:
    """Store what trades told."""
    settled = Spans.of(SINCE, UNSETTLED) - Spans(Window(m, m + MINUTE) for m in HOLES)
    write = Write(
        opened.key,
        SeriesFacts(around_the_clock=True),
        told(),
        FOLLOWED.until + 4 * MINUTE,
        settled=settled,
    )
    await opened.store.write([write])


async def stored(opened: Opened) -> Bars:
    (found,) = await opened.store.snapshot([Wanted(opened.key, FOLLOWED)])
    return found.bars


async def test_a_chart_of_many_holes_costs_one_call_and_replaces_no_settled_minute(
    open_process: Opener,
) -> None:
    async with open_process(market()) as opened:
        await follow(opened)

        answer = await opened.get("1m", since=FOLLOWED.since, until=FOLLOWED.until)
        after = await stored(opened)

        whole = list(minutes_between(FOLLOWED.since, FOLLOWED.until))
        assert len(opened.provider.asked()) == 1
        assert answer.bars.time.tolist() == after.time.tolist() == whole
        settled = ~np.isin(after.time, HOLES) & (after.time < UNSETTLED)
        assert set(after.close[settled].tolist()) == {11.0}
        assert set(after.trades[settled].tolist()) == {7}
        assert set(after.revision[settled].tolist()) == {1}
        fetched = after.take(~settled)
        assert fetched.close.tolist() == [row(minute).close for minute in fetched.time.tolist()]
        assert answer.bars.close.tolist() == after.close.tolist()


async def test_another_look_at_many_empty_minutes_replaces_none_between_them(
    open_stage: StageOpener,
) -> None:
    provider = market()
    for minute in HOLES:
        del provider.markets[next(iter(provider.markets))].rows[minute]
    async with open_stage(provider, again_in=0) as stage:
        bars = told()
        settled = Spans((FOLLOWED,))
        facts = SeriesFacts(around_the_clock=True)
        write = Write(stage.key, facts, bars, FOLLOWED.until + 4 * MINUTE, settled=settled)
        await stage.links.store.write([write])
        await stage.filled(FOLLOWED.since - HOUR, NOW)
        late = HOLES[1]
        provider.markets[stage.symbol].rows[late] = row(late)
        provider.clock.at += 2 * HOUR

        looked = await stage.runner.look_again()

        after = await stage.bars(FOLLOWED)
        assert looked
        assert after.time.tolist() == sorted([*bars.time.tolist(), late])
        assert set(after.close[after.time != late].tolist()) == {11.0}
        assert after.close[after.time == late].tolist() == [row(late).close]
