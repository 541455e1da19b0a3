"""Past bars are the same from the store, from a folder of Parquet files and from the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import asyncpg
import numpy as np
import pytest

from datasources.files.formats import Format, open_writer
from datasources.files.label import Label, UnreadableFile
from datasources.files.table import table_of
from datasources.history import BarHistory, Shelf, ShelfHistory
from datasources.shelves import FolderShelf, ProviderShelf, StoreShelf
from db.bar_pages import ObservedBars
from db.candles import CandleStore
from db.stored import SeriesFacts, SeriesKey, Write
from market.bars import Bars
from market.calendars import calendar
from market.clock import FixedClock
from market.errors import UnknownName
from market.instrument import Listing, Series, Session
from market.timeframe import MINUTE_FRAME, Timeframe
from market.window import DAY, HOUR, MINUTE, Spans, Window
from plugins.sim.provider import SimProvider
from tests.db.minutes import bucket

PLACES = ("store", "folder", "provider")
# A Wednesday to a Monday, over the end of a month.
SINCE = 1_730_246_400_000
HELD = Window(SINCE, SINCE + 5 * DAY)
VALUES = ("time", "open", "high", "low", "close", "volume", "vwap", "trades")


class Place:
    """The same five days of BTC/USDT and of AAPL, as one place has them."""

    def __init__(self, shelf: Shelf, dataset: str) -> None:
        self.shelf = shelf
        self.history: BarHistory = ShelfHistory(shelf)
        self.dataset = dataset

    def series(
        self,
        timeframe: str,
        *,
        symbol: str = "BTC/USDT",
        zone: str | None = None,
        session: Session = Session.ALL,
    ) -> Series:
        stocks = symbol == "AAPL"
        rules = calendar("XNYS" if stocks else "24/7")
        listing = Listing("sim", "stocks" if stocks else "crypto", symbol, dataset=self.dataset)
        frame = Timeframe.parse(timeframe)
        return Series(listing, frame, zone or rules.zone, session, rules.name)

    async def read(self, series: Series, window: Window = HELD) -> tuple[Bars, Spans]:
        stretches = [stretch async for stretch in self.history.bars(series, window)]
        told = Spans(span for stretch in stretches for span in stretch.told)
        return Bars.concat([stretch.bars for stretch in stretches]), told


async def minutes_of(symbol: str) -> Bars:
    """Return the minutes of the five days."""
    provider = ProviderShelf(SimProvider(clock=FixedClock(HELD.until)))
    market = "stocks" if symbol == "AAPL" else "crypto"
    listing = Listing("sim", market, symbol, dataset="1-1")
    return (await provider.piece(listing, MINUTE_FRAME, HELD)).bars


@pytest.fixture
async def places(pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[dict[str, Place]]:
    """All three, each with a dataset of its own name."""
    dataset = uuid4().hex
    provider = SimProvider(clock=FixedClock(HELD.until))
    store = CandleStore(pool)
    for symbol in ("BTC/USDT", "AAPL"):
        around = symbol != "AAPL"
        market = "crypto" if around else "stocks"
        facts = SeriesFacts(symbol[:3], "USDT", around)
        bars = await minutes_of(symbol)
        key = SeriesKey(Listing("sim", market, symbol, dataset=dataset), MINUTE_FRAME)
        known = Spans((HELD,))
        await store.write([Write(key, facts, bars, HELD.until, settled=known)])
        # In two files, one of them with gaps between its groups.
        for part, window in enumerate((HELD.since, HELD.since + 2 * DAY)):
            span = Window(window, HELD.until if part else HELD.since + 2 * DAY)
            some = bars.slice(span)
            label = Label(key, facts, span, Spans((span,)), rows=len(some))
            path = tmp_path / f"{market}-{part}.parquet"
            with (
                path.open("wb") as stream,
                open_writer(Format.PARQUET, stream, label) as writer,
            ):
                for at in range(0, len(some), 700):
                    piece = some.take(slice(at, at + 700))
                    writer.write(table_of(ObservedBars(piece, piece.updated)))
    yield {
        "store": Place(StoreShelf(pool), dataset),
        "folder": Place(await FolderShelf.open(tmp_path), dataset),
        "provider": Place(ProviderShelf(provider), "1-1"),
    }


def values(bars: Bars) -> dict[str, bytes]:
    return {name: getattr(bars, name).tobytes() for name in VALUES}


@pytest.mark.parametrize("timeframe", ["1m", "7m", "1h", "5h", "1d", "1w"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
async def test_the_same_bars_come_from_every_place(
    places: dict[str, Place], timeframe: str, zone: str
) -> None:
    read = {
        name: await place.read(place.series(timeframe, zone=zone)) for name, place in places.items()
    }

    first, _ = read["store"]
    assert len(first) or timeframe == "1w"
    assert all(values(bars) == values(first) for bars, _ in read.values())
    assert read["folder"][1] == read["store"][1]


@pytest.mark.parametrize("session", [Session.ALL, Session.REGULAR])
@pytest.mark.parametrize("timeframe", ["1m", "45m", "1d"])
async def test_sessions_are_cut_alike_in_every_place(
    places: dict[str, Place], timeframe: str, session: Session
) -> None:
    read = [
        await place.read(place.series(timeframe, symbol="AAPL", session=session))
        for place in places.values()
    ]

    assert len(read[0][0]) > 0
    assert all(values(bars) == values(read[0][0]) for bars, _ in read)


@pytest.mark.parametrize("name", PLACES)
async def test_minutes_are_those_that_were_put_in(places: dict[str, Place], name: str) -> None:
    bars, told = await places[name].read(places[name].series("1m"))

    assert values(bars) == values(await minutes_of("BTC/USDT"))
    assert bars.is_closed.all()
    assert told == Spans((HELD,))


@pytest.mark.parametrize("name", PLACES)
async def test_hours_equal_the_recomputation_from_minutes(
    places: dict[str, Place], name: str
) -> None:
    bars, _ = await places[name].read(places[name].series("1h"))

    minutes = await minutes_of("BTC/USDT")
    groups: dict[int, list[int]] = {}
    for at, time in enumerate(minutes.time.tolist()):
        groups.setdefault(bucket(time, "1h"), []).append(at)
    assert bars.time.tolist() == list(groups)
    assert bars.open.tolist() == [minutes.open[group[0]] for group in groups.values()]
    assert bars.high.tolist() == [minutes.high[group].max() for group in groups.values()]
    assert bars.low.tolist() == [minutes.low[group].min() for group in groups.values()]
    assert bars.close.tolist() == [minutes.close[group[-1]] for group in groups.values()]
    assert np.allclose(
        bars.volume, [minutes.volume[group].sum() for group in groups.values()], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("name", PLACES)
async def test_stretches_follow_each_other_and_are_bounded(
    places: dict[str, Place], name: str
) -> None:
    wide = Window(HELD.since - DAY, HELD.until + DAY)
    place = places[name]
    history = ShelfHistory(place.shelf, batch=500)

    stretches = [stretch async for stretch in history.bars(place.series("1m"), wide)]

    assert stretches[0].window.since == wide.since
    assert stretches[-1].window.until == wide.until
    assert all(one.window.until == other.window.since for one, other in pairwise(stretches))
    assert max(len(stretch.bars) for stretch in stretches) <= 500


@pytest.mark.parametrize("name", ["store", "folder"])
async def test_time_of_which_nothing_is_held_is_a_gap(places: dict[str, Place], name: str) -> None:
    place = places[name]
    wide = Window(HELD.since - DAY, HELD.until + DAY)

    stretches = [s async for s in place.history.bars(place.series("1h"), wide)]

    gaps = Spans(gap for stretch in stretches for gap in stretch.gaps)
    assert gaps == Spans((wide,)) - Spans((HELD,))


async def test_a_bar_of_which_a_minute_is_unknown_is_a_gap_and_never_a_part(
    pool: asyncpg.Pool,
) -> None:
    dataset = uuid4().hex
    store = CandleStore(pool)
    key = SeriesKey(Listing("sim", "crypto", "BTC/USDT", dataset=dataset), MINUTE_FRAME)
    time = HELD.since + np.arange(3 * 60) * MINUTE
    close = np.arange(180.0)
    bars = Bars.of(time, close, close, close, close, close, flags=1)
    facts = SeriesFacts("BTC", "USDT", around_the_clock=True)
    without = bars.take(time != HELD.since + 70 * MINUTE)
    await store.write([Write(key, facts, without, HELD.until)])
    place = Place(StoreShelf(pool), dataset)

    read, told = await place.read(place.series("1h"), Window(HELD.since, HELD.since + 3 * HOUR))

    hours = [HELD.since, HELD.since + 2 * HOUR]
    assert read.time.tolist() == hours
    assert told == Spans(Window(hour, hour + HOUR) for hour in hours)


async def test_a_file_that_lost_rows_tells_of_its_bars_alone(tmp_path: Path) -> None:
    key = SeriesKey(Listing("sim", "crypto", "BTC/USDT", dataset="lost"), MINUTE_FRAME)
    bars = (await minutes_of("BTC/USDT")).slice(Window(HELD.since, HELD.since + HOUR))
    told = Spans.of(HELD.since, HELD.since + HOUR)
    label = Label(key, SeriesFacts("BTC", "USDT", True), HELD, told, rows=len(bars))
    left = bars.take(np.arange(len(bars)) != 7)
    path = tmp_path / "one.parquet"
    with path.open("wb") as stream, open_writer(Format.PARQUET, stream, label) as writer:
        writer.write(table_of(ObservedBars(left, left.updated)))
    place = Place(await FolderShelf.open(tmp_path), "lost")

    read, known = await place.read(place.series("1m"), Window(HELD.since, HELD.since + HOUR))

    assert read.time.tolist() == left.time.tolist()
    assert known == Spans(Window(time, time + MINUTE) for time in left.time.tolist())


async def test_an_export_of_an_older_release_is_named_for_what_it_no_longer_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hour = Window(HELD.since, HELD.since + HOUR)
    bars = (await minutes_of("BTC/USDT")).slice(hour)
    for name, rows in (("older", None), ("newer", len(bars))):
        key = SeriesKey(Listing("sim", "crypto", "BTC/USDT", dataset=name), MINUTE_FRAME)
        label = Label(key, SeriesFacts("BTC", "USDT", True), hour, Spans((hour,)), rows=rows)
        path = tmp_path / f"{name}.parquet"
        with path.open("wb") as stream, open_writer(Format.PARQUET, stream, label) as writer:
            writer.write(table_of(ObservedBars(bars, bars.updated)))

    await FolderShelf.open(tmp_path)

    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "older.parquet is an export of an older release" in warning.getMessage()
    assert "Export it again" in warning.getMessage()


@pytest.mark.parametrize("name", PLACES)
async def test_a_place_names_what_it_has_and_how_far_that_reaches(
    places: dict[str, Place], name: str
) -> None:
    place = places[name]

    instruments = {one.symbol: one for one in await place.history.instruments()}
    ends = await place.history.reach(place.series("1m"))

    assert instruments["BTC/USDT"].calendar == "24/7"
    assert instruments["AAPL"].calendar == "XNYS"
    assert ends is not None
    assert ends.until == HELD.until
    assert ends.since == HELD.since or name == "provider"


@pytest.mark.parametrize("name", PLACES)
async def test_what_a_place_does_not_have_is_named(places: dict[str, Place], name: str) -> None:
    with pytest.raises(UnknownName, match="Unknown symbol"):
        await places[name].read(places[name].series("1m", symbol="NONE/NONE"))


async def test_files_that_hold_the_same_time_are_refused(
    places: dict[str, Place], tmp_path: Path
) -> None:
    (tmp_path / "copy.parquet").write_bytes((tmp_path / "crypto-0.parquet").read_bytes())

    with pytest.raises(UnreadableFile, match="holds times that stand before"):
        await FolderShelf.open(tmp_path)
