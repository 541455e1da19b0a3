"""Rows of a file that are older than bars are kept are refused; the others go in."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from datasources.files.importing import Choices
from db.pruner import Pruner
from market.clock import FixedClock
from market.retention import Retention
from market.timeframe import MINUTE_FRAME
from market.window import DAY, MINUTE, Spans
from tests.datasources.files.tables import T0, lines, row
from tests.datasources.files.test_importing import Desk
from tests.db.minutes import minutes, put

pytestmark = pytest.mark.parametrize("server_url", ["embedded"], indirect=True, scope="session")

LINE = (T0 // DAY + 1) * DAY
TO_LINE = (LINE - T0) // MINUTE


@pytest.fixture
async def desk(pool: asyncpg.Pool, tmp_path: Path, store_url: str) -> Desk:
    """A desk whose series has lost its minutes before `LINE`."""
    desk = Desk(pool, tmp_path)
    await put(desk.store, desk.key, minutes([T0, LINE]), T0)
    retention = Retention(((MINUTE_FRAME, 10 * DAY),))
    clock = FixedClock(LINE + 10 * DAY)
    pruner = Pruner(store_url, retention, clock=clock, ages=lambda one: one == desk.key.listing)
    await pruner.prune()
    return desk


async def test_rows_from_before_the_line_are_reported_and_the_rest_goes_in(desk: Desk) -> None:
    rows = [row(0), row(TO_LINE - 1), row(TO_LINE, 11), row(TO_LINE + 5, 12)]
    path = lines(desk.folder / "old.csv", *rows)

    imported = await desk.take_in(path, Choices(complete=True))

    assert (imported.taken, imported.refused) == (2, 2)
    reasons = {(line, reason) for line, reason, _ in desk.refused()[1:]}
    assert reasons == {("2", "bars that old are not kept"), ("3", "bars that old are not kept")}
    assert (await desk.bars()).time.tolist() == [LINE, LINE + 5 * MINUTE]
    assert (await desk.state()).known == Spans.of(LINE, LINE + 6 * MINUTE)


async def test_an_export_tells_nothing_of_what_was_dropped(desk: Desk) -> None:
    path = await desk.export("left.csv")

    imported = await desk.take_in(path)

    assert (imported.taken, imported.refused) == (1, 0)
    assert imported.known == Spans()
