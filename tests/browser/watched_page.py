"""GraphiQL in a browser that writes down everything a visitor should never meet."""

import re
from typing import Any
from urllib.parse import urlencode, urlsplit

from playwright.async_api import ConsoleMessage, Page, Request, Response, expect


class WatchedPage:
    """The GraphiQL page at *url*: what a visitor does there, and what went wrong meanwhile."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.off_origin: list[str] = []
        self.failures: list[str] = []
        self.sockets: list[str] = []
        page.on("request", self._note_request)
        page.on("requestfailed", lambda request: self.failures.append(f"no answer: {request.url}"))
        page.on("response", self._note_response)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.failures.append(f"thrown: {error.message}"))
        page.on("websocket", lambda socket: self.sockets.append(socket.url))

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

    async def press_play(self) -> None:
        await self.page.locator("button.graphiql-execute-button").click()

    async def expect_result(self, pattern: str) -> None:
        """Wait until what the result pane shows matches *pattern*."""
        # Monaco draws its spaces as non-breaking ones, which \\s matches too.
        await expect(self.page.locator(".result-window")).to_contain_text(re.compile(pattern))
