"""Chart layouts as their owners see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import strawberry

from db.accounts.errors import NotFound, VersionConflict
from db.accounts.repositories.layouts import ChartLayout
from market.errors import BargraphError
from resolvers.identity.saved_work import (
    LayoutToSave,
    chart_layout,
    chart_layouts,
    delete_chart_layout,
    save_chart_layout,
)
from schema.context import Context, Info
from schema.failures import Failure, InvalidInput, NotFoundType, TooManyType
from schema.node import Node, global_id
from schema.saved.common import (
    ContentTooLarge,
    given_id_in,
    id_in,
    read_own,
    refusal,
    said,
    version_in,
)
from schema.scalars import Json

LAYOUT = "ChartLayout"


@strawberry.type(
    name="ChartLayout", description="How somebody looks at charts, of one instrument or of any."
)
class ChartLayoutType(Node):
    name: str = strawberry.field(description="What its owner calls it.")
    instrument: str | None = strawberry.field(
        description="Which instrument it is for, in the client's own words; null: for any."
    )
    is_default: bool = strawberry.field(
        description="Whether charts of the instrument open with it. At most one does."
    )
    content: Json = strawberry.field(description="The layout, as the client wrote it.")
    version: int = strawberry.field(
        description="Grows with each change; saving and deleting take it."
    )
    created_at: datetime = strawberry.field(description="When it was first saved.")
    updated_at: datetime = strawberry.field(description="When it was last saved.")

    @classmethod
    def of(cls, layout: ChartLayout) -> ChartLayoutType:
        return cls(
            id=global_id(LAYOUT, str(layout.id)),
            name=layout.name,
            instrument=layout.instrument,
            is_default=layout.is_default,
            content=Json(layout.content),
            version=layout.version,
            created_at=layout.created_at,
            updated_at=layout.updated_at,
        )


@strawberry.input(description="A chart layout, new or changed.")
class SaveChartLayoutInput:
    name: str = strawberry.field(description="What to call it, 1 to 80 characters.")
    content: Json = strawberry.field(
        description="The layout: any JSON of at most 128 KiB; all of them have at most 4 MiB."
    )
    instrument: str | None = strawberry.field(
        default=None,
        description="Which instrument it is for, at most 200 characters; null: for any.",
    )
    is_default: bool | None = strawberry.field(
        default=False,
        description="Whether charts of the instrument open with it, instead of the one that does.",
    )
    id: strawberry.ID | None = strawberry.field(
        default=None, description="The layout to write over; null saves a new one."
    )
    version: int | None = strawberry.field(
        default=None, description="The version that was changed; required with `id`."
    )


@strawberry.input(description="Which chart layout to delete.")
class DeleteChartLayoutInput:
    id: strawberry.ID = strawberry.field(description="Its id.")
    version: int | None = strawberry.field(
        default=None,
        description="The version that is to be deleted, and no other; null: whatever it is now.",
    )


@strawberry.type(description="The chart layout is saved.")
class ChartLayoutSaved:
    chart_layout: ChartLayoutType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The chart layout is gone.")
class ChartLayoutDeleted:
    id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="It was changed since it was read. Nothing was done.")
class ChartLayoutVersionConflict(Failure):
    current: ChartLayoutType = strawberry.field(description="It, as it is now.")


SaveChartLayoutResult = Annotated[
    ChartLayoutSaved
    | NotFoundType
    | ChartLayoutVersionConflict
    | TooManyType
    | ContentTooLarge
    | InvalidInput,
    strawberry.union("SaveChartLayoutResult", description="What comes of saving a chart layout."),
]
DeleteChartLayoutResult = Annotated[
    ChartLayoutDeleted | NotFoundType | ChartLayoutVersionConflict,
    strawberry.union("DeleteChartLayoutResult", description="What comes of deleting a layout."),
]


@strawberry.type
class LayoutQueries:
    @strawberry.field(description="One's own chart layouts, by name.")
    async def chart_layouts(self, info: Info) -> list[ChartLayoutType]:
        return [ChartLayoutType.of(each) for each in await read_own(info.context, chart_layouts)]


@strawberry.type
class LayoutMutations:
    @strawberry.mutation(
        description="Save a chart layout, a new one or another state of one as it was at a version."
    )
    async def save_chart_layout(
        self,
        info: Info,
        input: Annotated[SaveChartLayoutInput, strawberry.argument(description="The layout.")],
    ) -> SaveChartLayoutResult:
        identity, principal = info.context.shared.identity, info.context.principal
        try:
            wanted = LayoutToSave(
                name=input.name,
                content=input.content,
                instrument=input.instrument,
                is_default=bool(input.is_default),
                id=id_in(input.id, LAYOUT, "chart layout"),
                version=version_in(input.id, input.version),
            )
            try:
                saved = await save_chart_layout(identity, principal, wanted)
            except VersionConflict as conflict:
                assert wanted.id is not None
                return await _conflict(info.context, wanted.id, conflict)
        except BargraphError as failure:
            return cast(SaveChartLayoutResult, refusal(failure))
        return ChartLayoutSaved(chart_layout=ChartLayoutType.of(saved))

    @strawberry.mutation(description="Delete a chart layout.")
    async def delete_chart_layout(
        self,
        info: Info,
        input: Annotated[DeleteChartLayoutInput, strawberry.argument(description="Which one.")],
    ) -> DeleteChartLayoutResult:
        identity, principal = info.context.shared.identity, info.context.principal
        try:
            named = given_id_in(input.id, LAYOUT, "chart layout")
            try:
                await delete_chart_layout(identity, principal, named, version=input.version)
            except VersionConflict as conflict:
                return await _conflict(info.context, named, conflict)
        except BargraphError as failure:
            return cast(DeleteChartLayoutResult, refusal(failure))
        return ChartLayoutDeleted(id=input.id)


async def found_layout(context: Context, id: strawberry.ID) -> ChartLayoutType | None:
    """Return the chart layout that a global id names; None where it is not one's own."""
    try:
        found = await read_own(context, chart_layout, given_id_in(id, LAYOUT, "chart layout"))
    except NotFound:
        return None
    return ChartLayoutType.of(found)


async def _conflict(
    context: Context, id: UUID, conflict: VersionConflict
) -> ChartLayoutVersionConflict:
    current = await chart_layout(context.shared.identity, context.principal, id)
    return ChartLayoutVersionConflict(**said(conflict), current=ChartLayoutType.of(current))
