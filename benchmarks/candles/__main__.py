"""Run the benchmark of candle queries and print it as Markdown.

    python -m benchmarks.candles            four to six minutes
    python -m benchmarks.candles --quick    a minute: whether it works; its figures are rough

Progress goes to standard error. Needs Linux, two cores that are idle, and Node.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.candles.load import LoadFailed
from benchmarks.candles.origins import WrongState
from benchmarks.candles.preparation import checked_target, fill, prepare
from benchmarks.candles.recordings import make_up
from benchmarks.candles.report import facts_of_run, notes_of_run, report
from benchmarks.candles.rounds import FULL, MANY, QUICK, Plan, measure_all
from benchmarks.candles.servers import (
    COLD,
    WARM,
    ServerFailed,
    cores,
    install_peers,
    pinned,
    running,
    versions_of_stores,
)
from benchmarks.candles.workloads import WrongAnswer, workloads


async def main(plan: Plan, *, only: str) -> str:
    with TemporaryDirectory(prefix="bargraph-bench-") as scratch:
        folder = Path(scratch)
        # What embedded servers run as need not be who runs this.
        folder.chmod(0o755)
        recordings = make_up()
        asked = [workload for workload in workloads() if only in workload.key]
        prepare(folder, recordings, asked)
        server_core, load_core = cores()
        with pinned(load_core):
            async with running(folder, server_core) as variants:
                facts = facts_of_run(await versions_of_stores(folder))
                say("filling the store")
                for variant in variants:
                    if variant.key in {WARM, COLD}:
                        await fill(variant)
                say("checking answers")
                targets = {
                    (workload.key, variant.key): await checked_target(workload, variant, recordings)
                    for workload in asked
                    for variant in variants
                }
                results = await measure_all(plan, asked, variants, targets=targets, say=say)
    return report(
        results.table,
        asked,
        variants,
        facts=facts,
        origins=results.origins,
        notes=notes_of_run(results.rounds, MANY),
    )


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candles")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    plan = QUICK if chosen.quick else FULL
    try:
        install_peers()
        print(uvloop.run(main(plan, only=chosen.only)))
    except (ServerFailed, WrongAnswer, WrongState, LoadFailed, OSError) as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
