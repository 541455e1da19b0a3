"""What people save of their work, as they see it: preferences, chart layouts, indicator presets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry

from db.accounts.errors import NotFound, TooLarge, VersionConflict
from db.accounts.repositories.layouts import ChartLayout
from db.accounts.repositories.preferences import Preferences
from db.accounts.repositories.presets import IndicatorPreset
from market.errors import BadInput, BargraphError
from resolvers.identity.saved_work import (
    LayoutToSave,
    PresetToSave,
    chart_layout,
    chart_layouts,
    delete_chart_layout,
    delete_indicator_preset,
    indicator_preset,
    indicator_presets,
    preferences,
    save_chart_layout,
    save_indicator_preset,
    save_preferences,
)
from schema.context import Context, Info
from schema.errors import failure_of
from schema.failures import Failure, InvalidInput, NameTakenType, NotFoundType, TooManyType
from schema.node import Node, global_id, uuid_in
from schema.scalars import Json

LAYOUT, PRESET = "ChartLayout", "IndicatorPreset"


@strawberry.type(name="Preferences", description="What somebody prefers: one JSON object.")
class PreferencesType:
    content: Json = strawberry.field(description="All of it, at most 32 KiB.")
    version: int = strawberry.field(description="Grows with each change; 0 before the first.")
    updated_at: datetime | None = strawberry.field(
        description="When it was last changed; null before the first change."
    )

    @classmethod
    def of(cls, preferences: Preferences) -> PreferencesType:
        return cls(
            content=Json(preferences.content),
            version=preferences.version,
            updated_at=preferences.updated_at,
        )


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
    version: int = strawberry.field(description="Grows with each change; saving takes it.")
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


@strawberry.type(name="IndicatorPreset", description="Parameters of an indicator under a name.")
class IndicatorPresetType(Node):
    indicator: str = strawberry.field(description="Which indicator, in the client's own words.")
    name: str = strawberry.field(description="What its owner calls it, unique for the indicator.")
    content: Json = strawberry.field(description="The parameters, as the client wrote them.")
    version: int = strawberry.field(description="Grows with each change; saving takes it.")
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


@strawberry.input(description="What to change of the preferences.")
class SavePreferencesInput:
    patch: Json = strawberry.field(
        description="A JSON object, applied as a merge patch (RFC 7396): what it names is set, "
        "null removes, objects are merged, lists are replaced."
    )
    version: int | None = strawberry.field(
        default=None,
        description="The version that the patch was made to; null applies it to any.",
    )


@strawberry.input(description="A chart layout, new or changed.")
class SaveChartLayoutInput:
    name: str = strawberry.field(description="What to call it, 1 to 80 characters.")
    content: Json = strawberry.field(description="The layout: any JSON of at most 128 KiB.")
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


@strawberry.input(description="An indicator preset, new or changed.")
class SaveIndicatorPresetInput:
    indicator: str = strawberry.field(description="Which indicator, 1 to 60 characters.")
    name: str = strawberry.field(
        description="What to call it, 1 to 80 characters, unique for the indicator."
    )
    content: Json = strawberry.field(description="The parameters: any JSON of at most 16 KiB.")
    id: strawberry.ID | None = strawberry.field(
        default=None, description="The preset to write over; null saves a new one."
    )
    version: int | None = strawberry.field(
        default=None, description="The version that was changed; required with `id`."
    )


@strawberry.input(description="Which indicator preset to delete.")
class DeleteIndicatorPresetInput:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(description="The preferences are changed.")
class PreferencesSaved:
    preferences: PreferencesType = strawberry.field(description="All of them, as they are now.")


@strawberry.type(description="The chart layout is saved.")
class ChartLayoutSaved:
    chart_layout: ChartLayoutType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The chart layout is gone.")
class ChartLayoutDeleted:
    id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="The indicator preset is saved.")
class IndicatorPresetSaved:
    indicator_preset: IndicatorPresetType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="The indicator preset is gone.")
class IndicatorPresetDeleted:
    id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type(description="What was to be saved is too large. Nothing was saved.")
class ContentTooLarge(Failure):
    size: int = strawberry.field(description="How many bytes of JSON it takes.")
    limit: int = strawberry.field(description="How many it may take.")


@strawberry.type(description="They were changed since they were read. Nothing was saved.")
class PreferencesVersionConflict(Failure):
    current: PreferencesType = strawberry.field(description="All of them, as they are now.")


@strawberry.type(description="It was changed since it was read. Nothing was saved.")
class ChartLayoutVersionConflict(Failure):
    current: ChartLayoutType = strawberry.field(description="It, as it is now.")


@strawberry.type(description="It was changed since it was read. Nothing was saved.")
class IndicatorPresetVersionConflict(Failure):
    current: IndicatorPresetType = strawberry.field(description="It, as it is now.")


SavePreferencesResult = Annotated[
    PreferencesSaved | PreferencesVersionConflict | ContentTooLarge | InvalidInput,
    strawberry.union("SavePreferencesResult", description="What comes of saving preferences."),
]
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
    ChartLayoutDeleted | NotFoundType,
    strawberry.union("DeleteChartLayoutResult", description="What comes of deleting a layout."),
]
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
    IndicatorPresetDeleted | NotFoundType,
    strawberry.union("DeleteIndicatorPresetResult", description="What comes of deleting a preset."),
]


@strawberry.type
class SavedWorkQueries:
    @strawberry.field(description="What one prefers.")
    async def preferences(self, info: Info) -> PreferencesType | None:
        context = info.context
        return PreferencesType.of(await preferences(context.shared.identity, context.principal))

    @strawberry.field(description="One's own chart layouts, by name.")
    async def chart_layouts(self, info: Info) -> list[ChartLayoutType]:
        context = info.context
        found = await chart_layouts(context.shared.identity, context.principal)
        return [ChartLayoutType.of(each) for each in found]

    @strawberry.field(description="One's own indicator presets, by indicator and name.")
    async def indicator_presets(self, info: Info) -> list[IndicatorPresetType]:
        context = info.context
        found = await indicator_presets(context.shared.identity, context.principal)
        return [IndicatorPresetType.of(each) for each in found]


@strawberry.type
class SavedWorkMutations:
    @strawberry.mutation(description="Change what one prefers by a merge patch.")
    async def save_preferences(
        self,
        info: Info,
        input: Annotated[SavePreferencesInput, strawberry.argument(description="What to change.")],
    ) -> SavePreferencesResult:
        identity, principal = info.context.shared.identity, info.context.principal
        try:
            if not isinstance(input.patch, dict):
                raise BadInput("patch must be a JSON object.", field="patch")
            saved = await save_preferences(identity, principal, input.patch, version=input.version)
        except VersionConflict as conflict:
            current = PreferencesType.of(await preferences(identity, principal))
            return PreferencesVersionConflict(**_said(conflict), current=current)
        except BargraphError as failure:
            return cast(SavePreferencesResult, _refusal(failure))
        return PreferencesSaved(preferences=PreferencesType.of(saved))

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
                id=_id_in(input.id, LAYOUT, "chart layout"),
                version=_version_in(input.id, input.version),
            )
            try:
                saved = await save_chart_layout(identity, principal, wanted)
            except VersionConflict as conflict:
                assert wanted.id is not None
                now = await chart_layout(identity, principal, wanted.id)
                return ChartLayoutVersionConflict(
                    **_said(conflict), current=ChartLayoutType.of(now)
                )
        except BargraphError as failure:
            return cast(SaveChartLayoutResult, _refusal(failure))
        return ChartLayoutSaved(chart_layout=ChartLayoutType.of(saved))

    @strawberry.mutation(description="Delete a chart layout.")
    async def delete_chart_layout(
        self,
        info: Info,
        input: Annotated[DeleteChartLayoutInput, strawberry.argument(description="Which one.")],
    ) -> DeleteChartLayoutResult:
        context = info.context
        try:
            named = _given_id_in(input.id, LAYOUT, "chart layout")
            await delete_chart_layout(context.shared.identity, context.principal, named)
        except BargraphError as failure:
            return cast(DeleteChartLayoutResult, _refusal(failure))
        return ChartLayoutDeleted(id=input.id)

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
                id=_id_in(input.id, PRESET, "indicator preset"),
                version=_version_in(input.id, input.version),
            )
            try:
                saved = await save_indicator_preset(identity, principal, wanted)
            except VersionConflict as conflict:
                assert wanted.id is not None
                now = await indicator_preset(identity, principal, wanted.id)
                return IndicatorPresetVersionConflict(
                    **_said(conflict), current=IndicatorPresetType.of(now)
                )
        except BargraphError as failure:
            return cast(SaveIndicatorPresetResult, _refusal(failure))
        return IndicatorPresetSaved(indicator_preset=IndicatorPresetType.of(saved))

    @strawberry.mutation(description="Delete an indicator preset.")
    async def delete_indicator_preset(
        self,
        info: Info,
        input: Annotated[DeleteIndicatorPresetInput, strawberry.argument(description="Which one.")],
    ) -> DeleteIndicatorPresetResult:
        context = info.context
        try:
            named = _given_id_in(input.id, PRESET, "indicator preset")
            await delete_indicator_preset(context.shared.identity, context.principal, named)
        except BargraphError as failure:
            return cast(DeleteIndicatorPresetResult, _refusal(failure))
        return IndicatorPresetDeleted(id=input.id)


async def found_layout(context: Context, id: strawberry.ID) -> ChartLayoutType | None:
    """Return the chart layout that a global id names; None where it is not one's own."""
    try:
        named = _given_id_in(id, LAYOUT, "chart layout")
        found = await chart_layout(context.shared.identity, context.principal, named)
    except NotFound:
        return None
    return ChartLayoutType.of(found)


