"""The command line: `python -m web serve` and the other commands of `web.commands`."""

from __future__ import annotations

import argparse
import signal
import sys

from market.errors import BargraphError
from web.commands import (
    accounts,
    backfill,
    cluster,
    dead_letters,
    export_bars,
    import_bars,
    jobs,
    move,
    schema,
    serve,
)

_COMMANDS = (
    serve,
    cluster,
    schema,
    jobs,
    backfill,
    dead_letters,
    import_bars,
    export_bars,
    move,
    accounts,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command that *arguments* name and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m web", description="Bargraph")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.register(commands)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except BargraphError as failure:
        print(f"Bargraph cannot run: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    # Nothing is open until the server takes over the signals, and an exception may be lost in the
    # middle of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
