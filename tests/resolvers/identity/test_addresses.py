"""Change the address: proved before it counts, told to the one before, stopped by its owner."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from market.errors import BadInput
from resolvers.identity.addresses import change_email, request_verification, verify_email
from resolvers.identity.changing_passwords import (
    change_password,
    request_password_reset,
    reset_password,
)
from resolvers.identity.failures import TokenInvalid, TooSoon, WrongPassword
from resolvers.identity.profile import me
from resolvers.identity.signing_in import login
from tests.accounts import ORIGIN, PASSWORD, Stage

NEW = SecretStr("another horse, another battery")


async def changing(stage: Stage, principal, email: str, password: SecretStr = PASSWORD) -> None:
    await change_email(stage.identity, principal, password=password, email=email, origin=ORIGIN)


def mailed(stage: Stage, address: str) -> list[str]:
    """Return the subjects of all mails to *address*."""
    return [mail.subject for mail in stage.mailbox.mails if mail.to == address]


async def test_another_address_counts_once_its_link_was_followed_and_the_old_one_is_told(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    new = f"new-{user.email}"

    await changing(stage, principal, new)
    assert (await me(stage.identity, principal)).email == user.email
    assert mailed(stage, user.email) == ["Your account is to have another address"]
    await verify_email(stage.identity, stage.mailbox.token_for(new), origin=ORIGIN)

    assert (await me(stage.identity, principal)).email == new
    assert mailed(stage, user.email)[1:] == ["Your account has another address"]
    await login(stage.identity, new, PASSWORD, code=None, origin=ORIGIN)


async def test_a_changed_password_stops_the_change_of_address(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    new = f"new-{user.email}"
    await changing(stage, principal, new)

    await change_password(stage.identity, principal, old=PASSWORD, new=NEW, origin=ORIGIN)

    with pytest.raises(TokenInvalid):
        await verify_email(stage.identity, stage.mailbox.token_for(new), origin=ORIGIN)


async def test_a_password_set_by_mail_stops_the_change_of_address(stage: Stage) -> None:
    user = await stage.member()
    new = f"new-{user.email}"
    await changing(stage, await stage.principal(user), new)
    link = stage.mailbox.token_for(new)
    await request_password_reset(stage.identity, user.email, origin=ORIGIN)
    await stage.done()

    await reset_password(stage.identity, stage.mailbox.token_for(user.email), NEW, origin=ORIGIN)

    with pytest.raises(TokenInvalid):
        await verify_email(stage.identity, link, origin=ORIGIN)


async def test_what_was_mailed_to_the_old_address_sets_no_password_any_more(stage: Stage) -> None:
    user = await stage.member()
    new = f"new-{user.email}"
    await request_password_reset(stage.identity, user.email, origin=ORIGIN)
    await stage.done()
    link = stage.mailbox.token_for(user.email)
    await changing(stage, await stage.principal(user), new)

    await verify_email(stage.identity, stage.mailbox.token_for(new), origin=ORIGIN)

    with pytest.raises(TokenInvalid):
        await reset_password(stage.identity, link, NEW, origin=ORIGIN)


async def test_an_address_that_has_an_account_looks_free_to_all_but_its_owner(
    stage: Stage,
) -> None:
    user, owner = await stage.member(), await stage.member()
    principal = await stage.principal(user)

    await changing(stage, principal, owner.email.upper())

    assert mailed(stage, owner.email.upper()) == ["You have an account already"]
    assert mailed(stage, user.email) == ["Your account is to have another address"]
    with pytest.raises(TooSoon):
        await changing(stage, principal, f"new-{user.email}")
    assert (await me(stage.identity, principal)).email == user.email


async def test_one_mail_a_minute_is_sent_and_whoever_asks_sooner_is_told(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    first, second = f"first-{user.email}", f"second-{user.email}"
    await changing(stage, principal, first)

    with pytest.raises(TooSoon) as refused:
        await changing(stage, principal, second)
    stage.later(refused.value.retry_after)
    await changing(stage, principal, second)

    with pytest.raises(TokenInvalid):
        await verify_email(stage.identity, stage.mailbox.token_for(first), origin=ORIGIN)
    await verify_email(stage.identity, stage.mailbox.token_for(second), origin=ORIGIN)


async def test_the_password_has_to_be_right_and_the_address_another_one(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    for wrong in (NEW, SecretStr("x" * 10_000)):
        with pytest.raises(WrongPassword):
            await changing(stage, principal, f"new-{user.email}", wrong)
    for email in (user.email.upper(), "nowhere"):
        with pytest.raises(BadInput) as refused:
            await changing(stage, principal, email)
        assert refused.value.field == "email"

    assert stage.mailbox.mails == []
    assert (await stage.lines(user))[1:] == [("change-email", "WRONG_PASSWORD")] * 2


async def test_who_asks_for_a_link_once_more_proved_to_be_nobody(stage: Stage) -> None:
    user = await stage.member(email_verified_at=None)

    await request_verification(stage.identity, user.email, origin=ORIGIN)
    await stage.done()

    async with stage.identity.accounts.transaction() as transaction:
        (line,) = await transaction.audit.page(first=2, user_id=user.id)
    assert (line.action, line.actor_id) == ("request-verification", None)
