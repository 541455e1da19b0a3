"""Sign in, stay signed in, and sign out.

A session is a family of refresh tokens that follow one another. Each works once. One that comes
back after its successor was given was copied by somebody: the whole family ends. For `two_tabs`
(10 s) it gives the same successor again instead, since tabs of one browser refresh at once, and
answers get lost. For as long the successor gives itself and not the next one: else a further tab,
which is a moment late, would show a token two steps old. So whoever shows what was the newest
within the last 10 s goes on.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime
from uuid import UUID, uuid4

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.repositories.sessions import Session
from db.accounts.repositories.users import User
from db.encryption import Unopenable
from market.errors import BargraphError
from resolvers.identity import letters
from resolvers.identity.failures import (
    CodeNeeded,
    EmailNotVerified,
    LoginFailed,
    NoSession,
    TooManyCodes,
    Unauthenticated,
    WrongCode,
)
from resolvers.identity.identity import Identity, clipped
from resolvers.identity.passwords import checked_length
from resolvers.identity.principal import Origin, Principal, SignedIn
from resolvers.identity.second_factor import check_code, is_guessed_at
from resolvers.identity.tokens import SECRET_BYTES, RefreshToken

TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105 - a word, no password
"""What the audit log says of a family that ended because one of its tokens came back."""
_LONGEST_NAME = 254


async def login(
    identity: Identity, name: str, password: SecretStr, *, code: str | None, origin: Origin
) -> SignedIn:
    """Begin a session for whoever has the password of *name*, a username or an address.

    An unknown name costs as much as a wrong password, and answers the same. Raises `LoginFailed`,
    `CodeNeeded`, `WrongCode`, `TooManyCodes`, `EmailNotVerified`, `WeakPassword` for one too long,
    `TooBusy`; `SealBroken` and `UnknownEncryptionKey` where the code of an authenticator cannot be
    checked.
    """
    checked_length(password, field="password")
    user = None
    if name.isascii() and len(name) <= _LONGEST_NAME and name.isprintable():
        async with identity.accounts.transaction() as transaction:
            user = await transaction.users.named(name)
    right = await identity.passwords.verify(user.password_hash if user else None, password)
    rehashed = None
    if right and user is not None and identity.passwords.is_outdated(user.password_hash):
        rehashed = await identity.passwords.hash(password)
    async with identity.accounts.transaction() as transaction:
        # A refusal is no exception here: the audit log has to keep it.
        signed_in = await _logged_in(
            identity, transaction, user if right else None, code=code, origin=origin
        )
        if isinstance(signed_in, SignedIn) and rehashed is not None:
            await transaction.users.change(signed_in.user_id, password_hash=rehashed)
        result = "ok" if isinstance(signed_in, SignedIn) else signed_in.code
        await transaction.audit.add(
            identity.entry(
                "login", origin, user_id=None if user is None else user.id, result=result
            )
        )
        guessed_at = (
            user is not None
            and isinstance(signed_in, WrongCode)
            and await is_guessed_at(transaction, user.id, at=identity.now())
        )
    if user is not None and guessed_at:
        identity.mailer.post(letters.codes_guessed(user.email, identity.rules.public_url))
    if isinstance(signed_in, SignedIn):
        return signed_in
    raise signed_in


async def _logged_in(
    identity: Identity,
    transaction: Transaction,
    proved: User | None,
    *,
    code: str | None,
    origin: Origin,
) -> SignedIn | BargraphError | Unopenable:
    if proved is None:
        return LoginFailed()
    user = await transaction.users.find(proved.id, lock=True)
    if user is None or user.disabled_at is not None or user.password_hash != proved.password_hash:
        return LoginFailed()
    if user.email_verified_at is None:
        return EmailNotVerified()
    try:
        await check_code(transaction, user.id, code, at=identity.now())
    except (CodeNeeded, WrongCode, TooManyCodes, Unopenable) as failure:
        return failure
    return await begin_session(identity, transaction, user, origin=origin)


async def begin_session(
    identity: Identity, transaction: Transaction, user: User, *, origin: Origin
) -> SignedIn:
    """Begin a session of *user*, whose row is locked."""
    now, token = identity.now(), RefreshToken.new()
    session = Session(
        id=uuid4(),
        user_id=user.id,
        lookup=token.lookup,
        token_hash=token.digest,
        previous_hash=None,
        salt=None,
        created_at=now,
        rotated_at=now,
        expires_at=now + identity.rules.session,
        idle_expires_at=now + identity.rules.idle_session,
        address=clipped(origin.address, 64),
        agent=clipped(origin.agent, 200),
    )
    await transaction.sessions.add(session)
    await transaction.users.change(user.id, last_login=now)
    return _signed_in(identity, user, session.id, token, session.ends_at)


async def refresh(identity: Identity, token: SecretStr, *, origin: Origin) -> SignedIn:
    """Give an access token, and the refresh token to show next. Raises `Unauthenticated`.

    That is the one that follows *token*, or *token* itself while it is the newest and younger than
    `two_tabs`.
    """
    presented = RefreshToken.read(token.get_secret_value())
    if presented is None:
        raise Unauthenticated
    async with identity.accounts.transaction() as transaction:
        signed_in = await _refreshed(identity, transaction, presented, origin)
    if isinstance(signed_in, SignedIn):
        return signed_in
    if signed_in is not None:
        identity.checks.forget(signed_in)
    raise Unauthenticated


async def _refreshed(
    identity: Identity, transaction: Transaction, presented: RefreshToken, origin: Origin
) -> SignedIn | UUID | None:
    """Return what follows *presented*; else whose session ended by it, if there was one."""
    now = identity.now()
    session = await transaction.sessions.locked(presented.lookup)
    if session is None:
        return None
    user = await transaction.users.find(session.user_id)
    if session.ends_at <= now or user is None or user.disabled_at is not None:
        await transaction.sessions.end(session.id)
        return session.user_id
    is_fresh = (
        session.previous_hash is not None and now - session.rotated_at <= identity.rules.two_tabs
    )
    if hmac.compare_digest(presented.digest, session.token_hash):
        if is_fresh:
            return _signed_in(identity, user, session.id, presented, session.ends_at)
        return await _rotated(identity, transaction, session, user, presented)
    if is_fresh and _is_the_one_before(session, presented):
        assert session.salt is not None
        following = presented.next(session.salt)
        return _signed_in(identity, user, session.id, following, session.ends_at)
    await transaction.sessions.end(session.id)
    await transaction.audit.add(
        identity.entry("refresh", origin, user_id=user.id, result=TOKEN_REUSED)
    )
    return session.user_id


def _is_the_one_before(session: Session, presented: RefreshToken) -> bool:
    return session.previous_hash is not None and hmac.compare_digest(
        presented.digest, session.previous_hash
    )


async def _rotated(
    identity: Identity,
    transaction: Transaction,
    session: Session,
    user: User,
    presented: RefreshToken,
) -> SignedIn:
    now, salt = identity.now(), secrets.token_bytes(SECRET_BYTES)
    following = presented.next(salt)
    idle_expires_at = now + identity.rules.idle_session
    await transaction.sessions.rotate(
        session.id,
        token_hash=following.digest,
        previous_hash=session.token_hash,
        salt=salt,
        at=now,
        idle_expires_at=idle_expires_at,
    )
    ends = min(session.expires_at, idle_expires_at)
    return _signed_in(identity, user, session.id, following, ends)


def _signed_in(
    identity: Identity, user: User, session_id: UUID, token: RefreshToken, ends: datetime
) -> SignedIn:
    access = identity.tokens.sign(
        user_id=user.id, session_id=session_id, version=user.token_version
    )
    return SignedIn(user.id, session_id, access, token.text, ends)


async def logout(identity: Identity, principal: Principal, *, origin: Origin) -> None:
    """End the session that the principal's access token belongs to; its tokens end with it.

    Raises `NoSession` for an API token, which is revoked instead.
    """
    if principal.claims.session_id is None:
        raise NoSession
    async with identity.accounts.transaction() as transaction:
        await transaction.sessions.end(principal.claims.session_id)
        await transaction.audit.add(identity.entry("logout", origin, user_id=principal.user_id))
    identity.checks.forget(principal.user_id)


async def logout_by_refresh_token(identity: Identity, token: SecretStr, *, origin: Origin) -> None:
    """End the family of a refresh token, whichever of it was given; for an expired access token.

    An unknown one is as good as ended.
    """
    presented = RefreshToken.read(token.get_secret_value())
    if presented is None:
        return
    async with identity.accounts.transaction() as transaction:
        session = await transaction.sessions.locked(presented.lookup)
        if session is None:
            return
        await transaction.sessions.end(session.id)
        await transaction.audit.add(identity.entry("logout", origin, user_id=session.user_id))
    identity.checks.forget(session.user_id)
