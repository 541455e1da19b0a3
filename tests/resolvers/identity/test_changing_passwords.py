"""Change and reset passwords: what goes on, what ends, and what works only once."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from db.accounts.permissions import Scope
from resolvers.identity.api_tokens import api_tokens, create_api_token
from resolvers.identity.changing_passwords import (
    change_password,
    request_password_reset,
    reset_password,
)
from resolvers.identity.failures import (
    LoginFailed,
    TokenInvalid,
    Unauthenticated,
    WeakPassword,
    WrongPassword,
)
from resolvers.identity.profile import me, update_profile
from resolvers.identity.signing_in import login, refresh
from tests.accounts import NOW, ORIGIN, PASSWORD, Stage

NEW = SecretStr("another horse, another battery")


async def asked(stage: Stage, email: str) -> None:
    await request_password_reset(stage.identity, email, origin=ORIGIN)
    await stage.done()


async def test_a_new_password_ends_all_other_sessions_and_this_one_goes_on(stage: Stage) -> None:
    user = await stage.member()
    here, there = await stage.login(user), await stage.login(user)
    principal = await stage.shown(here)
    other = await stage.shown(there)

    access = await change_password(stage.identity, principal, old=PASSWORD, new=NEW, origin=ORIGIN)

    assert (await stage.identity.authenticate(access.text.get_secret_value())).user_id == user.id
    await refresh(stage.identity, here.refresh, origin=ORIGIN)
    for claims in (principal.claims, other.claims):
        with pytest.raises(Unauthenticated):
            await stage.identity.check(claims)
    with pytest.raises(Unauthenticated):
        await refresh(stage.identity, there.refresh, origin=ORIGIN)
    with pytest.raises(LoginFailed):
        await stage.login(user)
    await login(stage.identity, user.username, NEW, code=None, origin=ORIGIN)


async def test_the_old_password_has_to_be_right_and_the_new_one_good(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    with pytest.raises(WrongPassword):
        await change_password(stage.identity, principal, old=NEW, new=NEW, origin=ORIGIN)
    with pytest.raises(WeakPassword):
        await change_password(
            stage.identity, principal, old=PASSWORD, new=SecretStr(user.email), origin=ORIGIN
        )

    await stage.login(user)


async def test_one_password_counts_however_its_characters_are_written(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    composed, decomposed = SecretStr("caf\u00e9 au lait"), SecretStr("cafe\u0301 au lait")
    await change_password(stage.identity, principal, old=PASSWORD, new=composed, origin=ORIGIN)

    await login(stage.identity, user.username, decomposed, code=None, origin=ORIGIN)


async def test_a_reset_sets_a_password_once_and_ends_everything(stage: Stage) -> None:
    user = await stage.member(email_verified_at=None)
    async with stage.identity.accounts.transaction() as transaction:
        await transaction.users.change(user.id, email_verified_at=NOW)
    signed_in = await stage.login(user)
    principal = await stage.shown(signed_in)
    await create_api_token(
        stage.identity,
        principal,
        name="program",
        scopes=[Scope.READ],
        password=PASSWORD,
        origin=ORIGIN,
    )
    await asked(stage, user.email.upper())
    token = stage.mailbox.token_for(user.email)

    await reset_password(stage.identity, token, NEW, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)
    with pytest.raises(Unauthenticated):
        await refresh(stage.identity, signed_in.refresh, origin=ORIGIN)
    with pytest.raises(TokenInvalid):
        await reset_password(stage.identity, token, PASSWORD, origin=ORIGIN)
    again = await login(stage.identity, user.username, NEW, code=None, origin=ORIGIN)
    assert await api_tokens(stage.identity, await stage.shown(again)) == []


async def test_of_several_who_use_one_reset_at_once_one_sets_the_password(stage: Stage) -> None:
    user = await stage.member()
    await asked(stage, user.email)
    token = stage.mailbox.token_for(user.email)
    wanted = [SecretStr(f"{NEW.get_secret_value()} {number}") for number in range(5)]

    outcomes = await asyncio.gather(
        *(reset_password(stage.identity, token, each, origin=ORIGIN) for each in wanted),
        return_exceptions=True,
    )

    assert sum(isinstance(each, TokenInvalid) for each in outcomes) == 4
    winner = wanted[outcomes.index(None)]
    await login(stage.identity, user.username, winner, code=None, origin=ORIGIN)


async def test_resets_asked_for_and_used_at_once_do_not_wait_for_each_other_for_ever(
    stage: Stage,
) -> None:
    user = await stage.member()
    for _ in range(5):
        await asked(stage, user.email)
        token = stage.mailbox.token_for(user.email)
        stage.later(61)

        outcomes = await asyncio.gather(
            reset_password(stage.identity, token, NEW, origin=ORIGIN),
            asked(stage, user.email),
            asked(stage, user.email),
            return_exceptions=True,
        )

        assert outcomes[1:] == [None, None]
        assert outcomes[0] is None or isinstance(outcomes[0], TokenInvalid)
        stage.later(3_600)


async def test_a_reset_proves_the_address(stage: Stage) -> None:
    user = await stage.member(email_verified_at=None)
    await asked(stage, user.email)

    await reset_password(stage.identity, stage.mailbox.token_for(user.email), NEW, origin=ORIGIN)

    await login(stage.identity, user.username, NEW, code=None, origin=ORIGIN)


async def test_a_reset_is_over_after_an_hour(stage: Stage) -> None:
    user = await stage.member()
    await asked(stage, user.email)
    stage.later(3_600)

    with pytest.raises(TokenInvalid):
        await reset_password(
            stage.identity, stage.mailbox.token_for(user.email), NEW, origin=ORIGIN
        )

    await stage.login(user)


async def test_the_newest_reset_alone_counts_and_one_a_minute_is_sent(stage: Stage) -> None:
    user = await stage.member()
    await asked(stage, user.email)
    first = stage.mailbox.token_for(user.email)
    await asked(stage, user.email)
    assert len(stage.mailbox.mails) == 1

    stage.later(60)
    await asked(stage, user.email)

    with pytest.raises(TokenInvalid):
        await reset_password(stage.identity, first, NEW, origin=ORIGIN)
    await reset_password(stage.identity, stage.mailbox.token_for(user.email), NEW, origin=ORIGIN)


async def test_an_unknown_or_disabled_address_gets_no_mail_and_the_same_answer(
    stage: Stage,
) -> None:
    disabled = await stage.member(disabled_at=NOW)

    await asked(stage, "stranger@example.com")
    await asked(stage, disabled.email)

    assert stage.mailbox.mails == []


async def test_a_profile_changes_where_something_was_said_and_stays_elsewhere(
    stage: Stage,
) -> None:
    principal = await stage.principal(await stage.member())
    await update_profile(
        stage.identity, principal, origin=ORIGIN, nickname="Ada", bio="one\ntwo 🎈"
    )

    user = await update_profile(
        stage.identity, principal, origin=ORIGIN, nickname=None, location="Ulm"
    )

    assert (user.nickname, user.location, user.bio) == (None, "Ulm", "one\ntwo 🎈")
    assert await me(stage.identity, principal) == user
