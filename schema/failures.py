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


@strawberry.type(description="Something that cannot be kept as it was given. Nothing was done.")
class InvalidInput(Failure):
    field: str = strawberry.field(description="The field that holds it.")


@strawberry.type(name="NameTaken", description="Somebody, or something of yours, has the name.")
class NameTakenType(Failure):
    field: str = strawberry.field(description="The field that holds it.")


@strawberry.type(name="TooMany", description="There are as many of these as one user may have.")
class TooManyType(Failure):
    kind: str = strawberry.field(description="What there are too many of.")
    limit: int = strawberry.field(description="How many there may be.")


@strawberry.type(name="NotFound", description="There is no such thing among what is yours.")
class NotFoundType(Failure):
    kind: str = strawberry.field(description="What was looked for.")
