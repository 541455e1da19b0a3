"""Whatever the cache and the store hold, the answer equals the recomputation from the minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.clock import FixedClock
from market.window import DAY, HOUR, MINUTE
from tests.datasources.chains import NOW, RUNNING, Opened, Opener, on_embedded
from tests.datasources.recount import assert_accounts_for, assert_says, bars_of
from tests.fakes import FakeProvider, Market, row

pytestmark = on_embedded

LISTED = RUNNING - 70 * DAY
FRAMES = ("1m", "5m", "7m", "15m", "1h", "4h", "5h", "1d", "1w", "1M")
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin")
# So that no window has more buckets than plain Python counts in a moment.
SPAN = {"1m": DAY, "5m": 4 * DAY, "7m": 4 * DAY, "15m": 9 * DAY}


@dataclass(frozen=True)
class Cut:
    timeframe: str
    zone: str
    back: int
    """How long before now the window ends; None: it has no end."""
    open_ended: bool
    length: int | None
    last: int
    include_forming: bool

    def arguments(self, now: int) -> dict[str, Any]:
        until = now - self.back
        since = None if self.length is None else until - self.length
        return {
            "zone": self.zone,
            "since": since,
            "until": None if self.open_ended else until,
            "last": self.last,
            "include_forming": self.include_forming,
        }


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    timeframe = draw(st.sampled_from(FRAMES))
    span = SPAN.get(timeframe, 80 * DAY)
    open_ended = draw(st.booleans())
    back = draw(st.one_of(st.just(0), st.integers(-span // 4, 75 * DAY)))
    return Cut(
        timeframe=timeframe,
        zone=draw(st.sampled_from(ZONES)),
        back=min(back, span) if open_ended else back,
        open_ended=open_ended,
        length=draw(st.one_of(st.none(), st.integers(0, span))),
        last=draw(st.one_of(st.integers(1, 30), st.just(10_000))),
        include_forming=draw(st.booleans()),
    )


steps = st.one_of(
    cuts(),
    cuts(),
    cuts(),
    st.sampled_from(["flush", "another process", "correct", "withdraw"]),
    st.sampled_from([1_000, 20_000, MINUTE, 3 * MINUTE, HOUR, 9 * HOUR]),
)


@dataclass(frozen=True)
class Trading:
    """When trades happen: in bursts with days between, in most minutes near now; some show late."""

    bursts: tuple[tuple[int, int, int], ...]
    newest: int
    late: tuple[tuple[int, int], ...]

    def market(self) -> Market:
        minutes = {
            LISTED + (start + n * every) * MINUTE
            for start, length, every in self.bursts
            for n in range(length)
        }
        minutes |= {RUNNING - n * MINUTE for n in range(self.newest)}
        minutes |= {RUNNING + n * MINUTE for n in range(1, DAY // MINUTE) if n % 3}
        market = Market.of(minutes)
        market.late = {RUNNING + n * MINUTE: seconds * 1000 for n, seconds in self.late}
        return market


tradings = st.builds(
    Trading,
    bursts=st.lists(
        st.tuples(st.integers(0, 70 * 24 * 60 - 200), st.integers(1, 40), st.integers(1, 5)),
        max_size=25,
    ).map(tuple),
    newest=st.integers(0, 200),
    late=st.lists(st.tuples(st.integers(-3, 10), st.integers(1, 100)), max_size=4).map(tuple),
)


@settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(trading=tradings, script=st.lists(steps, min_size=1, max_size=12))
async def test_an_answer_equals_the_recomputation_whatever_was_asked_before(
    open_process: Opener, trading: Trading, script: list[Any]
) -> None:
    market = trading.market()
    provider = FakeProvider(
        FixedClock(NOW), {uuid4().hex: market}, offered_from=LISTED, page_limit=15_000
    )

    async with open_process(provider) as one, open_process(provider) as other:
        opened, version = one, 0
        for step in [*script, *(cut for cut in script if isinstance(cut, Cut))]:
            if isinstance(step, int):
                provider.clock.at += step
            elif step == "flush":
                await opened.flush()
            elif step == "another process":
                opened = other if opened is one else one
            elif step in {"correct", "withdraw"}:
                version += 1
                over = [m for m in market.rows if m + 4 * MINUTE < provider.clock.now()]
                if over:
                    minute = over[version * 7919 % len(over)]
                    corrected = row(minute, version=version) if step == "correct" else None
                    await opened.correct(minute, corrected)
            else:
                await check(opened, step)


async def check(opened: Opened, cut: Cut) -> None:
    now, arguments = opened.clock.now(), cut.arguments(opened.clock.now())
    rows = opened.provider.markets[opened.symbol].seen_at(now)
    since, until = arguments["since"], arguments["until"]
    end = now if until is None else min(until, now)
    matching = [
        bar
        for bar in bars_of(rows, cut.timeframe, cut.zone, now=now, minutes_from=LISTED)
        if (since is None or bar.time >= since) and bar.time < end
    ]
    if not cut.include_forming:
        matching = [bar for bar in matching if bar.closed]

    answer = await opened.get(cut.timeframe, **arguments)

    assert_says(answer, matching[-cut.last :])
    stored = answer.bars.revision[answer.bars.is_closed].tolist()
    assert all(n >= b.minutes for n, b in zip(stored, matching[-cut.last :], strict=False))
    assert answer.has_earlier == (len(matching) > cut.last)
    assert_accounts_for(
        answer,
        cut.timeframe,
        cut.zone,
        since=since,
        until=now if until is None else until,
        now=now,
    )
