-- Trades as they were told, and for which time that was all of them.

CREATE TABLE raw_trades (
    "timestamp" timestamptz NOT NULL,
    price double precision NOT NULL,
    amount double precision NOT NULL,
    series_id integer NOT NULL,
    trade_id text COLLATE "C" NOT NULL,
    -- What is told twice has the same key, so that telling it again changes nothing.
    PRIMARY KEY (series_id, "timestamp", trade_id),
    -- PostgreSQL sorts NaN above Infinity, so these refuse NaN too.
    CHECK (price > '-Infinity' AND price < 'Infinity'),
    CHECK (amount >= 0 AND amount < 'Infinity')
);
COMMENT ON TABLE raw_trades IS 'the trades behind the minutes of a series';
COMMENT ON COLUMN raw_trades.series_id IS 'the series of minutes that are built from them';
COMMENT ON COLUMN raw_trades.trade_id IS
    'the venue''s; of trades of one instant the shorter comes first, then the smaller';

CREATE TABLE trades_told (
    series_id integer PRIMARY KEY,
    told tstzmultirange NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN trades_told.told IS
    'time whose trades were told without a hole; written under the lock of the series';

-- Microseconds, so that what is told within one millisecond still follows each other.
CREATE FUNCTION from_epoch_us(us bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN timestamptz '1970-01-01 00:00:00+00' + us * interval '1 microsecond';

-- The temporary table through which trades go that may be stored already; empty after every commit.
CREATE FUNCTION open_trade_staging() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.incoming_trades') IS NULL THEN
        CREATE TEMPORARY TABLE incoming_trades (LIKE raw_trades) ON COMMIT DELETE ROWS;
    END IF;
END
$$;

-- The trades of each window [sinces[n], untils[n]) (ms) of a series as columns, in order: by time,
-- of one instant by id. Columns are the bytes of array_send, a point is price and amount; null
-- where there is no trade.
--
-- Each window is one scan of the primary key. Planned for the times at hand, so that of a table in
-- chunks all others are left out before it begins.
CREATE FUNCTION trades_of(ids integer[], sinces bigint[], untils bigint[]) RETURNS TABLE (
    n bigint, "time" bytea, traded bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE $read$
        SELECT w.n, c.*
        FROM unnest($1, $2, $3) WITH ORDINALITY w(id, since, until, n)
        CROSS JOIN LATERAL (
            SELECT array_send(array_agg(t."timestamp")),
                   array_send(array_agg(point(t.price, t.amount)))
            FROM (
                SELECT r."timestamp", r.price, r.amount FROM raw_trades r
                WHERE r.series_id = w.id
                  AND r."timestamp" >= from_epoch_ms(w.since)
                  AND r."timestamp" < from_epoch_ms(w.until)
                  AND r."timestamp" >= $4 AND r."timestamp" < $5
                ORDER BY r."timestamp", length(r.trade_id), r.trade_id
            ) t
        ) c
        ORDER BY w.n
    $read$ USING ids, sinces, untils, (SELECT from_epoch_ms(min(since)) FROM unnest(sinces) since),
                 (SELECT from_epoch_ms(max(until)) FROM unnest(untils) until);
END
$$;

-- Delete the trades of all minutes before *edge*, for whoever does not want to keep them. Their bars
-- stay, and what comes late of that time is kept without revising them.
CREATE FUNCTION forget_trades(edge timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    edge := date_trunc('minute', edge);
    PERFORM FROM series WHERE id IN (SELECT series_id FROM trades_told)
    ORDER BY id FOR NO KEY UPDATE;
    UPDATE trades_told SET told = told - tstzmultirange(tstzrange(NULL, edge))
    WHERE told && tstzrange(NULL, edge);
    DELETE FROM raw_trades WHERE "timestamp" < edge;
END
$$;
