"""`python -m web schema`: print the GraphQL schema, or compare it with a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from web.commands.base import Commands


def register(commands: Commands) -> None:
    exporting = commands.add_parser("schema", help="print the GraphQL schema")
    exporting.add_argument("--check", type=Path, help="compare with this file instead")
    exporting.set_defaults(run=_schema)


def _schema(chosen: argparse.Namespace) -> int:
    from schema.build import build_schema  # noqa: PLC0415 - serving imports it when it is needed

    compared: Path | None = chosen.check
    text = f"{build_schema()}\n"
    if compared is None:
        print(text, end="")
        return 0
    if compared.is_file() and compared.read_text("utf-8") == text:
        return 0
    print(f"{compared} is not the schema of the code: run 'make schema'", file=sys.stderr)
    return 1
