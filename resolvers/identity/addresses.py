"""Prove that an address is one's own, and change to another one.

Whether an address has an account is told to nobody but its owner, by mail: for whoever asks, both
look the same.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import SecretStr

from db.accounts.accounts import Transaction
from db.accounts.permissions import Permission
from db.accounts.repositories.one_time import SOONEST_AGAIN
from db.accounts.repositories.users import User, name_key
from market.errors import BadInput
from resolvers.identity import letters
from resolvers.identity.asked_mails import ask_for_mail
from resolvers.identity.checked import checked_email
from resolvers.identity.failures import TokenInvalid, TooSoon
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Mail, Origin, Principal
from resolvers.identity.proving import guesses_noted, locked_as_proved, prove_password
from resolvers.identity.tokens import digest_of, new_token

_TELL_AGAIN = timedelta(hours=1)


async def verify_email(identity: Identity, token: SecretStr, *, origin: Origin) -> None:
    """Take the token of a mail for proof of the address it went to, which is the account's now.

    What was mailed to an address before it does not count any more, and that one is told. Raises
    `TokenInvalid`, and `NameTaken` if somebody else proved the same address first.
    """
    now, digest = identity.now(), digest_of(token.get_secret_value())
    async with identity.accounts.transaction() as transaction:
        user_id = await transaction.one_time.verification_of(digest, at=now)
        user = None if user_id is None else await transaction.users.find(user_id, lock=True)
        if user is None:
            raise TokenInvalid
        email = await transaction.one_time.use_verification(digest)
        if email is None:
            raise TokenInvalid
        await transaction.users.change_email(user.id, email, verified_at=now)
        is_another = email != user.email
        if is_another:
            await transaction.one_time.drop_resets(user.id)
        await transaction.audit.add(identity.entry("verify-email", origin, user_id=user.id))
    identity.checks.forget(user.id)
    if is_another:
        identity.mailer.post(letters.email_changed(user.email))


async def request_verification(identity: Identity, email: str, *, origin: Origin) -> None:
    """Send the mail of a registration once more; the same answer for every address.

    At most one a minute and five an hour go to one user. Raises `BadInput`.
    """

    async def write(transaction: Transaction, user: User) -> Mail | None:
        if user.email_verified_at is not None:
            return None
        now, token = identity.now(), new_token()
        kept = await transaction.one_time.keep_verification(
            user.id,
            digest_of(token.get_secret_value()),
            email=user.email,
            at=now,
            expires_at=now + identity.rules.verification,
        )
        if not kept:
            return None
        return letters.verification(user.email, identity.rules.public_url, token)

    await ask_for_mail(identity, email, write, action="request-verification", origin=origin)


async def change_email(
    identity: Identity, principal: Principal, *, password: SecretStr, email: str, origin: Origin
) -> None:
    """Send a mail to another address, which is the account's once its link was followed.

    The present one is told, so that its owner can stop it: a password that is changed or reset
    ends it. Raises `WrongPassword`, `BadInput`, `TooSoon`, `Forbidden`, `TooBusy`.
    """
    principal.check(Permission.ACCOUNT_CHANGE)
    checked_email(email)
    now, token = identity.now(), new_token()
    async with guesses_noted(identity, principal, "change-email", origin=origin):
        proved = await prove_password(identity, principal, password)
        if name_key(email) == name_key(proved.email):
            raise BadInput("This is the address of the account already.", field="email")
        async with identity.accounts.transaction() as transaction:
            user = await locked_as_proved(transaction, proved)
            is_taken = await transaction.users.named(email) is not None
            # Kept for a taken address too: when one may ask again would tell the two apart.
            if not await transaction.one_time.keep_verification(
                user.id,
                digest_of(token.get_secret_value()),
                email=email,
                at=now,
                expires_at=now + identity.rules.verification,
            ):
                raise TooSoon(retry_after=SOONEST_AGAIN.total_seconds())
            await transaction.audit.add(identity.entry("change-email", origin, user_id=user.id))
    public_url = identity.rules.public_url
    mail = letters.verification(email, public_url, token)
    identity.mailer.post(letters.email_changing(user.email, public_url))
    if not is_taken:
        identity.mailer.post(mail)
    elif (told := told_once(identity, email)) is not None:
        identity.mailer.post(told)


def told_once(identity: Identity, email: str) -> Mail | None:
    """Return what the owner of an address is told when somebody else wants it.

    None if this process told them lately.
    """
    now, key = identity.now(), name_key(email)
    last = identity.told_owners.get(key)
    if last is not None and now - last < _TELL_AGAIN:
        return None
    identity.told_owners.put(key, now)
    return letters.registered_already(email, identity.rules.public_url)
