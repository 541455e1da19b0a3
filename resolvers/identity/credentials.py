"""Keys at venues: added, changed, tried and deleted; what is secret goes in and never comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.errors import VersionConflict
from db.accounts.permissions import Permission
from db.accounts.repositories.audit import OK, NewEntry
from db.accounts.repositories.credentials import Credential, CredentialSecrets
from db.encryption import Unopenable
from market.errors import BadInput, BargraphError, ProviderUnavailable, UnknownName
from resolvers.identity.checked import checked_name, checked_text
from resolvers.identity.failures import CredentialInUse, Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal

ASKED = "ASKED"
"""What the audit log says of a trial before the venue is shown the keys, however it ends."""
_LONGEST_SECRET = 4_096
"""Bytes; a private key in PEM is shorter."""


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A key at the venue *service*; *testnet* says that it opens the one without real money."""

    service: str
    name: str
    secrets: CredentialSecrets
    testnet: bool = False
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class CredentialChange:
    """What is to be another; None leaves it. *notes* empty removes them.

    Keys are changed all together or not at all: half a key opens nothing.
    """

    name: str | None = None
    testnet: bool | None = None
    notes: str | None = None
    secrets: CredentialSecrets | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What a venue said: the key works, and may do *permissions*."""

    credential: Credential
    permissions: tuple[str, ...]


async def add_credential(
    identity: Identity, principal: Principal, new: NewCredential, *, origin: Origin
) -> Credential:
    """Keep a key, encrypted. Raises `UnknownName`, `BadInput`, `NameTaken`, `TooMany`,
    `Forbidden`.
    """
    principal.check(Permission.CREDENTIALS_CHANGE)
    if new.service not in identity.probe.services:
        raise UnknownName("service", new.service, identity.probe.services, field="service")
    checked_name(new.name, longest=80, field="name")
    _check_notes(new.notes)
    _check_secrets(new.secrets)
    now = identity.now()
    credential = Credential(
        id=uuid4(),
        user_id=principal.user_id,
        service=new.service,
        name=new.name,
        testnet=new.testnet,
        notes=new.notes or None,
        key_hint=new.secrets.hint,
        created_at=now,
        updated_at=now,
        last_checked_at=None,
        version=1,
    )
    async with identity.accounts.transaction() as transaction:
        if await transaction.users.find(principal.user_id, lock=True) is None:
            raise Unauthenticated
        await transaction.credentials.add(credential, new.secrets)
        await transaction.audit.add(
            identity.entry(
                "add-credential", origin, user_id=principal.user_id, target=str(credential.id)
            )
        )
    return credential


async def credentials(identity: Identity, principal: Principal) -> list[Credential]:
    """Return the principal's credentials by service and name. Raises `Forbidden`."""
    principal.check(Permission.CREDENTIALS_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.credentials.of(principal.user_id)


async def credential(identity: Identity, principal: Principal, id: UUID) -> Credential:
    """Return one of the principal's credentials. Raises `NotFound`, `Forbidden`."""
    principal.check(Permission.CREDENTIALS_READ)
    async with identity.accounts.transaction() as transaction:
        return await transaction.credentials.find(principal.user_id, id)


async def update_credential(
    identity: Identity,
    principal: Principal,
    id: UUID,
    change: CredentialChange,
    *,
    version: int,
    origin: Origin,
) -> Credential:
    """Change a credential as it was at *version*. Other keys have to be tried anew.

    What uses a credential keeps its keys and its testnet flag: orders placed with one account
    cannot be found with another. Raises `NotFound`, `VersionConflict`, `CredentialInUse`,
    `NameTaken`, `BadInput`, `Forbidden`.
    """
    principal.check(Permission.CREDENTIALS_CHANGE)
    values: dict[str, Any] = {}
    if change.name is not None:
        values["name"] = checked_name(change.name, longest=80, field="name")
    if change.notes is not None:
        _check_notes(change.notes)
        values["notes"] = change.notes or None
    if change.testnet is not None:
        values["testnet"] = change.testnet
    if change.secrets is not None:
        _check_secrets(change.secrets)
    async with identity.accounts.transaction() as transaction:
        before = await transaction.credentials.find(principal.user_id, id, lock=True)
        if change.secrets is not None or change.testnet not in (None, before.testnet):
            await check_unused(identity, transaction, [before])
        changed = await transaction.credentials.change(
            principal.user_id,
            id,
            version=version,
            at=identity.now(),
            values=values,
            secrets=change.secrets,
        )
        await transaction.audit.add(
            identity.entry("update-credential", origin, user_id=principal.user_id, target=str(id))
        )
    return changed


async def try_credential(
    identity: Identity, principal: Principal, id: UUID, *, origin: Origin
) -> Tried:
    """Ask the venue for the account that the key opens, and say what the key may do there.

    The audit log tells that the venue is asked before it is, and what came of it afterwards, if
    somebody still waits. Raises `NotFound`, `CredentialRefused`, `ProviderUnavailable`,
    `Forbidden`, `SealBroken`, `UnknownEncryptionKey`.
    """
    principal.check(Permission.CREDENTIALS_CHANGE)
    user_id = principal.user_id
    found, secrets = await _opened(identity, user_id, id, origin)
    failure: BargraphError | None = None
    permissions: tuple[str, ...] = ()
    try:
        permissions = tuple(
            await identity.probe.probe(
                found.service, secrets, testnet=found.testnet, user_id=user_id
            )
        )
    except BargraphError as refused:
        failure = refused
    except Exception as error:
        # What a venue's library says may quote the key, so nothing of it goes on.
        kind = type(error).__name__
        failure = ProviderUnavailable(found.service, f"it could not be asked ({kind})")
    async with identity.accounts.transaction() as transaction:
        if failure is None:
            await transaction.credentials.note_check(
                user_id, id, version=found.version, at=identity.now()
            )
        result = OK if failure is None else failure.code
        await transaction.audit.add(_trial(identity, origin, user_id, id, result))
    if failure is not None:
        raise failure
    return Tried(await credential(identity, principal, id), permissions)


async def delete_credential(
    identity: Identity,
    principal: Principal,
    id: UUID,
    *,
    version: int | None = None,
    origin: Origin,
) -> None:
    """Remove a key for good, whatever version it has unless *version* says which.

    Raises `NotFound`, `VersionConflict`, `CredentialInUse`, `Forbidden`.
    """
    principal.check(Permission.CREDENTIALS_CHANGE)
    async with identity.accounts.transaction() as transaction:
        held = await transaction.credentials.find(principal.user_id, id, lock=True)
        if version not in (None, held.version):
            raise VersionConflict("credential", current=held.version)
        await check_unused(identity, transaction, [held])
        await transaction.credentials.delete(principal.user_id, id)
        await transaction.audit.add(
            identity.entry("delete-credential", origin, user_id=principal.user_id, target=str(id))
        )


async def check_unused(
    identity: Identity, transaction: Transaction, held: Sequence[Credential]
) -> None:
    """Return if nothing needs the keys of *held*, whose rows are locked.

    Nothing begins to need them before the transaction is over (see `CredentialUsers`). Raises
    `CredentialInUse`.
    """
    users: list[str] = []
    for each in held:
        for known in identity.credential_users:
            users += await known.users_of(transaction, each.user_id, each.id)
    if users:
        raise CredentialInUse(users)


async def _opened(
    identity: Identity, user_id: UUID, id: UUID, origin: Origin
) -> tuple[Credential, CredentialSecrets]:
    """Return a credential with its keys, once the audit log has that they are to be used."""
    failure: Unopenable | None = None
    async with identity.accounts.transaction() as transaction:
        try:
            opened = await transaction.credentials.opened(user_id, id)
        except Unopenable as unopenable:
            failure = unopenable
        result = ASKED if failure is None else failure.code
        await transaction.audit.add(_trial(identity, origin, user_id, id, result))
    if failure is not None:
        raise failure
    return opened


def _trial(identity: Identity, origin: Origin, user_id: UUID, id: UUID, result: str) -> NewEntry:
    return identity.entry(
        "test-credential",
        origin,
        user_id=user_id,
        actor_id=user_id,
        target=str(id),
        result=result,
    )


def _check_notes(notes: str | None) -> None:
    if notes is not None:
        checked_text(notes, longest=2_000, field="notes", lines=True)


def _check_secrets(secrets: CredentialSecrets) -> None:
    """Return if these can be keys. Raises `BadInput`, which never quotes them."""
    given: Sequence[tuple[str, SecretStr | None]] = (
        ("key", secrets.key),
        ("secret", secrets.secret),
        ("aux", secrets.aux),
    )
    for field, secret in given:
        if secret is None:
            continue
        text = secret.get_secret_value()
        if not text or text != text.strip():
            raise BadInput(f"{field} is empty, or has space around it.", field=field)
        if not text.isascii() or len(text) > _LONGEST_SECRET:
            raise BadInput(
                f"{field} has at most {_LONGEST_SECRET} characters, all ASCII.", field=field
            )
