"""A viewer sees bars begin, grow and close."""

from __future__ import annotations

from market.clock import FixedClock
from market.window import MINUTE
from tests.datasources.chains import NOW, RUNNING, on_embedded
from tests.datasources.live.processes import ProcessOpener, viewing
from tests.datasources.live.streaming import PushesBars

pytestmark = on_embedded


async def test_a_viewer_sees_a_bar_grow_and_close(open_process: ProcessOpener) -> None:
    provider = PushesBars(FixedClock(NOW))
    async with open_process(provider) as process, viewing(process) as viewer:
        await viewer.until(lambda: viewer.live, "a live feed")
        provider.tick(NOW + 10_000)
        await viewer.until(
            lambda: viewer.forming.close.tolist() == provider.seen(RUNNING).close.tolist()
        )
        provider.tick(RUNNING + MINUTE + 1_000)

        await viewer.until(lambda: viewer.revision(RUNNING) == 1)
        await viewer.until(lambda: viewer.forming.time.tolist() == [RUNNING + MINUTE])
        await viewer.until_it_holds(RUNNING - 100 * MINUTE)
