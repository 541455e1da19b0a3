"""Store trades once, and the minutes they make, in one transaction.

A minute is computed from all of its trades that are stored, under the lock of its series, and only
if trades were told without a hole from its beginning until some time after its end. So how trades
were batched, in what order they came and how often makes no difference to what is stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from db import rows
from db.binary import (
    Column,
    array_floats,
    array_times,
    copy_rows,
    multirange_spans_us,
    to_server_time,
)
from db.candles import CandleStore, merge_in_turns
from db.staging import check
from db.statements import retained_from
from db.stored import SeriesFacts, SeriesKey, SeriesState, Write
from db.told import US, Proof, as_of, newest
from market.bars import Bars
from market.trades import Trades, minute_bars
from market.window import MINUTE, Spans, Window

_NOWHERE = Spans()
_LOCK = "SELECT id FROM series WHERE id = ANY ($1::integer[]) ORDER BY id FOR NO KEY UPDATE"
# After the lock, in a statement of its own: it sees what the holder before committed.
_STATES = f"""
    SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint AS minutes_from, s.position,
           s.generation, multirange_send(s.known) AS known, multirange_send(t.told) AS told,
           {retained_from("s.id")}
    FROM series s LEFT JOIN trades_told t ON t.series_id = s.id
    WHERE s.id = ANY ($1::integer[])
"""  # noqa: S608 - the column is a constant
_TELL = """
    INSERT INTO trades_told (series_id, told)
    SELECT u.id, range_agg(tstzrange(from_epoch_us(u.since), from_epoch_us(u.until)))
    FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) u(id, since, until)
    GROUP BY u.id
    ON CONFLICT (series_id) DO UPDATE SET told = excluded.told
"""
_ADD = "INSERT INTO raw_trades SELECT * FROM incoming_trades ON CONFLICT DO NOTHING"
_READ = "SELECT * FROM trades_of($1::integer[], $2::bigint[], $3::bigint[])"
_COLUMNS = ("timestamp", "price", "amount", "series_id", "trade_id")


@dataclass(frozen=True, slots=True)
class Telling:
    """Trades of one series in any order, and the time that they complete.

    *told* in microseconds since the epoch: together with what was told of the time before and
    after, these are all trades whose provider told of them in that time. Empty where nothing can
    be said. The key's timeframe is a minute.
    """

    key: SeriesKey
    facts: SeriesFacts
    trades: Trades
    told: Window


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a series has come to: its state, and the bars that were computed, as now stored.

    *newest_bar* is the opening, in ms, of the newest minute that this made whole and that has
    trades, None where there is none.
    """

    key: SeriesKey
    state: SeriesState
    bars: Bars
    newest_bar: int | None


@dataclass(slots=True)
class _Part:
    """What is told of one series in one transaction, times as in `Telling`."""

    id: int
    key: SeriesKey
    facts: SeriesFacts
    trades: Trades
    news: Spans
    before: Spans = _NOWHERE
    told: Spans = _NOWHERE


