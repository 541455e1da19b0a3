"""`python -m web import`: take the bars of CSV and Parquet files into the store."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from market.errors import BargraphError
from market.timeframe import Timeframe
from web.commands.base import Commands, log_to_terminal
from web.commands.words import INSTANT, instant

if TYPE_CHECKING:
    from datasources.files.importing import Choices, Imported
    from datasources.files.label import Label
    from datasources.files.naming import Said
    from datasources.files.placing import Placement
    from datasources.files.reading import Reader
    from market.instrument import Listing
    from web.bootstrap import Shelves
    from web.settings import Settings


def register(commands: Commands) -> None:
    taking = commands.add_parser(
        "import",
        help="take bars out of files into the store",
        description="Take bars out of CSV and Parquet files into the store. What was interrupted "
        "goes on where it stopped if the same command is given again.",
    )
    taking.add_argument("files", nargs="+", type=Path, metavar="FILE")
    whose = taking.add_argument_group(
        "whose bars they are",
        "Needed where neither the file says it nor its name, such as binance_BTCUSDT_1m_2025.csv.",
    )
    whose.add_argument("--provider", help="such as binance")
    whose.add_argument("--symbol", help="such as BTC/USDT")
    whose.add_argument("--timeframe", type=_timeframe, help="such as 1m")
    whose.add_argument("--market", help="such as crypto or stocks")
    whose.add_argument("--dataset", help="of a provider that has several, such as replay")
    taking.add_argument(
        "--complete",
        action="store_true",
        help="nothing is missing between the first and the last bar: where there is none, nothing "
        "was traded",
    )
    taking.add_argument(
        "--observed-at",
        type=instant,
        help=f"when the provider gave these bars: {INSTANT}; default: each at its close, so that "
        "whatever the provider said later stands",
    )
    taking.add_argument(
        "--report",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="where to write which lines were refused and why; default: here",
    )
    taking.set_defaults(run=_import)


def _timeframe(text: str) -> Timeframe:
    try:
        return Timeframe.parse(text)
    except BargraphError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _import(chosen: argparse.Namespace) -> int:
    from web.settings import load_settings  # noqa: PLC0415 - a wrong one shows at once

    settings = load_settings()
    log_to_terminal(settings, quiet=True)
    if not chosen.report.is_dir():
        print(f"--report {chosen.report} is no folder", file=sys.stderr)
        return 1

    import uvloop  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings, chosen))


async def _run(settings: Settings, chosen: argparse.Namespace) -> int:
    from datasources.files.importing import Choices  # noqa: PLC0415
    from datasources.files.naming import Said  # noqa: PLC0415
    from datasources.meter import NoMeter  # noqa: PLC0415
    from market.errors import StoreUnavailable  # noqa: PLC0415
    from web.bootstrap import open_shelves  # noqa: PLC0415
    from web.clock import SystemClock  # noqa: PLC0415

    said = Said(chosen.provider, chosen.symbol, chosen.timeframe, chosen.market, chosen.dataset)
    choices = Choices(complete=chosen.complete, observed_at=chosen.observed_at)
    failed = False
    async with open_shelves(settings, clock=SystemClock(), meter=NoMeter()) as shelves:
        for path in chosen.files:
            try:
                await _take_in(shelves, path, said, choices, chosen.report)
            except StoreUnavailable:
                raise
            except BargraphError as failure:
                # The other files have nothing to do with it.
                print(failure, file=sys.stderr)
                failed = True
            except OSError as error:
                print(f"{path.name}: {error.strerror or error}", file=sys.stderr)
                failed = True
    return int(failed)


async def _take_in(
    shelves: Shelves, path: Path, said: Said, choices: Choices, folder: Path
) -> None:
    from datasources.files.formats import open_reader  # noqa: PLC0415
    from datasources.files.importing import Importer  # noqa: PLC0415
    from datasources.files.report import report_path  # noqa: PLC0415
    from db.candles import CandleStore  # noqa: PLC0415
    from db.imports import ImportProgress  # noqa: PLC0415
    from web.clock import SystemClock  # noqa: PLC0415
    from web.commands.progress import progress_bar  # noqa: PLC0415

    reader = await asyncio.to_thread(open_reader, path)
    placement = await _placement(shelves, reader, said)
    importer = Importer(
        CandleStore(shelves.pool),
        ImportProgress(shelves.pool),
        clock=SystemClock(),
        announce=shelves.cache.moved,
    )
    report = report_path(folder, path)
    rows = path.suffix.lower() == ".parquet"
    with progress_bar(reader.file.size, path.name, unit="bars" if rows else "B", scale=True) as bar:
        imported = await importer.take_in(
            reader,
            placement,
            choices=choices,
            report=report,
            advanced=lambda offset: bar.update(offset - bar.n),
        )
    key = placement.key
    series = f"{key.listing.provider}:{key.listing.symbol}:{key.timeframe}"
    print(f"{path.name}: {_told(imported)} as {series} ({key.listing.market})")
    if imported.refused:
        print(f"{path.name}: which lines were refused and why is in {report}")
    if (note := _unproved(reader.file.label, imported.seen)) is not None:
        print(f"{path.name}: {note}")
    if (note := _unseen(shelves, key.listing)) is not None:
        print(f"{path.name}: {note}")


async def _placement(shelves: Shelves, reader: Reader, said: Said) -> Placement:
    from datasources.files.naming import said_by_name  # noqa: PLC0415
    from datasources.files.placing import place, place_labelled  # noqa: PLC0415

    file = reader.file
    if file.label is not None:
        return place_labelled(file.label, said, name=file.path.name)
    whole = said.over(said_by_name(file.path.stem))
    return await place(whole, shelves.registry, name=file.path.name)


def _unproved(label: Label | None, seen: int) -> str | None:
    """Return why a *label* does not count for what it says is known; None if it does."""
    if label is None or label.rows == seen:
        return None
    if label.rows is None:
        return (
            "its label does not say how many rows there are, so it is not known whether time "
            "without a bar had none; --complete says so"
        )
    return (
        f"its label says {label.rows:,} rows, but there are {seen:,}: it was cut off or changed, "
        "so it is not known whether time without a bar had none"
    )


def _unseen(shelves: Shelves, listing: Listing) -> str | None:
    """Return why no chart will ask for bars of *listing*, None if charts can."""
    for entry in shelves.registry.entries():
        if entry.name == listing.provider and entry.provider is not None:
            shown = entry.provider.description.dataset
            if shown == listing.dataset:
                return None
            return f"charts show the dataset {shown!r}; these bars are of {listing.dataset!r}"
    return (
        f"this server has no provider {listing.provider!r}, so charts cannot ask for these bars; "
        "exports can"
    )


def _told(imported: Imported) -> str:
    parts = [f"{imported.taken:,} bars"]
    if imported.refused:
        parts.append(f"{imported.refused:,} lines refused")
    if imported.kept:
        parts.append(f"{imported.kept:,} bars left as the provider gave them later")
    if imported.resumed_at:
        parts.append(f"gone on after line {imported.resumed_at:,}")
    return ", ".join(parts)
