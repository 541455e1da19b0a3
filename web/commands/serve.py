"""`python -m web serve`: serve GraphQL until stopped, by one process or several."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket

from web.commands.base import Commands, count, log_to_terminal


def register(commands: Commands) -> None:
    parent = os.getppid()  # asked first: once it has ended, another is told
    serving = commands.add_parser("serve", help="serve GraphQL until stopped")
    serving.add_argument(
        "--stop-with-parent", action="store_true", help="stop when the starting process ends"
    )
    serving.add_argument(
        "--role",
        choices=("api", "feeds", "jobs", "all"),
        help="answer clients, feed them, run jobs, or all of it",
    )
    serving.add_argument(
        "--workers", type=count, default=1, help="processes that share the address"
    )
    serving.add_argument("--fd", type=int, help="a socket that listens already, by its number")
    serving.set_defaults(run=_serve, parent=parent)


def _serve(chosen: argparse.Namespace) -> int:
    if chosen.workers > 1:
        from web.commands.cluster import serve_by_many  # noqa: PLC0415 - only where it is needed

        serve_by_many([chosen.role] * chosen.workers)
        return 0
    # Imported here: the schema can be printed without a server, a wrong setting shows at once.
    from web.settings import load_settings  # noqa: PLC0415

    settings = load_settings(**({} if chosen.role is None else {"role": chosen.role}))
    log_to_terminal(settings)

    import uvloop  # noqa: PLC0415

    from web.clock import SystemClock  # noqa: PLC0415
    from web.serve import serve  # noqa: PLC0415

    listener = None if chosen.fd is None else socket.socket(fileno=chosen.fd)
    parent = chosen.parent if chosen.stop_with_parent else None
    served = serve(settings, clock=SystemClock(), parent=parent, listener=listener)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served)
    return 0
