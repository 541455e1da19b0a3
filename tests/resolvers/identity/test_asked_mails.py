"""Mails that anybody may ask for: nobody learns whose address it is, and no owner is kept out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from resolvers.identity.addresses import request_verification, verify_email
from resolvers.identity.asked_mails import MOST_SENT
from resolvers.identity.changing_passwords import request_password_reset, reset_password
from tests.accounts import NOW, ORIGIN, Stage

NEW = SecretStr("another horse, another battery")
each_request = pytest.mark.parametrize(
    "request_mail", [request_password_reset, request_verification]
)


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Yield what the database is asked, as it is asked."""
    asked: list[str] = []

    def note(connection, cursor, statement, *more) -> None:
        asked.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


@each_request
async def test_before_the_answer_the_same_is_done_for_every_address(
    stage: Stage, accounts_engine: AsyncEngine, request_mail
) -> None:
    told = []
    for email in (
        (await stage.member()).email,
        (await stage.member(email_verified_at=None)).email,
        (await stage.member(disabled_at=NOW)).email,
        "stranger@example.com",
    ):
        with statements(accounts_engine) as asked:
            await request_mail(stage.identity, email, origin=ORIGIN)
            told.append(tuple(asked))
            await stage.done()
            assert len(asked) > len(told[-1])  # the audit log has it in any case

    assert len(set(told)) == 1
    assert len(told[0]) == 1


@each_request
async def test_each_request_is_in_the_log_and_says_whether_a_mail_went(
    stage: Stage, request_mail
) -> None:
    user = await stage.member(email_verified_at=None)

    for _ in range(2):
        await request_mail(stage.identity, user.email, origin=ORIGIN)
    await stage.done()

    assert [result for _, result in await stage.lines(user)] == ["sent", "asked"]
    assert len(stage.mailbox.mails) == 1


async def test_whoever_asks_for_many_resets_fills_no_mailbox_and_the_last_link_counts(
    stage: Stage,
) -> None:
    user = await stage.member()
    for _ in range(MOST_SENT + 4):
        await request_password_reset(stage.identity, user.email, origin=ORIGIN)
        await stage.done()
        stage.later(61)

    assert len(stage.mailbox.mails) == MOST_SENT
    await reset_password(stage.identity, stage.mailbox.token_for(user.email), NEW, origin=ORIGIN)


async def test_an_hour_after_the_first_of_many_mails_the_next_one_goes(stage: Stage) -> None:
    user = await stage.member()
    for _ in range(MOST_SENT):
        await request_password_reset(stage.identity, user.email, origin=ORIGIN)
        await stage.done()
        stage.later(60)

    stage.later(3_600 - MOST_SENT * 60 - 1)
    await request_password_reset(stage.identity, user.email, origin=ORIGIN)
    await stage.done()
    before = len(stage.mailbox.mails)
    stage.later(1)
    await request_password_reset(stage.identity, user.email, origin=ORIGIN)
    await stage.done()

    assert (before, len(stage.mailbox.mails)) == (MOST_SENT, MOST_SENT + 1)


async def test_links_that_prove_an_address_are_bounded_by_themselves(stage: Stage) -> None:
    user = await stage.member(email_verified_at=None)
    for _ in range(MOST_SENT + 1):
        await request_password_reset(stage.identity, user.email, origin=ORIGIN)
        await request_verification(stage.identity, user.email, origin=ORIGIN)
        await stage.done()
        stage.later(61)

    subjects = [mail.subject for mail in stage.mailbox.mails]
    assert subjects == ["Set a new password", "Verify your address"] * MOST_SENT
    await verify_email(stage.identity, stage.mailbox.token_for(user.email), origin=ORIGIN)
