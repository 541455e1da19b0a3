"""A native bar stands in for minutes that failed to come, and only until they do."""

from __future__ import annotations

import pytest

from market.bars import NATIVE
from market.clock import FixedClock
from market.timeframe import DAY_FRAME, MINUTE_FRAME
from market.window import DAY, HOUR
from plugins.base import NativeFrame
from tests.datasources.chains import NOW, Opener, on_embedded
from tests.fakes import FakeProvider, Market, minutes_between

TODAY = NOW // DAY * DAY
PAST = {"since": TODAY - 3 * DAY, "until": TODAY - DAY}


@on_embedded
@pytest.mark.parametrize("who", ["the same", "another"])
@pytest.mark.parametrize("minutes_asked_for", [True, False])
async def test_a_native_bar_gives_way_once_the_minutes_come(
    open_process: Opener, who: str, minutes_asked_for: bool
) -> None:
    provider = FakeProvider(
        FixedClock(NOW),
        {f"COIN {who} {minutes_asked_for}": Market.of(minutes_between(NOW - 5 * DAY, NOW))},
        natives=[NativeFrame(DAY_FRAME)],
        page_limit=1440,
    )
    async with open_process(provider) as one, open_process(provider) as other:
        provider.failing = lambda call: call.timeframe == MINUTE_FRAME and call.window.length > 0
        meanwhile = await one.get("1d", **PAST)
        provider.failing = lambda call: False
        provider.clock.at += HOUR
        if minutes_asked_for:
            await one.get("1m", **PAST)

        afterwards = await (one if who == "the same" else other).get("1d", **PAST)

    assert (meanwhile.bars.flags & NATIVE).all()
    assert len(afterwards.bars) == len(meanwhile.bars) == 2
    assert not (afterwards.bars.flags & NATIVE).any()
