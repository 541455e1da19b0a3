-- The aggregates without TimescaleDB: one table of all levels, kept exact by the writers.
--
-- A mode of the store gives two things under these names: the relation rollup, and the function
-- roll_up, which write_bars calls while it holds the locks of the series it changed.

CREATE TABLE rollup (
    "timestamp" timestamptz NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    turnover double precision,
    trades bigint,
    updated_at timestamptz NOT NULL,
    revision bigint NOT NULL,
    series_id integer NOT NULL,
    level smallint NOT NULL,
    void boolean NOT NULL,
    PRIMARY KEY (series_id, level, "timestamp"),
    CHECK (void OR num_nulls(open, high, low, close, volume) = 0)
) WITH (fillfactor = 80);
COMMENT ON COLUMN rollup.turnover IS
    'sum of volume x vwap; null where a minute with volume has no vwap';
COMMENT ON COLUMN rollup.void IS 'no minute is left; the revision still counts';

-- Recompute the buckets that hold a row of the temporary table changed, for the series *ids*: those
-- of them whose minutes have aggregates.
--
-- Each level reads only the rows of the level below inside the touched buckets, in the order of
-- the primary key, so that the first and the last element of an aggregated array are the opening
-- and the closing price without a sort. Plans are kept across calls of every size; whatever is not
-- an index lookup is switched off, or a plan made while the tables were small would scan them.
CREATE FUNCTION roll_up(ids integer[]) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    -- A Monday; earlier than any bar, since date_bin misplaces times before its origin.
    monday CONSTANT timestamptz := '0001-01-01 00:00:00+00';
    rung preaggregation_configs;
BEGIN
    FOR rung IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        IF rung.computed_from IS NULL THEN
            INSERT INTO touched (level, series_id, "timestamp")
            SELECT DISTINCT rung.level, c.series_id, date_bin(rung.bucket, c."timestamp", monday)
            FROM changed c WHERE c.series_id = ANY (ids);
            IF NOT FOUND THEN
                RETURN;
            END IF;

            INSERT INTO rollup AS r (series_id, level, "timestamp", open, high, low, close, volume,
                                     turnover, trades, revision, updated_at, void)
            SELECT t.series_id, t.level, t."timestamp", f.*
            FROM touched t CROSS JOIN LATERAL (
                SELECT (array_agg(b.open) FILTER (WHERE NOT b.void))[1],
                       max(b.high) FILTER (WHERE NOT b.void),
                       min(b.low) FILTER (WHERE NOT b.void),
                       (array_agg(b.close) FILTER (WHERE NOT b.void))[
                           count(*) FILTER (WHERE NOT b.void)],
                       sum(b.volume) FILTER (WHERE NOT b.void),
                       CASE WHEN bool_or(b.vwap IS NULL AND b.volume > 0 AND NOT b.void) THEN NULL
                            ELSE coalesce(sum(b.volume * b.vwap) FILTER (WHERE NOT b.void), 0) END,
                       CASE WHEN bool_or(b.trades IS NULL AND NOT b.void) THEN NULL
                            ELSE (sum(b.trades) FILTER (WHERE NOT b.void))::bigint END,
                       sum(b.revision),
                       max(b.updated_at),
                       bool_and(b.void)
                FROM (
                    SELECT * FROM bar
                    WHERE bar.series_id = t.series_id AND bar."timestamp" >= t."timestamp"
                      AND bar."timestamp" < t."timestamp" + rung.bucket
                    ORDER BY bar."timestamp"
                ) b
            ) f
            ON CONFLICT (series_id, level, "timestamp") DO UPDATE SET
                open = excluded.open, high = excluded.high, low = excluded.low,
                close = excluded.close, volume = excluded.volume, turnover = excluded.turnover,
                trades = excluded.trades, revision = excluded.revision,
                updated_at = excluded.updated_at, void = excluded.void;
        ELSE
            INSERT INTO touched (level, series_id, "timestamp")
            SELECT DISTINCT rung.level, t.series_id,
                   CASE WHEN rung.calendar_unit IS NULL
                        THEN date_bin(rung.bucket, t."timestamp", monday)
                        ELSE date_trunc(rung.calendar_unit, t."timestamp", 'UTC') END
            FROM touched t WHERE t.level = rung.computed_from;

            INSERT INTO rollup AS r (series_id, level, "timestamp", open, high, low, close, volume,
                                     turnover, trades, revision, updated_at, void)
            SELECT t.series_id, t.level, t."timestamp", f.*
            FROM touched t CROSS JOIN LATERAL (
                SELECT (array_agg(b.open) FILTER (WHERE NOT b.void))[1],
                       max(b.high) FILTER (WHERE NOT b.void),
                       min(b.low) FILTER (WHERE NOT b.void),
                       (array_agg(b.close) FILTER (WHERE NOT b.void))[
                           count(*) FILTER (WHERE NOT b.void)],
                       sum(b.volume) FILTER (WHERE NOT b.void),
                       CASE WHEN bool_or(b.turnover IS NULL AND NOT b.void) THEN NULL
                            ELSE sum(b.turnover) FILTER (WHERE NOT b.void) END,
                       CASE WHEN bool_or(b.trades IS NULL AND NOT b.void) THEN NULL
                            ELSE (sum(b.trades) FILTER (WHERE NOT b.void))::bigint END,
                       sum(b.revision)::bigint,
                       max(b.updated_at),
                       bool_and(b.void)
                FROM (
                    SELECT * FROM rollup
                    WHERE rollup.series_id = t.series_id AND rollup.level = rung.computed_from
                      AND rollup."timestamp" >= t."timestamp"
                      AND rollup."timestamp" < t."timestamp" + rung.bucket
                    ORDER BY rollup."timestamp"
                ) b
            ) f
            WHERE t.level = rung.level
            ON CONFLICT (series_id, level, "timestamp") DO UPDATE SET
                open = excluded.open, high = excluded.high, low = excluded.low,
                close = excluded.close, volume = excluded.volume, turnover = excluded.turnover,
                trades = excluded.trades, revision = excluded.revision,
                updated_at = excluded.updated_at, void = excluded.void;
        END IF;
    END LOOP;
END
$$;
