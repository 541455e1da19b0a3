-- Writing and reading bars in a hypertable: the functions of 0004 and 0006, chunk by chunk.
--
-- They do the same. What differs is how: statements are planned for the times at hand, because
-- PostgreSQL then leaves out all other chunks before it begins; and bars in compressed chunks are
-- only touched where something changes, because touching unpacks them.

-- What one slice of a write was found to be, for one series, in order of time.
CREATE TYPE judged AS (
    series_id integer, verdicts smallint[], revisions integer[], updates timestamptz[]
);

CREATE AGGREGATE array_concat(anycompatiblearray) (
    sfunc = array_cat, stype = anycompatiblearray
);

-- Let the next statements match *n* rows with the bars of *own* from *first* to *last*: by reading
-- these bars once if there are not many more, and else one by one.
--
-- The planner knows nothing of a temporary table filled just now, and PostgreSQL would do the first
-- with a loop in a loop. In a compressed chunk each row looked up by itself unpacks a thousand.
CREATE FUNCTION join_by_hash(n bigint, own integer[], first timestamptz, last timestamptz)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    minutes double precision := extract(epoch FROM last - first) / 60 + 1;
    once boolean := n > 100 AND cardinality(own) * minutes <= 50 * n;
BEGIN
    PERFORM set_config('enable_hashjoin', CASE WHEN once THEN 'on' ELSE 'off' END, true);
    PERFORM set_config('enable_nestloop', CASE WHEN once THEN 'off' ELSE 'on' END, true);
END
$$;

-- Merge the temporary table incoming into the bars of *ids*; see 0004 for what that means.
CREATE OR REPLACE FUNCTION write_bars(
    ids integer[],
    covered_ids integer[], covered_since bigint[], covered_until bigint[],
    covered_observed bigint[],
    settled_ids integer[], settled_since bigint[], settled_until bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    positions bigint[], since bigint[], until bigint[],
    verdicts bytea, revisions bytea, updates bytea
)
LANGUAGE plpgsql
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_nestloop = on
SET jit = off
-- How much a correction unpacks is bounded by the write itself.
SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0
AS $$
#variable_conflict use_column
DECLARE
    before bigint[];
    rolled_up integer[];
    answered judged[] := '{}';
    slice record;
    found record;
    withdrawn record;
