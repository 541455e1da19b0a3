"""What a file brings into the store: its bars, no more than it knows, and nothing newer lost."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import asyncpg
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from datasources.files.csv_files import CsvReader
from datasources.files.exporting import Bounds, export_stored
from datasources.files.formats import Format, open_reader
from datasources.files.importing import Choices, Imported, Importer
from datasources.files.naming import Said
from datasources.files.placing import Placement, place_labelled
from datasources.files.reading import Reader
from datasources.found import Base, Head
from db.bar_pages import ObservedBars, bar_pages
from db.candles import CandleStore
from db.imports import ImportProgress
from db.listed import stored_series
from db.stored import SeriesKey, SeriesState, Write, Written
from market.bars import CLOSED, VOID, Bars
from market.clock import FixedClock
from market.errors import StoreUnavailable
from market.instrument import Listing
from market.timeframe import MINUTE_FRAME
from market.window import MINUTE, Spans
from tests.datasources.files.tables import FACTS, NOW, T0, lines, pages, row
from tests.db.minutes import ALWAYS, minutes, put, stored
from tests.db.test_moving import wild


class CountingStore(CandleStore):
    """The store, which notes how many bars each write has and fails when it is told to."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.sizes: list[int] = []
        self.fails_after: int | None = None

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        if self.fails_after is not None and len(self.sizes) >= self.fails_after:
            raise StoreUnavailable("told to fail")
        written = await super().write(writes)
        self.sizes += [len(write.bars) for write in writes]
        return written


class Desk:
    """An importer over a real store, with a series of its own."""

    def __init__(self, pool: asyncpg.Pool, folder: Path) -> None:
        self.store = CountingStore(pool)
        self.pool = pool
        self.folder = folder
        key = SeriesKey(Listing("sim", "crypto", f"T{uuid4().hex}"), MINUTE_FRAME)
        self.placement = Placement(key, FACTS, "UTC")
        self.heads: list[Mapping[Base, Head]] = []
        self.offsets: list[int] = []

    @property
    def key(self) -> SeriesKey:
        return self.placement.key

    @property
    def report(self) -> Path:
        return self.folder / "refused.csv"

    async def take_in(self, source: Path | Reader, choices: Choices | None = None) -> Imported:
        async def announce(heads: Mapping[Base, Head]) -> None:
            self.heads.append(heads)

        reader = open_reader(source) if isinstance(source, Path) else source
        importer = Importer(
            self.store,
            ImportProgress(self.pool),
            clock=FixedClock(NOW),
            announce=announce,
        )
        placement = self.placement
        if reader.file.label is not None:
            said = Said(symbol=self.key.listing.symbol)
            placement = place_labelled(reader.file.label, said, name="file")
        return await importer.take_in(
            reader,
            placement,
            choices=choices or Choices(),
            report=self.report,
            advanced=self.offsets.append,
        )

    async def export(self, name: str) -> Path:
        (series,) = await stored_series(self.pool, symbol=self.key.listing.symbol)
        to = self.folder / name
        await export_stored(self.pool, series, Bounds(), kind=Format(to.suffix[1:]), to=to)
        return to

    async def bars(self) -> Bars:
        return await stored(self.store, self.key)

    async def state(self) -> SeriesState:
        (state,) = await self.store.states([self.key])
        assert state is not None
        return state

    def refused(self) -> list[list[str]]:
        return list(csv.reader(self.report.open()))


@pytest.fixture
def desk(pool: asyncpg.Pool, tmp_path: Path) -> Desk:
    return Desk(pool, tmp_path)


@pytest.fixture
def other_desk(desk: Desk) -> Callable[[], Desk]:
    """Make another desk over the same store, with a series of its own."""
    return lambda: Desk(desk.pool, desk.folder)


