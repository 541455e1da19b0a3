"""`python -m web export`: write bars of a series from the store to a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from market.errors import BadInput, UnknownName
from web.commands.base import Commands, log_to_terminal
from web.commands.words import INSTANT, SERIES, instant, instant_said, series_named

if TYPE_CHECKING:
    from datasources.files.exporting import Exported
    from datasources.files.formats import Format
    from db.listed import StoredSeries
    from db.stored import SeriesKey
    from resolvers.candles import Asked
    from web.bootstrap import Shelves
    from web.settings import Settings


def register(commands: Commands) -> None:
    writing = commands.add_parser(
        "export",
        help="write bars of the store to a file",
        description="Write bars of the store to a file, from which `import` reads them back "
        "exactly. A timeframe other than 1m is computed from stored minutes if there are any.",
    )
    writing.add_argument("series", metavar="SERIES", type=series_named, help=SERIES)
    writing.add_argument("--since", type=instant, help=f"{INSTANT}; default: from the first bar")
    writing.add_argument("--until", type=instant, help="the same; default: to the last bar")
    writing.add_argument("--format", choices=("csv", "parquet"), help="default: as FILE ends, csv")
    writing.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to; - is the terminal or pipe; default: named after the series, here",
    )
    writing.add_argument("--market", help="where a symbol is stored in several: crypto, stocks")
    writing.add_argument("--dataset", help="where a provider has several")
    writing.add_argument(
        "--native",
        action="store_true",
        help="the provider's own bars of this timeframe, though minutes are stored too",
    )
    writing.set_defaults(run=_export)


def _export(chosen: argparse.Namespace) -> int:
    from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

    settings = load_settings()
    log_to_terminal(settings, quiet=True)

    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_run(settings, chosen))
        except OSError as error:
            # What goes to a pipe is written to the temporary folder first.
            where = "the pipe or the temporary folder" if chosen.output == "-" else chosen.output
            print(f"{where or 'the file'}: {error.strerror or error}", file=sys.stderr)
            return 1


async def _run(settings: Settings, chosen: argparse.Namespace) -> int:
    from datasources.files.formats import Format  # noqa: PLC0415
    from datasources.files.naming import file_name  # noqa: PLC0415
    from datasources.meter import NoMeter  # noqa: PLC0415
    from db.stored import SeriesKey  # noqa: PLC0415
    from market.timeframe import Timeframe  # noqa: PLC0415
    from web.bootstrap import open_shelves  # noqa: PLC0415
    from web.clock import SystemClock  # noqa: PLC0415
    from web.commands.progress import progress_bar  # noqa: PLC0415

    ending = Path(chosen.output or "").suffix.lower().removeprefix(".")
    kind = Format(chosen.format or (ending if ending in set(Format) else "csv"))
    asked = replace(chosen.series, market=chosen.market)
    async with open_shelves(settings, clock=SystemClock(), meter=NoMeter()) as shelves:
        stored, computed = await _stored(
            shelves, asked, dataset=chosen.dataset, native=chosen.native
        )
        key = SeriesKey(stored.key.listing, Timeframe.parse(asked.timeframe))
        name = chosen.output or file_name(key, kind.value)
        with progress_bar(None, file_name(key, kind.value), unit="bars", scale=True) as bar:
            exported = await _write(
                shelves, stored, key, chosen, kind=kind, name=name, bar=bar, computed=computed
            )
    made = " computed from stored minutes" if computed else ""
    print(f"{exported.bars:,} bars{made} in {name}", file=sys.stderr)
    if exported.complete_from is not None:
        since = instant_said(exported.complete_from)
        print(f"complete from {since} on: older bars are not kept (RETENTION)", file=sys.stderr)
    return 0


async def _write(
    shelves: Shelves,
    stored: StoredSeries,
    key: SeriesKey,
    chosen: argparse.Namespace,
    *,
    kind: Format,
    name: str,
    bar: Any,
    computed: bool,
) -> Exported:
    from datasources.files.exporting import (  # noqa: PLC0415
        Bounds,
        export_computed,
        export_stored,
    )
    from market.calendars import calendar  # noqa: PLC0415
    from market.instrument import Series  # noqa: PLC0415

    bounds = Bounds(chosen.since, chosen.until)
    to = sys.stdout.buffer if name == "-" else Path(name)
    if not computed:
        return await export_stored(
            shelves.pool, stored, bounds, kind=kind, to=to, advanced=bar.update
        )
    rules = calendar("24/7" if stored.facts.around_the_clock else "XNYS")
    series = Series(key.listing, key.timeframe, timezone=rules.zone, calendar=rules.name)
    return await export_computed(
        shelves.pool, series, stored, bounds, kind=kind, to=to, advanced=bar.update
    )


async def _stored(
    shelves: Shelves, asked: Asked, *, dataset: str | None, native: bool
) -> tuple[StoredSeries, bool]:
    """Return the stored series that is meant, and whether its bars are to be computed from it.

    Raises `UnknownName` and `BadInput`.
    """
    from db.listed import stored_series  # noqa: PLC0415
    from market.timeframe import MINUTE_FRAME, Timeframe  # noqa: PLC0415

    timeframe = Timeframe.parse(asked.timeframe)
    held = await stored_series(shelves.pool, provider=asked.provider, symbol=asked.symbol)
    found = [
        one
        for one in held
        if asked.market in {None, one.key.listing.market}
        and dataset in {None, one.key.listing.dataset}
    ]
    if not found:
        others = await stored_series(shelves.pool, provider=asked.provider)
        known = (one.key.listing.symbol for one in others)
        raise UnknownName("stored symbol", asked.symbol, known, field="series")
    listings = {one.key.listing for one in found}
    if len(listings) > 1:
        current = _dataset(shelves, asked.provider)
        listings = {one for one in listings if dataset is None and one.dataset == current}
    if len(listings) != 1:
        named = sorted({f"{x.key.listing.market} {x.key.listing.dataset}".strip() for x in found})
        raise BadInput(
            f"{asked.symbol!r} is stored several times ({', '.join(named)}): state --market or "
            "--dataset.",
            field="series",
        )
    by_frame = {one.key.timeframe: one for one in found if one.key.listing in listings}
    if timeframe in by_frame and (native or MINUTE_FRAME not in by_frame):
        return by_frame[timeframe], False
    if native or not by_frame:
        raise UnknownName("stored timeframe", str(timeframe), map(str, by_frame), field="series")
    finest = min(by_frame.values(), key=lambda one: one.key.timeframe.nominal)
    return finest, timeframe != finest.key.timeframe


def _dataset(shelves: Shelves, provider: str) -> str:
    for entry in shelves.registry.entries():
        if entry.name == provider and entry.provider is not None:
            return entry.provider.description.dataset
    return ""
