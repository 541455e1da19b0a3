"""The command line, where it needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from schema.build import build_schema
from web.__main__ import main


def test_the_exported_schema_is_accepted(tmp_path):
    exported = tmp_path / "schema.graphql"
    exported.write_text(f"{build_schema()}\n")

    assert main(["schema", "--check", str(exported)]) == 0


def test_the_schema_is_printed_as_it_is_compared(tmp_path, capsys):
    assert main(["schema"]) == 0
    exported = tmp_path / "schema.graphql"
    exported.write_text(capsys.readouterr().out)

    assert main(["schema", "--check", str(exported)]) == 0


@pytest.mark.parametrize("change", [lambda text: text + "scalar More\n", lambda text: text[:-1]])
def test_another_schema_is_refused_with_what_to_do(tmp_path, capsys, change):
    exported = tmp_path / "schema.graphql"
    exported.write_text(change(f"{build_schema()}\n"))

    assert main(["schema", "--check", str(exported)]) == 1
    assert "make schema" in capsys.readouterr().err


def test_an_absent_schema_is_refused(tmp_path):
    assert main(["schema", "--check", str(tmp_path / "absent")]) == 1


def test_the_repository_holds_the_schema_of_the_code():
    assert main(["schema", "--check", str(Path(__file__).parents[2] / "schema.graphql")]) == 0


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["serve", "--unknown"]])
def test_a_wrong_command_is_explained(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: python -m web" in capsys.readouterr().err
