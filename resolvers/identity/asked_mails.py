"""Mails that anybody may ask for by an address, whether it has an account or not.

Before the answer the address is looked up, which tells whether the accounts are there at all. All
else is done behind it: neither the answer nor how long it takes tells whose address it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from uuid import UUID

from db.accounts.accounts import Transaction
from db.accounts.repositories.users import User
from resolvers.identity.checked import checked_email
from resolvers.identity.identity import Identity
from resolvers.identity.principal import Mail, Origin

ASKED, SENT = "asked", "sent"
"""What the audit log says of a mail that was asked for: whoever asked did not prove to be anybody.
"""
MOST_SENT = 5
"""Mails of one kind to one user within `SENT_WITHIN`. Whoever asks for more is not told: anybody
may ask, so a refusal would keep the owner out. The last link sent counts for as long at least.
"""
SENT_WITHIN = timedelta(hours=1)

Write = Callable[[Transaction, User], Awaitable[Mail | None]]
"""Writes the mail to a user, whose row is locked; None for one who gets none."""


async def ask_for_mail(
    identity: Identity, email: str, write: Write, *, action: str, origin: Origin
) -> None:
    """Let the user with the address *email* have a mail soon, if there is one.

    Raises `BadInput`, `AccountsUnavailable`.
    """
    checked_email(email)
    async with identity.accounts.transaction() as transaction:
        user_id = await transaction.users.id_named(email)
    identity.errands.add(partial(_send, identity, user_id, write, action=action, origin=origin))


async def _send(
    identity: Identity, user_id: UUID | None, write: Write, *, action: str, origin: Origin
) -> None:
    mail = None
    async with identity.accounts.transaction() as transaction:
        user = None if user_id is None else await transaction.users.find(user_id, lock=True)
        if user is not None and not await _has_enough(identity, transaction, user, action):
            mail = await write(transaction, user)
        await transaction.audit.add(
            identity.entry(
                action,
                origin,
                user_id=None if user is None else user.id,
                result=ASKED if mail is None else SENT,
            )
        )
    if mail is not None:
        identity.mailer.post(mail)


async def _has_enough(
    identity: Identity, transaction: Transaction, user: User, action: str
) -> bool:
    times = await transaction.audit.last_times(user.id, result=SENT, action=action, most=MOST_SENT)
    return len(times) == MOST_SENT and times[-1] > identity.now() - SENT_WITHIN
