"""GraphiQL in a browser that writes down everything a visitor should never meet."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from playwright.async_api import ConsoleMessage, Page, Request, Response, WebSocket, expect

PATIENCE = 60.0
"""Seconds after which what a test waits for will not come."""
SHOWS = """event => document.querySelector(".result-window").innerText.replace(/\\s/g, "")
    === JSON.stringify(event).replace(/\\s/g, "")"""


class WatchedPage:
    """The GraphiQL page at *url*: what a visitor does there, and what went wrong meanwhile."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.off_origin: list[str] = []
        self.failures: list[str] = []
        self.sockets: list[WebSocket] = []
        self.sent: list[dict[str, Any]] = []
        """The messages of the page over sockets, oldest first."""
        self.events: list[dict[str, Any]] = []
        """What subscriptions gave, oldest first."""
        self._arrived = asyncio.Event()
        page.on("request", self._note_request)
        page.on("requestfailed", lambda request: self.failures.append(f"no answer: {request.url}"))
        page.on("response", self._note_response)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.failures.append(f"thrown: {error.message}"))
        page.on("websocket", self._note_socket)

    def _note_request(self, request: Request) -> None:
        origin = "{0.scheme}://{0.netloc}/".format(urlsplit(self.url))
        if not request.url.startswith((origin, "data:", "blob:")):
            self.off_origin.append(request.url)

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.failures.append(f"{response.status}: {response.url}")

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.failures.append(f"console: {message.text}")

    def _note_socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", lambda frame: self.sent.append(json.loads(frame)))
        socket.on("framereceived", self._note_message)
        socket.on("socketerror", lambda error: self.failures.append(f"socket: {error}"))

    def _note_message(self, frame: str | bytes) -> None:
        message = json.loads(frame)
        if message["type"] == "next":
            self.events.append(message["payload"])
            self._arrived.set()

    async def open(self, **link: str) -> None:
        """Open the page, with *link* as its URL parameters, and wait until it knows the schema."""
        async with self.page.expect_response("**/graphql"):
            await self.page.goto(f"{self.url}?{urlencode(link)}" if link else self.url)
        await self.page.locator(".graphiql-query-editor .view-line").first.wait_for()

    async def execute(self) -> dict[str, Any]:
        """Press the play button and return what the server answers."""
        async with self.page.expect_response("**/graphql") as answer:
            await self.press_play()
        answered: dict[str, Any] = await (await answer.value).json()
        return answered

    async def type_headers(self, headers: dict[str, str]) -> None:
        """Type *headers* where the page takes them."""
        await self.page.get_by_role("button", name="Headers", exact=True).click()
        await self.page.locator(".graphiql-editor:not(.hidden) .monaco-editor").nth(1).click()
        await self.page.keyboard.insert_text(json.dumps(headers))

    async def press_play(self) -> None:
        await self.page.locator("button.graphiql-execute-button").click()

    async def press_stop(self) -> None:
        """Press the same button while it says so, and wait until the socket is closed."""
        async with self.sockets[-1].expect_event("close"):
            await self.page.get_by_role("button", name="Stop query").click()

    async def expect_result(self, pattern: str) -> None:
        """Wait until what the result pane shows matches *pattern*."""
        # Monaco draws its spaces as non-breaking ones, which \\s matches too.
        await expect(self.page.locator(".result-window")).to_contain_text(re.compile(pattern))

    async def event(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first event that is *wanted*, once it is there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def expect_newest_event(self) -> None:
        """Wait until the result pane shows the newest event, one that is short enough for it."""
        async with asyncio.timeout(PATIENCE):
            while not await self.page.evaluate(SHOWS, self.events[-1]):
                pass
