"""The audit log by pages: one's own, everybody's for admins, and nothing twice or left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

import resolvers.audit
from db.accounts.accounts import Accounts
from db.accounts.errors import AccountsUnavailable
from db.accounts.models.identity import AuditRow
from db.accounts.permissions import Role
from db.accounts.repositories.audit import Entry, NewEntry
from market.errors import BadInput
from resolvers.audit import AuditPage, AuditWanted, audit_page, forget_old, note, note_refusal
from resolvers.callers import Forbidden
from resolvers.identity.principal import Principal
from resolvers.paging import cursor_of
from tests.accounts import ORIGIN, Stage, staged


@pytest_asyncio.fixture
async def stage(accounts: Accounts) -> AsyncIterator[Stage]:
    async with staged(accounts) as stage:
        yield stage


async def principal_of(stage: Stage, role: Role = Role.USER) -> Principal:
    return await stage.principal(await stage.member(role))


async def noted(stage: Stage, principal: Principal, count: int) -> None:
    for number in range(count):
        await note(stage.identity, principal, "start-backfill", origin=ORIGIN, target=str(number))


def targets(page: AuditPage) -> list[str | None]:
    return [entry.target for entry in page.entries]


async def test_a_line_says_who_did_what_from_where(stage: Stage) -> None:
    principal = await principal_of(stage)

    await note_refusal(
        stage.identity, principal, "start-backfill", origin=ORIGIN, target="7", result="TOO_MANY"
    )
    page = await audit_page(stage.identity, principal, wanted=AuditWanted(), first=1)

    (entry,) = page.entries
    assert (entry.action, entry.target, entry.result) == ("start-backfill", "7", "TOO_MANY")
    assert entry.user_id == entry.actor_id == principal.user_id
    assert (entry.address, entry.request_id) == (ORIGIN.address, ORIGIN.request_id)
    assert entry.at == stage.identity.now()


async def test_a_target_is_kept_as_one_line_of_what_can_be_shown(stage: Stage) -> None:
    principal = await principal_of(stage)
    written = "x\nfake line \u202e\0" + "y" * 200

    await note(stage.identity, principal, "start-backfill", origin=ORIGIN, target=written)
    page = await audit_page(stage.identity, principal, wanted=AuditWanted(), first=1)

    assert targets(page) == ["xfake line " + "y" * 109]


@pytest.mark.parametrize("action", ["x" * 61, "login\0", "log\nin", "\u202elogin", "\ud800"])
async def test_an_action_that_no_line_can_have_is_refused(stage: Stage, action: str) -> None:
    principal = await principal_of(stage)

    with pytest.raises(BadInput) as raised:
        await audit_page(stage.identity, principal, wanted=AuditWanted(action=action))

    assert raised.value.field == "filter"


async def test_pages_follow_each_other_without_a_line_twice_or_left_out(stage: Stage) -> None:
    principal = await principal_of(stage)
    await noted(stage, principal, 7)
    wanted = AuditWanted(action="start-backfill")

    found: list[str | None] = []
    after = None
    for _ in range(3):
        page = await audit_page(stage.identity, principal, wanted=wanted, first=3, after=after)
        found += targets(page)
        after = page.cursors[-1]
        # What is added meanwhile is newer, and moves nothing.
        await noted(stage, principal, 1)

    assert found == ["6", "5", "4", "3", "2", "1", "0"]
    assert not page.has_next


async def test_everybody_sees_their_own_lines_only(stage: Stage) -> None:
    one, other = await principal_of(stage), await principal_of(stage)
    await noted(stage, one, 2)
    await noted(stage, other, 3)

    page = await audit_page(
        stage.identity, one, wanted=AuditWanted(action="start-backfill"), first=500
    )

    assert targets(page) == ["1", "0"]


async def test_an_admin_sees_anybodys_lines(stage: Stage) -> None:
    admin, one, other = (
        await principal_of(stage, Role.ADMIN),
        await principal_of(stage),
        await principal_of(stage),
    )
    await noted(stage, one, 1)
    await noted(stage, other, 2)

    ones = await audit_page(
        stage.identity, admin, wanted=AuditWanted(user_id=one.user_id, action="start-backfill")
    )
    everybodys = await audit_page(
        stage.identity, admin, wanted=AuditWanted(everybody=True), first=3
    )

    assert targets(ones) == ["0"]
    assert targets(everybodys) == ["1", "0", "0"]


@pytest.mark.parametrize("role", [Role.USER, Role.READ_ONLY])
async def test_only_an_admin_sees_others_lines(stage: Stage, role: Role) -> None:
    one, other = await principal_of(stage, role), await principal_of(stage)

    for wanted in (AuditWanted(everybody=True), AuditWanted(user_id=other.user_id)):
        with pytest.raises(Forbidden):
            await audit_page(stage.identity, one, wanted=wanted)


@pytest.mark.parametrize(
    "after", ["", "nonsense", cursor_of(("x",)), cursor_of(("9" * 30,)), cursor_of(("1", "2"))]
)
async def test_a_cursor_of_somewhere_else_is_refused(stage: Stage, after: str) -> None:
    principal = await principal_of(stage)

    with pytest.raises(BadInput) as raised:
        await audit_page(stage.identity, principal, wanted=AuditWanted(), after=after)

    assert raised.value.field == "after"


@pytest.mark.parametrize("first", [-1, 501])
async def test_a_page_has_a_bound(stage: Stage, first: int) -> None:
    principal = await principal_of(stage)

    with pytest.raises(BadInput):
        await audit_page(stage.identity, principal, wanted=AuditWanted(), first=first)


async def added_ago(stage: Stage, days: float, count: int) -> None:
    """Add lines of nobody's to the log, as old as that."""
    at = stage.identity.now() - timedelta(days=days)
    async with stage.identity.accounts.transaction() as transaction:
        for _ in range(count):
            await transaction.audit.add(NewEntry(at=at, action="old"))


