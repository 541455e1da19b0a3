-- What the application refreshes: which windows of which aggregate, and in what order.

-- Where the first bar that aggregates are made of may lie: the beginning of its chunk, or null.
CREATE FUNCTION first_rolled_up() RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    chunk record;
    holds boolean;
BEGIN
    FOR chunk IN
        SELECT range_start, range_end FROM timescaledb_information.chunks
        WHERE hypertable_name = 'bar' AND hypertable_schema = current_schema()
        ORDER BY range_start
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM bar WHERE "timestamp" >= $1 AND "timestamp" < $2 '
                'AND rolled_up)'
        INTO holds USING chunk.range_start, chunk.range_end;
        IF holds THEN
            RETURN chunk.range_start;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- The windows to refresh, in order, so that no bucket in since[n] to until[n] is stale afterwards.
-- With *onward* each aggregate is also carried on to the newest bucket that may be materialized.
--
-- Finer aggregates come first: a coarser one is made of them. Where a window reaches beyond the
-- watermark it begins at the watermark or before, or time between the two would be taken for
-- materialized. No window holds a bucket that is not over or that a writer may not have marked.
--
-- Months and years are to be *forced*: of a change that ends in the first day of a month, or the
-- first month of a year, TimescaleDB 2.28 takes the end for exclusive, and leaves that one out.
CREATE FUNCTION refresh_windows(since timestamptz[], until timestamptz[], onward boolean)
RETURNS TABLE (aggregate name, opens timestamptz, ends timestamptz, forced boolean)
LANGUAGE plpgsql STABLE
SET timezone = 'UTC'
AS $$
DECLARE
    rung preaggregation_configs;
    reached timestamptz;
    newest timestamptz;
    spans tstzmultirange;
    -- Beyond the newest chunk there is nothing to refresh.
    end_of_bars timestamptz := (
        SELECT max(range_end) FROM timescaledb_information.chunks
        WHERE hypertable_name = 'bar' AND hypertable_schema = current_schema());
BEGIN
    IF first_rolled_up() IS NULL THEN
        RETURN;
    END IF;
    FOR rung IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        newest := bucket_opening(
            rung, least(refresh_line(), next_opening(rung, end_of_bars)));
        SELECT m.until INTO STRICT reached FROM materialized m WHERE m.level = rung.level;
        SELECT coalesce(range_agg(tstzrange(
                   bucket_opening(rung, u.since), next_opening(rung, u.until))), '{}')
               * tstzmultirange(tstzrange(NULL, newest))
        INTO spans FROM unnest(since, until) u(since, until);
        IF onward AND reached < newest OR upper(spans) > reached THEN
            reached := greatest(reached, bucket_opening(rung, first_rolled_up()));
            spans := spans + tstzmultirange(tstzrange(
                reached,
                greatest(reached, CASE WHEN onward THEN newest ELSE upper(spans) END)));
        END IF;
        RETURN QUERY
        SELECT rung.continuous_aggregate, o.opens, least(o.opens + rung.at_once, upper(u.span)),
               rung.calendar_unit IS NOT NULL
        FROM unnest(spans) u(span)
        CROSS JOIN LATERAL generate_series(
            lower(u.span), upper(u.span) - interval '1 second', rung.at_once
        ) o(opens)
        ORDER BY o.opens;
    END LOOP;
END
$$;
