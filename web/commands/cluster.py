"""`python -m web cluster`: serve by several processes of each role."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from web.commands.base import Commands, count, log_to_terminal


def register(commands: Commands) -> None:
    clustering = commands.add_parser("cluster", help="serve by several processes of each role")
    clustering.add_argument("--api", type=count, default=2, help="processes that answer clients")
    clustering.add_argument("--feeds", type=count, default=2, help="processes that feed them")
    clustering.add_argument("--jobs", type=count, default=1, help="processes that run jobs")
    clustering.set_defaults(run=_cluster)


def _cluster(chosen: argparse.Namespace) -> int:
    serve_by_many(["api"] * chosen.api + ["feeds"] * chosen.feeds + ["jobs"] * chosen.jobs)
    return 0


def serve_by_many(roles: Sequence[str | None]) -> None:
    """Serve by one process for each of *roles*; None is the one that the settings say."""
    from web.settings import Role, load_settings  # noqa: PLC0415 - a wrong one shows at once

    settings = load_settings()
    log_to_terminal(settings)

    from web.processes import run_processes  # noqa: PLC0415

    asyncio.run(run_processes(settings, [Role(role or settings.role) for role in roles]))
