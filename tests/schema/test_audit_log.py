"""The audit log through GraphQL: what was done is there, whatever came of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from db.accounts.permissions import Role
from db.embedded.servers import EmbeddedServers
from schema.node import global_id
from tests.accounts import ORIGIN
from tests.api import settings_over
from tests.conftest import scratch_database
from tests.people import House, Person, housed
from web.settings import Role as ProcessRole

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOG = """query ($filter: AuditFilter, $first: Int = 50, $after: String) {
    auditLog(filter: $filter, first: $first, after: $after) {
        edges { cursor node { action } }
        nodes { at action result target userId actorId address requestId }
        pageInfo { hasPreviousPage hasNextPage startCursor endCursor } } }"""
START = """mutation ($symbol: String!) { startBackfill(input: {
    idempotencyKey: "k", since: 1759990000000, until: 1759993600000,
    series: {provider: "sim", symbol: $symbol, timeframe: "1m"}}) {
    __typename ... on BackfillStarted { backfill { id } } ... on Failure { code } } }"""
CANCEL = """mutation ($id: ID!) { cancelBackfill(input: {id: $id}) { __typename } }"""


@pytest.fixture(scope="module")
def own_url(embedded: EmbeddedServers) -> Iterator[str]:
    """A database of our own: what is backfilled here by the real time is not for other tests."""
    with scratch_database(embedded.postgres_url) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(embedded: EmbeddedServers, own_url: str) -> AsyncIterator[House]:
    # Without jobs a backfill waits until it is cancelled.
    settings = settings_over(embedded, own_url, role=ProcessRole.API)
    async with housed(settings, key_checks={}) as house:
        yield house


async def lines(person: Person, **filter: Any) -> list[dict[str, Any]]:
    answer = await person.ask(LOG, filter=filter)
    return answer.data["auditLog"]["nodes"]


def id_of(person: Person) -> str:
    assert person.user is not None
    return global_id("User", person.user.id.hex)


async def test_a_sign_in_is_in_the_log(house: House) -> None:
    person = await house.person()

    (line,) = await lines(person)

    assert (line["action"], line["result"]) == ("login", "ok")
    assert line["userId"] == line["actorId"] == id_of(person)
    assert (line["address"], line["requestId"]) == (ORIGIN.address, ORIGIN.request_id)


async def test_backfills_are_in_the_log_with_what_came_of_them(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    started = (await admin.ask(START, symbol="BTC/USDT")).data["startBackfill"]
    assert started["__typename"] == "BackfillStarted", started

    await admin.ask(CANCEL, id=started["backfill"]["id"])
    await admin.ask(CANCEL, id="nonsense")
    await admin.ask(START, symbol="NOTHING")

    seen = [(line["action"], line["result"]) for line in await lines(admin)]
    assert seen[:4] == [
        ("start-backfill", "BAD_USER_INPUT"),
        ("cancel-backfill", "BACKFILL_NOT_FOUND"),
        ("cancel-backfill", "ok"),
        ("start-backfill", "ok"),
    ]
    targets = [line["target"] for line in await lines(admin)]
    assert targets[2] == targets[3] is not None
    assert targets[:2] == [None, None]


async def test_a_page_goes_on_where_the_last_one_ended(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    for _ in range(3):
        await admin.ask(CANCEL, id="nonsense")

    first = (await admin.ask(LOG, first=2)).data["auditLog"]
    rest = (await admin.ask(LOG, first=2, after=first["pageInfo"]["endCursor"])).data["auditLog"]

    seen = [edge["node"]["action"] for edge in first["edges"] + rest["edges"]]
    assert seen == ["cancel-backfill"] * 3 + ["login"]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)


REGISTER = """mutation ($password: Secret!, $invitation: Secret!) { register(input: {
    username: "mallory", email: "mallory@example.com", password: $password,
    invitation: $invitation}) { __typename } }"""
ADD_TOKEN = """mutation ($days: Int!, $password: Secret!) { createApiToken(input: {
    name: "p", scopes: [READ], days: $days, password: $password}) { __typename } }"""
DELETE = "mutation ($id: ID!) { deleteCredential(input: {id: $id}) { __typename } }"
CHANGE = """mutation ($old: Secret!, $new: Secret!) { changePassword(input: {
    password: $old, newPassword: $new}) { __typename } }"""


async def test_what_was_refused_is_in_the_log_with_the_reason_and_of_whom(house: House) -> None:
    person = await house.person()
    nobodys = UUID(int=7)

    await person.ask(DELETE, id=global_id("Credential", nobodys.hex))
    await person.ask(DELETE, id="mistyped-secret")
    await person.ask(ADD_TOKEN, days=0, password="wrong")
    await person.ask(START, symbol="BTC/USDT")

    seen = [(line["action"], line["result"], line["target"]) for line in await lines(person)]
    assert seen[:4] == [
        ("start-backfill", "FORBIDDEN", None),
        ("create-api-token", "BAD_USER_INPUT", None),
        ("delete-credential", "NOT_FOUND", None),
        ("delete-credential", "NOT_FOUND", nobodys.hex),
    ]
    assert {line["actorId"] for line in await lines(person)} == {id_of(person)}


END = "mutation ($id: ID!) { endSession(input: {id: $id}) { __typename } }"
MADE_UP = ["a\0b", "x\nfake line \u202e", "it may be a secret", "9" * 200]
"""What nobody is given as the id of anything."""


@pytest.mark.parametrize("named", MADE_UP)
async def test_an_id_that_is_made_up_is_refused_as_ever_and_not_written_down(
    house: House, named: str
) -> None:
    person, admin = await house.person(), await house.person(Role.ADMIN)

    deleted = await person.ask(DELETE, id=global_id("Credential", named))
    ended = await person.ask(END, id=global_id("UserSession", named))
    forbidden = await person.ask(CANCEL, id=global_id("Backfill", named))
    cancelled = await admin.ask(CANCEL, id=global_id("Backfill", named))

    assert deleted.data["deleteCredential"]["__typename"] == "NotFound"
    assert ended.data["endSession"]["__typename"] == "NotFound"
    assert forbidden.codes == ["FORBIDDEN"]
    assert cancelled.data["cancelBackfill"]["__typename"] == "BackfillNotFound"
    seen = [(line["action"], line["result"], line["target"]) for line in await lines(person)]
    assert seen[:3] == [
        ("cancel-backfill", "FORBIDDEN", None),
        ("end-session", "NOT_FOUND", None),
        ("delete-credential", "NOT_FOUND", None),
    ]
    assert (await lines(admin))[0]["result"] == "BACKFILL_NOT_FOUND"


@asynccontextmanager
async def refusing_lines(url: str, action: str) -> AsyncIterator[None]:
    """Have the database refuse every line of the log about *action*."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "ALTER TABLE accounts.audit_log ADD CONSTRAINT no_such_lines"
            f" CHECK (action <> '{action}') NOT VALID"
        )
        yield
    finally:
        await connection.execute("ALTER TABLE accounts.audit_log DROP CONSTRAINT no_such_lines")
        await connection.close()


