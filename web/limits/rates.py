"""How often one address, one user and one account may ask for what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from web.graphql_request import RequestRefused


class Group(StrEnum):
    """What is counted together."""

    QUERIES = "queries"
    """Queries and subscriptions, by whatever transport."""
    MUTATIONS = "mutations"
    SOCKETS = "sockets"
    """WebSockets and streams that are opened."""
    LOGIN = "login"
    """Tries to sign in or to register."""
    PASSWORD_RESET = "password_reset"  # noqa: S105 - a name, not a password
    CREDENTIAL_TESTS = "credential_tests"
    """Keys that are shown to their venue, from our address."""
    DOCUMENTS = "documents"
    """KiB of documents that are registered to be asked for by their digest."""


GROUP_OF_MUTATION: Mapping[str, Group] = {
    "login": Group.LOGIN,
    "register": Group.LOGIN,
    "requestPasswordReset": Group.PASSWORD_RESET,
    "requestVerification": Group.PASSWORD_RESET,
    "resetPassword": Group.PASSWORD_RESET,
    "testCredential": Group.CREDENTIAL_TESTS,
}
"""Mutations that are counted apart, besides being mutations: each tries a secret, or sends a mail.

Every field at the root of an operation is a hit, under whatever alias and through whatever
fragment. What else is to be counted apart is a new `Group`, a line here, and its rates in
`rates_of`: a group without a rate for users counts them by address.
"""

COUNTED_ANYWHERE = frozenset(GROUP_OF_MUTATION.values())
"""Groups in which callers at the server's own machine are limited as well."""

CREDENTIAL_TESTS = 10
"""Tests of credentials a minute. An exchange shuts out an address that shows it wrong keys."""
DOCUMENT_KIB = 1_024
"""KiB of documents that one address may register in an hour: those of any front end."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most *amount* in any *seconds*, about. An amount of 0 is no limit."""

    amount: int
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of anonymous callers by address, of users, and of the names tried to enter by.

    Those are an account's username and its address: of guesses each gets half.
    """

    address: Mapping[Group, Rate]
    user: Mapping[Group, Rate]
    account: Mapping[Group, Rate]


def rates_of(*, queries: int, mutations: int, sockets: int, logins: int) -> Rates:
    """Return the rates for so many of each a minute and address.

    Users, who are known and can be shut out, may do five times as much.
    """
    minute = {Group.QUERIES: queries, Group.MUTATIONS: mutations, Group.SOCKETS: sockets}
    tests = Rate(min(CREDENTIAL_TESTS, mutations))
    return Rates(
        address={
            **{group: Rate(amount) for group, amount in minute.items()},
            Group.LOGIN: Rate(logins),
            Group.PASSWORD_RESET: Rate(logins // 5 or min(1, logins), 3600),
            Group.CREDENTIAL_TESTS: tests,
            Group.DOCUMENTS: Rate(DOCUMENT_KIB, 3600),
        },
        user={
            **{group: Rate(5 * amount) for group, amount in minute.items()},
            Group.CREDENTIAL_TESTS: tests,
        },
        account={
            Group.LOGIN: Rate(logins // 20 or min(1, logins)),
            Group.PASSWORD_RESET: Rate(logins // 20 or min(1, logins), 3600),
        },
    )


class RateLimited(RequestRefused):
    """Too much of *group* in a while; *retry_after* is in seconds."""

    code = "RATE_LIMITED"
    status: ClassVar[int] = 429

    def __init__(self, group: Group, rate: Rate, *, retry_after: float) -> None:
        per = "a minute" if rate.seconds == 60 else f"in {rate.seconds} s"
        super().__init__(f"Too many {group.value.replace('_', ' ')}: at most {rate.amount} {per}.")
        self.group = group
        self.retry_after = max(1, math.ceil(retry_after))

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after)}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"retryAfter": self.retry_after}
