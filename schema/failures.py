"""What mutations answer when they could not do what was asked: facts, all with a code."""

from __future__ import annotations

import strawberry


@strawberry.interface(description="Why a mutation did not do what was asked.")
class Failure:
    code: str = strawberry.field(description="What happened, stable: programs decide by it.")
    message: str = strawberry.field(description="The same for people; its words may change.")


@strawberry.type(
    name="IdempotencyConflict",
    description="The idempotency key came before, with another input. Nothing was done.",
)
class IdempotencyConflictType(Failure):
    idempotency_key: str = strawberry.field(description="The key.")
