"""What people prefer, as they see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import strawberry

from db.accounts.errors import VersionConflict
from db.accounts.repositories.preferences import Preferences
from market.errors import BadInput, BargraphError
from resolvers.identity.saved_work import preferences, save_preferences
from schema.context import Info
from schema.failures import Failure, InvalidInput
from schema.saved.common import ContentTooLarge, read_own, refusal, said
from schema.scalars import Json


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


@strawberry.type(description="The preferences are changed.")
class PreferencesSaved:
    preferences: PreferencesType = strawberry.field(description="All of them, as they are now.")


@strawberry.type(description="They were changed since they were read. Nothing was saved.")
class PreferencesVersionConflict(Failure):
    current: PreferencesType = strawberry.field(description="All of them, as they are now.")


SavePreferencesResult = Annotated[
    PreferencesSaved | PreferencesVersionConflict | ContentTooLarge | InvalidInput,
    strawberry.union("SavePreferencesResult", description="What comes of saving preferences."),
]


@strawberry.type
class PreferencesQueries:
    @strawberry.field(description="What one prefers.")
    async def preferences(self, info: Info) -> PreferencesType | None:
        return PreferencesType.of(await read_own(info.context, preferences))


@strawberry.type
class PreferencesMutations:
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
            return PreferencesVersionConflict(**said(conflict), current=current)
        except BargraphError as failure:
            return cast(SavePreferencesResult, refusal(failure))
        return PreferencesSaved(preferences=PreferencesType.of(saved))
