"""The GraphQL that the documentation shows can be sent as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from graphql import parse, validate

from schema.build import build_schema

ROOT = Path(__file__).parents[2]
SHOWN = [
    pytest.param(block, id=f"{page.name}:{n}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for n, block in enumerate(
        re.findall(r"```graphql\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("document", SHOWN)
def test_a_documented_operation_is_valid(document: str) -> None:
    assert validate(build_schema().core, parse(document)) == []


def test_operations_are_documented() -> None:
    assert len(SHOWN) >= 3
