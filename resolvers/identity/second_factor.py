"""One-time codes as a second factor: set up, confirmed, used once each, turned off."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import pyotp
from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from resolvers.identity import letters
from resolvers.identity.failures import (
    CodeNeeded,
    SecondFactorOn,
    TooManyCodes,
    Unauthenticated,
    WrongCode,
)
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.tokens import digest_of

STEP_SECONDS = 30
_STEPS_AROUND = (0, -1, 1)
"""A phone's clock may be up to half a minute wrong."""
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
_RECOVERY_LENGTH = 16
"""Characters of a recovery code, without what groups them; codes of an authenticator have six."""
MOST_WRONG = 5
"""Wrong codes of one user within `WRONG_WITHIN`, wherever they were given."""
WRONG_WITHIN = timedelta(minutes=15)
_ISSUER = "Bargraph"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator is given: the shared secret, and the same as a URI for a QR code."""

    secret: SecretStr
    uri: SecretStr


@dataclass(frozen=True, slots=True)
class SecondFactorState:
    """Whether codes are on, and how many recovery codes are left of those that came with them."""

    is_on: bool
    recovery_codes_left: int | None


async def enrol(
    identity: Identity, principal: Principal, password: SecretStr, *, origin: Origin
) -> Enrolment:
    """Give a secret, which counts once a code of it confirmed it.

    Raises `SecondFactorOn`, `WrongPassword`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    secret, action = pyotp.random_base32(), "second-factor.enrol"
    async with guesses_noted(identity, principal, action, origin=origin):
        proved = await prove_password(identity, principal, password)
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            if await transaction.one_time_codes.is_on(user.id):
                raise SecondFactorOn
            await transaction.one_time_codes.put(user.id, SecretStr(secret), at=identity.now())
            await transaction.audit.add(identity.entry(action, origin, user_id=user.id))
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=_ISSUER)
    return Enrolment(SecretStr(secret), SecretStr(uri))


async def confirm(
    identity: Identity, principal: Principal, code: str, *, origin: Origin
) -> tuple[SecretStr, ...]:
    """Turn codes on, and return recovery codes, each good for one login without a phone.

    They are shown now and never again; the owner is told by mail that codes are on. Raises
    `WrongCode`, `SecondFactorOn`, `Forbidden`, `Unauthenticated`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    now, user_id, action = identity.now(), principal.user_id, "second-factor.on"
    async with (
        guesses_noted(identity, principal, action, origin=origin),
        identity.accounts.transaction() as transaction,
    ):
        user = await transaction.users.find(user_id, lock=True)
        if user is None:
            raise Unauthenticated
        shared = await transaction.one_time_codes.locked(user_id)
        if shared is None:
            raise WrongCode
        if shared.confirmed_at is not None:
            raise SecondFactorOn
        secret = transaction.one_time_codes.opened(shared)
        step = _step_of(secret, code, now, after=shared.last_step)
        if step is None:
            raise WrongCode
        await transaction.one_time_codes.note_step(user_id, step, confirmed_at=now)
        codes = tuple(_recovery_code() for _ in range(RECOVERY_CODES))
        await transaction.one_time_codes.put_recovery_codes(
            user_id, [digest_of(_folded(each.get_secret_value())) for each in codes]
        )
        await transaction.audit.add(identity.entry(action, origin, user_id=user_id))
    identity.mailer.post(letters.codes_turned_on(user.email, identity.rules.public_url))
    return codes


async def turn_off(
    identity: Identity, principal: Principal, password: SecretStr, code: str, *, origin: Origin
) -> None:
    """Ask for no codes any more, and tell the owner by mail.

    Raises `WrongPassword`, `WrongCode`, `TooManyCodes`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    action = "second-factor.off"
    async with guesses_noted(identity, principal, action, origin=origin):
        proved = await prove_password(identity, principal, password)
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            await check_code(transaction, user.id, code, at=identity.now())
            await transaction.one_time_codes.delete(user.id)
            await transaction.audit.add(identity.entry(action, origin, user_id=user.id))
    identity.mailer.post(letters.codes_turned_off(user.email, identity.rules.public_url))