BEGIN
    -- First of all, and in this order: no two writers can wait for each other, and every later
    -- statement sees all that earlier holders committed.
    SELECT array_agg(s.position ORDER BY s.id),
           array_agg(s.id) FILTER (WHERE s.around_the_clock AND s.timeframe = '1m')
    INTO before, rolled_up
    FROM (SELECT * FROM series WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE) s;
    IF cardinality(before) IS DISTINCT FROM cardinality(ids) THEN
        RAISE EXCEPTION 'a series to write to does not exist' USING ERRCODE = 'no_data_found';
    END IF;

    FOR slice IN
        SELECT array_agg(DISTINCT i.series_id) AS own, min(i."timestamp") AS first,
               max(i."timestamp") AS last, count(*) AS n
        FROM incoming i
        -- The chunks of bar; a Thursday, as 1970-01-01 is.
        GROUP BY date_bin('28 days', i."timestamp", '0001-01-18 00:00:00+00')
        ORDER BY 2
    LOOP
        PERFORM join_by_hash(slice.n, slice.own, slice.first, slice.last);
        EXECUTE $judge$
            WITH judged AS MATERIALIZED (
                SELECT i.n, i.series_id, i."timestamp", i.open, i.high, i.low, i.close, i.volume,
                       v.vwap, v.trades, i.observed_at, i.updated_at, i.source,
                       b.revision AS stored_revision, b.updated_at AS stored_updated_at,
                       i.observed_at > b.observed_at AS later,
                       (CASE
                           WHEN b.series_id IS NULL THEN 0
                           WHEN (b.void, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades)
                                IS NOT DISTINCT FROM
                                (false, i.open, i.high, i.low, i.close, i.volume, v.vwap, v.trades)
                                THEN 2
                           WHEN i.observed_at < b.observed_at THEN 3
                           ELSE 1
                       END)::smallint AS verdict
                FROM incoming i
                CROSS JOIN LATERAL (
                    SELECT nullif(i.vwap, 'NaN'), nullif(i.trades, -1)
                ) v(vwap, trades)
                LEFT JOIN bar b ON b.series_id = i.series_id AND b."timestamp" = i."timestamp"
                     AND b."timestamp" BETWEEN $1 AND $2 AND b.series_id = ANY ($3)
                WHERE i."timestamp" BETWEEN $1 AND $2
            ), added AS (
                INSERT INTO bar (series_id, "timestamp", open, high, low, close, volume, vwap,
                                 trades, observed_at, updated_at, source, revision, rolled_up)
                SELECT series_id, "timestamp", open, high, low, close, volume, vwap, trades,
                       observed_at, updated_at, source, 1,
                       series_id = ANY (coalesce($4, '{}'))
                FROM judged WHERE verdict = 0
            ), noted AS (
                INSERT INTO changed (series_id, "timestamp")
                SELECT series_id, "timestamp" FROM judged WHERE verdict IN (0, 1)
            ), columns AS (
                SELECT series_id,
                       array_agg(verdict) AS verdicts,
                       array_agg(CASE verdict WHEN 0 THEN 1 WHEN 1 THEN stored_revision + 1
                                              ELSE stored_revision END) AS revisions,
                       array_agg(CASE WHEN verdict IN (0, 1) THEN updated_at
                                      ELSE stored_updated_at END) AS updates,
                       count(*) FILTER (WHERE touches) AS n,
                       min("timestamp") FILTER (WHERE touches) AS first,
                       max("timestamp") FILTER (WHERE touches) AS last,
                       bool_or(verdict = 1) AS differs, bool_or(verdict = 2 AND later) AS later
                FROM (
                    SELECT *, verdict = 1 OR verdict = 2 AND later AS touches
                    FROM judged ORDER BY series_id, n
                ) j
                GROUP BY series_id
            )
            SELECT array_agg(ROW(series_id, verdicts, revisions, updates)::judged) AS columns,
                   array_agg(series_id) FILTER (WHERE first IS NOT NULL) AS own,
                   sum(n)::bigint AS n, min(first) AS first, max(last) AS last,
                   bool_or(differs) AS differs, bool_or(later) AS later
            FROM columns
        $judge$ INTO found USING slice.first, slice.last, slice.own, rolled_up;
        answered := answered || found.columns;

        -- By now all of it is stored; what was added equals what came and is not later.
        IF found.differs OR found.later THEN
            PERFORM join_by_hash(found.n, found.own, found.first, found.last);
        END IF;
        IF found.differs THEN
            EXECUTE $replace$
                UPDATE bar b SET
                    open = i.open, high = i.high, low = i.low, close = i.close,
                    volume = i.volume, vwap = nullif(i.vwap, 'NaN'),
                    trades = nullif(i.trades, -1), observed_at = i.observed_at,
                    updated_at = i.updated_at, source = i.source, revision = b.revision + 1,
                    void = false
                FROM incoming i
                WHERE b."timestamp" BETWEEN $1 AND $2 AND b.series_id = ANY ($3)
                  AND b.series_id = i.series_id AND b."timestamp" = i."timestamp"
                  AND i.observed_at >= b.observed_at
                  AND (b.void, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades)
                      IS DISTINCT FROM
                      (false, i.open, i.high, i.low, i.close, i.volume,
                       nullif(i.vwap, 'NaN'), nullif(i.trades, -1))
            $replace$ USING found.first, found.last, found.own;
        END IF;
        IF found.later THEN
            EXECUTE $confirm$
                UPDATE bar b SET observed_at = i.observed_at
                FROM incoming i
                WHERE b."timestamp" BETWEEN $1 AND $2 AND b.series_id = ANY ($3)
                  AND b.series_id = i.series_id AND b."timestamp" = i."timestamp"
                  AND i.observed_at > b.observed_at
                  AND (b.void, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades)
                      IS NOT DISTINCT FROM
                      (false, i.open, i.high, i.low, i.close, i.volume,
                       nullif(i.vwap, 'NaN'), nullif(i.trades, -1))
            $confirm$ USING found.first, found.last, found.own;
        END IF;
    END LOOP;

    IF cardinality(covered_ids) > 0 THEN
        -- What came just now has observed_at of the write or later; what is earlier was absent.
        EXECUTE $absent$
            SELECT min(b."timestamp") AS first, max(b."timestamp") AS last, count(*) AS n,
                   array_agg(DISTINCT b.series_id) AS own
            FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
                 c(id, since, until, observed)
            JOIN bar b ON b.series_id = c.id AND b."timestamp" >= from_epoch_ms(c.since)
                 AND b."timestamp" < from_epoch_ms(c.until)
                 AND b.observed_at < from_epoch_ms(c.observed)
            WHERE b."timestamp" >= $5 AND b."timestamp" < $6 AND b.series_id = ANY ($1)
        $absent$ INTO withdrawn
        USING covered_ids, covered_since, covered_until, covered_observed,
              from_epoch_ms((SELECT min(s) FROM unnest(covered_since) s)),
              from_epoch_ms((SELECT max(u) FROM unnest(covered_until) u));
        IF withdrawn.own IS NOT NULL THEN
            PERFORM join_by_hash(
                withdrawn.n, withdrawn.own, withdrawn.first, withdrawn.last);
            EXECUTE $withdraw$
                WITH withdrawn AS (
                    UPDATE bar b SET
                        void = true, revision = b.revision + (NOT b.void)::integer,
                        observed_at = c.observed_at,
                        updated_at = CASE WHEN b.void THEN b.updated_at
                                          ELSE greatest(b.updated_at, c.observed_at) END
                    FROM (
                        SELECT o.series_id, o."timestamp", o.void,
                               from_epoch_ms(c.observed) AS observed_at
                        FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[])
                             c(id, since, until, observed)
                        JOIN bar o ON o.series_id = c.id
                             AND o."timestamp" >= from_epoch_ms(c.since)
                             AND o."timestamp" < from_epoch_ms(c.until)
                             AND o.observed_at < from_epoch_ms(c.observed)
                        WHERE o."timestamp" BETWEEN $5 AND $6 AND o.series_id = ANY ($7)
                    ) c
                    WHERE b."timestamp" BETWEEN $5 AND $6 AND b.series_id = ANY ($7)
                      AND b.series_id = c.series_id AND b."timestamp" = c."timestamp"
                    RETURNING b.series_id, b."timestamp", c.void
                )
                INSERT INTO changed (series_id, "timestamp")
                SELECT series_id, "timestamp" FROM withdrawn WHERE NOT void
            $withdraw$
            USING covered_ids, covered_since, covered_until, covered_observed,
                  withdrawn.first, withdrawn.last, withdrawn.own;
        END IF;
    END IF;

    PERFORM set_config('enable_hashjoin', 'off', true), set_config('enable_nestloop', 'on', true);
    PERFORM roll_up(rolled_up);
    PERFORM log_changes(ids, settled_ids, settled_since, settled_until);

    RETURN QUERY
    SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint, s.position, s.generation,
           multirange_send(s.known), l.positions, l.since, l.until,
           a.verdicts, a.revisions, a.updates
    FROM unnest(ids, before) w(id, position)
    JOIN series s ON s.id = w.id
    LEFT JOIN (
        SELECT j.series_id AS id, array_send(array_concat(j.verdicts ORDER BY nth)) AS verdicts,
               array_send(array_concat(j.revisions ORDER BY nth)) AS revisions,
               array_send(array_concat(j.updates ORDER BY nth)) AS updates
        FROM unnest(answered) WITH ORDINALITY
             j(series_id, verdicts, revisions, updates, nth)
        GROUP BY j.series_id
    ) a ON a.id = w.id
    LEFT JOIN LATERAL (
        SELECT array_agg(c.position ORDER BY c.position) AS positions,
               array_agg((extract(epoch FROM c.since) * 1000)::bigint ORDER BY c.position) AS since,
               array_agg((extract(epoch FROM c.until) * 1000)::bigint ORDER BY c.position) AS until
        FROM change c
        WHERE c.series_id = w.id AND c.position > w.position
    ) l ON true;
