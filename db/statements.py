"""The SQL that reads the candle store. What writes it lives in `sql/`."""

# ruff: noqa: S608 - the parts put together are constants of this module, never input

_KEY = "u.provider, u.market, u.symbol, u.timeframe, u.adjustment, u.feed, u.dataset"
_OWN = "s.provider, s.market, s.symbol, s.timeframe, s.adjustment, s.feed, s.dataset"
_NAMES = ", ".join(f"${n}::text[]" for n in range(1, 8))
_COLUMNS = "provider, market, symbol, timeframe, adjustment, feed, dataset"


def retained_from(series_id: str) -> str:
    """Return the column of that name for the series whose id the expression *series_id* is."""
    return f"""
        (SELECT (extract(epoch FROM k.since) * 1000)::bigint FROM retained k
         WHERE k.series_id = {series_id} AND k.level = 0) AS retained_from
    """


_STATE = f"""
    s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint AS minutes_from, s.position,
    s.generation, multirange_send(s.known) AS known, {retained_from("s.id")}
"""

STATE = f"SELECT {_STATE} FROM series s WHERE s.id = $1"

STATES = f"""
    SELECT {_STATE}
    FROM unnest({_NAMES}) WITH ORDINALITY u({_COLUMNS}, n)
    LEFT JOIN series s ON ({_OWN}) = ({_KEY})
    ORDER BY u.n
"""

ADD_SERIES = f"""
    INSERT INTO series ({_COLUMNS}, base_currency, quote_currency, around_the_clock)
    SELECT * FROM unnest({_NAMES}, $8::text[], $9::text[], $10::boolean[])
    ON CONFLICT DO NOTHING
"""

NOTE_IMPORTED = """
    INSERT INTO imported AS i (series_id, known)
    SELECT $1, range_agg(tstzrange(from_epoch_ms(u.since), from_epoch_ms(u.until)))
    FROM unnest($2::bigint[], $3::bigint[]) u(since, until)
    HAVING count(*) > 0
    ON CONFLICT (series_id) DO UPDATE SET known = i.known + excluded.known
"""
IMPORTED = "SELECT multirange_send(known) FROM imported WHERE series_id = $1"

LEVELS = "SELECT level, timeframe FROM preaggregation_configs ORDER BY level DESC"

_READ = f"read_retained({_NAMES}, $8::smallint[], $9::bigint[], $10::bigint[])"
SNAPSHOT = f"SELECT * FROM {_READ}"


def _made_bars(first: int) -> str:
    """Return the call whose arguments begin with the parameter *first*."""
    kinds = ["text"] * 7 + ["integer"] * 2 + ["bigint"] * 3
    return f"made_bars({', '.join(f'${n}::{kind}[]' for n, kind in enumerate(kinds, first))})"


MADE = f"SELECT m.*, {retained_from('m.id')} FROM {_made_bars(1)} m"

# Three statements, because each half costs a tenth of a millisecond where nothing is asked of it,
# and several with TimescaleDB, which plans them for the times at hand.
SNAPSHOT_AND_MADE = f"""
    SELECT 1 AS half, r.* FROM {_READ} WITH ORDINALITY r
    UNION ALL
    SELECT 2, m.id, m.minutes_from, m.position, m.generation, m.known, m.time, m.prices, m.volumes,
           m.trades, m.marks, m.updated, {retained_from("m.id")}, NULL, m.ordinality
    FROM {_made_bars(11)} WITH ORDINALITY m
    ORDER BY half, ordinality
"""

CHANGES = """
    SELECT s.position AS head, greatest(s.position - change_log_length(), 0) AS pruned,
           c.positions, c.since, c.until
    FROM series s
    LEFT JOIN LATERAL (
        SELECT array_agg(l.position) AS positions,
               array_agg((extract(epoch FROM l.since) * 1000)::bigint) AS since,
               array_agg((extract(epoch FROM l.until) * 1000)::bigint) AS until
        FROM (
            SELECT * FROM change
            WHERE change.series_id = s.id AND change.position > $2
            ORDER BY change.position LIMIT $3
        ) l
    ) c ON true
    WHERE s.id = $1
"""

MERGE = """
    SELECT * FROM write_bars($1::integer[], $2::integer[], $3::bigint[], $4::bigint[],
                             $5::bigint[], $6::integer[], $7::bigint[], $8::bigint[])
"""

# The columns of `read_bars`.
STORED_AT = """
    SELECT array_send(array_agg(b."timestamp")) AS time,
           array_send(array_agg(lseg(point(b.open, b.high), point(b.low, b.close)))) AS prices,
           array_send(array_agg(point(b.volume, coalesce(b.vwap, 'NaN')))) AS volumes,
           array_send(array_agg(coalesce(b.trades, -1))) AS trades,
           array_send(array_agg(8 * b.revision::bigint + b.source)) AS marks,
           array_send(array_agg(b.updated_at)) AS updated
    FROM (
        SELECT bar.* FROM unnest($2::bigint[]) u(at)
        JOIN bar ON bar.series_id = $1 AND bar."timestamp" = from_epoch_ms(u.at)
        WHERE NOT bar.void
        ORDER BY bar."timestamp"
    ) b
"""