async def found_preset(context: Context, id: strawberry.ID) -> IndicatorPresetType | None:
    """Return the indicator preset that a global id names; None where it is not one's own."""
    try:
        named = _given_id_in(id, PRESET, "indicator preset")
        found = await indicator_preset(context.shared.identity, context.principal, named)
    except NotFound:
        return None
    return IndicatorPresetType.of(found)


def _id_in(id: strawberry.ID | None, kind: str, called: str) -> UUID | None:
    return None if id is None else _given_id_in(id, kind, called)


def _given_id_in(id: strawberry.ID, kind: str, called: str) -> UUID:
    found = uuid_in(id, kind)
    if found is None:
        raise NotFound(called)
    return found


def _version_in(id: strawberry.ID | None, version: int | None) -> int:
    if id is None:
        return 0
    if version is None:
        raise BadInput("version is required with id: the one that was changed.", field="version")
    return version


def _said(failure: BargraphError) -> dict[str, Any]:
    return {"code": failure.code, "message": str(failure)}


def _refusal(failure: BargraphError) -> Any:
    """Return what a mutation answers for *failure*; raise it where it ends the operation."""
    match failure:
        case TooLarge():
            return ContentTooLarge(**_said(failure), size=failure.size, limit=failure.most)
        case BadInput():
            return InvalidInput(**_said(failure), field=failure.field)
    return failure_of(failure)