class RawTradeStore:
    """Trades in PostgreSQL, beside the bars of *store*."""

    def __init__(self, store: CandleStore, *, proof: Proof) -> None:
        self._store = store
        self._proof = proof

    async def told(self, key: SeriesKey) -> Spans:
        """Return when, in microseconds, trades of a series were told without a hole."""
        (state,) = await self._store.states([key])
        if state is None:
            return _NOWHERE

        async def read(connection: asyncpg.Connection, ids: Sequence[int]) -> Spans:
            (row,) = await connection.fetch(_STATES, list(ids))
            return _spans(row["told"])

        return await self._store.transact([(key, SeriesFacts())], read)

    async def write(self, tellings: Sequence[Telling]) -> list[Ingested]:
        """Store trades and the minutes that they complete or change; one answer a series.

        All or nothing. Raises `StoreUnavailable`, and `InvalidBars` for trades that make bars
        which cannot be true.
        """
        if not tellings:
            return []
        by_key: dict[SeriesKey, list[Telling]] = {}
        for telling in tellings:
            by_key.setdefault(telling.key, []).append(telling)

        async def work(connection: asyncpg.Connection, ids: Sequence[int]) -> list[Ingested]:
            parts = [
                _Part(
                    own,
                    key,
                    some[0].facts,
                    Trades.concat([one.trades for one in some]),
                    Spans(one.told for one in some),
                )
                for own, (key, some) in zip(ids, by_key.items(), strict=True)
            ]
            return await self._write(connection, parts)

        series = [(key, some[0].facts) for key, some in by_key.items()]
        return await self._store.transact(series, work)

    async def _write(self, connection: asyncpg.Connection, parts: list[_Part]) -> list[Ingested]:
        ids = [part.id for part in parts]
        locked = await connection.fetch(_LOCK, ids)
        if len(locked) != len(ids):
            raise asyncpg.NoDataFoundError("a series to write to does not exist")
        states = {row["id"]: row for row in await connection.fetch(_STATES, ids)}
        for part in parts:
            part.before = _spans(states[part.id]["told"])
            part.told = newest(part.before | part.news)
        await _add(connection, parts)
        await _tell(connection, [part for part in parts if part.told != part.before])
        writes = await self._writes(connection, parts)
        own = {part.key: part.id for part in parts}
        written = await merge_in_turns(connection, [own[write.key] for write in writes], writes)
        self._store.too_old += sum(one.too_old for one in written)
        changed = {write.key: one for write, one in zip(writes, written, strict=True)}
        answers: list[Ingested] = []
        for part in parts:
            one = changed.get(part.key)
            state = rows.existing_state(states[part.id]) if one is None else one.state
            bars = Bars.empty() if one is None else one.bars
            new = bars.inside(self._proof.whole(part.told) - self._proof.whole(part.before))
            newest_bar = int(new.time[-1]) if len(new) else None
            answers.append(Ingested(part.key, state, bars, newest_bar))
        return answers

    async def _writes(self, connection: asyncpg.Connection, parts: Sequence[_Part]) -> list[Write]:
        """Return what the store is to be told of minutes that these parts change or prove."""
        windows = [(part, window) for part in parts for window in self._touched(part)]
        found = await connection.fetch(
            _READ,
            [part.id for part, _ in windows],
            [window.since for _, window in windows],
            [window.until for _, window in windows],
        )
        bars: dict[int, list[Bars]] = {}
        for (part, _), row in zip(windows, found, strict=True):
            if row["time"] is not None:
                bars.setdefault(part.id, []).append(_minutes(row))
        writes: list[Write] = []
        for part in parts:
            made = Bars.concat(bars.get(part.id, []))
            settled = self._proof.final(part.told) - self._proof.final(part.before)
            if not len(made) and not settled:
                continue
            observed = [as_of(part.told, minute) for minute in made.time.tolist()]
            write = Write(
                key=part.key,
                facts=part.facts,
                bars=made,
                observed_at=part.told.hull.until // US,
                settled=settled,
                observed=np.array(observed, np.int64),
            )
            check(write)
            writes.append(write)
        return writes

    def _touched(self, part: _Part) -> Spans:
        """Return the whole minutes, in ms, that got a trade, became whole or became final.

        A minute that becomes final is told again, as seen then: since it was first told, somebody
        may have asked for it, and been given less than trades tell.
        """
        proof = self._proof
        whole = proof.whole(part.told)
        news = (whole - proof.whole(part.before)) | (
            proof.final(part.told) - proof.final(part.before)
        )
        minutes = np.unique(part.trades.time // MINUTE) * MINUTE
        traded = Spans.from_edges(minutes, minutes + MINUTE)
        return (traded & whole) | news


async def _add(connection: asyncpg.Connection, parts: Sequence[_Part]) -> None:
    """Store the trades that are not stored. Most are new, so that is tried first."""
    if not any(len(part.trades) for part in parts):
        return
    try:
        async with connection.transaction():
            await _copy(connection, "raw_trades", parts)
    except asyncpg.UniqueViolationError:
        await connection.execute("SELECT open_trade_staging()")
        await _copy(connection, "incoming_trades", parts)
        await connection.execute(_ADD)


async def _copy(connection: asyncpg.Connection, table: str, parts: Sequence[_Part]) -> None:
    await connection.copy_to_table(
        table, source=_copied(parts), columns=list(_COLUMNS), format="binary"
    )


async def _copied(parts: Sequence[_Part]) -> AsyncIterator[bytes]:
    for chunk in copy_rows(*_groups(parts)):
        yield chunk


def _groups(parts: Sequence[_Part]) -> Iterator[tuple[Column, ...]]:
    """Yield the columns of all trades, those whose ids are of one length together."""
    owns = np.repeat([part.id for part in parts], [len(part.trades) for part in parts])
    trades = Trades.concat([part.trades for part in parts])
    time, lengths = to_server_time(trades.time), np.strings.str_len(trades.id)
    for length in np.unique(lengths).tolist():
        some = lengths == length
        yield (
            ("timestamp", ">i8", time[some]),
            ("price", ">f8", trades.price[some]),
            ("amount", ">f8", trades.amount[some]),
            ("series_id", ">i4", owns[some]),
            ("trade_id", f"S{length}", trades.id[some]),
        )


def _spans(sent: bytes | None) -> Spans:
    return multirange_spans_us(sent) if sent else _NOWHERE


async def _tell(connection: asyncpg.Connection, parts: Sequence[_Part]) -> None:
    flat = [(part.id, span) for part in parts for span in part.told]
    if flat:
        await connection.execute(
            _TELL,
            [own for own, _ in flat],
            [span.since for _, span in flat],
            [span.until for _, span in flat],
        )


def _minutes(row: asyncpg.Record) -> Bars:
    time = array_times(row["time"])
    price, amount = array_floats(row["traded"], 2)
    return minute_bars(time, price, amount)
