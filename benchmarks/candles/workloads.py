"""What is asked: the same documents, byte for byte, of every server; and whether answers are right.

An answer is right if its rows are the recordings' rows, every number equal, none missing. Only the
newest bar of a live window may differ: while it forms, all its prices are its opening price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.candles.recordings import LONG, MINUTE, NAMES, NOW, WATCHED, Recordings, Row

_FIELDS = " ".join(NAMES)
_ROWS = f"candles {{ {_FIELDS} }}"
_COLUMNS = f"columns {{ {_FIELDS} }}"
_CHART = """query Chart($series: SeriesInput!, $last: Int, $until: Timestamp) {
  candles(series: $series, last: $last, until: $until) { %s }
}"""
_WATCHLIST = """query Watchlist($first: Int, $last: Int, $until: Timestamp) {
  symbols(provider: "replay", first: $first) {
    edges { node { symbol candles(timeframe: "1m", last: $last, until: $until) { %s } } }
  }
}"""


class WrongAnswer(Exception):
    """A server that does not answer what it was asked; its speed would say nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One query. *count* bars of each of *symbols*, as rows or as columns."""

    key: str
    title: str
    count: int
    symbols: tuple[str, ...]
    columns: bool

    @property
    def document(self) -> str:
        whole = _CHART if self.symbols == (LONG,) else _WATCHLIST
        return whole % (_COLUMNS if self.columns else _ROWS)

    @property
    def bars(self) -> int:
        """How many bars one answer has."""
        return self.count * len(self.symbols)

    def body(self, until: int | None, *, unseen: int | None = None) -> bytes:
        """Return the request's body for the bars before *until*; None: the newest ones.

        With *unseen*, a number, the document has a response key that no other number gives.
        """
        document = self.document
        if unseen is not None:
            document = document.replace("{ time ", f"{{ t{unseen:08}: time ")
        variables: dict[str, Any] = {"last": self.count, "until": until}
        if self.symbols == (LONG,):
            variables["series"] = {"provider": "replay", "symbol": LONG, "timeframe": "1m"}
        else:
            variables["first"] = len(self.symbols)
        return orjson.dumps({"query": document, "variables": variables})

    def answer(self, recordings: Recordings) -> bytes:
        """Return the right answer at the start of the replay, as compact JSON."""
        windows = [
            self._window(recordings.before(symbol, NOW, self.count)) for symbol in self.symbols
        ]
        if self.symbols == (LONG,):
            return orjson.dumps({"data": {"candles": windows[0]}})
        edges = [
            {"node": {"symbol": symbol, "candles": window}}
            for symbol, window in zip(self.symbols, windows, strict=True)
        ]
        return orjson.dumps({"data": {"symbols": {"edges": edges}}})

    def _window(self, rows: list[Row]) -> dict[str, Any]:
        if self.columns:
            return {"columns": dict(zip(NAMES, zip(*rows, strict=True), strict=True))}
        return {"candles": [dict(zip(NAMES, row, strict=True)) for row in rows]}

    def check(self, recordings: Recordings, answer: bytes, *, newest: int | None) -> None:
        """Raise `WrongAnswer` unless *answer* is right.

        *newest* is when its newest bar must open; None: at the replay's start or later.
        """
        body = orjson.loads(answer)
        if body.get("errors") or not body.get("data"):
            raise WrongAnswer(f"{self.title}: {answer[:400].decode(errors='replace')}")
        if self.symbols == (LONG,):
            windows = {LONG: body["data"]["candles"]}
        else:
            nodes = [edge["node"] for edge in body["data"]["symbols"]["edges"]]
            windows = {node["symbol"]: node["candles"] for node in nodes}
        if tuple(windows) != self.symbols:
            raise WrongAnswer(f"{self.title}: symbols {tuple(windows)}")
        for symbol, window in windows.items():
            self._check(recordings, symbol, self._rows(window), newest)

    def _rows(self, window: dict[str, Any]) -> list[tuple[Any, ...]]:
        if not self.columns:
            return [tuple(row.values()) for row in window["candles"]]
        columns = window["columns"]
        return list(zip(*columns.values(), strict=True))

    def _check(
        self, recordings: Recordings, symbol: str, rows: list[tuple[Any, ...]], newest: int | None
    ) -> None:
        last = rows[-1][0] if rows else 0
        if (last < NOW) if newest is None else (last != newest):
            raise WrongAnswer(f"{self.title}: {symbol} ends with the bar of {last}")
        expected = recordings.before(symbol, last + MINUTE, self.count)
        time, opened, *_ = recordings.at(symbol, last)
        forming = (time, opened, opened, opened, opened, 0)
        if newest is None and rows[-1] == forming:
            expected = [*expected[:-1], forming]
        if rows != expected:
            raise WrongAnswer(f"{self.title}: {symbol} has {len(rows)} rows, not the recorded ones")


def workloads() -> list[Workload]:
    made = []
    for columns in (False, True):
        kind = "columns" if columns else "rows"
        made += [
            Workload(f"{n}-{kind}", f"last {n}, as {kind}", n, (LONG,), columns)
            for n in (1, 1000, 5000)
        ]
        title = f"watchlist of {len(WATCHED)} x 100, as {kind}"
        made.append(Workload(f"watchlist-{kind}", title, 100, WATCHED, columns))
    return made
