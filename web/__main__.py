"""The command line: `python -m web serve`, `python -m web schema`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from market.errors import BargraphError

_MOST_PROCESSES = 64


def main(arguments: list[str] | None = None) -> int:
    """Run the command that *arguments* name and return the exit code."""
    parent = os.getppid()  # asked first: once it has ended, another is told
    parser = argparse.ArgumentParser(prog="python -m web", description="Bargraph")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve GraphQL until stopped")
    serving.add_argument(
        "--stop-with-parent", action="store_true", help="stop when the starting process ends"
    )
    serving.add_argument(
        "--role", choices=("api", "feeds", "all"), help="answer clients, feed them, or both"
    )
    serving.add_argument(
        "--workers", type=_count, default=1, help="processes that share the address"
    )
    serving.add_argument("--fd", type=int, help="a socket that listens already, by its number")
    clustering = commands.add_parser("cluster", help="serve by several processes of each role")
    clustering.add_argument("--api", type=_count, default=2, help="processes that answer clients")
    clustering.add_argument("--feeds", type=_count, default=2, help="processes that feed them")
    exporting = commands.add_parser("schema", help="print the GraphQL schema")
    exporting.add_argument("--check", type=Path, help="compare with this file instead")
    chosen = parser.parse_args(arguments)
    if chosen.command == "schema":
        return _schema(chosen.check)
    try:
        if chosen.command == "cluster":
            _serve_by_many(["api"] * chosen.api + ["feeds"] * chosen.feeds)
        elif chosen.workers > 1:
            _serve_by_many([chosen.role] * chosen.workers)
        else:
            parent_watched = parent if chosen.stop_with_parent else None
            _serve(parent_watched, role=chosen.role, fd=chosen.fd)
    except BargraphError as failure:
        print(f"Bargraph cannot run: {failure}", file=sys.stderr)
        return 1
    return 0


def _serve(parent: int | None, *, role: str | None, fd: int | None) -> None:
    # Imported here: the schema can be printed without a server, a wrong setting shows at once.
    from web.settings import load_settings  # noqa: PLC0415

    settings = load_settings(**({} if role is None else {"role": role}))
    _log(settings.log_level)

    import uvloop  # noqa: PLC0415

    from web.clock import SystemClock  # noqa: PLC0415
    from web.serve import serve  # noqa: PLC0415

    listener = None if fd is None else socket.socket(fileno=fd)
    served = serve(settings, clock=SystemClock(), parent=parent, listener=listener)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served)


def _serve_by_many(roles: Sequence[str | None]) -> None:
    from web.settings import Role, load_settings  # noqa: PLC0415

    settings = load_settings()
    _log(settings.log_level)

    from web.processes import run_processes  # noqa: PLC0415

    asyncio.run(run_processes(settings, [Role(role or settings.role) for role in roles]))


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_MOST_PROCESSES}")
    return number


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
