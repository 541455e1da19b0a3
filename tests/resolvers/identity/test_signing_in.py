"""Sign in, refresh, sign out: what counts, what ends, and what nobody can tell apart."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from db.accounts.repositories.sessions import MOST_SESSIONS
from resolvers.identity.failures import (
    EmailNotVerified,
    LoginFailed,
    Unauthenticated,
    WeakPassword,
)
from resolvers.identity.signing_in import (
    TOKEN_REUSED,
    login,
    logout,
    logout_by_refresh_token,
    refresh,
)
from tests.accounts import NOW, ORIGIN, PASSWORD, Stage

DAY_SECONDS = 86_400
WRONG = SecretStr("wrong horse battery")


async def refreshed(stage: Stage, token: SecretStr):
    return await refresh(stage.identity, token, origin=ORIGIN)


async def test_a_session_begins_with_the_name_or_the_address_in_any_case(stage: Stage) -> None:
    user = await stage.member()

    for name in (user.username, user.username.upper(), user.email.upper()):
        signed_in = await login(stage.identity, name, PASSWORD, code=None, origin=ORIGIN)
        principal = await stage.shown(signed_in)

        assert principal.user_id == user.id


async def test_an_unknown_name_and_a_wrong_password_answer_the_same_after_the_same_work(
    stage: Stage,
) -> None:
    user = await stage.member()
    disabled = await stage.member(disabled_at=NOW)
    passwords = stage.identity.passwords
    told = []
    for name, password in (
        (user.username, WRONG),
        ("nobody-of-this-name", WRONG),
        ("nobody@example.com", WRONG),
        ("two words\x00", WRONG),
        ("x" * 10_000, WRONG),
        (disabled.username, PASSWORD),
    ):
        before = passwords.hashed

        with pytest.raises(LoginFailed) as failed:
            await login(stage.identity, name, password, code=None, origin=ORIGIN)

        told.append((str(failed.value), passwords.hashed - before))

    assert told == [("Name or password are wrong.", 1)] * 6


async def test_a_password_too_long_is_refused_before_any_work(stage: Stage) -> None:
    user = await stage.member()

    with pytest.raises(WeakPassword):
        await login(stage.identity, user.username, SecretStr("x" * 201), code=None, origin=ORIGIN)

    assert stage.identity.passwords.hashed == 0


async def test_whoever_did_not_prove_their_address_is_told_so_after_the_right_password_only(
    stage: Stage,
) -> None:
    user = await stage.member(email_verified_at=None)

    with pytest.raises(EmailNotVerified):
        await stage.login(user)
    with pytest.raises(LoginFailed):
        await login(stage.identity, user.username, WRONG, code=None, origin=ORIGIN)


async def test_a_password_hashed_with_other_parameters_is_hashed_anew(stage: Stage) -> None:
    old = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    user = await stage.member()
    async with stage.identity.accounts.transaction() as transaction:
        await transaction.users.change(user.id, password_hash=old.hash(PASSWORD.get_secret_value()))

    await stage.login(user)

    async with stage.identity.accounts.transaction() as transaction:
        found = await transaction.users.find(user.id)
    assert found is not None
    assert not stage.identity.passwords.is_outdated(found.password_hash)
    await stage.login(user)


async def test_one_more_login_than_is_allowed_ends_the_session_used_longest_ago(
    stage: Stage,
) -> None:
    user = await stage.member()
    opened = []
    for _ in range(MOST_SESSIONS + 1):
        opened.append(await stage.login(user))
        stage.later(1)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, opened[0].refresh)
    await refreshed(stage, opened[1].refresh)
    await refreshed(stage, opened[-1].refresh)


async def test_logins_at_once_do_not_exceed_the_number_of_sessions(stage: Stage) -> None:
    user = await stage.member()

    await asyncio.gather(*(stage.login(user) for _ in range(MOST_SESSIONS + 6)))

    async with stage.identity.accounts.transaction() as transaction:
        assert len(await transaction.sessions.of(user.id)) == MOST_SESSIONS


async def test_a_refresh_gives_another_token_and_the_session_goes_on(stage: Stage) -> None:
    user = await stage.member()
    first = await stage.login(user)

    second = await refreshed(stage, first.refresh)
    stage.later(60)
    third = await refreshed(stage, second.refresh)

    texts = {each.refresh.get_secret_value() for each in (first, second, third)}
    assert len(texts) == 3
    assert {each.session_id for each in (first, second, third)} == {first.session_id}
    assert (await stage.shown(third)).user_id == user.id


async def test_a_token_that_comes_back_ends_the_family_and_the_log_says_so(stage: Stage) -> None:
    user = await stage.member()
    first = await stage.login(user)
    second = await refreshed(stage, first.refresh)
    stage.later(11)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, first.refresh)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, second.refresh)
    with pytest.raises(Unauthenticated):
        await stage.shown(second)
    assert await stage.lines(user) == [("login", "ok"), ("refresh", TOKEN_REUSED)]


async def test_a_token_older_than_the_one_before_ends_the_family_at_once(stage: Stage) -> None:
    user = await stage.member()
    first = await stage.login(user)
    second = await refreshed(stage, first.refresh)
    stage.later(11)
    third = await refreshed(stage, second.refresh)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, first.refresh)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, third.refresh)


async def test_two_tabs_that_refresh_at_once_get_the_same_token_and_stay_signed_in(
    stage: Stage,
) -> None:
    user = await stage.member()
    first = await stage.login(user)

    tabs = await asyncio.gather(*(refreshed(stage, first.refresh) for _ in range(5)))
    stage.later(9)
    late = await refreshed(stage, first.refresh)

    texts = {tab.refresh.get_secret_value() for tab in (*tabs, late)}
    assert len(texts) == 1
    stage.later(60)
    await refreshed(stage, tabs[0].refresh)


async def test_a_tab_that_sends_an_older_token_than_another_did_a_moment_ago_goes_on(
    stage: Stage,
) -> None:
    user = await stage.member()
    old = await refreshed(stage, (await stage.login(user)).refresh)
    stage.later(600)

    tabs = [await refreshed(stage, old.refresh) for _ in range(2)]
    stage.later(0.3)
    tabs.append(await refreshed(stage, tabs[0].refresh))
    stage.later(0.3)
    tabs.append(await refreshed(stage, old.refresh))

    (newest,) = {tab.refresh.get_secret_value() for tab in tabs}
    assert newest != old.refresh.get_secret_value()
    for tab in tabs:
        assert (await stage.shown(tab)).user_id == user.id
    stage.later(600)
    following = await refreshed(stage, tabs[-1].refresh)
    assert following.refresh.get_secret_value() != newest


async def test_the_newest_token_is_followed_as_soon_as_the_one_before_counts_no_more(
    stage: Stage,
) -> None:
    first = await stage.login(await stage.member())
    second = await refreshed(stage, first.refresh)
    stage.later(10)
    same = await refreshed(stage, second.refresh)
    stage.later(0.001)

    third = await refreshed(stage, second.refresh)

    assert same.refresh == second.refresh
    assert third.refresh != second.refresh
    with pytest.raises(Unauthenticated):
        await refreshed(stage, first.refresh)
    with pytest.raises(Unauthenticated):
        await refreshed(stage, third.refresh)


async def test_another_session_of_the_same_user_survives_a_reuse(stage: Stage) -> None:
    user = await stage.member()
    stolen, other = await stage.login(user), await stage.login(user)
    await refreshed(stage, stolen.refresh)
    stage.later(11)
    with pytest.raises(Unauthenticated):
        await refreshed(stage, stolen.refresh)

    assert (await refreshed(stage, other.refresh)).user_id == user.id


@pytest.mark.parametrize(
    "text", ["", "bgr_", "bgr_" + "A" * 63, "bgr_" + "A" * 64, "bgr_" + "A" * 65, "x" * 10_000, "é"]
)
async def test_what_is_no_refresh_token_is_refused(stage: Stage, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await refreshed(stage, SecretStr(text))


async def test_a_session_that_nobody_uses_for_a_week_ends(stage: Stage) -> None:
    user = await stage.member()
    signed_in = await stage.login(user)
    stage.later(7 * DAY_SECONDS)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, signed_in.refresh)

    async with stage.identity.accounts.transaction() as transaction:
        assert await transaction.sessions.of(user.id) == []


async def test_a_session_ends_after_a_month_however_busy(stage: Stage) -> None:
    user = await stage.member()
    signed_in = await stage.login(user)
    for _ in range(5):
        stage.later(6 * DAY_SECONDS - 1)
        signed_in = await refreshed(stage, signed_in.refresh)
    assert signed_in.refresh_expires_at == stage.identity.now() + timedelta(seconds=5)

    stage.later(5)

    with pytest.raises(Unauthenticated):
        await refreshed(stage, signed_in.refresh)


async def test_who_signs_out_is_out_at_once_and_their_other_sessions_go_on(stage: Stage) -> None:
    user = await stage.member()
    here, there = await stage.login(user), await stage.login(user)
    principal = await stage.shown(here)

    await logout(stage.identity, principal, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)
    with pytest.raises(Unauthenticated):
        await refreshed(stage, here.refresh)
    assert (await stage.shown(there)).user_id == user.id


async def test_a_refresh_token_alone_signs_out_and_an_unknown_one_changes_nothing(
    stage: Stage,
) -> None:
    user = await stage.member()
    signed_in = await stage.login(user)
    await logout_by_refresh_token(stage.identity, SecretStr("bgr_nonsense"), origin=ORIGIN)
    await stage.shown(signed_in)

    await logout_by_refresh_token(stage.identity, signed_in.refresh, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.shown(signed_in)


async def test_every_try_to_sign_in_is_in_the_log_with_where_it_came_from(stage: Stage) -> None:
    user = await stage.member()
    with pytest.raises(LoginFailed):
        await login(stage.identity, user.username, WRONG, code=None, origin=ORIGIN)
    await stage.login(user)

    async with stage.identity.accounts.transaction() as transaction:
        good, bad = await transaction.audit.page(first=10, user_id=user.id)

    assert (bad.result, bad.actor_id) == ("LOGIN_FAILED", None)
    assert (good.result, good.actor_id) == ("ok", user.id)
    assert (good.address, good.request_id) == (ORIGIN.address, ORIGIN.request_id)
