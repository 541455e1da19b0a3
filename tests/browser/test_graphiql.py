"""GraphiQL as a visitor meets it, in a real Chromium."""

import json
import re
import socket

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import BUNDLE
from tests.browser.toy_server import toy_server
from tests.browser.watched_page import WatchedPage

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINKED_QUERY = """query Linked($last: Int) {
  candles(series: { provider: "sim", symbol: "BTC/USDT", timeframe: "1h" }, last: $last) {
    candles { time }
  }
}"""

REFUSED = "net::ERR_CONNECTION_REFUSED"


async def test_opening_query_runs_without_a_word_from_another_origin(watched: WatchedPage) -> None:
    await watched.open()
    answer = await watched.execute()

    assert "errors" not in answer
    assert len(answer["data"]["candles"]["candles"]) == 24
    await watched.expect_result(r'"open":\s\d+')
    await expect(watched.page).to_have_title("Bargraph")
    assert watched.off_origin == []
    assert watched.failures == []


async def test_a_linked_query_opens_with_its_variables(watched: WatchedPage) -> None:
    await watched.open(query=LINKED_QUERY, variables='{"last": 3}')
    answer = await watched.execute()

    assert len(answer["data"]["candles"]["candles"]) == 3
    assert watched.failures == []


async def test_reference_lists_what_can_be_asked(watched: WatchedPage) -> None:
    await watched.open()
    await watched.page.get_by_label("Show Documentation Explorer").click()
    await watched.page.locator(".graphiql-doc-explorer-content a", has_text="Query").click()

    candles = watched.page.locator(".graphiql-doc-explorer-content a", has_text="candles")
    await expect(candles).to_be_visible()
    assert watched.failures == []


async def test_a_token_typed_as_a_header_is_sent_but_not_kept(watched: WatchedPage) -> None:
    await watched.open()
    await watched.type_headers({"authorization": "Bearer hush"})
    async with watched.page.expect_request("**/graphql") as request:
        await watched.press_play()
    # Nobody was given this token, and the server says so: it arrived.
    await watched.expect_result(r'"UNAUTHENTICATED"')
    await watched.page.wait_for_function(
        "Object.keys(localStorage).some((key) => key.endsWith('graphiql:queries'))"
    )
    await watched.page.locator(".graphiql-query-editor .monaco-editor").click()
    await watched.page.keyboard.insert_text("#typed-after-the-header")
    # Edits are stored in the order made, so once this one is there the header has had its chance.
    await watched.page.wait_for_function(
        """() => Object.entries(localStorage).some(
            ([key, kept]) => key.includes("tabState") && kept.includes("#typed-after-the-header")
        )"""
    )

    kept = json.dumps(await watched.page.evaluate("Object.entries(localStorage)"))
    assert await (await request.value).header_value("authorization") == "Bearer hush"
    assert "hush" not in kept


async def test_another_graphiql_on_this_origin_does_not_replace_the_opening_query(
    watched: WatchedPage,
) -> None:
    await watched.page.add_init_script("localStorage.setItem('graphiql:query', '{ theirs }')")

    await watched.open()

    editor = watched.page.locator(".graphiql-query-editor")
    await expect(editor).to_contain_text(re.compile(r"query\sLastDay"))


async def test_a_subscription_streams_over_a_socket_to_the_same_origin(
    page: Page, toy_page_url: str
) -> None:
    watched = WatchedPage(page, toy_page_url)

    await watched.open(query="subscription Count { count(to: 3) }")
    await watched.press_play()

    await watched.expect_result(r'"count":\s3')
    address = toy_page_url.replace("http", "ws").replace("graphiql", "graphql")
    assert [opened.url for opened in watched.sockets] == [address]
    assert watched.failures == []


async def test_a_token_travels_in_the_first_message_of_a_socket_and_not_in_its_address(
    page: Page, toy_page_url: str
) -> None:
    watched = WatchedPage(page, toy_page_url)

    await watched.open(query="subscription Count { count(to: 3) }")
    await watched.type_headers({"authorization": "Bearer hush"})
    await watched.press_play()
    await watched.expect_result(r'"count":\s3')

    (opened,) = watched.sockets
    assert watched.sent[0] == {
        "type": "connection_init",
        "payload": {"authorization": "Bearer hush"},
    }
    assert "hush" not in opened.url


async def test_a_subscription_that_fails_on_the_way_shows_why(
    page: Page, toy_page_url: str
) -> None:
    watched = WatchedPage(page, toy_page_url)

    await watched.open(query="subscription Count { count(to: 3, failAfter: 2) }")
    await watched.press_play()

    await watched.expect_result(r"lost\scount")
    await expect(page.get_by_role("button", name="Execute query")).to_be_visible()
    assert len(watched.events) >= 2
    assert watched.failures == []


async def test_a_subscription_goes_on_by_itself_after_the_server_was_away(page: Page) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with toy_server(BUNDLE, port) as origin:
        watched = WatchedPage(page, f"{origin}/graphiql")
        await watched.open(query="subscription Count { count(to: 100000, delayMs: 10) }")
        await page.wait_for_load_state("networkidle")
        await watched.press_play()
        await watched.event(lambda event: event["data"]["count"] == 3)
    await page.wait_for_event("console", lambda said: REFUSED in said.text)
    watched.events.clear()

    with toy_server(BUNDLE, port):
        await watched.event(lambda event: event["data"]["count"] == 3)
        await watched.press_stop()

    assert [message["type"] for message in watched.sent] == [
        *("connection_init", "subscribe"),
        *("connection_init", "subscribe", "complete"),
    ]
    # What is asked for while nobody answers fails, but nothing of the page does.
    assert [failure for failure in watched.failures if failure.startswith("thrown")] == []
