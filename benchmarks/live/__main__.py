"""Run the benchmark of live bars over WebSocket and print it as Markdown.

    python -m benchmarks.live            about nine minutes
    python -m benchmarks.live --quick    a minute and a half: whether it works; figures are rough

Progress goes to standard error. Needs Linux, two cores that are idle, and Node.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.candles.servers import ServerFailed, cores, pinned, versions_of_stores
from benchmarks.live.asked import WrongMessage
from benchmarks.live.feeds import open_feeds
from benchmarks.live.report import facts_of_run, report
from benchmarks.live.rounds import FULL, QUICK, WORKLOADS, Plan, Workload, measure_all
from benchmarks.live.servers import install_peers, running_stores, variants
from benchmarks.live.tallies import WrongState
from benchmarks.live.viewers import LoadFailed


async def main(plan: Plan, workloads: list[Workload]) -> str:
    with TemporaryDirectory(prefix="bargraph-bench-") as scratch:
        folder = Path(scratch)
        # What embedded servers run as need not be who runs this.
        folder.chmod(0o755)
        server_core, load_core = cores()
        with pinned(load_core):
            async with running_stores(folder, server_core) as stores, open_feeds(stores) as feeds:
                facts = facts_of_run(await versions_of_stores(folder))
                lines = variants(folder, stores)
                table = await measure_all(
                    plan, workloads, lines, feeds, folder=folder, core=server_core, say=say
                )
    return report(table, workloads, lines, facts=facts)


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--only",
        default="",
        help=f"those of {', '.join(one.key for one in WORKLOADS)} whose name contains this",
    )
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    plan = QUICK if chosen.quick else FULL
    workloads = [workload for workload in WORKLOADS if chosen.only in workload.key]
    try:
        install_peers()
        print(uvloop.run(main(plan, workloads)))
    except (ServerFailed, WrongMessage, WrongState, LoadFailed, OSError) as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
