"""GraphiQL as a visitor meets it, in a real Chromium."""

import json
import re

from playwright.async_api import Page, expect

from tests.browser.watched_page import WatchedPage

LINKED_QUERY = """query Linked($last: Int) {
  candles(series: { provider: "sim", symbol: "BTC/USDT", timeframe: "1h" }, last: $last) {
    candles { time }
  }
}"""


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
    await watched.page.get_by_role("button", name="Headers", exact=True).click()
    await watched.page.locator(".graphiql-editor:not(.hidden) .monaco-editor").nth(1).click()
    await watched.page.keyboard.insert_text('{"authorization": "Bearer hush"}')
    async with watched.page.expect_request("**/graphql") as request:
        await watched.press_play()
    await watched.expect_result(r'"data"')
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
    assert watched.sockets == [toy_page_url.replace("http", "ws").replace("graphiql", "graphql")]
    assert watched.failures == []