async def state_of(identity: Identity, principal: Principal) -> SecondFactorState:
    """Return whether the principal needs codes to sign in. Raises `Forbidden`."""
    principal.check(Permission.ACCOUNT_READ)
    async with identity.accounts.transaction() as transaction:
        return await state_in(transaction, principal.user_id)


async def state_in(transaction: Transaction, user_id: UUID) -> SecondFactorState:
    """Return whether a user needs codes to sign in."""
    if not await transaction.one_time_codes.is_on(user_id):
        return SecondFactorState(is_on=False, recovery_codes_left=None)
    left = await transaction.one_time_codes.recovery_codes_left(user_id)
    return SecondFactorState(is_on=True, recovery_codes_left=left)


async def check_code(
    transaction: Transaction, user_id: UUID, code: str | None, *, at: datetime
) -> None:
    """Return if a user, whose row is locked, needs no code or gave a good one, which is used up.

    A code of the authenticator or a recovery code. After `MOST_WRONG` wrong ones within
    `WRONG_WITHIN` only recovery codes count, which nobody guesses. They also do where the shared
    secret cannot be opened. Raises `CodeNeeded`, `WrongCode`, `TooManyCodes`; `SealBroken` and
    `UnknownEncryptionKey` of codes of an authenticator.
    """
    if not await transaction.one_time_codes.is_on(user_id):
        return
    if code is None:
        raise CodeNeeded
    folded = _folded(code[:100])
    if len(folded) == _RECOVERY_LENGTH:
        if not await transaction.one_time_codes.use_recovery_code(user_id, digest_of(folded)):
            raise WrongCode
        return
    wrong = await _wrong_lately(transaction, user_id, at)
    if len(wrong) >= MOST_WRONG:
        over = wrong[MOST_WRONG - 1] + WRONG_WITHIN
        raise TooManyCodes(retry_after=(over - at).total_seconds())
    if not await _is_of_authenticator(transaction, user_id, code, at):
        raise WrongCode


async def is_guessed_at(transaction: Transaction, user_id: UUID, *, at: datetime) -> bool:
    """Return whether the last wrong code, which the log has, is the first one too many."""
    return len(await _wrong_lately(transaction, user_id, at)) == MOST_WRONG


async def _wrong_lately(transaction: Transaction, user_id: UUID, at: datetime) -> list[datetime]:
    """Return when the last wrong codes came, the newest first, one more than may at most."""
    times = await transaction.audit.last_times(user_id, result=WrongCode.code, most=MOST_WRONG + 1)
    return [time for time in times if time > at - WRONG_WITHIN]


async def _is_of_authenticator(
    transaction: Transaction, user_id: UUID, code: str, at: datetime
) -> bool:
    """Return whether *code* is one that was not used, and use it up."""
    shared = await transaction.one_time_codes.locked(user_id)
    if shared is None:
        return False
    secret = transaction.one_time_codes.opened(shared)
    step = _step_of(secret, code, at, after=shared.last_step)
    if step is None:
        return False
    await transaction.one_time_codes.note_step(user_id, step)
    return True


def _step_of(secret: SecretStr, code: str, at: datetime, *, after: int) -> int | None:
    """Return the step whose code this is, if it is near *at* and later than the step *after*."""
    totp = pyotp.TOTP(secret.get_secret_value())
    now = int(at.timestamp()) // STEP_SECONDS
    found = None
    for around in _STEPS_AROUND:
        step = now + around
        expected = totp.at(step * STEP_SECONDS).encode()
        same = hmac.compare_digest(expected, code.strip()[:16].encode("utf-8", "replace"))
        if same and step > after:
            found = step
    return found


def _recovery_code() -> SecretStr:
    text = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
    return SecretStr("-".join(text[at : at + 4] for at in range(0, len(text), 4)))


def _folded(code: str) -> str:
    return "".join(code.split()).replace("-", "").lower()
