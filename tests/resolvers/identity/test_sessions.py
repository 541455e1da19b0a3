"""Where somebody is signed in: what they see of it, and what they end."""

from __future__ import annotations

import pytest

from db.accounts.errors import NotFound
from resolvers.identity.failures import Unauthenticated
from resolvers.identity.sessions import end_other_sessions, end_session, sessions
from resolvers.identity.signing_in import refresh
from tests.accounts import ORIGIN, Stage


async def test_one_signs_oneself_out_elsewhere_and_nobody_else(stage: Stage) -> None:
    user, other = await stage.member(), await stage.member()
    here, there = await stage.login(user), await stage.login(user)
    principal, stranger = await stage.shown(here), await stage.principal(other)
    with pytest.raises(NotFound):
        await end_session(stage.identity, stranger, there.session_id, origin=ORIGIN)

    await end_session(stage.identity, principal, there.session_id, origin=ORIGIN)

    with pytest.raises(Unauthenticated):
        await stage.shown(there)
    left = await sessions(stage.identity, principal)
    assert [each.id for each in left] == [here.session_id]


async def test_all_others_end_at_once_and_those_of_other_people_go_on(stage: Stage) -> None:
    user = await stage.member()
    here, *there = [await stage.login(user) for _ in range(3)]
    principal, stranger = await stage.shown(here), await stage.principal(await stage.member())

    ended = await end_other_sessions(stage.identity, principal, origin=ORIGIN)

    assert ended == 2
    for each in there:
        with pytest.raises(Unauthenticated):
            await stage.shown(each)
        with pytest.raises(Unauthenticated):
            await refresh(stage.identity, each.refresh, origin=ORIGIN)
    assert await stage.shown(here) == principal
    assert await stage.identity.check(stranger.claims) == stranger
    assert (await stage.lines(user))[-1] == ("end-other-sessions", "ok")


async def test_a_session_tells_where_it_began_and_when_it_was_used(stage: Stage) -> None:
    user = await stage.member()
    first = await stage.login(user)
    began = stage.identity.now()
    stage.later(60)
    used = stage.identity.now()
    second = await refresh(stage.identity, first.refresh, origin=ORIGIN)

    (session,) = await sessions(stage.identity, await stage.shown(second))

    assert (session.address, session.agent) == (ORIGIN.address, ORIGIN.agent)
    assert (session.created_at, session.rotated_at) == (began, used)
    assert session.ends_at == second.refresh_expires_at


async def test_a_session_that_is_over_is_not_shown(stage: Stage) -> None:
    user = await stage.member()
    await stage.login(user)
    stage.later(7 * 86_400)
    principal = await stage.principal(user)

    (session,) = await sessions(stage.identity, principal)

    assert session.id == principal.claims.session_id
