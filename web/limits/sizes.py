"""How long lists of the schema are at most, and how large documents, where that is known.

Keys are a type and a field of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from db.accounts.repositories import layouts, preferences, presets
from db.accounts.repositories.api_tokens import MOST_API_TOKENS
from db.accounts.repositories.credentials import MOST_CREDENTIALS
from db.accounts.repositories.sessions import MOST_SESSIONS

LENGTHS: Mapping[tuple[str, str], int] = {
    ("Query", "chartLayouts"): layouts.MOST_LAYOUTS,
    ("Query", "indicatorPresets"): presets.MOST_PRESETS,
    ("Query", "credentials"): MOST_CREDENTIALS,
    ("Query", "apiTokens"): MOST_API_TOKENS,
    ("Query", "sessions"): MOST_SESSIONS,
}
"""Objects in a list."""

DOCUMENT_BYTES: Mapping[tuple[str, str], int] = {
    ("ChartLayout", "content"): layouts.MOST_BYTES,
    ("IndicatorPreset", "content"): presets.MOST_BYTES,
    ("Preferences", "content"): preferences.MOST_BYTES,
}
"""JSON of one document."""