END
$$;

-- Read bars of several series as columns, as of one instant; see 0006 for what the columns are.
CREATE OR REPLACE FUNCTION read_bars(
    providers text[], markets text[], symbols text[], timeframes text[], adjustments text[],
    feeds text[], datasets text[], levels smallint[], sinces bigint[], untils bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    "time" bytea, prices bytea, volumes bytea, trades bytea, marks bytea, updated bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY EXECUTE $query$
        SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint, s.position,
               s.generation, multirange_send(s.known), c.*
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             WITH ORDINALITY u(provider, market, symbol, timeframe, adjustment, feed, dataset,
                               level, since, until, n)
        LEFT JOIN series s
               ON (s.provider, s.market, s.symbol, s.timeframe, s.adjustment, s.feed, s.dataset)
                = (u.provider, u.market, u.symbol, u.timeframe, u.adjustment, u.feed, u.dataset)
        -- Of the two halves one is never run.
        LEFT JOIN LATERAL (
            SELECT array_send(array_agg(b."timestamp")),
                   array_send(array_agg(lseg(point(b.open, b.high), point(b.low, b.close)))),
                   array_send(array_agg(point(b.volume, coalesce(b.vwap, 'NaN')))),
                   CASE WHEN count(b.trades) > 0
                        THEN array_send(array_agg(coalesce(b.trades, -1))) END,
                   array_send(array_agg(8 * b.revision::bigint + 4 * b.void::integer + b.source)),
                   array_send(array_agg(b.updated_at))
            FROM (
                SELECT * FROM bar
                WHERE bar.series_id = s.id
                  AND bar."timestamp" >= from_epoch_ms(u.since)
                  AND bar."timestamp" < from_epoch_ms(u.until)
                  -- The hull of all windows, for the planner.
                  AND bar."timestamp" >= $11 AND bar."timestamp" < $12
                ORDER BY bar."timestamp"
            ) b
            HAVING u.level = 0
            UNION ALL
            SELECT array_send(array_agg(r."timestamp")),
                   array_send(array_agg(lseg(
                       point(coalesce(r.open, 0), coalesce(r.high, 0)),
                       point(coalesce(r.low, 0), coalesce(r.close, 0))
                   ))),
                   array_send(array_agg(point(
                       coalesce(r.volume, 0), coalesce(r.turnover / nullif(r.volume, 0), 'NaN')
                   ))),
                   CASE WHEN count(r.trades) > 0
                        THEN array_send(array_agg(coalesce(r.trades, -1))) END,
                   array_send(array_agg(8 * r.revision + 4 * r.void::integer)),
                   array_send(array_agg(r.updated_at))
            FROM rolled_bars(
                s.id, u.level, from_epoch_ms(u.since), from_epoch_ms(u.until)
            ) r
            WHERE u.level > 0
            HAVING u.level > 0
        ) c ON true
        ORDER BY u.n
    $query$
    USING providers, markets, symbols, timeframes, adjustments, feeds, datasets, levels, sinces,
          untils,
          coalesce((SELECT from_epoch_ms(min(u.since)) FROM unnest(levels, sinces) u(level, since)
                    WHERE u.level = 0), 'infinity'),
          coalesce((SELECT from_epoch_ms(max(u.until)) FROM unnest(levels, untils) u(level, until)
                    WHERE u.level = 0), 'infinity');
END
$$;

-- The nine views of 0003 again, each series by itself: PostgreSQL does not carry the choice of a
-- series into an aggregate over marks, and would work out those of every series.
DO $$
DECLARE
    rung preaggregation_configs;
BEGIN
    FOR rung IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        EXECUTE format($view$
            CREATE OR REPLACE VIEW %1$I AS
            SELECT s.market, s.provider, s.symbol, r."timestamp", s.base_currency,
                   s.quote_currency, r.open, r.high, r.low, r.close, r.volume,
                   'MINUTES'::text AS source, r.trades, r.turnover / nullif(r.volume, 0) AS vwap,
                   r.revision, s.adjustment, s.feed, s.dataset
            FROM series s
            CROSS JOIN (SELECT * FROM preaggregation_configs WHERE level = %2$s) rung
            CROSS JOIN LATERAL (
                SELECT c."timestamp", c.open, c.high, c.low, c.close, c.volume, c.turnover,
                       c.trades, c.revision, c.void
                FROM %3$I c
                WHERE c.series_id = s.id AND NOT EXISTS (
                    SELECT FROM stale m
                    WHERE m.series_id = s.id AND c."timestamp" < m.until
                      AND c."timestamp" >= bucket_opening(rung, m.since))
                UNION ALL
                SELECT f."timestamp", f.open, f.high, f.low, f.close, f.volume, f.turnover,
                       f.trades, f.revision, f.void
                FROM (
                    SELECT unnest(range_agg(tstzrange(
                        bucket_opening(rung, m.since), next_opening(rung, m.until)))) AS span
                    FROM stale m WHERE m.series_id = s.id
                ) doubted
                CROSS JOIN LATERAL rolled_bars(
                    s.id, %2$s::smallint, lower(doubted.span), upper(doubted.span)) f
            ) r
            WHERE s.around_the_clock AND s.timeframe = '1m' AND NOT r.void
        $view$, rung.view_name, rung.level, rung.continuous_aggregate);
    END LOOP;
END
$$;
