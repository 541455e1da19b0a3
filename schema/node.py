"""Global ids: opaque to clients, and enough to find an entity again."""

from __future__ import annotations

from uuid import UUID

import strawberry

from market.errors import BadInput
from resolvers.paging import Key, cursor_of, key_in

NO_ID = UUID(int=0)
"""The id of nothing, for ids that name nothing of the kind that is looked for."""


@strawberry.interface(description="Something with an id that finds it again through `node`.")
class Node:
    id: strawberry.ID = strawberry.field(
        description="Identifies it among everything this server knows. Opaque."
    )


def global_id(kind: str, *parts: str) -> strawberry.ID:
    """Return the id of the entity of type *kind* that *parts* name."""
    return strawberry.ID(cursor_of((kind, *parts)))


def parts_in(id: strawberry.ID) -> Key:
    """Return kind and parts of a global id, empty for a string that is none."""
    try:
        return key_in(str(id), field="id")
    except BadInput:
        return ()


def uuid_in(id: strawberry.ID, kind: str) -> UUID | None:
    """Return the UUID of an entity of type *kind*, None for an id that names no such thing."""
    match parts_in(id):
        case (named, text) if named == kind:
            try:
                return UUID(text)
            except ValueError:
                return None
    return None
