-- The aggregates with TimescaleDB: bars in a hypertable, nine continuous aggregates above it.
--
-- A mode of the store gives two things under these names: the relation rollup, and the function
-- roll_up, which write_bars calls while it holds the locks of the series it changed. Here roll_up
-- computes nothing: it notes in the table stale what the aggregates may say wrongly from now on.
-- Whoever reads takes those buckets from finer bars, until a refresh has caught up.

CREATE EXTENSION IF NOT EXISTS timescaledb;

-- An aggregate cannot ask the table series which bars are minutes that trade around the clock.
-- The sum over a year of values up to 1e302 is finite: no write may make a refresh fail.
ALTER TABLE bar
    ADD COLUMN rolled_up boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT rolled_up OR volume <= 1e302),
    ADD CHECK (NOT rolled_up OR vwap IS NULL OR abs(volume * vwap) <= 1e302);
COMMENT ON COLUMN bar.rolled_up IS 'whether the aggregates are made of it';

SELECT create_hypertable('bar', by_range('timestamp', interval '28 days'),
                         create_default_indexes => false);
ALTER TABLE bar SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'series_id',
    timescaledb.orderby = '"timestamp"'
);
CALL add_columnstore_policy('bar', after => interval '60 days');

ALTER TABLE preaggregation_configs
    ADD COLUMN continuous_aggregate name UNIQUE,
    ADD COLUMN materialization_id integer UNIQUE,
    ADD COLUMN at_once interval;
COMMENT ON COLUMN preaggregation_configs.materialization_id IS 'TimescaleDB''s id of its table';
COMMENT ON COLUMN preaggregation_configs.at_once IS 'how much one refresh goes through at most';

