"""What the browser tests need: a Chromium, the built page, and a server to open it from."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from db.embedded.servers import EmbeddedServers
from tests.api import settings_over
from tests.browser.real_server import real_server
from tests.browser.toy_server import toy_server
from tests.browser.watched_page import WatchedPage
from tests.conftest import scratch_database

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
BUNDLE = Path(__file__).parents[2] / "frontend" / "dist"

# Chromium's sandbox refuses to run as root, and the rest keeps it from calling home.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def toy_page_url() -> Iterator[str]:
    if not (BUNDLE / "graphiql.html").exists():
        pytest.skip("the GraphiQL bundle is not built (make frontend)")
    with toy_server(BUNDLE) as origin:
        yield f"{origin}/graphiql"


@pytest.fixture(scope="module")
def page_url(embedded: EmbeddedServers) -> Iterator[str]:
    """The page of the real application."""
    if not (BUNDLE / "graphiql.html").exists():
        pytest.skip("the GraphiQL bundle is not built (make frontend)")
    with (
        scratch_database(embedded.postgres_url) as database_url,
        real_server(settings_over(embedded, database_url)) as origin,
    ):
        yield f"{origin}/graphiql"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium; each test is another visitor to it."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (set CHROMIUM to its path)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=CHROMIUM_ARGS
        )
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A tab of somebody who was never here: nothing is stored or cached."""
    async with await browser.new_context(viewport={"width": 1400, "height": 860}) as visitor:
        yield await visitor.new_page()


@pytest.fixture
def watched(page: Page, page_url: str) -> WatchedPage:
    return WatchedPage(page, page_url)
