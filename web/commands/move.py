"""`python -m web move`: move the store to another PostgreSQL, normally one with TimescaleDB."""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import TYPE_CHECKING

from web.commands.base import Commands, log_to_terminal

if TYPE_CHECKING:
    from web.settings import Settings


def register(commands: Commands) -> None:
    moving = commands.add_parser(
        "move",
        help="move the store to another PostgreSQL",
        description="Move the candle store of DATABASE_URL, or the embedded one, to another "
        "PostgreSQL. Stop all servers first. What was interrupted goes on where it stopped if the "
        "same command is given again. The store that moves is left as it is.",
    )
    moving.add_argument(
        "--to",
        required=True,
        type=_url,
        metavar="URL",
        help="an empty database: postgresql://user@host:5432/name (the password from PGPASSWORD)",
    )
    moving.set_defaults(run=_move)


def _url(text: str) -> str:
    # What is wrong is not quoted: it may hold a password.
    if not re.match(r"postgres(ql)?://", text):
        raise argparse.ArgumentTypeError("must be a URL that begins with postgresql://")
    return text


def _move(chosen: argparse.Namespace) -> int:
    from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

    settings = load_settings()
    log_to_terminal(settings, quiet=True)
    return asyncio.run(_run(settings, chosen.to))


async def _run(settings: Settings, target: str) -> int:
    from db.migrations import mode_of  # noqa: PLC0415
    from db.moving import move  # noqa: PLC0415
    from web.bootstrap import SQL, servers_of  # noqa: PLC0415
    from web.commands.progress import progress_bar  # noqa: PLC0415

    async with servers_of(settings) as (source, _):
        with progress_bar(None, "moving", unit="rows", scale=True) as bar:

            def counted(rows: int) -> None:
                bar.total = rows
                bar.refresh()

            moved = await move(source, target, SQL, counted=counted, advanced=bar.update)
    print(
        f"{moved.rows:,} rows of {moved.series:,} series are at the target, each compared; "
        f"{moved.copied:,} of them were copied now. Its mode is {await mode_of(target)}.\n"
        "Set DATABASE_URL to it and start the servers. The old store is as it was."
    )
    if moved.accounts_stay and settings.accounts_url is None:
        print(
            "Accounts are still in the old database. Before the servers start, take them along "
            "by 'pg_dump -O -n accounts OLD | psql NEW', or name the old one in ACCOUNTS_URL."
        )
    return 0
