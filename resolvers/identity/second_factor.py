"""One-time codes as a second factor: set up, confirmed, used once each, turned off."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import pyotp
from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from resolvers.identity.failures import SecondFactorOn, Unauthenticated, WrongCode
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Origin, Principal
from resolvers.identity.proving import prove_password
from resolvers.identity.tokens import digest_of

STEP_SECONDS = 30
_STEPS_AROUND = (0, -1, 1)
"""A phone's clock may be up to half a minute wrong."""
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
_ISSUER = "Bargraph"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator is given: the shared secret, and the same as a URI for a QR code."""

    secret: SecretStr
    uri: SecretStr


async def enrol(
    identity: Identity, principal: Principal, password: SecretStr, *, origin: Origin
) -> Enrolment:
    """Give a secret, which counts once a code of it confirmed it.

    Raises `SecondFactorOn`, `WrongPassword`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    user = await prove_password(identity, principal, password)
    secret = pyotp.random_base32()
    async with identity.accounts.transaction() as transaction:
        await transaction.users.find(user.id, lock=True)
        if await transaction.one_time_codes.is_on(user.id):
            raise SecondFactorOn
        await transaction.one_time_codes.put(user.id, SecretStr(secret), at=identity.now())
        await transaction.audit.add(identity.entry("second-factor.enrol", origin, user_id=user.id))
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=_ISSUER)
    return Enrolment(SecretStr(secret), SecretStr(uri))


async def confirm(
    identity: Identity, principal: Principal, code: str, *, origin: Origin
) -> tuple[SecretStr, ...]:
    """Turn codes on, and return recovery codes, each good for one login without a phone.

    They are shown now and never again. Raises `WrongCode`, `SecondFactorOn`, `Forbidden`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    now, user_id = identity.now(), principal.user_id
    async with identity.accounts.transaction() as transaction:
        shared = await transaction.one_time_codes.locked(user_id)
        if shared is None:
            raise WrongCode
        if shared.confirmed_at is not None:
            raise SecondFactorOn
        step = _step_of(shared.secret, code, now, after=shared.last_step)
        if step is None:
            raise WrongCode
        await transaction.one_time_codes.note_step(user_id, step, confirmed_at=now)
        codes = tuple(_recovery_code() for _ in range(RECOVERY_CODES))
        await transaction.one_time_codes.put_recovery_codes(
            user_id, [digest_of(_folded(each.get_secret_value())) for each in codes]
        )
        await transaction.audit.add(identity.entry("second-factor.on", origin, user_id=user_id))
    return codes


async def turn_off(
    identity: Identity, principal: Principal, password: SecretStr, code: str, *, origin: Origin
) -> None:
    """Ask for no codes any more. Raises `WrongPassword`, `WrongCode`, `Forbidden`."""
    principal.check(Permission.ACCOUNT_CHANGE)
    user = await prove_password(identity, principal, password)
    async with identity.accounts.transaction() as transaction:
        if await transaction.users.find(user.id, lock=True) is None:
            raise Unauthenticated
        if await transaction.one_time_codes.is_on(user.id) and not await code_counts(
            transaction, user.id, code, at=identity.now()
        ):
            raise WrongCode
        await transaction.one_time_codes.delete(user.id)
        await transaction.audit.add(identity.entry("second-factor.off", origin, user_id=user.id))


async def code_counts(transaction: Transaction, user_id: UUID, code: str, *, at: datetime) -> bool:
    """Return whether *code* is good, of the authenticator or a recovery code, and use it up."""
    shared = await transaction.one_time_codes.locked(user_id)
    if shared is None:
        return False
    step = _step_of(shared.secret, code, at, after=shared.last_step)
    if step is not None:
        await transaction.one_time_codes.note_step(user_id, step)
        return True
    digest = digest_of(_folded(code[:100]))
    return await transaction.one_time_codes.use_recovery_code(user_id, digest)


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
