"""GraphiQL as somebody meets it who watches bars live, in a real Chromium."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from db.embedded.servers import EmbeddedServers
from tests.browser.conftest import BUNDLE
from tests.browser.watched_page import WatchedPage
from tests.conftest import scratch_database
from tests.db.embedded.processes import PATIENCE
from tests.web.serving import serving, start

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISTAKEN = """subscription Mistaken {
  bars(series: { provider: "sim", symbol: "BTC/USDX", timeframe: "1m" }) { __typename }
}"""


@pytest.fixture(scope="module")
def live_page_url(
    embedded: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The page of a server in a process of its own, as `python -m web serve` makes it."""
    if not (BUNDLE / "graphiql.html").exists():
        pytest.skip("the GraphiQL bundle is not built (make frontend)")
    with scratch_database(embedded.postgres_url) as database_url:
        process = start(
            tmp_path_factory.mktemp("live"),
            database_url=database_url,
            redis_url=embedded.redis_url,
            redis_prefix="browser:",
        )
        try:
            yield f"{serving(process).url}/graphiql"
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@pytest.fixture
def live(page: Page, live_page_url: str) -> WatchedPage:
    return WatchedPage(page, live_page_url)


def is_running(event: dict[str, Any]) -> bool:
    """Say whether *event* is an update whose newest bar is not closed."""
    return event["data"]["bars"]["__typename"] == "BarUpdate" and not candles(event)[-1]["isClosed"]


def candles(event: dict[str, Any]) -> list[dict[str, Any]]:
    return event["data"]["bars"]["candles"]


async def test_the_second_tab_shows_the_running_bar_as_it_moves(live: WatchedPage) -> None:
    await live.open()
    await live.page.get_by_role("tab", name="LiveBars").click()
    await live.press_play()
    first = await live.event(is_running)
    await live.expect_newest_event()
    await live.event(lambda event: is_running(event) and candles(event) != candles(first))
    await live.expect_newest_event()
    await live.press_stop()

    snapshot = live.events[0]["data"]["bars"]
    assert (snapshot["__typename"], len(snapshot["candles"])) == ("BarSnapshot", 500)
    assert [message["type"] for message in live.sent] == [
        "connection_init",
        "subscribe",
        "complete",
    ]
    address = live.url.replace("http", "ws").replace("graphiql", "graphql")
    assert [opened.url for opened in live.sockets] == [address]
    assert live.off_origin == []
    assert live.failures == []


async def test_a_subscription_to_what_does_not_exist_shows_why(live: WatchedPage) -> None:
    await live.open(query=MISTAKEN)
    await live.press_play()

    await live.expect_result("BAD_USER_INPUT")
    await expect(live.page.get_by_role("button", name="Execute query")).to_be_visible()
    assert live.events == []
    assert live.failures == []
