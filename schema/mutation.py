"""The mutations of the API, each a thin face of one resolver.

A mutation takes one input, and returns a union of what it did and of the failures that its caller
may meet; all else ends the operation as an error.
"""

from __future__ import annotations

from typing import Annotated, cast

import strawberry

from market.errors import BargraphError
from resolvers.backfills import cancel_backfill, start_backfill
from resolvers.callers import check_local
from schema.backfills import (
    BackfillCancelled,
    BackfillStarted,
    BackfillType,
    CancelBackfillInput,
    CancelBackfillResult,
    StartBackfillInput,
    StartBackfillResult,
)
from schema.context import Info
from schema.errors import failure_of
from schema.node import uuid_in


@strawberry.type(description="Everything that can be changed.")
class Mutation:
    @strawberry.mutation(
        description="Fill the holes of a series in a window, in the background. For now only from "
        "the machine that the server runs on, without a proxy; others get `FORBIDDEN`."
    )
    async def start_backfill(
        self,
        info: Info,
        input: Annotated[
            StartBackfillInput, strawberry.argument(description="Which series, and where.")
        ],
    ) -> StartBackfillResult:
        check_local(info.context.caller, "Starting a backfill")
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
        return BackfillStarted(backfill=BackfillType.of(started))

    @strawberry.mutation(
        description="End a backfill that is not over. To cancel it again does no harm. From the "
        "same callers as `startBackfill`."
    )
    async def cancel_backfill(
        self,
        info: Info,
        input: Annotated[CancelBackfillInput, strawberry.argument(description="Which one.")],
    ) -> CancelBackfillResult:
        check_local(info.context.caller, "Cancelling a backfill")
        try:
            cancelled = await cancel_backfill(
                info.context.shared.backfills, uuid_in(input.id, "Backfill")
            )
        except BargraphError as failure:
            return cast(CancelBackfillResult, failure_of(failure))
        return BackfillCancelled(backfill=BackfillType.of(cancelled))
