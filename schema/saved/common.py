"""What all that people save has in common: how it is named, read and refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import strawberry

from db.accounts.errors import NotFound, TooLarge
from market.errors import BadInput, BargraphError
from schema.context import Context
from schema.errors import refusal_of
from schema.failures import Failure
from schema.node import uuid_in

T = TypeVar("T")


@strawberry.type(
    description="What was to be saved is too large, by itself or with all others of its kind. "
    "Nothing was saved."
)
class ContentTooLarge(Failure):
    size: int = strawberry.field(description="How many bytes of JSON it takes, or all would.")
    limit: int = strawberry.field(description="How many it may take, or all may.")


async def read_own(context: Context, read: Callable[..., Awaitable[T]], *ids: UUID) -> T:
    """Return what *read* gives of the caller's own, asked for once in a request."""
    identity, principal = context.shared.identity, context.principal
    return await context.once((read, *ids), lambda: read(identity, principal, *ids))


def id_in(id: strawberry.ID | None, kind: str, called: str) -> UUID | None:
    return None if id is None else given_id_in(id, kind, called)


def given_id_in(id: strawberry.ID, kind: str, called: str) -> UUID:
    found = uuid_in(id, kind)
    if found is None:
        raise NotFound(called)
    return found


def version_in(id: strawberry.ID | None, version: int | None) -> int:
    if id is None:
        return 0
    if version is None:
        raise BadInput("version is required with id: the one that was changed.", field="version")
    return version


def said(failure: BargraphError) -> dict[str, Any]:
    return {"code": failure.code, "message": str(failure)}


def refusal(failure: BargraphError) -> Any:
    """Return what a mutation answers for *failure*; raise it where it ends the operation."""
    if isinstance(failure, TooLarge):
        return ContentTooLarge(**said(failure), size=failure.size, limit=failure.most)
    return refusal_of(failure)
