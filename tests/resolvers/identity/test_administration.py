"""What admins do, who else may not, and the log of all of it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from db.accounts.errors import NotFound
from db.accounts.permissions import Role
from resolvers.audit import AuditWanted, audit_page
from resolvers.callers import Forbidden
from resolvers.identity.administration import (
    invite,
    set_disabled,
    set_role,
    turn_off_codes,
    users,
)
from resolvers.identity.failures import LoginFailed
from resolvers.identity.principal import Origin
from resolvers.identity.registering import Wanted, create_admin
from tests.accounts import ORIGIN, PASSWORD, Stage

OWN, EVERYBODY = AuditWanted(), AuditWanted(everybody=True)


async def test_only_admins_do_it(stage: Stage) -> None:
    user = await stage.member()
    for role in (Role.USER, Role.READ_ONLY):
        actor = await stage.principal(await stage.member(role))
        for asked in (
            users(stage.identity, actor, first=1),
            invite(stage.identity, actor, role=Role.ADMIN, email=None, origin=ORIGIN),
            set_role(stage.identity, actor, user.username, Role.ADMIN, origin=ORIGIN),
            set_disabled(stage.identity, actor, user.username, True, origin=ORIGIN),
            turn_off_codes(stage.identity, actor, user.username, origin=ORIGIN),
            audit_page(stage.identity, actor, wanted=EVERYBODY),
        ):
            with pytest.raises(Forbidden):
                await asked


async def test_what_an_admin_did_is_in_the_log_of_whom_it_was_done_to(stage: Stage) -> None:
    admin = await stage.principal(await stage.member(Role.ADMIN))
    user = await stage.member()
    principal = await stage.principal(user)

    await set_role(stage.identity, admin, user.username, Role.READ_ONLY, origin=ORIGIN)

    log = await audit_page(stage.identity, principal, wanted=OWN)
    newest = log.entries[0]
    assert (newest.action, newest.target, newest.result) == ("set-role", "read-only", "ok")
    assert (newest.user_id, newest.actor_id) == (user.id, admin.user_id)


async def test_what_a_command_did_is_nobodys_own_doing(stage: Stage) -> None:
    name = f"boss{uuid4().hex[:12]}"
    user = await create_admin(stage.identity, Wanted(name, f"{name}@example.com", PASSWORD))
    await stage.member(Role.ADMIN)
    await set_role(stage.identity, None, name, Role.USER, origin=Origin())
    await set_disabled(stage.identity, None, name, True, origin=Origin())

    async with stage.identity.accounts.transaction() as transaction:
        lines = await transaction.audit.page(first=9, user_id=user.id)

    assert [(line.action, line.actor_id) for line in lines] == [
        ("disable", None),
        ("set-role", None),
        ("create-admin", None),
    ]


async def test_who_is_disabled_does_not_sign_in_until_enabled(stage: Stage) -> None:
    admin = await stage.principal(await stage.member(Role.ADMIN))
    user = await stage.member()
    await set_disabled(stage.identity, admin, user.username, True, origin=ORIGIN)
    with pytest.raises(LoginFailed):
        await stage.login(user)

    await set_disabled(stage.identity, admin, user.username, False, origin=ORIGIN)

    assert (await stage.login(user)).user_id == user.id


async def test_somebody_unknown_is_told(stage: Stage) -> None:
    for asked in (
        set_role(stage.identity, None, "nobody-here", Role.USER, origin=ORIGIN),
        set_disabled(stage.identity, None, "nobody-here", True, origin=ORIGIN),
        turn_off_codes(stage.identity, None, "nobody-here", origin=ORIGIN),
    ):
        with pytest.raises(NotFound):
            await asked


async def test_the_log_is_paged_from_the_newest_without_a_line_twice_or_missing(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    for _ in range(6):
        await stage.login(user)

    pages = []
    after, more = None, True
    while more:
        page = await audit_page(stage.identity, principal, wanted=OWN, first=3, after=after)
        pages.append([entry.id for entry in page.entries])
        after, more = page.cursors[-1], page.has_next

    ids = [number for page in pages for number in page]
    assert len(ids) == 7
    assert ids == sorted(set(ids), reverse=True)


async def test_everybody_sees_their_own_lines_and_admins_all(stage: Stage) -> None:
    one, two = await stage.member(), await stage.member()
    first, _ = await stage.principal(one), await stage.principal(two)
    admin = await stage.principal(await stage.member(Role.ADMIN))

    own = (await audit_page(stage.identity, first, wanted=OWN, first=100)).entries
    logins = AuditWanted(everybody=True, action="login")
    everybodys = (await audit_page(stage.identity, admin, wanted=logins, first=100)).entries

    assert {entry.user_id for entry in own} == {one.id}
    assert {one.id, two.id, admin.user_id} <= {entry.user_id for entry in everybodys}
    assert {entry.action for entry in everybodys} == {"login"}


async def test_users_are_paged_by_name(stage: Stage) -> None:
    admin = await stage.principal(await stage.member(Role.ADMIN))
    made = {(await stage.member()).username for _ in range(3)}

    found: list[str] = []
    after = None
    while page := await users(stage.identity, admin, first=2, after=after):
        found += [user.username for user in page]
        after = page[-1].username

    assert made <= set(found)
    assert found == sorted(found)
