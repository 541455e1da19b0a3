"""Backfills as clients see them, with what can come of starting and of cancelling one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from db.backfills import Backfill, BackfillState
from market.instrument import Adjustment
from resolvers.backfills import BackfillPage, Progress, percent_of, rate_of
from schema.candles import SeriesInput
from schema.catalogue import PageInfo
from schema.failures import Failure, IdempotencyConflictType
from schema.node import Node, global_id
from schema.scalars import Timestamp, date_time


@strawberry.type(
    description="Bars that are stored under one name. Coarser ones, in any zone and session, are "
    "computed from them."
)
class BaseSeries:
    provider: str = strawberry.field(description="Who supplies the bars.")
    market: str = strawberry.field(description="The asset class.")
    symbol: str = strawberry.field(description="The provider's name of the instrument.")
    timeframe: str = strawberry.field(description="A stored bar's length: mostly `1m`.")
    native: bool = strawberry.field(
        description="Whether longer bars than minutes are stored, as the provider makes them."
    )
    adjustment: Adjustment | None = strawberry.field(
        description="What past prices are corrected for; null: the provider's default."
    )
    feed: str | None = strawberry.field(description="The feed; null: the provider's default.")

    @classmethod
    def of(cls, backfill: Backfill) -> BaseSeries:
        listing = backfill.listing
        return cls(
            provider=listing.provider,
            market=listing.market,
            symbol=listing.symbol,
            timeframe=str(backfill.timeframe),
            native=backfill.native,
            adjustment=listing.adjustment,
            feed=listing.feed,
        )


@strawberry.type(
    name="Backfill",
    description="A job that finds every hole of a series in a window and fills it, newest first. "
    "It survives restarts of the server.",
)
class BackfillType(Node):
    series: BaseSeries = strawberry.field(
        description="What is filled: of a series of hours, the minutes they are computed from."
    )
    since: Timestamp = strawberry.field(description="Where the window begins.")
    until: Timestamp = strawberry.field(
        description="Where it ends, not included: before the provider's now when it was asked for."
    )
    state: BackfillState = strawberry.field(description="Where it stands.")
    reason: str | None = strawberry.field(
        description="Why it ended as it did, as a stable code. Where it is done: `NEWEST_ONLY`, "
        "`BEFORE_FIRST`, `NOT_OFFERED` and `INCOMPLETE` say that the provider did not have all, "
        "`NOT_KEPT` that the server drops bars as old as the window's first. "
        "Where it failed: `PROVIDER_UNAVAILABLE` and other codes of errors. Where it was "
        "cancelled: `CANCELLED`. Null while it is not over, and where it closed every hole."
    )
    message: str | None = strawberry.field(
        description="The same for people. While it is not over: why its provider does not answer; "
        "it waits, and tries again."
    )
    percent: float = strawberry.field(
        description="How much of the missing time is asked about by now, 0 to 100."
    )
    bars: int = strawberry.field(description="How many bars it stored that were new or other.")
    rate: float | None = strawberry.field(
        description="Bars a second since it began to run, on average; null before that."
    )
    created_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When it began to run.")
    ended_at: datetime | None = strawberry.field(description="When it was over.")
    updated_at: datetime = strawberry.field(description="When anything of this last changed.")

    @classmethod
    def of(cls, backfill: Backfill) -> BackfillType:
        window = backfill.window
        return cls(
            id=global_id("Backfill", str(backfill.id)),
            series=BaseSeries.of(backfill),
            since=Timestamp(window.since),
            until=Timestamp(window.until),
            state=backfill.state,
            reason=backfill.reason,
            message=backfill.message,
            percent=percent_of(backfill),
            bars=backfill.bars,
            rate=rate_of(backfill),
            created_at=date_time(backfill.created_at),
            started_at=_date_time(backfill.started_at),
            ended_at=_date_time(backfill.ended_at),
            updated_at=date_time(backfill.updated_at),
        )


@strawberry.type(description="A backfill at its place in the list.")
class BackfillEdge:
    node: BackfillType = strawberry.field(description="The backfill.")
    cursor: str = strawberry.field(description="Its place, for `after`.")


@strawberry.type(description="A page of backfills, the newest first.")
class BackfillConnection:
    edges: list[BackfillEdge] = strawberry.field(description="The backfills with their cursors.")
    nodes: list[BackfillType] = strawberry.field(description="The backfills.")
    page_info: PageInfo = strawberry.field(description="Where the page lies.")

    @classmethod
    def of(cls, page: BackfillPage) -> BackfillConnection:
        nodes = [BackfillType.of(backfill) for backfill in page.nodes]
        return cls(
            edges=[
                BackfillEdge(node=node, cursor=cursor)
                for node, cursor in zip(nodes, page.cursors, strict=True)
            ],
            nodes=nodes,
            page_info=PageInfo.of(
                page.cursors, has_previous=page.has_previous, has_next=page.has_next
            ),
        )


@strawberry.type(description="How far a backfill is.")
class BackfillProgress:
    backfill: BackfillType = strawberry.field(description="All of it, as it is now.")
    state: BackfillState = strawberry.field(description="Where it stands; the last one is final.")
    percent: float = strawberry.field(
        description="How much of the missing time is asked about by now, 0 to 100."
    )
    bars: int = strawberry.field(description="How many bars it stored that were new or other.")
    rate: float | None = strawberry.field(
        description="Bars a second of late, once it is over on average; null where unknown."
    )
    time_left: float | None = strawberry.field(
        description="Seconds until it is done, if it goes on like this; null where unknown."
    )

    @classmethod
    def of(cls, progress: Progress) -> BackfillProgress:
        shown = BackfillType.of(progress.backfill)
        return cls(
            backfill=shown,
            state=shown.state,
            percent=shown.percent,
            bars=shown.bars,
            rate=progress.rate,
            time_left=progress.time_left,
        )


@strawberry.input(description="Which series to fill, and where.")
class StartBackfillInput:
    series: SeriesInput = strawberry.field(
        description="Which bars shall be there. What they are computed from is filled."
    )
    since: Timestamp = strawberry.field(description="Where to begin.")
    idempotency_key: str = strawberry.field(
        description="A new name for this wish, such as a UUID, of 1 to 200 characters. Whoever "
        "sends it again with the same input gets the first backfill again, and starts no other."
    )
    until: Timestamp | None = strawberry.field(
        default=None, description="Where to end, not included. Default: the provider's now."
    )


@strawberry.input(description="Which backfill to cancel.")
class CancelBackfillInput:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(description="The backfill that was started, now or by the same key before.")
class BackfillStarted:
    backfill: BackfillType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The series is being filled already: one backfill at a time.")
class BackfillAlreadyRunning(Failure):
    running: BackfillType = strawberry.field(description="The one that is not over yet.")


@strawberry.type(description="Nothing is missing in the window that could have been traded.")
class NothingToBackfill(Failure):
    pass


@strawberry.type(
    name="HistoryNotOffered", description="The provider gives no past bars of the series."
)
class HistoryNotOfferedType(Failure):
    pass


@strawberry.type(name="TooManyBackfills", description="Too many backfills are not over yet.")
class TooManyBackfillsType(Failure):
    limit: int = strawberry.field(description="How many may be.")


@strawberry.type(description="The backfill is cancelled. What it stored stays.")
class BackfillCancelled:
    backfill: BackfillType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The backfill ended by itself before it could be cancelled.")
class BackfillAlreadyOver(Failure):
    backfill: BackfillType = strawberry.field(description="How it ended.")


@strawberry.type(description="There is no backfill with this id.")
class BackfillNotFound(Failure):
    pass


StartBackfillResult = Annotated[
    BackfillStarted
    | BackfillAlreadyRunning
    | NothingToBackfill
    | HistoryNotOfferedType
    | TooManyBackfillsType
    | IdempotencyConflictType,
    strawberry.union("StartBackfillResult", description="What comes of starting a backfill."),
]
CancelBackfillResult = Annotated[
    BackfillCancelled | BackfillAlreadyOver | BackfillNotFound,
    strawberry.union("CancelBackfillResult", description="What comes of cancelling a backfill."),
]


def _date_time(instant: int | None) -> datetime | None:
    return None if instant is None else date_time(instant)
