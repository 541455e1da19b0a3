"""Keys at venues: they go in, are tried, and never come out."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import event, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from db.accounts.accounts import Accounts
from db.accounts.errors import NameTaken, NotFound, TooMany, VersionConflict
from db.accounts.models.credentials import CredentialRow
from db.accounts.permissions import Role
from db.accounts.repositories.credentials import MOST_CREDENTIALS, CredentialSecrets
from db.encryption import SealBroken
from market.errors import BadInput, ProviderUnavailable, UnknownName
from resolvers.callers import Forbidden
from resolvers.identity.credentials import (
    CredentialChange,
    NewCredential,
    add_credential,
    credential,
    credentials,
    delete_credential,
    try_credential,
    update_credential,
)
from resolvers.identity.failures import CredentialInUse, CredentialRefused
from resolvers.identity.leaving import delete_account
from resolvers.identity.principal import Principal
from tests.accounts import ORIGIN, PASSWORD, Stage

SECRETS = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr("venue-secret"))


def new(name: str = "main", **values) -> NewCredential:
    return NewCredential(**{"service": "fake", "name": name, "secrets": SECRETS} | values)


async def added(stage: Stage, principal, wanted: NewCredential | None = None):
    return await add_credential(stage.identity, principal, wanted or new(), origin=ORIGIN)


async def changed(stage: Stage, principal, made, *, version: int | None = None, **values):
    return await update_credential(
        stage.identity,
        principal,
        made.id,
        CredentialChange(**values),
        version=made.version if version is None else version,
        origin=ORIGIN,
    )


async def test_a_credential_is_listed_with_the_end_of_its_key_alone(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    aux = CredentialSecrets(SECRETS.key, SECRETS.secret, SecretStr("passphrase"))

    made = await added(stage, principal, new(secrets=aux, testnet=True, notes="for\ntests"))

    (listed,) = await credentials(stage.identity, principal)
    assert listed == made
    assert (listed.key_hint, listed.testnet, listed.notes) == ("1234", True, "for\ntests")


async def test_of_a_short_key_no_end_is_shown(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    short = CredentialSecrets(SecretStr("abcdefgh"), SECRETS.secret)

    made = await added(stage, principal, new(secrets=short))

    assert made.key_hint == ""


async def test_the_venue_is_asked_with_the_very_key_and_says_what_it_may(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal, new(testnet=True))

    tried = await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    assert stage.venue.asked == [("venue-key-abcd1234:venue-secret", True)]
    assert tried.permissions == ("read", "trade")
    assert tried.credential.last_checked_at == stage.identity.now()


async def test_a_key_that_the_venue_refuses_is_told_and_logged_and_not_noted_as_checked(
    stage: Stage,
) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    made = await added(stage, principal)
    stage.venue.refused.add("venue-key-abcd1234")

    with pytest.raises(CredentialRefused):
        await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    (listed,) = await credentials(stage.identity, principal)
    assert listed.last_checked_at is None
    assert (await stage.lines(user))[-2:] == [
        ("test-credential", "ASKED"),
        ("test-credential", "CREDENTIAL_REFUSED"),
    ]


async def test_a_trial_that_is_given_up_is_in_the_log(stage: Stage) -> None:
    user = await stage.member()
    principal = await stage.principal(user)
    made = await added(stage, principal)
    stage.venue.answering.clear()
    trying = asyncio.create_task(try_credential(stage.identity, principal, made.id, origin=ORIGIN))
    await stage.venue.reached.wait()

    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)

    assert (await stage.lines(user))[-1] == ("test-credential", "ASKED")


async def test_keys_are_shown_to_the_world_that_they_were_kept_for(
    stage: Stage, accounts_engine: AsyncEngine
) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal, new(testnet=True))
    other = CredentialSecrets(SecretStr("live-key-9999"), SecretStr("live-secret"))

    with after_reading_credentials(
        accounts_engine,
        lambda: changed(stage, principal, made, secrets=other, testnet=False),
    ):
        tried = await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    assert stage.venue.asked == [("venue-key-abcd1234:venue-secret", True)]
    assert (tried.credential.version, tried.credential.last_checked_at) == (2, None)


async def test_a_library_that_fails_with_the_key_in_its_words_is_not_quoted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    stage.venue.broken = True

    with pytest.raises(ProviderUnavailable) as failed:
        await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    told = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + caplog.text
    assert "RuntimeError" in told
    assert "venue-key" not in told
    assert failed.value.__context__ is None


async def test_other_keys_take_the_place_of_all_and_have_to_be_tried_anew(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    await try_credential(stage.identity, principal, made.id, origin=ORIGIN)
    other = CredentialSecrets(SecretStr("another-key-9999"), SecretStr("another-secret"))

    after = await changed(stage, principal, made, secrets=other)

    assert (after.key_hint, after.last_checked_at, after.version) == ("9999", None, 2)
    await try_credential(stage.identity, principal, made.id, origin=ORIGIN)
    assert stage.venue.asked[-1][0] == "another-key-9999:another-secret"


async def test_a_new_name_leaves_the_keys_and_that_they_were_tried(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal, new(notes="old"))
    await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    after = await changed(stage, principal, made, name="renamed", notes="")

    assert (after.name, after.notes) == ("renamed", None)
    assert after.last_checked_at is not None
    await try_credential(stage.identity, principal, made.id, origin=ORIGIN)


async def test_keys_for_another_world_have_to_be_tried_anew(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    await try_credential(stage.identity, principal, made.id, origin=ORIGIN)

    same = await changed(stage, principal, made, testnet=False)
    after = await changed(stage, principal, same, testnet=True)

    assert same.last_checked_at is not None
    assert after.last_checked_at is None


async def test_of_two_changes_to_one_version_the_second_is_refused(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)

    outcomes = await asyncio.gather(
        changed(stage, principal, made, name="one"),
        changed(stage, principal, made, name="two"),
        return_exceptions=True,
    )

    (conflict,) = [each for each in outcomes if isinstance(each, VersionConflict)]
    assert conflict.current == 2


async def test_a_name_is_unique_for_its_service_and_user_and_compares_case(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    other = await stage.principal(await stage.member())
    made = await added(stage, principal, new("main"))
    await added(stage, principal, new("Main"))
    await added(stage, other, new("main"))

    with pytest.raises(NameTaken):
        await added(stage, principal, new("main"))
    with pytest.raises(NameTaken):
        await changed(stage, principal, made, name="Main")


async def test_a_name_is_told_to_be_taken_whatever_bytes_the_id_of_its_user_has(
    stage: Stage,
) -> None:
    # MariaDB quotes the id in what it says.
    odd = UUID(bytes=b"\"'`\\\n%\x00\xff" + uuid4().bytes[8:])
    principal = await stage.principal(await stage.member(id=odd))
    await added(stage, principal)

    with pytest.raises(NameTaken):
        await added(stage, principal)


async def test_anothers_credential_reads_as_not_there(stage: Stage) -> None:
    owner = await stage.principal(await stage.member())
    other = await stage.principal(await stage.member(Role.ADMIN))
    made = await added(stage, owner)

    for asked in (
        credential(stage.identity, other, made.id),
        credential(stage.identity, other, uuid4()),
        changed(stage, other, made, name="mine"),
        try_credential(stage.identity, other, made.id, origin=ORIGIN),
        delete_credential(stage.identity, other, made.id, origin=ORIGIN),
    ):
        with pytest.raises(NotFound) as refused:
            await asked
        assert str(refused.value) == "There is no credential with this id."

    assert await credential(stage.identity, owner, made.id) == made


async def test_what_uses_a_credential_keeps_it_its_keys_and_its_network(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    stage.users.names[made.id] = ["bot Ada"]

    with pytest.raises(CredentialInUse) as refused:
        await delete_credential(stage.identity, principal, made.id, origin=ORIGIN)
    for change in ({"testnet": True}, {"secrets": SECRETS}):
        with pytest.raises(CredentialInUse):
            await changed(stage, principal, made, **change)
    await changed(stage, principal, made, name="renamed", testnet=False)

    assert refused.value.users == ("bot Ada",)
    stage.users.names.clear()
    await delete_credential(stage.identity, principal, made.id, origin=ORIGIN)
    assert await credentials(stage.identity, principal) == []


async def leave(stage: Stage, principal: Principal) -> None:
    await delete_account(stage.identity, principal, PASSWORD, code=None, origin=ORIGIN)


@pytest.mark.parametrize("way", ["delete", "change", "leave"])
async def test_a_bot_that_starts_meanwhile_keeps_its_key(stage: Stage, way: str) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    ways = {
        "delete": lambda: delete_credential(stage.identity, principal, made.id, origin=ORIGIN),
        "change": lambda: changed(stage, principal, made, secrets=SECRETS),
        "leave": lambda: leave(stage, principal),
    }

    async with stage.identity.accounts.transaction() as starting:
        await starting.credentials.find(principal.user_id, made.id, lock=True)
        taking = asyncio.create_task(ways[way]())
        # It comes to the locked row at some time or other; until then it may ask who uses it.
        await asyncio.wait([taking], timeout=0.1)
        stage.users.names[made.id] = ["bot Ada"]

    with pytest.raises(CredentialInUse):
        await taking
    assert await credential(stage.identity, principal, made.id) == made


async def test_a_bot_that_starts_too_late_finds_no_key(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    starting: list[asyncio.Task[object]] = []

    async def start() -> None:
        async with stage.identity.accounts.transaction() as transaction:
            await transaction.credentials.find(principal.user_id, made.id, lock=True)

    def asked(_: UUID) -> None:
        starting.append(asyncio.create_task(start()))

    stage.users.asked = asked
    await delete_credential(stage.identity, principal, made.id, origin=ORIGIN)

    (late,) = starting
    with pytest.raises(NotFound):
        await late


async def test_what_was_changed_meanwhile_is_not_deleted(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    made = await added(stage, principal)
    await changed(stage, principal, made, name="renamed")

    with pytest.raises(VersionConflict) as conflict:
        await delete_credential(
            stage.identity, principal, made.id, version=made.version, origin=ORIGIN
        )

    assert conflict.value.current == 2
    await delete_credential(stage.identity, principal, made.id, version=2, origin=ORIGIN)
    assert await credentials(stage.identity, principal) == []


async def test_a_read_only_user_adds_none(stage: Stage) -> None:
    principal = await stage.principal(await stage.member(Role.READ_ONLY))

    with pytest.raises(Forbidden):
        await added(stage, principal)


async def test_an_unknown_service_is_refused(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())

    with pytest.raises(UnknownName) as refused:
        await added(stage, principal, new(service="fak"))

    assert refused.value.suggestions == ("fake",)


@pytest.mark.parametrize("bad", ["", " space-before", "space-after ", "k\u00e9y", "x" * 4097])
async def test_what_cannot_be_a_key_is_refused_without_quoting_it(stage: Stage, bad: str) -> None:
    principal = await stage.principal(await stage.member())
    secrets = CredentialSecrets(SecretStr("venue-key-abcd1234"), SecretStr(bad))

    with pytest.raises(BadInput) as refused:
        await added(stage, principal, new(secrets=secrets))

    assert refused.value.field == "secret"
    assert not bad or bad not in str(refused.value)


async def test_the_longest_secret_fits(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    longest = CredentialSecrets(*(SecretStr("x" * 4_096) for _ in range(3)))

    made = await added(stage, principal, new(secrets=longest))

    async with stage.identity.accounts.transaction() as transaction:
        opened = await transaction.credentials.opened(principal.user_id, made.id)
    assert opened == (made, longest)


async def test_nobody_has_more_than_so_many(stage: Stage) -> None:
    principal = await stage.principal(await stage.member())
    for number in range(MOST_CREDENTIALS - 1):
        await added(stage, principal, new(f"name {number}"))

    outcomes = await asyncio.gather(
        *(added(stage, principal, new(f"last {number}")) for number in range(4)),
        return_exceptions=True,
    )

    assert sum(isinstance(each, TooMany) for each in outcomes) == 3
    assert len(await credentials(stage.identity, principal)) == MOST_CREDENTIALS


async def test_ciphertext_copied_to_another_row_does_not_open_and_the_log_has_it(
    stage: Stage, accounts: Accounts, accounts_engine: AsyncEngine
) -> None:
    robber = await stage.member()
    victim, thief = await stage.principal(await stage.member()), await stage.principal(robber)
    theirs, mine = await added(stage, victim), await added(stage, thief)
    columns = ("key_ciphertext", "secret_ciphertext", "data_key", "key_id")
    async with accounts_engine.begin() as connection:
        row = (
            await connection.execute(select(CredentialRow).where(CredentialRow.id == theirs.id))
        ).one()
        await connection.execute(
            update(CredentialRow)
            .where(CredentialRow.id == mine.id)
            .values({name: getattr(row, name) for name in columns})
        )

    with pytest.raises(SealBroken, match=str(mine.id)):
        await try_credential(stage.identity, thief, mine.id, origin=ORIGIN)

    assert stage.venue.asked == []
    assert (await stage.lines(robber))[-1] == ("test-credential", "SEAL_BROKEN")


@contextmanager
def after_reading_credentials(
    engine: AsyncEngine, act: Callable[[], Awaitable[object]]
) -> Iterator[None]:
    """Let *act* happen, once, right after a statement that read credentials."""
    pending = [act]

    def read(_: object, __: object, statement: str, *___: object) -> None:
        if pending and statement.startswith("SELECT") and "user_api_credentials" in statement:
            await_only(pending.pop()())

    event.listen(engine.sync_engine, "after_cursor_execute", read)
    try:
        yield
    finally:
        event.remove(engine.sync_engine, "after_cursor_execute", read)
    assert not pending
