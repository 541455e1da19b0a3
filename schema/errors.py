"""What clients see of failures: expected ones with their code and facts, all others masked.

A failure that a mutation answers is paired with its type here; one that ends an operation, with its
facts.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

from graphql import GraphQLError

from datasources.backfill.service import HistoryNotOffered, NothingToFill
from db.accounts.errors import NameTaken, NotFound, TooMany
from db.backfills import BackfillRunning, IdempotencyConflict, TooManyBackfills
from market.errors import AmbiguousSymbol, BadInput, BargraphError, ProviderUnavailable
from plugins.registry import ProviderDisabled
from resolvers.backfills import BackfillOver, NoSuchBackfill
from resolvers.identity import failures as identity
from schema.backfills import (
    BackfillAlreadyOver,
    BackfillAlreadyRunning,
    BackfillNotFound,
    BackfillType,
    HistoryNotOfferedType,
    NothingToBackfill,
    TooManyBackfillsType,
)
from schema.failures import (
    Failure,
    IdempotencyConflictType,
    InvalidInput,
    NameTakenType,
    NotFoundType,
    TooManyType,
)
from schema.identity.failures import (
    CodeNeededType,
    CredentialInUseType,
    EmailNotVerifiedType,
    InvitationInvalidType,
    LastAdminType,
    LoginFailedType,
    RegistrationClosedType,
    SecondFactorOnType,
    TokenInvalidType,
    TooManyCodesType,
    TooSoonType,
    WeakPasswordType,
    WrongCodeType,
    WrongPasswordType,
)

log = logging.getLogger(__name__)


def format_error(error: GraphQLError) -> dict[str, Any]:
    """Return *error* as the client may see it.

    What the caller did wrong keeps its message. An expected failure adds its code and its facts.
    Anything else is a bug: it is logged whole under an id, and the client gets the id alone.
    """
    shown = dict(error.formatted)
    cause = _cause(error)
    if isinstance(cause, GraphQLError):
        if error.path is not None:  # an argument that GraphQL refused while executing
            shown["extensions"] = {"code": BadInput.code, **(cause.extensions or {})}
        shown["message"] = _without_values(cause.message)
        return shown
    if isinstance(cause, BargraphError):
        shown["message"] = str(cause)
        shown["extensions"] = {"code": code_of(cause), **_facts(cause)}
        return shown
    error_id = secrets.token_hex(8)
    log.error("error %s at %s", error_id, error.path, exc_info=cause)
    shown["message"] = "Internal server error."
    shown["extensions"] = {"code": "INTERNAL", "errorId": error_id}
    return shown


_VALUES = re.compile(
    r"(has invalid value.*?)(?:, found: .*|(?<=\?) Found: .*|(?<=value): [\[{].*)", re.DOTALL
)


def _without_values(message: str) -> str:
    """Return *message* without the objects and lists it quotes: what lies in them may be secret."""
    return _VALUES.sub(lambda said: said[1] if said[1].endswith("?") else f"{said[1]}.", message)


_TYPES: dict[type[BargraphError], Callable[..., Failure]] = {
    IdempotencyConflict: lambda failure, **said: IdempotencyConflictType(
        **said, idempotency_key=failure.key
    ),
    BackfillRunning: lambda failure, **said: BackfillAlreadyRunning(
        **said, running=BackfillType.of(failure.running)
    ),
    NothingToFill: lambda _, **said: NothingToBackfill(**said),
    HistoryNotOffered: lambda _, **said: HistoryNotOfferedType(**said),
    TooManyBackfills: lambda failure, **said: TooManyBackfillsType(**said, limit=failure.most),
    BackfillOver: lambda failure, **said: BackfillAlreadyOver(
        **said, backfill=BackfillType.of(failure.ended)
    ),
    NoSuchBackfill: lambda _, **said: BackfillNotFound(**said),
    NameTaken: lambda failure, **said: NameTakenType(**said, field=failure.field),
    NotFound: lambda failure, **said: NotFoundType(**said, kind=failure.kind),
    TooMany: lambda failure, **said: TooManyType(**said, kind=failure.kind, limit=failure.most),
    identity.CodeNeeded: lambda _, **said: CodeNeededType(**said),
    identity.CredentialInUse: lambda failure, **said: CredentialInUseType(
        **said, users=list(failure.users[:10])
    ),
    identity.EmailNotVerified: lambda _, **said: EmailNotVerifiedType(**said),
    identity.InvitationInvalid: lambda _, **said: InvitationInvalidType(**said),
    identity.LastAdmin: lambda _, **said: LastAdminType(**said),
    identity.LoginFailed: lambda _, **said: LoginFailedType(**said),
    identity.RegistrationClosed: lambda _, **said: RegistrationClosedType(**said),
    identity.SecondFactorOn: lambda _, **said: SecondFactorOnType(**said),
    identity.TokenInvalid: lambda _, **said: TokenInvalidType(**said),
    identity.TooManyCodes: lambda failure, **said: TooManyCodesType(
        **said, retry_after=failure.retry_after
    ),
    identity.TooSoon: lambda failure, **said: TooSoonType(**said, retry_after=failure.retry_after),
    identity.WeakPassword: lambda failure, **said: WeakPasswordType(**said, field=failure.field),
    identity.WrongCode: lambda _, **said: WrongCodeType(**said),
    identity.WrongPassword: lambda _, **said: WrongPasswordType(**said),
}


def failure_of(failure: BargraphError) -> Any:
    """Return what a mutation answers for *failure*, a member of its union.

    Raises *failure* itself where it has no type: it then ends the operation.
    """
    type_of = _TYPES.get(type(failure))
    if type_of is None:
        raise failure
    return type_of(failure, code=failure.code, message=str(failure))


def refusal_of(failure: BargraphError) -> Any:
    """Return what `failure_of` does, and `InvalidInput` for a field that cannot be kept."""
    if isinstance(failure, BadInput) and type(failure) not in _TYPES:
        return InvalidInput(code=failure.code, message=str(failure), field=failure.field)
    return failure_of(failure)


def code_of(failure: BargraphError) -> str:
    """Return the stable code of an expected failure at the top level."""
    if isinstance(failure, ProviderDisabled):
        return ProviderUnavailable.code
    return failure.code


def _facts(failure: BargraphError) -> dict[str, Any]:
    facts: dict[str, Any] = dict(failure.facts)
    if isinstance(failure, BadInput):
        facts["field"] = failure.field
        if failure.suggestions:
            facts["suggestions"] = list(failure.suggestions)
    if isinstance(failure, AmbiguousSymbol):
        facts["choices"] = list(failure.choices)
    if isinstance(failure, ProviderUnavailable | ProviderDisabled):
        facts["provider"] = failure.provider
    if isinstance(failure, identity.TooBusy):
        facts["retryAfter"] = failure.retry_after
    if isinstance(failure, ProviderUnavailable) and failure.retry_after is not None:
        facts["retryAfter"] = failure.retry_after
    return facts


def _cause(error: GraphQLError) -> BaseException:
    """Return what was really raised; a `GraphQLError` only for a mistake of the caller."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, GraphQLError) and error.path is not None and not cause.nodes:
        return ValueError(cause.message)  # no place in the document: a value of ours was refused
    return cause
