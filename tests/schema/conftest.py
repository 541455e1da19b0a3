"""A server whose whole market is known: the simulated one, and a small folder of recordings."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from db.embedded.servers import EmbeddedServers
from market.clock import FixedClock
from tests.api import Api, served, settings_over, write_recording
from tests.conftest import scratch_database
from tests.schema.recorded import HALF_DAY, MANY, OPENING, SILENT, stock_minutes

NOW = 1_760_000_000_000
"""2025-10-09 08:53:20 UTC: a Thursday, twenty seconds into a minute."""


@pytest.fixture(scope="session")
def database_url(embedded: EmbeddedServers) -> Iterator[str]:
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hours of COIN without minutes 10 to 19, a half day of a stock, and many symbols."""
    folder = tmp_path_factory.mktemp("recordings")
    write_recording(
        folder,
        "COIN_1m",
        [
            (OPENING + n * 60_000, 100.0 + n, 101.0 + n, 99.0 + n, 100.5 + n, 2.0)
            for n in range(240)
            if n not in SILENT
        ],
    )
    write_recording(folder, "stock_HALF_1m", stock_minutes(HALF_DAY))
    for name in MANY:
        write_recording(folder, f"{name}_1m", [(OPENING, 1.0, 1.0, 1.0, 1.0, 1.0)])
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(embedded: EmbeddedServers, database_url: str, folder: Path) -> AsyncIterator[Api]:
    settings = settings_over(embedded, database_url, replay_dir=folder, replay_speed=0)
    async with served(settings, clock=FixedClock(NOW)) as api:
        yield api
