"""`python -m web backfill`: fill the holes of a series, and show how far that is."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from web.commands.base import Commands, log_to_terminal
from web.commands.words import INSTANT, SERIES, instant, series_named


def register(commands: Commands) -> None:
    filling = commands.add_parser(
        "backfill",
        help="fill the holes of a series",
        description="Fill the holes of a series. Ctrl-C cancels; what is stored stays, and the "
        "same command fills the rest.",
    )
    filling.add_argument("series", metavar="SERIES", type=series_named, help=SERIES)
    filling.add_argument("--since", type=instant, required=True, help=INSTANT)
    filling.add_argument("--until", type=instant, help="the same; default: the provider's now")
    filling.add_argument("--market", help="where a symbol is listed in several: crypto, stocks")
    filling.set_defaults(run=_backfill)


def _backfill(chosen: argparse.Namespace) -> int:
    from web.settings import Role, load_settings  # noqa: PLC0415 - a wrong one shows at once

    settings = load_settings(role=Role.API)
    # Lines about what goes well would tear the progress bar.
    log_to_terminal(settings, quiet=True)

    import uvloop  # noqa: PLC0415

    from web.backfilling import backfill  # noqa: PLC0415

    asked = replace(chosen.series, market=chosen.market)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(backfill(settings, asked, since=chosen.since, until=chosen.until))