async def test_bars_of_a_file_are_stored_as_they_are(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", row(0, 10), row(1, 11), row(3, 13))

    imported = await desk.take_in(path)

    bars = await desk.bars()
    assert (imported.taken, imported.refused, imported.kept) == (3, 0, 0)
    assert bars.time.tolist() == [T0, T0 + MINUTE, T0 + 3 * MINUTE]
    assert bars.close.tolist() == [10, 11, 13]
    assert bars.flags.tolist() == [CLOSED] * 3
    assert not desk.report.exists()


async def test_refused_lines_are_reported_while_the_rest_go_in(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", row(0), "x,1,2", row(1), f"{T0 + 2 * MINUTE},1,0,1,1,1")

    imported = await desk.take_in(path)

    assert imported.refused == 2
    assert len(await desk.bars()) == 2
    assert desk.refused() == [
        ["line", "reason", "row"],
        ["3", "it has 3 fields where the header has 6", "x,1,2"],
        ["5", "high is below low", f"{T0 + 2 * MINUTE},1.0,0.0,1.0,1.0,1.0"],
    ]


async def test_what_the_provider_said_later_stands(desk: Desk) -> None:
    await put(desk.store, desk.key, minutes([T0], close=10), T0 + 2 * MINUTE)
    path = lines(desk.folder / "one.csv", row(0, 99), row(1, 99))

    imported = await desk.take_in(path)

    assert imported.kept == 1
    assert (await desk.bars()).close.tolist() == [10, 99]


async def test_a_file_said_to_be_newer_revises_what_is_stored(desk: Desk) -> None:
    await put(desk.store, desk.key, minutes([T0], close=10), T0 + 2 * MINUTE)
    path = lines(desk.folder / "one.csv", row(0, 99))

    imported = await desk.take_in(path, Choices(observed_at=T0 + 3 * MINUTE))

    bars = await desk.bars()
    assert imported.kept == 0
    assert (bars.close.tolist(), bars.revision.tolist()) == ([99], [2])


async def test_a_file_that_claims_the_future_cannot_silence_the_provider(desk: Desk) -> None:
    names = "timestamp_ms,open,high,low,close,volume,observed_ms"
    await desk.take_in(lines(desk.folder / "one.csv", f"{row(0, 99)},{NOW * 2}", names=names))

    await put(desk.store, desk.key, minutes([T0], close=10), NOW + 1)

    assert (await desk.bars()).close.tolist() == [10]


async def test_nothing_is_known_of_holes_in_a_file_that_does_not_say_so(desk: Desk) -> None:
    imported = await desk.take_in(lines(desk.folder / "one.csv", row(0), row(5)))

    assert imported.known == Spans() == (await desk.state()).known


async def test_holes_of_a_complete_file_are_known_to_be_empty(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", row(0), row(5))

    await desk.take_in(path, Choices(complete=True))

    assert (await desk.state()).known == Spans.of(T0, T0 + 6 * MINUTE)


async def test_where_a_refused_line_may_belong_nothing_is_known(desk: Desk) -> None:
    path = lines(
        desk.folder / "one.csv",
        *(row(0), row(1), "x", row(4), row(5), row(9), row(2), row(12)),
    )

    await desk.take_in(path, Choices(complete=True))

    # Around line 4 from the bar before to the bar after; of line 8 its own minute besides.
    gone = Spans.of(T0 + MINUTE, T0 + 4 * MINUTE) | Spans.of(T0 + 9 * MINUTE, T0 + 12 * MINUTE)
    assert (await desk.state()).known == Spans.of(T0, T0 + 13 * MINUTE) - gone


@pytest.mark.parametrize("block", [80, 100_000])
async def test_a_refused_line_at_the_end_of_a_batch_is_doubted_like_any(
    desk: Desk, block: int
) -> None:
    path = lines(desk.folder / "one.csv", row(0), "y" * 70, "z" * 70, row(6), row(7), "x")

    await desk.take_in(CsvReader(path, block=block), Choices(complete=True))

    # After the last bar nothing was claimed but its own minute, and the line after it is doubtful.
    assert (await desk.state()).known == Spans.of(T0 + 6 * MINUTE, T0 + 7 * MINUTE)


async def test_no_batch_is_larger_than_a_block_however_long_the_file(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", *(row(minute) for minute in range(3_000)))

    await desk.take_in(CsvReader(path, block=4_096))

    assert sum(desk.store.sizes) == 3_000
    assert max(desk.store.sizes) <= 4_096 // len(row(0)) + 1


async def test_an_interrupted_import_goes_on_where_it_stopped(desk: Desk) -> None:
    rows = [row(minute) if minute % 10 else "x" * 40 for minute in range(1, 400)]
    path = lines(desk.folder / "one.csv", *rows)
    desk.store.fails_after = 5
    with pytest.raises(StoreUnavailable):
        await desk.take_in(CsvReader(path, block=1_000), Choices(complete=True))
    before = sum(desk.store.sizes)
    desk.store.fails_after = None
    imported = await desk.take_in(CsvReader(path, block=1_000), Choices(complete=True))

    assert imported.resumed_at > 0
    assert sum(desk.store.sizes) == 360 == len(await desk.bars())
    assert 0 < before < 360
    assert (imported.taken, imported.refused) == (360, 39)
    assert [int(line) for line, _, _ in desk.refused()[1:]] == [10 * n + 1 for n in range(1, 40)]


async def test_an_interruption_changes_nothing_of_what_is_known(
    desk: Desk, other_desk: Callable[[], Desk]
) -> None:
    rows = [row(minute) if minute % 37 else "x" for minute in range(1, 300)]
    path = lines(desk.folder / "one.csv", *rows)
    whole = other_desk()
    await whole.take_in(path, Choices(complete=True))
    for stop in range(1, 8):
        desk.store.fails_after = len(desk.store.sizes) + 1
        with pytest.raises(StoreUnavailable):
            await desk.take_in(CsvReader(path, block=1_000 + stop), Choices(complete=True))
    desk.store.fails_after = None
    await desk.take_in(CsvReader(path, block=1_000), Choices(complete=True))

    assert (await desk.state()).known == (await whole.state()).known
    assert (await desk.bars()).time.tolist() == (await whole.bars()).time.tolist()


async def test_a_file_that_was_mended_begins_anew(desk: Desk) -> None:
    rows = [row(minute) for minute in range(100)]
    path = lines(desk.folder / "one.csv", *rows)
    desk.store.fails_after = 2
    with pytest.raises(StoreUnavailable):
        await desk.take_in(CsvReader(path, block=1_000))
    lines(desk.folder / "one.csv", row(0, 55), *rows[1:])
    desk.store.fails_after = None
    imported = await desk.take_in(CsvReader(path, block=1_000))

    assert imported.resumed_at == 0
    assert (await desk.bars()).close[0] == 55


async def test_an_import_done_again_changes_nothing(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", *(row(minute) for minute in range(50)))
    await desk.take_in(path, Choices(complete=True))
    before = await desk.state(), await desk.bars()

    imported = await desk.take_in(path, Choices(complete=True))

    assert (await desk.state(), await desk.bars()) == before
    assert (imported.taken, imported.resumed_at) == (50, 0)


async def test_caches_are_told_of_every_batch(desk: Desk) -> None:
    await put(desk.store, desk.key, minutes([T0]), settled=Spans.of(T0, T0 + MINUTE))
    path = lines(desk.folder / "one.csv", *(row(minute, 20) for minute in range(100)))

    await desk.take_in(CsvReader(path, block=1_000), Choices(observed_at=NOW))

    state = await desk.state()
    (base,) = {base for heads in desk.heads for base in heads}
    assert (base.listing, base.timeframe, base.native) == (desk.key.listing, MINUTE_FRAME, False)
    newest = desk.heads[-1][base]
    assert (newest.position, newest.generation) == (state.position, state.generation)
    assert newest.generation == 1
    assert len(desk.heads) == len(desk.store.sizes) - 1 > 2


async def test_minutes_decide_as_far_back_as_a_complete_file_reaches(desk: Desk) -> None:
    late = T0 + 10 * MINUTE
    await put(desk.store, desk.key, minutes([late]), settled=Spans.of(late, late + MINUTE))
    series = (await desk.state()).id
    await desk.store.set_minutes_from(series, late)
    path = lines(desk.folder / "one.csv", *(row(minute) for minute in range(10)))

    await desk.take_in(path, Choices(complete=True))

    assert (await desk.state()).minutes_from == T0


async def test_minutes_that_leave_a_hole_do_not_decide(desk: Desk) -> None:
    late = T0 + 20 * MINUTE
    await put(desk.store, desk.key, minutes([late]), settled=Spans.of(late, late + MINUTE))
    await desk.store.set_minutes_from((await desk.state()).id, late)
    path = lines(desk.folder / "one.csv", *(row(minute) for minute in range(10)))

    await desk.take_in(path, Choices(complete=True))

    assert (await desk.state()).minutes_from == late


async def test_a_report_that_is_gone_is_written_anew_and_whole(desk: Desk) -> None:
    path = await interrupted(desk)
    desk.report.unlink()

    imported = await desk.take_in(CsvReader(path, block=1_000))

    assert imported.resumed_at == 0
    assert [int(line) for line, _, _ in desk.refused()[1:]] == [10 * n + 1 for n in range(1, 40)]
    assert len(await desk.bars()) == imported.taken == 360


async def test_a_report_that_was_cut_is_written_anew_and_whole(desk: Desk) -> None:
    path = await interrupted(desk)
    desk.report.write_bytes(desk.report.read_bytes()[:60])

    imported = await desk.take_in(CsvReader(path, block=1_000))

    assert imported.resumed_at == 0
    assert [int(line) for line, _, _ in desk.refused()[1:]] == [10 * n + 1 for n in range(1, 40)]


async def interrupted(desk: Desk) -> Path:
    """Import half of a file in which every tenth line is refused, and return where it is."""
    rows = [row(minute) if minute % 10 else "x" * 40 for minute in range(1, 400)]
    path = lines(desk.folder / "one.csv", *rows)
    desk.store.fails_after = 5
    with pytest.raises(StoreUnavailable):
        await desk.take_in(CsvReader(path, block=1_000))
    desk.store.fails_after = None
    return path


async def exported(desk: Desk, name: str = "one.csv") -> Path:
    """Export forty minutes, of which each fourth had no trades, and nothing else is unknown."""
    rows = [row(minute) for minute in range(40) if minute % 4]
    path = lines(desk.folder / "foreign.csv", *rows)
    await desk.take_in(path, Choices(complete=True))
    return await desk.export(name)


@pytest.mark.parametrize("lost", [slice(12, None), slice(10, 20), slice(-1, None)])
@pytest.mark.parametrize("complete", [False, True])
async def test_an_export_that_lost_lines_makes_no_time_known(
    desk: Desk, other_desk: Callable[[], Desk], lost: slice, complete: bool
) -> None:
    path = await exported(desk)
    kept = path.read_bytes().splitlines(keepends=True)
    del kept[lost]
    path.write_bytes(b"".join(kept))
    other = other_desk()

    imported = await other.take_in(path, Choices(complete=complete))

    assert (imported.taken, imported.refused) == (len(kept) - 2, 0)
    assert imported.known == Spans() == (await other.state()).known
    assert len(await other.bars()) == len(kept) - 2


async def test_a_parquet_export_that_was_written_again_without_some_rows_makes_no_time_known(
    desk: Desk, other_desk: Callable[[], Desk]
) -> None:
    path = await exported(desk, "one.parquet")
    pq.write_table(pq.read_table(path).slice(0, 20), path)
    other = other_desk()

    imported = await other.take_in(path)

    assert imported.taken == 20
    assert imported.known == Spans() == (await other.state()).known


async def test_an_export_of_which_a_line_is_refused_is_whole_all_the_same(
    desk: Desk, other_desk: Callable[[], Desk]
) -> None:
    path = await exported(desk)
    whole = path.read_bytes().splitlines(keepends=True)
    whole[4] = b"x" + whole[4]
    path.write_bytes(b"".join(whole))
    other = other_desk()

    imported = await other.take_in(path)

    assert (imported.taken, imported.refused) == (29, 1)
    # The line was the minute 3: of what lies between its neighbours nothing is known.
    gone = Spans.of(T0 + 2 * MINUTE, T0 + 5 * MINUTE)
    assert (await other.state()).known == (await desk.state()).known - gone != Spans()


async def test_an_interrupted_import_of_an_export_counts_the_rows_of_both_parts(
    desk: Desk, other_desk: Callable[[], Desk]
) -> None:
    path = await exported(desk)
    other = other_desk()
    other.store.fails_after = 2
    with pytest.raises(StoreUnavailable):
        await other.take_in(CsvReader(path, block=500))
    other.store.fails_after = None

    imported = await other.take_in(CsvReader(path, block=500))

    assert imported.resumed_at > 0
    assert (await other.state()).known == (await desk.state()).known != Spans()


@pytest.mark.parametrize("complete", [False, True])
async def test_an_export_that_does_not_count_its_rows_is_believed_if_the_user_says_so(
    desk: Desk, other_desk: Callable[[], Desk], complete: bool
) -> None:
    path = await exported(desk)
    text = path.read_text()
    assert text.count('"rows":30,') == 1
    path.write_text(text.replace('"rows":30,', ""))
    other = other_desk()

    await other.take_in(path, Choices(complete=complete))

    known = (await desk.state()).known
    assert (await other.state()).known == (known if complete else Spans())


async def fill(desk: Desk) -> None:
    """Store bars with revisions, withdrawn ones among them, asked for at many times."""
    bars = wild(400)
    span = Spans.of(int(bars.time[0]) - 5 * MINUTE, int(bars.time[300]))
    observed = bars.time + MINUTE + np.arange(400)
    write = Write(desk.key, FACTS, bars, T0, settled=span, observed=observed)
    await desk.store.write([write])
    some = bars.take(np.arange(400) % 7 == 0)
    later = T0 + 10**9
    await put(desk.store, desk.key, some.with_columns(volume=some.volume + 1), later)
    gone = Spans.of(int(bars.time[10]), int(bars.time[12]))
    await put(desk.store, desk.key, Bars.empty(), later, covered=gone)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
async def test_export_import_export_is_byte_equal(
    desk: Desk, pool: asyncpg.Pool, ending: str
) -> None:
    await fill(desk)
    one = await desk.export(f"one.{ending}")
    before = await desk.bars()
    await forget(pool, desk)

    imported = await desk.take_in(one)
    other = await desk.export(f"other.{ending}")

    assert one.read_bytes() == other.read_bytes()
    after = await desk.bars()
    assert imported.refused == 0
    assert imported.known == (await desk.state()).known != Spans()
    assert after.revision.tolist() == [1] * 398
    assert replace_revision(before) == replace_revision(after)


def replace_revision(bars: Bars) -> Bars:
    """Return *bars* as no store has counted them: only the store assigns revisions."""
    assert not (bars.flags & VOID).any()
    return bars.with_columns(revision=np.zeros(len(bars), np.int64))


async def forget(pool: asyncpg.Pool, desk: Desk) -> None:
    """Delete the series, as if this were a store that never had it."""
    (series,) = await stored_series(pool, symbol=desk.key.listing.symbol)
    for table, column in (("bar", "series_id"), ("change", "series_id"), ("series", "id")):
        await pool.execute(f"DELETE FROM {table} WHERE {column} = $1", series.id)
    desk.store = CountingStore(pool)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # Each example asks a database: shrinking would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(page=pages())
async def test_any_stored_bars_are_exported_as_the_same_bytes_again(
    pool: asyncpg.Pool, tmp_path: Path, ending: str, page: ObservedBars
) -> None:
    desk = Desk(pool, tmp_path)
    write = Write(desk.key, FACTS, page.bars, T0, observed=page.observed)
    await desk.store.write([write])
    one = (await desk.export(f"one.{ending}")).read_bytes()
    await forget(pool, desk)

    await desk.take_in(desk.folder / f"one.{ending}")

    assert (await desk.export(f"other.{ending}")).read_bytes() == one


async def test_pages_show_the_series_as_it_stood_when_reading_began(
    desk: Desk, pool: asyncpg.Pool
) -> None:
    await fill(desk)
    before = await desk.bars()
    changed = before.with_columns(volume=before.volume + 5)
    seen: list[float] = []
    sizes: list[int] = []

    async with bar_pages(pool, (await desk.state()).id) as series:
        async for page in series.pages(ALWAYS, size=50):
            if not seen:
                await put(desk.store, desk.key, changed, NOW)
            seen += page.bars.volume.tolist()
            sizes.append(len(page.bars))

    assert seen == before.volume.tolist()
    assert max(sizes) == 50
    assert (await desk.bars()).volume.tolist() == changed.volume.tolist()


async def test_a_file_of_computed_bars_is_not_taken_in(desk: Desk) -> None:
    path = lines(desk.folder / "one.csv", row(0))
    await desk.take_in(path)
    exported = await desk.export("two.csv")
    exported.write_text(exported.read_text().replace('"computed":false', '"computed":true'))

    with pytest.raises(Exception, match="computed from finer ones"):
        await desk.take_in(exported)
