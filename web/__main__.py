"""The command line: `python -m web serve`, `python -m web schema`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from market.errors import BargraphError


def main(arguments: list[str] | None = None) -> int:
    """Run the command that *arguments* name and return the exit code."""
    parent = os.getppid()  # asked first: once it has ended, another is told
    parser = argparse.ArgumentParser(prog="python -m web", description="Bargraph")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve GraphQL until stopped")
    serving.add_argument(
        "--stop-with-parent", action="store_true", help="stop when the starting process ends"
    )
    exporting = commands.add_parser("schema", help="print the GraphQL schema")
    exporting.add_argument("--check", type=Path, help="compare with this file instead")
    chosen = parser.parse_args(arguments)
    if chosen.command == "schema":
        return _schema(chosen.check)
    try:
        _serve(parent if chosen.stop_with_parent else None)
    except BargraphError as failure:
        print(f"Bargraph cannot run: {failure}", file=sys.stderr)
        return 1
    return 0


def _serve(parent: int | None) -> None:
    # Imported here: the schema can be printed without a server, a wrong setting shows at once.
    from web.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    _log(settings.log_level)

    import uvloop  # noqa: PLC0415

    from web.clock import SystemClock  # noqa: PLC0415
    from web.serve import serve  # noqa: PLC0415

    served = serve(settings, clock=SystemClock(), parent=parent)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served)


def _schema(compared: Path | None) -> int:
    from schema.build import build_schema  # noqa: PLC0415 - serving imports it when it is needed

    text = f"{build_schema()}\n"
    if compared is None:
        print(text, end="")
        return 0
    if compared.is_file() and compared.read_text("utf-8") == text:
        return 0
    print(f"{compared} is not the schema of the code: run 'make schema'", file=sys.stderr)
    return 1


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("asyncio", "ccxt", "urllib3", "uvicorn", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


if __name__ == "__main__":
    # Nothing is open until the server takes over the signals, and an exception may be lost in the
    # middle of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
