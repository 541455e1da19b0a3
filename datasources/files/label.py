"""What a file says of its bars: whose they are, from when to when, and what is known to be missing.

It travels with the bars: as the first line of a CSV, behind `# bargraph`, and in the metadata of a
Parquet file under `bargraph`. In both it is one JSON object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from db.stored import SeriesFacts, SeriesKey
from market.errors import BargraphError, UnknownName
from market.instrument import Adjustment, Listing
from market.timeframe import Timeframe
from market.window import Spans, Window

VERSION = 1


class UnreadableFile(BargraphError):
    """A file that is no table of bars; *name* is the file's, *reason* says what is wrong."""

    code = "UNREADABLE_FILE"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Label:
    """The series of a file, and the *window* of it that the file holds.

    Inside *known* a time without a bar had none, if all of the file's *rows* are there; None: they
    were not counted. Bars that were *computed* from finer ones when they were written are no bars
    of the provider, and are not taken in again.
    """

    key: SeriesKey
    facts: SeriesFacts
    window: Window
    known: Spans
    computed: bool = False
    rows: int | None = None

    def known_of(self, rows: int) -> Spans:
        """Return the time that is known if the file holds so many *rows*.

        None, unless these are all: one that was cut off or lost a line must not say that nothing
        was traded then.
        """
        return self.known.clip(self.window) if rows == self.rows else Spans()

    def dumped(self) -> bytes:
        """Return the label as JSON, the same bytes for the same label."""
        listing = self.key.listing
        return orjson.dumps(
            {
                "version": VERSION,
                "provider": listing.provider,
                "market": listing.market,
                "symbol": listing.symbol,
                "timeframe": str(self.key.timeframe),
                "adjustment": None if listing.adjustment is None else listing.adjustment.value,
                "feed": listing.feed,
                "dataset": listing.dataset,
                "base": self.facts.base,
                "quote": self.facts.quote,
                "around_the_clock": self.facts.around_the_clock,
                "computed": self.computed,
                "since": self.window.since,
                "until": self.window.until,
                "rows": self.rows,
                "known": [[span.since, span.until] for span in self.known],
            }
        )


def read_label(text: bytes, *, name: str) -> Label:
    """Return the label that *text* holds. Raises `UnreadableFile`, naming the file *name*."""
    try:
        said = orjson.loads(text)
        if said["version"] != VERSION:
            raise UnreadableFile(name, f"its label has version {said['version']!r}, not {VERSION}")
        return _label(said)
    except (ValueError, TypeError, KeyError, AttributeError, UnknownName) as error:
        reason = f"its label cannot be read ({type(error).__name__}: {error})"
        raise UnreadableFile(name, reason) from error


def _label(said: dict[str, Any]) -> Label:
    for field in ("provider", "market", "symbol"):
        if not isinstance(said[field], str) or not said[field]:
            raise ValueError(f"{field} is no text")
    adjustment = said["adjustment"]
    listing = Listing(
        provider=said["provider"],
        market=said["market"],
        symbol=said["symbol"],
        adjustment=None if adjustment is None else Adjustment(adjustment),
        feed=said["feed"],
        dataset=str(said["dataset"]),
    )
    return Label(
        key=SeriesKey(listing, Timeframe.parse(said["timeframe"])),
        facts=SeriesFacts(said["base"], said["quote"], bool(said["around_the_clock"])),
        window=Window(int(said["since"]), int(said["until"])),
        known=Spans(Window(int(since), int(until)) for since, until in said["known"]),
        computed=bool(said["computed"]),
        # Older files do not count them.
        rows=None if said.get("rows") is None else int(said["rows"]),
    )
