"""Who is let in: by which token, with which permissions, and for how long after a change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import SecretStr

from db.accounts.permissions import PERMISSIONS, Permission, Role, Scope
from resolvers.callers import Forbidden
from resolvers.identity.administration import set_disabled, set_role
from resolvers.identity.api_tokens import create_api_token, revoke_api_token
from resolvers.identity.checking import CHECK_SECONDS
from resolvers.identity.failures import Unauthenticated, WrongPassword
from tests.accounts import ORIGIN, PASSWORD, START_MS, Stage, staged


async def token_for(stage: Stage, principal, *scopes: Scope, days: int = 90):
    return await create_api_token(
        stage.identity,
        principal,
        name="program",
        scopes=scopes,
        days=days,
        password=PASSWORD,
        origin=ORIGIN,
    )


@pytest.mark.parametrize("role", list(Role))
async def test_a_user_may_what_their_role_may(stage: Stage, role: Role) -> None:
    await stage.member(Role.ADMIN)
    user = await stage.member(role)

    principal = await stage.principal(user)

    assert (principal.role, principal.permissions) == (role, PERMISSIONS[role])


async def test_a_demoted_user_has_lost_the_old_role_at_the_next_check(stage: Stage) -> None:
    await stage.member(Role.ADMIN)
    user = await stage.member(Role.ADMIN)
    principal = await stage.principal(user)

    await set_role(stage.identity, None, user.username, Role.READ_ONLY, origin=ORIGIN)

    checked = await stage.identity.check(principal.claims)
    assert checked.role is Role.READ_ONLY
    with pytest.raises(Forbidden):
        checked.check(Permission.ORDERS_PLACE)


async def test_a_disabled_user_is_out_by_session_and_by_api_token_and_can_come_back(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    token = (await token_for(stage, principal, Scope.READ)).text.get_secret_value()
    by_token = await stage.identity.authenticate(token)

    await set_disabled(stage.identity, None, user.username, True, origin=ORIGIN)

    for claims in (principal.claims, by_token.claims):
        with pytest.raises(Unauthenticated):
            await stage.identity.check(claims)
    await set_disabled(stage.identity, None, user.username, False, origin=ORIGIN)
    assert (await stage.identity.authenticate(token)).user_id == user.id
    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)


async def test_a_change_made_by_another_process_counts_within_the_time_checks_are_kept(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    async with staged(stage.identity.accounts, clock=stage.clock) as other:
        await set_disabled(other.identity, None, user.username, True, origin=ORIGIN)

    stage.later(CHECK_SECONDS)

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)


async def test_checks_within_that_time_and_at_once_cost_one_read(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    async with staged(stage.identity.accounts, clock=stage.clock) as fresh:
        reads = counted(fresh)

        await asyncio.gather(*(fresh.identity.check(principal.claims) for _ in range(50)))
        await fresh.identity.check(principal.claims)

        assert len(reads) == 1
        stage.later(CHECK_SECONDS)
        await fresh.identity.check(principal.claims)
        assert len(reads) == 2


async def test_what_was_found_out_lately_needs_no_question_until_somebody_changes(
    stage: Stage,
) -> None:
    await stage.member(Role.ADMIN)
    user, other = await stage.member(), await stage.member()
    checks = stage.identity.checks
    principal = await stage.principal(user)
    text = (await token_for(stage, principal, Scope.READ)).text.get_secret_value()
    assert (checks.lately(text), checks.is_read(text)) == (None, False)

    found = await stage.identity.authenticate(text)

    assert (checks.lately(text), checks.is_read(text)) == (found, True)
    await set_disabled(stage.identity, None, other.username, True, origin=ORIGIN)
    assert checks.lately(text) is None
    assert await stage.identity.authenticate(text) == checks.lately(text) == found
    stage.later(CHECK_SECONDS)
    assert checks.lately(text) is None
    await set_disabled(stage.identity, None, user.username, True, origin=ORIGIN)
    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(text)
    assert (checks.lately(text), checks.is_read(text)) == (None, False)


async def test_what_was_read_before_a_change_is_not_taken_for_what_is_so_after(
    stage: Stage,
) -> None:
    """The question is on its way while the user is disabled: its answer counts once only."""
    user = await stage.member()
    principal = await stage.principal(user)
    text = (await token_for(stage, principal, Scope.READ)).text.get_secret_value()
    async with staged(stage.identity.accounts, clock=stage.clock) as fresh:
        checks = fresh.identity.checks
        asked, told = asyncio.Event(), asyncio.Event()

        class Waiting:
            def __init__(self, accounts) -> None:
                self._accounts = accounts

            @asynccontextmanager
            async def transaction(self):
                async with self._accounts.transaction() as transaction:
                    yield transaction
                if not asked.is_set() and checks.is_read(text) is False and checks._asking:
                    asked.set()
                    await told.wait()

        checks._accounts = Waiting(fresh.identity.accounts)
        asking = asyncio.create_task(checks.authenticate(text))
        await asked.wait()
        await set_disabled(fresh.identity, None, user.username, True, origin=ORIGIN)
        told.set()
        await asking

        assert checks.lately(text) is None
        with pytest.raises(Unauthenticated):
            await checks.authenticate(text)


def counted(stage: Stage) -> list[int]:
    """Return a list that grows with each transaction of *stage*."""
    reads: list[int] = []

    class Counting:
        def __init__(self, accounts) -> None:
            self._accounts = accounts

        def transaction(self):
            reads.append(1)
            return self._accounts.transaction()

    stage.identity.checks._accounts = Counting(stage.identity.accounts)
    return reads


async def test_one_who_leaves_does_not_take_the_answer_from_the_others(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    stage.later(CHECK_SECONDS)
    waiting = [asyncio.create_task(stage.identity.check(principal.claims)) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()

    assert (await waiting[1]).user_id == (await waiting[2]).user_id == user.id


async def test_an_access_token_of_before_a_password_change_does_not_count(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    old = replace(principal.claims, version=-1)

    with pytest.raises(Unauthenticated):
        await stage.identity.check(old)


async def test_a_token_ends_while_a_socket_is_open(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    assert principal.expires_at == START_MS + 600_000

    stage.clock.at = principal.expires_at

    with pytest.raises(Unauthenticated):
        await stage.identity.check(principal.claims)


@pytest.mark.parametrize(
    ("scopes", "has", "lacks"),
    [
        ({Scope.READ}, Permission.ORDERS_READ, Permission.ORDERS_PLACE),
        ({Scope.TRADE}, Permission.ORDERS_PLACE, Permission.CREDENTIALS_READ),
        ({Scope.BOTS}, Permission.BOTS_CHANGE, Permission.ORDERS_PLACE),
        ({Scope.READ, Scope.TRADE, Scope.BOTS}, Permission.BOTS_CHANGE, Permission.TOKENS_CHANGE),
    ],
)
async def test_an_api_token_may_what_its_scopes_say_and_never_change_the_account(
    stage: Stage, scopes, has, lacks
) -> None:
    principal = await stage.principal(await stage.member())
    made = await token_for(stage, principal, *scopes)

    by_token = await stage.identity.authenticate(made.text.get_secret_value())

    assert by_token.may(has)
    assert not by_token.may(lacks)
    assert not by_token.may(Permission.ACCOUNT_CHANGE)
    assert not by_token.may(Permission.CREDENTIALS_CHANGE)


async def test_a_demoted_users_token_may_no_more_than_the_user(stage: Stage) -> None:
    user = await stage.member()
    made = await token_for(stage, await stage.principal(user), Scope.TRADE, Scope.READ)
    await set_role(stage.identity, None, user.username, Role.READ_ONLY, origin=ORIGIN)

    by_token = await stage.identity.authenticate(made.text.get_secret_value())

    assert not by_token.may(Permission.ORDERS_PLACE)
    assert by_token.may(Permission.ORDERS_READ)


async def test_no_scope_is_given_beyond_the_role(stage: Stage) -> None:
    principal = await stage.principal(await stage.member(Role.READ_ONLY))

    with pytest.raises(Forbidden):
        await token_for(stage, principal, Scope.TRADE)


async def test_a_revoked_token_is_out_at_once(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await token_for(stage, principal, Scope.READ)
    text = made.text.get_secret_value()
    await stage.identity.authenticate(text)

    await revoke_api_token(stage.identity, principal, made.token.id, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(text)


async def test_a_token_ends_when_its_days_are_over(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await token_for(stage, principal, Scope.READ, days=1)
    text = made.text.get_secret_value()
    stage.later(86_399)
    await stage.identity.authenticate(text)

    stage.later(1)

    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(text)


async def test_a_token_with_a_known_beginning_and_another_end_is_refused(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    text = (await token_for(stage, principal, Scope.READ)).text.get_secret_value()
    forged = text[:-1] + ("A" if text[-1] != "A" else "B")

    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(forged)


async def test_the_last_use_of_a_token_is_known_to_the_minute(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    text = (await token_for(stage, principal, Scope.READ)).text.get_secret_value()

    async def last_use():
        async with stage.identity.accounts.transaction() as transaction:
            (token,) = await transaction.api_tokens.of(user.id)
        return token.last_used_at

    assert await last_use() is None
    first = stage.identity.now()
    await stage.identity.authenticate(text)
    stage.later(59)
    await stage.identity.authenticate(text)
    assert await last_use() == first
    stage.later(1)
    await stage.identity.authenticate(text)
    assert await last_use() == stage.identity.now()


@pytest.mark.parametrize("bearer", ["", "x", "a.b.c", "bgt_", "é" * 10, "\ud800", "x" * 100_000])
async def test_what_is_no_token_is_nobody(stage: Stage, bearer: str) -> None:
    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(bearer)


async def test_a_token_that_outlasts_the_session_takes_the_password_and_its_owner_is_told(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)

    with pytest.raises(WrongPassword):
        await create_api_token(
            stage.identity,
            principal,
            name="program",
            scopes=[Scope.TRADE],
            password=SecretStr("wrong horse"),
            origin=ORIGIN,
        )
    assert stage.mailbox.mails == []
    assert (await stage.lines(user))[-1] == ("create-api-token", "WRONG_PASSWORD")

    await token_for(stage, principal, Scope.TRADE)

    assert [mail.subject for mail in stage.mailbox.mails] == ["Your account has another API token"]


async def test_whoever_was_demoted_ends_the_tokens_they_have(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    made = await token_for(stage, principal, Scope.READ)
    await set_role(stage.identity, None, user.username, Role.READ_ONLY, origin=ORIGIN)
    demoted = await stage.identity.check(principal.claims)

    await revoke_api_token(stage.identity, demoted, made.token.id, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.identity.authenticate(made.text.get_secret_value())
