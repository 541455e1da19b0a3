-- What draw_lines leaves to the mode of the store: here aggregates are refreshed from the minutes,
-- and must never be again where these are gone.
--
-- Below the highest line nothing is refreshed any more. TimescaleDB's policies know no such line,
-- so they are taken away; the application refreshes alone (db/timescale.py).

-- The advisory lock of whoever refreshes or drops: a refresh that is under way would find minutes
-- gone that it is about to read.
CREATE FUNCTION refresh_lock() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 7089057365243589987;

-- The oldest time that may be refreshed of each aggregate: the bucket in which the newest line of
-- any series lies. A coarser one is made of finer buckets there, which are kept.
CREATE VIEW refreshable AS
SELECT p.level, p.continuous_aggregate AS aggregate,
       coalesce((SELECT bucket_opening(p, max(r.since)) FROM retained r JOIN series s
                     ON s.id = r.series_id
                 WHERE r.level = 0 AND s.around_the_clock AND s.timeframe = '1m'),
                '-infinity') AS since
FROM preaggregation_configs p;

-- Take TimescaleDB's policies away, and end those that run: they know no line.
CREATE FUNCTION refresh_alone() RETURNS void
LANGUAGE sql AS $$
    SELECT remove_continuous_aggregate_policy(p.continuous_aggregate::regclass)
    FROM preaggregation_configs p
    JOIN timescaledb_information.jobs j ON j.hypertable_schema = current_schema()
     AND j.hypertable_name = p.continuous_aggregate
     AND j.proc_name = 'policy_refresh_continuous_aggregate';
$$;

-- Make sure that bars before a time can be dropped. Raises object_not_in_prerequisite_state while
-- they are *rolled_up* and an aggregate is not materialized so far: then they are still needed.
CREATE FUNCTION prepare_to_drop(before timestamptz, rolled_up boolean) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
DECLARE
    rung record;
    holds boolean;
BEGIN
    -- How much is unpacked is bounded by the caller.
    PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    IF NOT rolled_up THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(refresh_lock());
    PERFORM refresh_alone();
    FOR rung IN
        SELECT p.continuous_aggregate AS name, m.until, bucket_opening(p, before) AS needed
        FROM preaggregation_configs p JOIN materialized m ON m.level = p.level
        WHERE m.until < bucket_opening(p, before)
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM bar WHERE "timestamp" >= $1 AND "timestamp" < $2 '
                'AND bar.rolled_up)'
        INTO holds USING rung.until, rung.needed;
        IF holds THEN
            RAISE EXCEPTION '% is materialized up to %, and % is needed',
                rung.name, rung.until, rung.needed
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END LOOP;
END
$$;

-- The table that an aggregate is materialized in.
CREATE FUNCTION materialization(of_level smallint) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT format('%I.%I', h.schema_name, h.table_name)
        FROM preaggregation_configs p
        JOIN _timescaledb_catalog.hypertable h ON h.id = p.materialization_id
        WHERE p.level = of_level);

-- Materialize what marks before a time stand for, of one series alone, and take them away: no
-- refresh goes there any more, and soon the minutes are gone.
CREATE FUNCTION settle_aggregates(own integer, before timestamptz) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
DECLARE
    rung preaggregation_configs;
    piece record;
BEGIN
    IF NOT EXISTS (SELECT FROM stale s WHERE s.series_id = own AND s.since < before) THEN
        RETURN;
    END IF;
    FOR rung IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        FOR piece IN
            SELECT lower(u.span) AS opens, upper(u.span) AS ends
            FROM unnest((
                SELECT range_agg(tstzrange(bucket_opening(rung, s.since),
                                           next_opening(rung, least(s.until, before))))
                FROM stale s WHERE s.series_id = own AND s.since < before
            ) * tstzmultirange(tstzrange(
                NULL, (SELECT m.until FROM materialized m WHERE m.level = rung.level)))) u(span)
        LOOP
            EXECUTE format(
                'DELETE FROM %s WHERE series_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3',
                materialization(rung.level)) USING own, piece.opens, piece.ends;
            EXECUTE format(
                $insert$
                    INSERT INTO %s (series_id, "timestamp", open, high, low, close, volume,
                                    turnover, trades, updated_at, revision, void)
                    SELECT $1, r.* FROM rolled_bars($1, $2, $3, $4) r
                $insert$, materialization(rung.level))
            USING own, rung.level, piece.opens, piece.ends;
        END LOOP;
    END LOOP;
    DELETE FROM stale s WHERE s.series_id = own AND s.until <= before;
    UPDATE stale s SET since = before WHERE s.series_id = own AND s.since < before;
END
$$;

-- Delete the buckets of one aggregate of a series that open before a time.
CREATE FUNCTION drop_aggregate(own integer, of_level smallint, before timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DELETE FROM %s WHERE series_id = $1 AND "timestamp" < $2',
                   materialization(of_level)) USING own, before;
END
$$;

-- The chunks of bar that end at a time or before, oldest first.
CREATE FUNCTION chunks_before(before timestamptz) RETURNS TABLE (
    chunk text, opens timestamptz, ends timestamptz
)
LANGUAGE sql STABLE AS $$
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name), c.range_start, c.range_end
    FROM timescaledb_information.chunks c
    WHERE c.hypertable_name = 'bar' AND c.hypertable_schema = current_schema()
      AND c.range_end <= before
    ORDER BY c.range_start;
$$;

-- Whether a chunk holds a bar of any series but *past*.
CREATE FUNCTION holds_others(past integer[], opens timestamptz, ends timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    others boolean;
BEGIN
    EXECUTE 'SELECT EXISTS (SELECT FROM series s WHERE s.id <> ALL ($1) AND EXISTS ('
            'SELECT FROM bar b WHERE b.series_id = s.id AND b."timestamp" >= $2 '
            'AND b."timestamp" < $3))'
    INTO others USING past, opens, ends;
    RETURN others;
END
$$;

-- Drop a chunk all of whose bars belong to the series *past*. Their lines are drawn at its end or
-- later, and everybody sees them: for older snapshots the chunk is gone as well. Raises object_not_in_prerequisite_state if others came meanwhile.
CREATE FUNCTION drop_whole_chunk(
    chunk text, past integer[], opens timestamptz, ends timestamptz
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'LOCK TABLE ' || chunk || ' IN ACCESS EXCLUSIVE MODE';
    IF holds_others(past, opens, ends) THEN
        RAISE EXCEPTION 'chunk % holds bars that are kept', chunk
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM drop_chunks('bar', older_than => ends, newer_than => opens);
END
$$;
