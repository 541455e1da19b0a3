"""The mutations of the API, each a thin face of one resolver.

A mutation takes one input, and returns a union of what it did and of the failures that its caller
may meet; all else ends the operation as an error.
"""

from __future__ import annotations

from typing import Annotated, cast
from uuid import UUID

import strawberry

from market.errors import BargraphError
from resolvers.audit import note
from resolvers.backfills import cancel_backfill, start_backfill
from schema.backfills import (
    BackfillCancelled,
    BackfillStarted,
    BackfillType,
    CancelBackfillInput,
    CancelBackfillResult,
    StartBackfillInput,
    StartBackfillResult,
)
from schema.context import Context, Info
from schema.credentials import CredentialMutations
from schema.errors import failure_of
from schema.identity.roots import IdentityMutations
from schema.node import uuid_in
from schema.saved.roots import SavedWorkMutations


@strawberry.type(description="Everything that can be changed.")
class Mutation(IdentityMutations, CredentialMutations, SavedWorkMutations):
    @strawberry.mutation(
        description="Fill the holes of a series in a window, in the background. For admins."
    )
    async def start_backfill(
        self,
        info: Info,
        input: Annotated[
            StartBackfillInput, strawberry.argument(description="Which series, and where.")
        ],
    ) -> StartBackfillResult:
        shared = info.context.shared
        try:
            started = await start_backfill(
                shared.directory,
                shared.backfills,
                input.series.asked(),
                since=input.since,
                until=input.until,
                idempotency_key=input.idempotency_key,
            )
        except BargraphError as failure:
            return cast(StartBackfillResult, failure_of(failure))
        await _note(info.context, "start-backfill", started.id)
        return BackfillStarted(backfill=BackfillType.of(started))

    @strawberry.mutation(
        description="End a backfill that is not over. To cancel it again does no harm. For admins."
    )
    async def cancel_backfill(
        self,
        info: Info,
        input: Annotated[CancelBackfillInput, strawberry.argument(description="Which one.")],
    ) -> CancelBackfillResult:
        named = uuid_in(input.id, "Backfill")
        try:
            cancelled = await cancel_backfill(info.context.shared.backfills, named)
        except BargraphError as failure:
            return cast(CancelBackfillResult, failure_of(failure))
        await _note(info.context, "cancel-backfill", cancelled.id)
        return BackfillCancelled(backfill=BackfillType.of(cancelled))


async def _note(context: Context, action: str, backfill: UUID) -> None:
    """Write into the audit log what was done.

    What cannot be written is an error, although it was done: whoever asks again, which does no
    harm, has it written then.
    """
    await note(
        context.shared.identity,
        context.principal,
        action,
        origin=context.origin,
        target=str(backfill),
    )
