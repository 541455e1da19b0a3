"""What mutations refused, for the audit log: the one place that writes it.

What was done is written by whoever does it, in the same transaction. So is what was refused to
whoever guessed at a secret, since only there it is known whose.
"""

from __future__ import annotations

import re
from collections.abc import Container
from contextlib import suppress
from inspect import isawaitable
from typing import Any
from uuid import UUID

import strawberry
from graphql import GraphQLField, GraphQLSchema

from db.accounts.errors import AccountsUnavailable, NotFound
from db.accounts.permissions import Permission
from market.errors import BargraphError
from resolvers.audit import note_refusal
from resolvers.callers import Forbidden
from resolvers.identity.failures import TooBusy, Unauthenticated, WrongCode, WrongPassword
from schema.context import Context
from schema.failures import Failure
from schema.node import parts_in
from schema.permissions import ROOTS

_ACTIONS = {
    "enrolSecondFactor": "second-factor.enrol",
    "confirmSecondFactor": "second-factor.on",
    "turnOffSecondFactor": "second-factor.off",
}
"""Actions that the log calls otherwise than the mutation."""
_TELL_THEMSELVES = {"login", "testCredential"}
_BEFORE_THAT = {Forbidden.code, NotFound.code}
"""Refusals of these before they could write anything."""
_LEFT_OUT = {
    # Written where it is known whose secret was guessed at.
    *(WrongPassword.code, WrongCode.code),
    # Of nobody that is known, or of more than may be written: refusing has to stay cheap.
    *(Unauthenticated.code, "RATE_LIMITED", TooBusy.code, AccountsUnavailable.code),
}


def audit_refusals(schema: GraphQLSchema) -> None:
    """Have every mutation of *schema* but those of saved work write down what it refuses."""
    mutations = schema.mutation_type
    for name, field in mutations.fields.items() if mutations is not None else ():
        saves_work = ROOTS.get(f"Mutation.{name}") is Permission.SAVED_WORK_CHANGE
        if not saves_work:
            only = _BEFORE_THAT if name in _TELL_THEMSELVES else None
            _audit_field(field, _ACTIONS.get(name) or _kebab(name), only)


def _audit_field(field: GraphQLField, action: str, only: Container[str] | None) -> None:
    """Have *field* write down refusals, those of the codes *only* if it is given."""
    ordinary = field.resolve
    assert ordinary is not None

    async def audited(source: Any, info: Any, **arguments: Any) -> Any:
        code = None
        try:
            answer = ordinary(source, info, **arguments)
            if isawaitable(answer):
                answer = await answer
            if isinstance(answer, Failure):
                code = answer.code
            return answer
        except BargraphError as failure:
            code = failure.code
            raise
        finally:
            if code is not None and code not in _LEFT_OUT and (only is None or code in only):
                await _note(info.context, action, code, arguments)

    field.resolve = audited


async def _note(context: Context, action: str, code: str, arguments: dict[str, Any]) -> None:
    await note_refusal(
        context.shared.identity,
        context.caller.principal,
        action,
        origin=context.origin,
        target=_target(arguments.get("input")),
        result=code,
    )


def _target(given: object) -> str | None:
    """Return the UUID that a mutation was given by an id of ours, in hex.

    Whatever else came as an id may be secret, or written to look like another line of the log.
    """
    match given:
        case {"id": str(id)}:
            match parts_in(strawberry.ID(id)):
                case (_, named):
                    with suppress(ValueError):
                        return UUID(named).hex
    return None


def _kebab(name: str) -> str:
    return re.sub(r"[A-Z]", lambda capital: f"-{capital[0].lower()}", name)