-- Ranges of minutes that were written below the safe line and not refreshed since. Append-only,
-- and without a key over its content: each writer must leave a mark of its own, or a refresh that
-- ran before its commit would take the mark of another for its.
CREATE TABLE stale (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id integer NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON stale (series_id);

-- Writers mark what lies below it. Refreshes end an hour before it, so that none can overtake a
-- transaction that is under way, if that takes less than an hour.
CREATE FUNCTION safe_line() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN now() - interval '1 hour';

CREATE FUNCTION refresh_line() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN now() - interval '2 hours';

-- One row of an aggregate.
CREATE TYPE rolled AS (
    "timestamp" timestamptz, open double precision, high double precision, low double precision,
    close double precision, volume double precision, turnover double precision, trades bigint,
    updated_at timestamptz, revision bigint, void boolean
);

-- Where the bucket of *rung* around a time opens. The origin is a Monday, earlier than any bar.
CREATE FUNCTION bucket_opening(rung preaggregation_configs, moment timestamptz)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN (rung).calendar_unit IS NULL
    THEN date_bin((rung).bucket, moment, '0001-01-01 00:00:00+00')
    ELSE date_trunc((rung).calendar_unit, moment, 'UTC') END;

-- Where the first bucket of *rung* opens that does so at a time or later.
CREATE FUNCTION next_opening(rung preaggregation_configs, moment timestamptz)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET timezone = 'UTC'
RETURN CASE
    WHEN bucket_opening(rung, moment) = moment THEN moment
    ELSE bucket_opening(rung, moment) + (rung).bucket END;

DO $create$
DECLARE
    rung preaggregation_configs;
    finer name := 'bar';
    names name[] := '{rollup_5m,rollup_15m,rollup_30m,rollup_1h,rollup_4h,rollup_1d,rollup_1w,'
                    'rollup_1mon,rollup_1y}';
    -- Few large chunks: every read goes through the primary order (series, time) anyway.
    chunks text[] := '{364 days,364 days,364 days,3640 days,3640 days,36400 days,36400 days,'
                     '36400 days,36400 days}';
    steps interval[] := '{28 days,28 days,84 days,364 days,364 days,36400 days,36400 days,'
                        '100 years,100 years}';
    -- Buckets a policy refreshes in one transaction; 0: all of them.
    batches integer[] := '{8064,2688,2688,8736,2184,0,0,0,0}';
    every interval[] := '{30 minutes,30 minutes,30 minutes,30 minutes,1 hour,1 hour,1 hour,'
                        '1 hour,1 hour}';
BEGIN
    FOR rung IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        IF rung.computed_from IS NOT NULL THEN
            finer := names[rung.computed_from];
        END IF;
        EXECUTE format(
            $view$
                CREATE MATERIALIZED VIEW %I WITH (
                    timescaledb.continuous, timescaledb.materialized_only = false,
                    timescaledb.chunk_interval = %L
                ) AS
                SELECT series_id, time_bucket(%L::interval, "timestamp") AS "timestamp",
                       first(open, "timestamp") FILTER (WHERE NOT void) AS open,
                       max(high) FILTER (WHERE NOT void) AS high,
                       min(low) FILTER (WHERE NOT void) AS low,
                       last(close, "timestamp") FILTER (WHERE NOT void) AS close,
                       sum(volume) FILTER (WHERE NOT void) AS volume,
                       %s AS turnover,
                       CASE WHEN bool_or(trades IS NULL AND NOT void) THEN NULL
                            ELSE (sum(trades) FILTER (WHERE NOT void))::bigint END AS trades,
                       max(updated_at) AS updated_at,
                       sum(revision)::bigint AS revision,
                       bool_and(void) AS void
                FROM %I %s
                GROUP BY series_id, 2
                WITH NO DATA
            $view$,
            names[rung.level], chunks[rung.level],
            -- A week begins on Monday: the origin of time_bucket is one.
            CASE rung.timeframe WHEN '1d' THEN '1 day' WHEN '1w' THEN '7 days'
                 ELSE rung.bucket::text END,
            CASE WHEN rung.computed_from IS NULL
                 THEN 'CASE WHEN bool_or(vwap IS NULL AND volume > 0 AND NOT void) THEN NULL
                            ELSE coalesce(sum(volume * vwap) FILTER (WHERE NOT void), 0) END'
                 ELSE 'CASE WHEN bool_or(turnover IS NULL AND NOT void) THEN NULL
                            ELSE sum(turnover) FILTER (WHERE NOT void) END' END,
            finer,
            CASE WHEN rung.computed_from IS NULL THEN 'WHERE rolled_up' END
        );
        -- Oldest first and without a lower end: below its watermark an aggregate is taken at its
        -- word, so nothing older may be left behind when the watermark moves.
        PERFORM add_continuous_aggregate_policy(
            names[rung.level]::regclass, start_offset => NULL::interval,
            end_offset => interval '2 hours', schedule_interval => every[rung.level],
            buckets_per_batch => batches[rung.level], refresh_newest_first => false
        );
        UPDATE preaggregation_configs SET
            continuous_aggregate = names[rung.level],
            at_once = steps[rung.level],
            materialization_id = (
                SELECT mat_hypertable_id FROM _timescaledb_catalog.continuous_agg
                WHERE user_view_name = names[rung.level] AND user_view_schema = current_schema()
            )
        WHERE level = rung.level;
    END LOOP;
END
$create$;

-- Up to where each aggregate is materialized, as the same snapshot sees it that sees its rows.
--
-- Not cagg_watermark(): that takes a snapshot of its own, which may be newer than the reader's.
CREATE VIEW materialized AS
SELECT p.level, CASE WHEN w.until < '0001-01-01 00:00:00+00' THEN '-infinity' ELSE w.until END
       AS until
FROM preaggregation_configs p
JOIN (
    SELECT mat_hypertable_id, _timescaledb_functions.to_timestamp(watermark) AS until
    FROM _timescaledb_catalog.continuous_aggs_watermark
) w ON w.mat_hypertable_id = p.materialization_id;

-- Generated, because plpgsql keeps plans only for tables it can name: rolled_bars returns the
-- buckets of an aggregate of one series that open in a window, oldest first; true at any moment.
--
-- What is materialized and bears no mark is read as it is. The rest is made of the next finer
-- aggregate by the same function, or straight of the minutes where that is little.
DO $generate$
DECLARE
    kept text;
BEGIN
    SELECT string_agg(format(
        $branch$
            WHEN %s THEN RETURN QUERY
                SELECT m."timestamp", m.open, m.high, m.low, m.close, m.volume, m.turnover,
                       m.trades, m.updated_at, m.revision, m.void
                FROM %I.%I m
                WHERE m.series_id = id AND m."timestamp" >= lower(piece.span)
                  AND m."timestamp" < upper(piece.span)
                ORDER BY m."timestamp";
        $branch$, p.level, h.schema_name, h.table_name
    ), '' ORDER BY p.level) INTO kept
    FROM preaggregation_configs p
    JOIN _timescaledb_catalog.hypertable h ON h.id = p.materialization_id;

    EXECUTE format(
        $function$
            CREATE FUNCTION rolled_bars(
                id integer, wanted smallint, since timestamptz, until timestamptz
            ) RETURNS SETOF rolled
            LANGUAGE plpgsql STABLE
            SET timezone = 'UTC'
            SET plan_cache_mode = force_generic_plan
            SET enable_seqscan = off
            SET enable_bitmapscan = off
            SET enable_hashjoin = off
            SET enable_mergejoin = off
            AS $body$
            #variable_conflict use_variable
            DECLARE
                rung preaggregation_configs;
                whole tstzmultirange;
                doubtful tstzmultirange;
                piece record;
            BEGIN
                SELECT * INTO STRICT rung FROM preaggregation_configs p WHERE p.level = wanted;
                whole := tstzmultirange(tstzrange(
                    next_opening(rung, since), next_opening(rung, until)));
                SELECT whole * (
                    tstzmultirange(tstzrange(
                        (SELECT m.until FROM materialized m WHERE m.level = wanted), NULL))
                    + coalesce((
                        SELECT range_agg(tstzrange(
                            bucket_opening(rung, s.since), next_opening(rung, s.until)))
                        FROM stale s WHERE s.series_id = id
                    ), '{}')
                ) INTO doubtful;
                FOR piece IN
                    SELECT u.span, false AS doubted FROM unnest(whole - doubtful) u(span)
                    UNION ALL SELECT u.span, true FROM unnest(doubtful) u(span)
                    ORDER BY 1
                LOOP
                    IF piece.doubted THEN
                        IF rung.computed_from IS NULL
                           OR upper(piece.span) - lower(piece.span) <= interval '12 hours' THEN
                            RETURN QUERY SELECT * FROM rolled_minutes(
                                id, rung, lower(piece.span), upper(piece.span));
                        ELSE
                            RETURN QUERY
                            SELECT bucket_opening(rung, r."timestamp"),
                                   first(r.open, r."timestamp") FILTER (WHERE NOT r.void),
                                   max(r.high) FILTER (WHERE NOT r.void),
                                   min(r.low) FILTER (WHERE NOT r.void),
                                   last(r.close, r."timestamp") FILTER (WHERE NOT r.void),
                                   sum(r.volume) FILTER (WHERE NOT r.void),
                                   CASE WHEN bool_or(r.turnover IS NULL AND NOT r.void) THEN NULL
                                        ELSE sum(r.turnover) FILTER (WHERE NOT r.void) END,
                                   CASE WHEN bool_or(r.trades IS NULL AND NOT r.void) THEN NULL
                                        ELSE (sum(r.trades) FILTER (WHERE NOT r.void))::bigint END,
                                   max(r.updated_at), sum(r.revision)::bigint, bool_and(r.void)
                            FROM rolled_bars(
                                id, rung.computed_from, lower(piece.span), upper(piece.span)) r
                            GROUP BY 1 ORDER BY 1;
                        END IF;
                    ELSE
                        CASE wanted %s END CASE;
                    END IF;
                END LOOP;
            END
            $body$
        $function$, kept
    );
END
$generate$;

-- The buckets of *rung* made of the minutes of one series in [since, until), both of them openings.
CREATE FUNCTION rolled_minutes(
    id integer, rung preaggregation_configs, since timestamptz, until timestamptz
) RETURNS SETOF rolled
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- EXECUTE plans for these very times, and so for the chunks that they lie in.
    RETURN QUERY EXECUTE $query$
        SELECT bucket_opening($4, b."timestamp"),
               first(b.open, b."timestamp") FILTER (WHERE NOT b.void),
               max(b.high) FILTER (WHERE NOT b.void),
               min(b.low) FILTER (WHERE NOT b.void),
               last(b.close, b."timestamp") FILTER (WHERE NOT b.void),
               sum(b.volume) FILTER (WHERE NOT b.void),
               CASE WHEN bool_or(b.vwap IS NULL AND b.volume > 0 AND NOT b.void) THEN NULL
                    ELSE coalesce(sum(b.volume * b.vwap) FILTER (WHERE NOT b.void), 0) END,
               CASE WHEN bool_or(b.trades IS NULL AND NOT b.void) THEN NULL
                    ELSE (sum(b.trades) FILTER (WHERE NOT b.void))::bigint END,
               max(b.updated_at), sum(b.revision)::bigint, bool_and(b.void)
        FROM bar b
        WHERE b.series_id = $1 AND b."timestamp" >= $2 AND b."timestamp" < $3 AND b.rolled_up
        GROUP BY 1 ORDER BY 1
    $query$ USING id, since, until, rung;
END
$$;

-- What anyone can query of the aggregates: where no mark lies, TimescaleDB's real-time views.
DO $create$
DECLARE
    parts text;
BEGIN
    SELECT string_agg(format(
        $part$
            SELECT r.series_id, %1$s::smallint AS level, r."timestamp", r.open, r.high, r.low,
                   r.close, r.volume, r.turnover, r.trades, r.updated_at, r.revision, r.void
            FROM %2$I r
            WHERE NOT EXISTS (
                SELECT FROM stale s
                WHERE s.series_id = r.series_id AND r."timestamp" < s.until
                  AND bucket_opening(
                      (SELECT p FROM preaggregation_configs p WHERE p.level = %1$s), s.since
                  ) <= r."timestamp"
            )
            UNION ALL
            SELECT s.series_id, %1$s::smallint, f.*
            FROM (
                SELECT s.series_id, unnest(range_agg(tstzrange(
                           bucket_opening(p, s.since), next_opening(p, s.until)))) AS span
                FROM stale s JOIN preaggregation_configs p ON p.level = %1$s
                GROUP BY s.series_id
            ) s
            CROSS JOIN LATERAL rolled_bars(
                s.series_id, %1$s::smallint, lower(s.span), upper(s.span)
            ) f
        $part$, level, continuous_aggregate
    ), ' UNION ALL ' ORDER BY level) INTO parts
    FROM preaggregation_configs;
    EXECUTE 'CREATE VIEW rollup AS ' || parts;
END
$create$;

-- Mark what of the temporary table changed lies below the safe line, for the series *ids*: one
-- mark for changes that are at most a day apart.
CREATE FUNCTION roll_up(ids integer[]) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
BEGIN
    WITH days AS (
        SELECT c.series_id, date_bin('1 day', c."timestamp", '0001-01-01 00:00:00+00') AS day,
               min(c."timestamp") AS first, max(c."timestamp") AS last
        FROM changed c
        WHERE c.series_id = ANY (ids) AND c."timestamp" < safe_line()
        GROUP BY 1, 2
    ), apart AS (
        SELECT *, coalesce(first - lag(last) OVER ascending > interval '1 day', true)::integer
                  AS begins
        FROM days WINDOW ascending AS (PARTITION BY series_id ORDER BY day)
    ), numbered AS (
        SELECT *, sum(begins) OVER (PARTITION BY series_id ORDER BY day) AS nth FROM apart
    )
    INSERT INTO stale (series_id, since, until)
    SELECT series_id, min(first), max(last) + interval '1 minute'
    FROM numbered GROUP BY series_id, nth;
    IF FOUND THEN
        PERFORM pg_notify('bargraph_stale', '');
    END IF;
END
$$;