async def test_a_refusal_that_cannot_be_written_down_stands_and_the_servers_log_has_it(
    house: House, own_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    person = await house.person()

    async with refusing_lines(own_url, "delete-credential"):
        answer = await person.ask(DELETE, id=global_id("Credential", UUID(int=7).hex))
    async with refusing_lines(own_url, "start-backfill"):
        forbidden = await person.ask(START, symbol="BTC/USDT")

    assert answer.data["deleteCredential"]["__typename"] == "NotFound"
    assert forbidden.codes == ["FORBIDDEN"]
    told = [each for each in caplog.records if each.levelname == "ERROR"]
    assert [record.exc_info is not None for record in told] == [True, True]
    assert re.match(r"error [0-9a-f]{16}: delete-credential .*NOT_FOUND", told[0].getMessage())
    assert re.match(r"error [0-9a-f]{16}: start-backfill .*FORBIDDEN", told[1].getMessage())


async def test_what_a_stranger_tried_is_for_admins_to_see(house: House) -> None:
    admin = await house.person(Role.ADMIN)

    await house.stranger.ask(REGISTER, password="a good long password", invitation="guessed")

    (line, *_) = await lines(admin, everybody=True)
    assert (line["action"], line["result"]) == ("register", "INVITATION_INVALID")
    assert (line["userId"], line["actorId"], line["target"]) == (None, None, None)
    assert line["address"]


async def test_a_guess_at_a_password_is_one_line(house: House) -> None:
    person = await house.person()

    await person.ask(CHANGE, old="a wrong password", new="another long password")

    seen = [(line["action"], line["result"]) for line in await lines(person)]
    assert seen == [("change-password", "WRONG_PASSWORD"), ("login", "ok")]


async def test_who_is_not_signed_in_fills_no_log(house: House) -> None:
    admin = await house.person(Role.ADMIN)
    before = await lines(admin, everybody=True)

    await house.stranger.ask(DELETE, id="x")
    await house.stranger.ask(START, symbol="BTC/USDT")

    assert await lines(admin, everybody=True) == before


@pytest.mark.parametrize("role", [Role.USER, Role.READ_ONLY])
async def test_others_lines_are_for_admins(house: House, role: Role) -> None:
    person, other = await house.person(role), await house.person()
    admin = await house.person(Role.ADMIN)

    for wanted in ({"everybody": True}, {"userId": id_of(other)}):
        assert (await person.ask(LOG, filter=wanted)).codes == ["FORBIDDEN"]
    assert [line["userId"] for line in await lines(admin, userId=id_of(other))] == [id_of(other)]
    everybodys = {line["userId"] for line in await lines(admin, everybody=True)}
    assert {id_of(person), id_of(other), id_of(admin)} <= everybodys
    assert (await house.stranger.ask(LOG)).codes == ["UNAUTHENTICATED"]


@pytest.mark.parametrize(
    "variables",
    [
        {"after": "nonsense"},
        {"first": 501},
        {"first": -1},
        {"filter": {"userId": "nonsense"}},
        {"filter": {"action": "x" * 61}},
        {"filter": {"action": "a\0"}},
    ],
)
async def test_what_cannot_be_asked_is_refused(house: House, variables: dict[str, Any]) -> None:
    person = await house.person()

    assert (await person.ask(LOG, **variables)).codes == ["BAD_USER_INPUT"]
