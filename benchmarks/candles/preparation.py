"""What comes before a measurement: what servers serve, a full store, and answers that are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, repeat
from pathlib import Path

import orjson

from benchmarks.candles.load import Target, ask
from benchmarks.candles.recordings import (
    LONG,
    LONG_BARS,
    MINUTE,
    NAMES,
    NOW,
    WATCHED,
    WATCHED_BARS,
    WINDOWS,
    Recordings,
    write,
)
from benchmarks.candles.servers import LIMIT, Variant
from benchmarks.candles.stock import ANSWERS, BARS
from benchmarks.candles.workloads import Workload, WrongAnswer

_PAGE = 10_000


def prepare(folder: Path, recordings: Recordings, asked: Sequence[Workload]) -> None:
    """Write what the servers serve: recordings, the same bars for the peers, ready answers."""
    write(recordings, folder / "recordings")
    most = dict.fromkeys(WATCHED, 100) | {LONG: 5000}
    bars = {
        symbol: dict(
            zip(NAMES, zip(*recordings.before(symbol, NOW, count), strict=True), strict=True)
        )
        for symbol, count in most.items()
    }
    (folder / BARS).write_bytes(orjson.dumps(bars))
    (folder / ANSWERS).mkdir()
    for workload in asked:
        (folder / ANSWERS / workload.key).write_bytes(workload.answer(recordings))


async def fill(variant: Variant) -> None:
    """Have every recorded bar in the store and, where it may, in the process of *variant*."""
    document = (
        "query Fill($series: SeriesInput!, $last: Int, $until: Timestamp)"
        " { candles(series: $series, last: $last, until: $until) { columns { time } } }"
    )
    pages = [(LONG, NOW - n * _PAGE * MINUTE) for n in range(LONG_BARS // _PAGE)]
    pages += [(symbol, NOW) for symbol in WATCHED]
    for symbol, until in pages:
        series = {"provider": "replay", "symbol": symbol, "timeframe": "1m"}
        last = _PAGE if symbol == LONG else WATCHED_BARS
        variables = {"series": series, "last": last, "until": until}
        body = orjson.dumps({"query": document, "variables": variables})
        answer = orjson.loads(await ask(variant.port, "/graphql", body))
        if answer.get("errors") or not answer["data"]["candles"]["columns"]["time"]:
            raise WrongAnswer(f"{symbol} could not be stored: {str(answer)[:400]}")


async def checked_target(workload: Workload, variant: Variant, recordings: Recordings) -> Target:
    """Return what to ask of *variant*, after it has answered right twice.

    The second answer is one that caches had a part in. Raises `WrongAnswer`.
    """
    path = "/" + workload.key if variant.key == LIMIT else "/graphql"
    requests = _requests(workload, variant)
    answer = b""
    for _ in range(2):
        until, body = next(requests)
        newest = None if variant.live else (until or NOW) - MINUTE
        answer = await ask(variant.port, path, body)
        try:
            workload.check(recordings, answer, newest=newest)
        except WrongAnswer as error:
            raise WrongAnswer(f"{variant.title}: {error}") from None
    return Target(variant.port, path, (body for _, body in requests), len(answer))


def _requests(workload: Workload, variant: Variant) -> Iterator[tuple[int | None, bytes]]:
    """Yield, for ever, where a window ends and the body that asks for it."""
    if not variant.windows:
        yield from repeat((None, workload.body(None)))
    # Two lines share a server: neither may find the other's answer of a moment ago.
    start = len(WINDOWS) // 2 if variant.unseen else 0
    for number, until in enumerate(cycle((*WINDOWS[start:], *WINDOWS[:start]))):
        yield until, workload.body(until, unseen=number if variant.unseen else None)
