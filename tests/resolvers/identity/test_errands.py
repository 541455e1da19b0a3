"""Work behind answers: bounded, and no failure ends the rest of it."""

from __future__ import annotations

import asyncio

import pytest

from db.accounts.errors import AccountsUnavailable
from resolvers.identity.errands import Errands
from web.background import Background


async def test_one_that_fails_is_in_the_log_and_the_next_ones_are_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errands, done = Errands(), []

    async def away() -> None:
        raise AccountsUnavailable("no answer")

    async def broken() -> None:
        raise RuntimeError("a bug")

    async def sound() -> None:
        done.append("sound")

    for errand in (away, broken, sound):
        errands.add(errand)
    async with Background().running(errands.run(), name="errands"):
        await errands.done()

    assert done == ["sound"]
    assert "no answer" in caplog.text
    assert "a bug" in caplog.text


async def test_what_finds_no_room_is_dropped_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errands, done = Errands(), []

    async def noted() -> None:
        done.append(1)

    for _ in range(1_002):
        errands.add(noted)
    async with Background().running(errands.run(), name="errands"):
        await errands.done()

    assert len(done) == 1_000
    assert caplog.text.count("was dropped") == 2


async def test_one_that_hangs_keeps_no_process_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errands = Errands()
    errands.add(asyncio.Event().wait)

    async with Background().running(errands.run(), name="errands"):
        await errands.drain(0.01)

    assert "Not all that was asked for was done" in caplog.text
