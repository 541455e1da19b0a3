"""Indicator presets as their owners see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import strawberry

from db.accounts.errors import NotFound, VersionConflict
from db.accounts.repositories.presets import IndicatorPreset
from market.errors import BargraphError
from resolvers.identity.saved_work import (
    PresetToSave,
    delete_indicator_preset,
    indicator_preset,
    indicator_presets,
    save_indicator_preset,
)
from schema.context import Context, Info
from schema.failures import Failure, InvalidInput, NameTakenType, NotFoundType, TooManyType
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

PRESET = "IndicatorPreset"


@strawberry.type(name="IndicatorPreset", description="Parameters of an indicator under a name.")
class IndicatorPresetType(Node):
    indicator: str = strawberry.field(description="Which indicator, in the client's own words.")
    name: str = strawberry.field(description="What its owner calls it, unique for the indicator.")
    content: Json = strawberry.field(description="The parameters, as the client wrote them.")
    version: int = strawberry.field(
        description="Grows with each change; saving and deleting take it."
    )
    created_at: datetime = strawberry.field(description="When it was first saved.")
    updated_at: datetime = strawberry.field(description="When it was last saved.")

    @classmethod
    def of(cls, preset: IndicatorPreset) -> IndicatorPresetType:
        return cls(
            id=global_id(PRESET, str(preset.id)),
            indicator=preset.indicator,
            name=preset.name,
            content=Json(preset.content),
            version=preset.version,
            created_at=preset.created_at,
            updated_at=preset.updated_at,
        )


@strawberry.input(description="An indicator preset, new or changed.")
class SaveIndicatorPresetInput:
    indicator: str = strawberry.field(description="Which indicator, 1 to 60 characters.")
    name: str = strawberry.field(
        description="What to call it, 1 to 80 characters, unique for the indicator."
    )
    content: Json = strawberry.field(
        description="The parameters: any JSON of at most 16 KiB; all of them have at most 1 MiB."
    )
    id: strawberry.ID | None = strawberry.field(
        default=None, description="The preset to write over; null saves a new one."
    )
    version: int | None = strawberry.field(
        default=None, description="The version that was changed; required with `id`."
    )


@strawberry.input(description="Which indicator preset to delete.")
class DeleteIndicatorPresetInput:
    id: strawberry.ID = strawberry.field(description="Its id.")
    version: int | None = strawberry.field(
        default=None,
        description="The version that is to be deleted, and no other; null: whatever it is now.",
    )


@strawberry.type(description="The indicator preset is saved.")
class IndicatorPresetSaved:
    indicator_preset: IndicatorPresetType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The indicator preset is gone.")
class IndicatorPresetDeleted:
    id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="It was changed since it was read. Nothing was done.")
class IndicatorPresetVersionConflict(Failure):
    current: IndicatorPresetType = strawberry.field(description="It, as it is now.")


SaveIndicatorPresetResult = Annotated[
    IndicatorPresetSaved
    | NotFoundType
    | IndicatorPresetVersionConflict
    | NameTakenType
    | TooManyType
    | ContentTooLarge
    | InvalidInput,
    strawberry.union("SaveIndicatorPresetResult", description="What comes of saving a preset."),
]
DeleteIndicatorPresetResult = Annotated[
    IndicatorPresetDeleted | NotFoundType | IndicatorPresetVersionConflict,
    strawberry.union("DeleteIndicatorPresetResult", description="What comes of deleting a preset."),
]


@strawberry.type
class PresetQueries:
    @strawberry.field(description="One's own indicator presets, by indicator and name.")
    async def indicator_presets(self, info: Info) -> list[IndicatorPresetType]:
        found = await read_own(info.context, indicator_presets)
        return [IndicatorPresetType.of(each) for each in found]


@strawberry.type
class PresetMutations:
    @strawberry.mutation(
        description="Save an indicator preset, a new one or another state of one as it was at a "
        "version."
    )
    async def save_indicator_preset(
        self,
        info: Info,
        input: Annotated[SaveIndicatorPresetInput, strawberry.argument(description="The preset.")],
    ) -> SaveIndicatorPresetResult:
        identity, principal = info.context.shared.identity, info.context.principal
        try:
            wanted = PresetToSave(
                indicator=input.indicator,
                name=input.name,
                content=input.content,
                id=id_in(input.id, PRESET, "indicator preset"),
                version=version_in(input.id, input.version),
            )
            try:
                saved = await save_indicator_preset(identity, principal, wanted)
            except VersionConflict as conflict:
                assert wanted.id is not None
                return await _conflict(info.context, wanted.id, conflict)
        except BargraphError as failure:
            return cast(SaveIndicatorPresetResult, refusal(failure))
        return IndicatorPresetSaved(indicator_preset=IndicatorPresetType.of(saved))

    @strawberry.mutation(description="Delete an indicator preset.")
    async def delete_indicator_preset(
        self,
        info: Info,
        input: Annotated[DeleteIndicatorPresetInput, strawberry.argument(description="Which one.")],
    ) -> DeleteIndicatorPresetResult:
        identity, principal = info.context.shared.identity, info.context.principal
        try:
            named = given_id_in(input.id, PRESET, "indicator preset")
            try:
                await delete_indicator_preset(identity, principal, named, version=input.version)
            except VersionConflict as conflict:
                return await _conflict(info.context, named, conflict)
        except BargraphError as failure:
            return cast(DeleteIndicatorPresetResult, refusal(failure))
        return IndicatorPresetDeleted(id=input.id)


async def found_preset(context: Context, id: strawberry.ID) -> IndicatorPresetType | None:
    """Return the indicator preset that a global id names; None where it is not one's own."""
    try:
        found = await read_own(
            context, indicator_preset, given_id_in(id, PRESET, "indicator preset")
        )
    except NotFound:
        return None
    return IndicatorPresetType.of(found)


async def _conflict(
    context: Context, id: UUID, conflict: VersionConflict
) -> IndicatorPresetVersionConflict:
    current = await indicator_preset(context.shared.identity, context.principal, id)
    return IndicatorPresetVersionConflict(**said(conflict), current=IndicatorPresetType.of(current))
