from __future__ import annotations
from dataclasses import replace
import asyncio
from pathlib import Path
from uuid import uuid4
import numpy as np, pytest
from redis.asyncio import Redis
from db.candles import CandleStore
from db.pool import open_pool
from datasources.aggregates import head_of
from datasources.found import Base, GapReason
from datasources.packing import pack, unpack
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import NATIVE, CLOSED, Bars
from market.clock import FixedClock
from market.errors import BargraphError, ProviderUnavailable, UnknownName
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.base import NativeFrame, Page
from tests.datasources.chains import *
from tests.datasources.recount import assert_says, bars_of
from tests.datasources.test_outages import door_to, listed as olisted, expected as oexpected, PAST
from tests.datasources.test_minutes_from import deep, DAY_BARS, MINUTES, TODAY, LISTED as DLISTED
from tests.fakes import *
from web.bootstrap import open_redis, open_pool as _p

pytestmark = on_embedded
LISTED = days_before(NOW, 3)

def listed(**o):
    market = Market.of(minutes_between(LISTED, NOW + 5*HOUR))
    return FakeProvider(FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, **({"page_limit": 10_000}|o))

async def test_A_announce_lost(store, redis_url, redis, redis_prefix, tmp_path):
    provider = listed()
    target = redis_url.removeprefix("unix://").partition("?")[0]
    wrong = NOW // HOUR * HOUR - 5 * HOUR
    past = {"since": NOW // HOUR * HOUR - 10 * HOUR, "until": NOW // HOUR * HOUR - HOUR}
    async with (
        door_to(target, tmp_path / "redis.sock") as door,
        open_redis(f"unix://{door.path}", 5) as through,
        opened_chain(provider, store, through, redis_prefix) as writer,
        opened_chain(provider, store, redis, redis_prefix) as reader,
    ):
        await reader.get("1h", **past)
        await door.shut()
        await writer.correct(wrong, row(wrong, version=1))
        await door.open()
        await writer.get("1m", last=3)
        answer = await reader.get("1h", **past)
        rows = provider.markets[reader.symbol].seen_at(provider.clock.now())
        want = [b for b in bars_of(rows, "1h", "UTC", now=provider.clock.now(), minutes_from=LISTED) if past["since"] <= b.time < past["until"]]
        assert_says(answer, want)

async def test_B_rollover(open_process):
    async with open_process(listed()) as opened:
        opened.clock.at = RUNNING + MINUTE - 400
        await opened.get("1m", last=3)
        opened.clock.at += 800
        a = await opened.get("1m", last=3)
        print([(g.since-RUNNING, g.until-RUNNING, g.reason) for g in a.gaps], (a.bars.time-RUNNING).tolist(), a.bars.is_closed)
        assert not a.gaps

async def test_B2_rollover_in_flight(open_process):
    async with open_process(listed()) as opened:
        opened.clock.at = RUNNING + MINUTE - 400
        p = opened.provider
        await opened.get("1m", last=3)
        opened.clock.at -= 20_000
        opened.clock.at += 19_900 + 0
        opened.clock.at = RUNNING + 2*MINUTE - 100
        p.gate = asyncio.Event(); p.entered.clear()
        first = asyncio.create_task(opened.get("1m", last=3))
        await p.entered.wait()
        opened.clock.at += 200
        second = asyncio.create_task(opened.get("1m", last=3))
        await asyncio.sleep(0.2)
        p.gate.set()
        await first
        a = await second
        print([(g.since-RUNNING, g.until-RUNNING, g.reason) for g in a.gaps], (a.bars.time-RUNNING).tolist(), a.bars.is_closed)
        assert not a.gaps

class Refusing(FakeProvider):
    async def bars(self, listing, timeframe, window):
        if listing.symbol == self.gone:
            raise UnknownName("symbol", listing.symbol, (), field="symbol")
        return await super().bars(listing, timeframe, window)

async def test_D_unknown_name(open_process):
    m = Market.of(minutes_between(LISTED, NOW))
    p = Refusing(FixedClock(NOW), {uuid4().hex: m, uuid4().hex: m}, offered_from=LISTED)
    p.gone = list(p.markets)[1]
    async with open_process(p) as opened:
        one, other = await opened.chain.answer([opened.request("1m", last=5), opened.request("1m", last=5, symbol=p.gone)])
        assert len(one.bars) == 5
        assert isinstance(other, BargraphError)

async def test_E_minutes_from_moved(open_process):
    async with open_process(deep(DAY_BARS)) as opened:
        cut = {"since": TODAY - 30*DAY, "until": TODAY - 25*DAY}
        before = await opened.get("1d", **cut)
        assert ((before.bars.flags & NATIVE) != 0).all() and len(before.bars) == 5
        market = opened.provider.markets[opened.symbol]
        rows = {t: r for t, r in market.rows.items() if DLISTED <= t < MINUTES}
        now = opened.clock.now()
        (w,) = await opened.store.write([Write(key=opened.key, facts=SeriesFacts(around_the_clock=True), bars=to_bars(rows, now, flags=CLOSED), observed_at=now, covered=Spans.of(DLISTED, MINUTES), settled=Spans.of(DLISTED, MINUTES))])
        state = await opened.store.set_minutes_from(w.state.id, DLISTED)
        await opened.cache.moved({Base(opened.key.listing, MINUTE_FRAME, native=False): head_of(state)})
        after = await opened.get("1d", **cut)
        assert not ((after.bars.flags & NATIVE) != 0).any()

async def test_F_storeless_kept(store, store_url, redis, redis_prefix, tmp_path):
    provider = olisted()
    folder = store_url.partition("host=")[2].partition("&")[0]
    async with (
        door_to(f"{folder}/.s.PGSQL.5432", tmp_path / ".s.PGSQL.5432") as door,
        open_pool(store_url.replace(folder, str(tmp_path)), max_size=4) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        await opened.get("1m", last=5)   # the base has a head in Redis now
        provider.clock.at += 10 * HOUR
        for m in minutes_between(NOW, NOW + 12*HOUR):
            provider.markets[opened.symbol].rows[m] = row(m)
        await door.shut()
        new = {"since": RUNNING + HOUR, "until": RUNNING + 2 * HOUR}
        a = await opened.get("1m", **new)
        assert set(a.bars.revision.tolist()) == {0}
        ttls = [await redis.ttl(k) async for k in redis.scan_iter(f"{redis_prefix}chunk*")]
        await door.open()
        await opened.get("7m", **new)
        b = await opened.get("1m", **new)
        print(sorted(ttls), set(b.bars.revision.tolist()))
        provider.clock.at += HOUR
        b = await opened.get("1m", **new)
        print(set(b.bars.revision.tolist()), opened.cache._held.weight)
        for k in [k async for k in redis.scan_iter(f"{redis_prefix}chunk*")]:
            if await redis.ttl(k) <= 60: await redis.delete(k)
        b = await opened.get("1m", **new)
        assert (b.bars.revision > 0).all()

class OffGrid(FakeProvider):
    async def bars(self, listing, timeframe, window):
        page = await super().bars(listing, timeframe, window)
        if listing.symbol == self.gone:
            return replace(page, bars=page.bars.with_columns(time=page.bars.time + 30_000))
        return page

async def test_H_off_grid(open_process):
    m = Market.of(minutes_between(LISTED, NOW))
    p = OffGrid(FixedClock(NOW), {uuid4().hex: m, uuid4().hex: m}, offered_from=LISTED)
    p.gone = list(p.markets)[1]
    async with open_process(p) as opened:
        one, other = await opened.chain.answer([opened.request("1m", last=5), opened.request("1m", last=5, symbol=p.gone)])
        assert len(one.bars) == 5
        assert isinstance(other, ProviderUnavailable)

async def test_I_before_1970(open_process):
    t0 = -5 * 365 * DAY
    m = Market.of(minutes_between(t0, t0 + 3*HOUR))
    p = FakeProvider(FixedClock(NOW), {uuid4().hex: m}, offered_from=t0, page_limit=20_000, whole=True)
    async with open_process(p) as opened:
        a = await opened.get("1m", since=t0, until=t0 + HOUR)
        print(len(a.bars), a.gaps[:3])
        assert len(a.bars) == 60

async def test_J_made_anew(fresh_store_url, redis_url):
    async with open_pool(fresh_store_url) as pool:
        mine, theirs = CandleStore(pool), CandleStore(pool)
        from market.instrument import Listing
        k1, k2 = (SeriesKey(Listing("fake", "crypto", s), MINUTE_FRAME) for s in ("one", "two"))
        def w(k, v): return Write(key=k, facts=SeriesFacts(around_the_clock=True), bars=to_bars({0: row(0, version=v)}, 100_000, flags=CLOSED), observed_at=100_000)
        await mine.write([w(k1, 1)])
        await pool.execute("TRUNCATE series, bar, rollup, change RESTART IDENTITY; UPDATE store SET id = gen_random_uuid()")
        await theirs.write([w(k2, 2)])
        await mine.write([w(k1, 1)])
        from db.stored import Wanted
        a, b = await theirs.snapshot([Wanted(k1, Window(0, MINUTE)), Wanted(k2, Window(0, MINUTE))])
        assert a.bars.open.tolist() == [row(0, version=1).open]
        assert b.bars.open.tolist() == [row(0, version=2).open]

async def test_K_forming_chunk(open_process):
    async with open_process(listed()) as opened:
        await opened.get("1h", last=3)
        for _ in range(3):
            opened.clock.at += 1100
            await opened.get("1h", last=3)
        opened.clock.at += 100
        (found,) = await opened.cache.fetch([opened.chain._begin(opened.request("1h", last=3)).want])
        assert found.as_of == NOW + 3300

def test_L_cut(server_url, redis_url):
    v = pack(to_bars({0: row(0)}, 5), {"a": 1})
    for n in range(len(v)):
        assert unpack(v[:n]) is None

async def test_M_store_away_recent(store, store_url, redis, redis_prefix, tmp_path):
    provider = olisted()
    folder = store_url.partition("host=")[2].partition("&")[0]
    async with (
        door_to(f"{folder}/.s.PGSQL.5432", tmp_path / ".s.PGSQL.5432") as door,
        open_pool(store_url.replace(folder, str(tmp_path)), max_size=4) as pool,
        opened_chain(provider, CandleStore(pool), redis, redis_prefix) as opened,
    ):
        await opened.get("1m", last=100)
        opened.clock.at += 1500
        await opened.get("1m", last=100)
        await door.shut()
        await opened.flush()
        opened.clock.at += 500
        a = await opened.get("1m", last=100)
        print(len(a.bars), a.gaps)
        assert len(a.bars) == 100
