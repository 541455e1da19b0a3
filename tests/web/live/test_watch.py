"""Who cannot be checked in time is sent away, and no round of checks takes all connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from market.errors import BargraphError
from resolvers.callers import Caller
from tests.web.live.stage import PATIENCE
from web.live.execution import Operation
from web.live.watch import Watch


class Viewer:
    """A receiver that remembers why it was sent away."""

    def __init__(self) -> None:
        self.over = False
        self.left = asyncio.Event()
        self.codes: list[str] = []

    def expel(self, errors: Sequence[dict[str, str]]) -> None:
        self.over = True
        self.codes = [error["code"] for error in errors]
        self.left.set()


class Sessions:
    """Checks that end when a test lets them, and how many of them ran at once."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.running = self.most = self.checked = 0

    def operation(self, session: object) -> Operation:
        """Return an operation of somebody in *session*."""
        claims = SimpleNamespace(claims=session)
        operation = SimpleNamespace(
            caller=Caller(local=False, principal=cast(Any, claims)),
            check_again=self._check,
            executions=SimpleNamespace(shown=_shown),
        )
        return cast(Operation, operation)

    async def _check(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.answers.wait()
            self.checked += 1
        finally:
            self.running -= 1


def _shown(failure: BargraphError) -> list[dict[str, str]]:
    return [{"code": failure.code}]


async def test_who_cannot_be_checked_in_time_is_sent_away() -> None:
    sessions, watch = Sessions(), Watch(seconds=0, patience=0.05)
    viewers = [Viewer() for _ in range(100)]
    for n, viewer in enumerate(viewers):
        watch.over(sessions.operation(n // 2), cast(Any, viewer))

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(viewer.left.wait() for viewer in viewers))
    await watch.aclose()

    assert {code for viewer in viewers for code in viewer.codes} == {"ACCOUNTS_UNAVAILABLE"}
    assert sessions.running == 0


async def test_some_sessions_are_asked_about_at_once_and_everybody_gets_a_turn() -> None:
    sessions, watch = Sessions(), Watch(seconds=0, patience=PATIENCE)
    viewers = [Viewer() for _ in range(100)]
    for n, viewer in enumerate(viewers):
        watch.over(sessions.operation(n // 2), cast(Any, viewer))

    async with asyncio.timeout(PATIENCE):
        while sessions.running < 8:
            await asyncio.sleep(0)
        sessions.answers.set()
        while sessions.checked < len(viewers):
            await asyncio.sleep(0)
    await watch.aclose()

    assert sessions.most == 8
    assert not any(viewer.over for viewer in viewers)
