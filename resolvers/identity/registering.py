"""Make an account."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.errors import NameTaken
from db.accounts.permissions import Role
from db.accounts.repositories.one_time import Invitation
from db.accounts.repositories.users import User, name_key
from resolvers.identity import letters
from resolvers.identity.addresses import told_once
from resolvers.identity.checked import checked_email, checked_username
from resolvers.identity.failures import InvitationInvalid, RegistrationClosed
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import checked_password
from resolvers.identity.principal import Mail, Origin
from resolvers.identity.rules import Registration
from resolvers.identity.tokens import digest_of, new_token


@dataclass(frozen=True, slots=True)
class Wanted:
    """An account that somebody wants; *invitation* is the token they were sent, if any."""

    username: str
    email: str
    password: SecretStr
    invitation: SecretStr | None = None


async def register(identity: Identity, wanted: Wanted, *, origin: Origin) -> None:
    """Make an account, and send a mail to its address.

    Whether the address has an account already is told to nobody but its owner, by mail: for the
    caller both look the same. Raises `RegistrationClosed`, `InvitationInvalid`, `NameTaken` for
    the username, `WeakPassword`, `BadInput`, `TooBusy`.
    """
    if identity.rules.registration is Registration.CLOSED:
        raise RegistrationClosed
    await _check_first(identity, wanted)
    user = await _new_user(identity, wanted, Role.USER)
    try:
        mail = await _registered(identity, user, wanted.invitation, origin)
    except _AddressTaken:
        mail = told_once(identity, wanted.email)
    if mail is not None:
        identity.mailer.post(mail)


async def _check_first(identity: Identity, wanted: Wanted) -> None:
    """Refuse what the caller may know is refused before a password is hashed for it."""
    async with identity.accounts.transaction() as transaction:
        if wanted.invitation is not None:
            digest = digest_of(wanted.invitation.get_secret_value())
            if not await transaction.one_time.has_invitation(digest, at=identity.now()):
                raise InvitationInvalid
        elif identity.rules.registration is Registration.INVITATION:
            raise InvitationInvalid
        username = checked_username(wanted.username)
        if await transaction.users.named(username) is not None:
            raise NameTaken("user", field="username")


class _AddressTaken(Exception):
    """Undoes the registration: the address has an account."""


async def _registered(
    identity: Identity, user: User, invitation: SecretStr | None, origin: Origin
) -> Mail | None:
    """Add *user* and return what is to be sent, None if the address is known to be theirs."""
    now = identity.now()
    async with identity.accounts.transaction() as transaction:
        invited = await _invited(identity, transaction, invitation)
        added = _as_invited(user, invited)
        try:
            await transaction.users.add(added)
        except NameTaken as taken:
            if taken.field == "email":
                raise _AddressTaken from None
            raise
        await transaction.audit.add(identity.entry("register", origin, user_id=user.id))
        if added.email_verified_at is not None:
            return None
        token = new_token()
        await transaction.one_time.keep_verification(
            user.id,
            digest_of(token.get_secret_value()),
            email=user.email,
            at=now,
            expires_at=now + identity.rules.verification,
        )
    return letters.verification(user.email, identity.rules.public_url, token)


async def _invited(
    identity: Identity, transaction: Transaction, invitation: SecretStr | None
) -> Invitation | None:
    if invitation is None:
        return None
    digest = digest_of(invitation.get_secret_value())
    found = await transaction.one_time.use_invitation(digest, at=identity.now())
    if found is None:
        raise InvitationInvalid
    return found


def _as_invited(user: User, invited: Invitation | None) -> User:
    if invited is None:
        return user
    if invited.email_key is None:
        return replace(user, role=invited.role)
    if invited.email_key != name_key(user.email):
        raise InvitationInvalid
    # The invitation came by mail to this very address.
    return replace(user, role=invited.role, email_verified_at=user.registered_at)


async def _new_user(identity: Identity, wanted: Wanted, role: Role) -> User:
    username, email = checked_username(wanted.username), checked_email(wanted.email)
    checked_password(wanted.password, field="password", names=(username, email))
    return User(
        id=uuid4(),
        username=username,
        email=email,
        email_verified_at=None,
        role=role,
        token_version=0,
        nickname=None,
        location=None,
        bio=None,
        last_login=None,
        registered_at=identity.now(),
        disabled_at=None,
        password_hash=await identity.passwords.hash(wanted.password),
    )


async def create_admin(identity: Identity, wanted: Wanted) -> User:
    """Make an admin, whose address needs no proof; for whoever is at the server's machine.

    Raises `NameTaken`, `WeakPassword`, `BadInput`.
    """
    user = await _new_user(identity, wanted, Role.ADMIN)
    admin = replace(user, email_verified_at=user.registered_at)
    async with identity.accounts.transaction() as transaction:
        await transaction.users.add(admin)
        await transaction.audit.add(
            identity.entry("create-admin", Origin(), user_id=admin.id, actor_id=None)
        )
    return admin
