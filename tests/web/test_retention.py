"""A server with RETENTION drops what it no longer keeps, and tells clients so."""

from __future__ import annotations

import pytest

from db.candles import CandleStore
from db.embedded.servers import EmbeddedServers
from db.pool import open_pool
from db.stored import SeriesKey
from market.clock import FixedClock
from market.instrument import Listing
from market.retention import Retention
from market.timeframe import MINUTE_FRAME
from market.window import DAY, HOUR, MINUTE
from plugins.registry import Entry, Registry
from tests.api import Api, served, settings_over
from tests.datasources.chains import NOW
from tests.db.minutes import minutes, put, stored
from tests.db.timescale.kept import until
from tests.fakes import FakeProvider, Market
from web.background import Background
from web.retention_wiring import open_pruner

OLD = (NOW // DAY - 20) * DAY
LINE = (NOW // DAY - 7) * DAY
WINDOW = """
    query($since: Timestamp!, $until: Timestamp!) {
      candles(series: {provider: "sim", symbol: "BTC/USDT", timeframe: "1m"},
              since: $since, until: $until) {
        candles { time } gaps { since until reason }
      }
    }
"""
ON_EMBEDDED = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")
STRANGER = SeriesKey(Listing("elsewhere", "crypto", "BTC/USDT"), MINUTE_FRAME)


async def some_dropped(api: Api) -> bool:
    """Whether the metrics tell of bars that were dropped."""
    (line,) = [
        line
        for line in (await api.text("/metrics")).splitlines()
        if line.startswith('bargraph_retention{what="bars"}')
    ]
    return float(line.split()[-1]) > 0


@ON_EMBEDDED
async def test_old_minutes_are_dropped_by_the_running_server_and_become_a_gap(
    fresh_store_url: str, embedded: EmbeddedServers
) -> None:
    clock = FixedClock(NOW)
    old = {"since": OLD, "until": OLD + 10 * MINUTE}
    async with served(settings_over(embedded, fresh_store_url), clock=clock) as api:
        before = (await api.ask(WINDOW, **old)).data["candles"]
    async with open_pool(fresh_store_url) as pool:
        await put(CandleStore(pool), STRANGER, minutes([OLD]))
    kept = settings_over(embedded, fresh_store_url, retention=Retention.parse("1m:7d"))

    async with served(kept, clock=clock) as api:
        await until(lambda: some_dropped(api))
        after = (await api.ask(WINDOW, **old)).data["candles"]
        recent = {"since": LINE, "until": LINE + 10 * MINUTE}
        newer = (await api.ask(WINDOW, **recent)).data["candles"]

    assert len(before["candles"]) == len(newer["candles"]) == 10
    assert after == {
        "candles": [],
        "gaps": [{"since": OLD, "until": OLD + 10 * MINUTE, "reason": "NOT_KEPT"}],
    }
    async with open_pool(fresh_store_url) as pool:
        # Whether what this server does not have grows old, it cannot know.
        assert len(await stored(CandleStore(pool), STRANGER)) == 1


@ON_EMBEDDED
async def test_what_a_provider_replays_from_another_time_does_not_grow_old(
    fresh_store_url: str,
) -> None:
    clock = FixedClock(NOW)
    providers = [
        FakeProvider(FixedClock(now), {"A/B": Market.of([])}, name=name)
        for name, now in (("live", NOW + HOUR), ("replaying", NOW - 2 * DAY))
    ]
    keys = [
        SeriesKey(Listing(one.description.name, "crypto", "A/B"), MINUTE_FRAME) for one in providers
    ]
    registry = Registry([Entry(one.description.name, one, None) for one in providers])
    async with open_pool(fresh_store_url) as pool:
        store = CandleStore(pool)
        for key in keys:
            await put(store, key, minutes([OLD]))

        async with open_pruner(
            fresh_store_url,
            Retention.parse("1m:7d"),
            registry=registry,
            clock=clock,
            background=Background(),
        ) as pruner:
            await until(pruner.prune)

        assert [len(await stored(store, key)) for key in keys] == [0, 1]
