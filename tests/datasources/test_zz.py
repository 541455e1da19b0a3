"""An answer never depends on what was asked before: gaps, natives and sessions included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasources.found import Answer
from market.calendars import calendar
from market.clock import FixedClock
from market.instrument import Session
from market.timeframe import Timeframe
from market.window import DAY, HOUR, MINUTE, Window
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, Opener, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between

pytestmark = on_embedded

TODAY = NOW // DAY * DAY
LISTED = TODAY - 40 * DAY


@dataclass(frozen=True)
class Kind:
    """A provider as far as it matters to what it can answer."""

    calendar: str = "24/7"
    natives: tuple[str, ...] = ()
    minutes_from: int = LISTED
    every: int = 61

    def opened_at(self, market: Market) -> FakeProvider:
        return FakeProvider(
            FixedClock(NOW),
            {uuid4().hex: market},
            offered_from=self.minutes_from,
            natives=[NativeFrame(Timeframe.parse(name), timezone=None) for name in self.natives],
            natives_from=LISTED,
            page_limit=15_000,
            calendar_name=self.calendar,
        )

    def market(self) -> Market:
        rules = calendar(self.calendar)
        trading = rules.open_spans(Window(LISTED, NOW + DAY), Session.ALL)
        minutes = minutes_between(LISTED, NOW + DAY, every=self.every)
        opens = trading.contains(np.array(minutes))
        return Market.of(minute for minute, on in zip(minutes, opens, strict=True) if on)


KINDS = {
    "minutes only": Kind(),
    "natives before the minutes": Kind(
        natives=("1h", "1d", "1w"), minutes_from=TODAY - 11 * DAY + 90 * MINUTE
    ),
    "a stock": Kind(calendar="XNYS", every=13),
    "a stock with native days": Kind(
        calendar="XNYS", natives=("1d",), minutes_from=TODAY - 11 * DAY + 90 * MINUTE, every=13
    ),
}

cuts = st.fixed_dictionaries(
    {
        "timeframe": st.sampled_from(["5m", "7m", "1h", "5h", "1d", "1w", "1M"]),
        "zone": st.sampled_from([None, None, "UTC", "Europe/Berlin"]),
        "session": st.sampled_from(Session),
        "since": st.one_of(st.none(), st.integers(0, 45 * DAY).map(lambda back: NOW - back)),
        "until": st.one_of(st.none(), st.integers(0, 45 * DAY).map(lambda back: NOW - back)),
        "last": st.one_of(st.integers(1, 40), st.just(10_000)),
    }
)


def around_the_clock(kind: Kind, cut: dict[str, Any]) -> dict[str, Any]:
    return cut | {"session": Session.ALL} if kind.calendar == "24/7" else cut


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    before=st.lists(
        st.one_of(cuts, cuts, st.sampled_from(["flush", MINUTE, 3 * HOUR])), max_size=5
    ),
    cut=cuts,
)
async def test_an_answer_is_the_same_whatever_was_asked_before(
    open_process: Opener, kind: Kind, before: list[Any], cut: dict[str, Any]
) -> None:
    market = kind.market()
    cut = around_the_clock(kind, cut)
    async with open_process(kind.opened_at(market)) as used:
        for step in before:
            if isinstance(step, int):
                used.clock.at += step
            elif step == "flush":
                await used.flush()
            else:
                await used.try_get(**around_the_clock(kind, step))
        answer = await used.try_get(**cut)
    async with open_process(kind.opened_at(market)) as fresh:
        fresh.clock.at = used.clock.at
        alone = await fresh.try_get(**cut)

    assert isinstance(answer, Answer) and isinstance(alone, Answer), (answer, alone)
    for column in ("time", "open", "high", "low", "close", "flags"):
        assert getattr(answer.bars, column).tolist() == getattr(alone.bars, column).tolist()
    assert answer.bars.volume == pytest.approx(alone.bars.volume, rel=1e-12)
    assert list(answer.gaps) == list(alone.gaps)
    assert answer.has_earlier == alone.has_earlier
