"""What docs/security.md says is proved by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_proof_that_the_page_names_is_a_test_of_that_file() -> None:
    named = re.findall(r"`([\w/]+\.py)`|`(test_\w+)`", PAGE)
    source, missing, proofs = "", [], 0

    for file, test in named:
        if file.startswith(("web/", "schema/test_", "db/", "resolvers/", "plugins/", "abuse/")):
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        elif test:
            proofs += 1
            if f"def {test}(" not in source:
                missing.append(test)

    assert missing == []
    assert proofs > 30


def test_every_threat_has_a_proof() -> None:
    rows = [line for line in PAGE.partition("| threat |")[2].splitlines()[2:] if line[:1] == "|"]

    assert [row for row in rows if "`test_" not in row] == []
