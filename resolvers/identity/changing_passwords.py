"""Change a password one knows, and set one in place of one that was forgotten."""

from __future__ import annotations

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from db.accounts.repositories.users import User
from resolvers.identity import letters
from resolvers.identity.asked_mails import ask_for_mail
from resolvers.identity.failures import TokenInvalid, Unauthenticated
from resolvers.identity.identity import Identity
from resolvers.identity.passwords import checked_password
from resolvers.identity.principal import AccessToken, Mail, Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.tokens import digest_of, new_token


async def change_password(
    identity: Identity,
    principal: Principal,
    *,
    old: SecretStr,
    new: SecretStr,
    origin: Origin,
) -> AccessToken:
    """Set another password, end all other sessions, and return an access token for this one.

    API tokens go on. Raises `WrongPassword`, `WeakPassword`, `Forbidden`, `TooBusy`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    session_id = principal.claims.session_id
    if session_id is None:
        raise Unauthenticated
    async with guesses_noted(identity, principal, "change-password", origin=origin):
        proved = await prove_password(identity, principal, old)
        checked_password(new, field="newPassword", names=(proved.username, proved.email))
        hashed = await identity.passwords.hash(new)
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            await _set_password(transaction, user, hashed)
            await transaction.sessions.end_all(user.id, but=session_id)
            await transaction.audit.add(identity.entry("change-password", origin, user_id=user.id))
    identity.checks.forget(user.id)
    identity.mailer.post(letters.password_changed(user.email, identity.rules.public_url))
    return identity.tokens.sign(
        user_id=user.id, session_id=session_id, version=user.token_version + 1
    )


async def request_password_reset(identity: Identity, email: str, *, origin: Origin) -> None:
    """Send a mail that lets its reader set a password; the same answer for every address.

    At most one a minute and five an hour go to one user. Raises `BadInput`.
    """

    async def write(transaction: Transaction, user: User) -> Mail | None:
        if user.disabled_at is not None:
            return None
        now, token = identity.now(), new_token()
        kept = await transaction.one_time.keep_reset(
            user.id,
            digest_of(token.get_secret_value()),
            at=now,
            expires_at=now + identity.rules.mailed_token,
        )
        if not kept:
            return None
        return letters.password_reset(user.email, identity.rules.public_url, token)

    await ask_for_mail(identity, email, write, action="request-password-reset", origin=origin)


async def reset_password(
    identity: Identity, token: SecretStr, new: SecretStr, *, origin: Origin
) -> None:
    """Set the password of whoever got *token* by mail, and end everything that was signed in.

    API tokens end too: whoever knew the old password may have made one. One-time codes stay on. The
    mail proved the address. Raises `TokenInvalid`, `WeakPassword`, `TooBusy`.
    """
    checked_password(new, field="newPassword")
    now, digest = identity.now(), digest_of(token.get_secret_value())
    async with identity.accounts.transaction() as transaction:
        user_id = await transaction.one_time.reset_of(digest, at=now)
    if user_id is None:
        raise TokenInvalid  # before a password is hashed for nothing
    hashed = await identity.passwords.hash(new)
    async with identity.accounts.transaction() as transaction:
        user = await transaction.users.find(user_id, lock=True)
        counts = await transaction.one_time.use_reset(digest, at=now)
        if user is None or user.disabled_at is not None or not counts:
            raise TokenInvalid
        checked_password(new, field="newPassword", names=(user.username, user.email))
        await _set_password(transaction, user, hashed)
        await transaction.users.change(user.id, email_verified_at=user.email_verified_at or now)
        await transaction.sessions.end_all(user.id)
        await transaction.api_tokens.delete_all(user.id)
        await transaction.audit.add(identity.entry("reset-password", origin, user_id=user.id))
    identity.checks.forget(user.id)
    identity.mailer.post(letters.password_changed(user.email, identity.rules.public_url))


async def _set_password(transaction: Transaction, user: User, hashed: str) -> None:
    """Let the password count from now on, and nothing that whoever knew the old one began."""
    await transaction.users.change(user.id, password_hash=hashed)
    await transaction.users.end_tokens(user.id)
    await transaction.one_time.drop_resets(user.id)
    await transaction.one_time.drop_verifications(user.id)
