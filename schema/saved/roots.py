"""What the roots of the schema offer of what people save of their work."""

from __future__ import annotations

import strawberry

from schema.saved.layouts import LayoutMutations, LayoutQueries
from schema.saved.preferences import PreferencesMutations, PreferencesQueries
from schema.saved.presets import PresetMutations, PresetQueries


@strawberry.type
class SavedWorkQueries(PreferencesQueries, LayoutQueries, PresetQueries):
    """Everything saved that can be read."""


@strawberry.type
class SavedWorkMutations(PreferencesMutations, LayoutMutations, PresetMutations):
    """Everything saved that can be changed."""