async def everything(stage: Stage) -> list[Entry]:
    async with stage.identity.accounts.transaction() as transaction:
        return await transaction.audit.page(first=500)


@pytest_asyncio.fixture
async def fresh_stage(stage: Stage, accounts_engine: AsyncEngine) -> Stage:
    """A stage whose log is empty."""
    async with accounts_engine.begin() as connection:
        await connection.execute(delete(AuditRow))
    return stage


async def test_lines_are_kept_for_the_days_that_they_are_to_be_kept(fresh_stage: Stage) -> None:
    for days in (400, 32, 31.1, 29.9, 1):
        await added_ago(fresh_stage, days, 1)
    now = fresh_stage.identity.now()

    removed = await forget_old(fresh_stage.identity, timedelta(days=30))

    kept = [entry for entry in await everything(fresh_stage) if entry.action == "old"]
    assert removed == 3
    assert [(now - entry.at) / timedelta(days=1) for entry in kept] == [1, pytest.approx(29.9)]


async def test_the_log_says_what_was_taken_out_of_it(fresh_stage: Stage) -> None:
    await added_ago(fresh_stage, 40, 5)

    await forget_old(fresh_stage.identity, timedelta(days=30))
    again = await forget_old(fresh_stage.identity, timedelta(days=30))

    (entry,) = await everything(fresh_stage)
    day = (fresh_stage.identity.now() - timedelta(days=30)).date()
    assert (entry.action, entry.target) == ("audit-retention", f"5 lines from before {day}")
    assert (entry.user_id, entry.actor_id, entry.result) == (None, None, "ok")
    assert again == 0


async def test_many_lines_are_removed_a_batch_at_a_time(
    fresh_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers.audit, "_BATCH", 4)
    await added_ago(fresh_stage, 40, 10)

    removed = await forget_old(fresh_stage.identity, timedelta(days=30))

    told = [entry.target for entry in await everything(fresh_stage)]
    assert removed == 10
    assert [target.split()[0] for target in told if target] == ["2", "4", "4"]


async def test_processes_that_forget_at_once_remove_and_tell_of_each_line_once(
    fresh_stage: Stage,
) -> None:
    await added_ago(fresh_stage, 40, 20)

    both = await asyncio.gather(
        *(forget_old(fresh_stage.identity, timedelta(days=30)) for _ in range(2)),
        return_exceptions=True,
    )

    told = sum(int((entry.target or "").split()[0]) for entry in await everything(fresh_stage))
    assert told == 20
    assert all(isinstance(each, int | AccountsUnavailable) for each in both)
