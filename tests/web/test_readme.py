"""The README's table of settings is the one of the code."""

from __future__ import annotations

import re
from pathlib import Path

from web.settings import Settings

README = Path(__file__).parents[2] / "README.md"


def shown(default: object) -> str:
    """Return a default as one would write it into the environment."""
    if default is None:
        return ""
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    return f"`{text}`"


def test_the_readme_lists_every_setting_with_its_default_and_meaning():
    rows = [
        f"| `{name.upper()}` | {shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    expected = "\n".join(["| Setting | Default | Meaning |", "| --- | --- | --- |", *rows])

    match = re.search(
        r"<!-- settings -->(.*)<!-- /settings -->", README.read_text("utf-8"), re.DOTALL
    )

    assert match is not None
    assert match[1].strip() == expected, f"it should be:\n{expected}"
