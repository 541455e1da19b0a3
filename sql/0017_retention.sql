-- Dropping what is older than is kept, and telling it apart from what was never fetched.
--
-- A line says since when bars of a series are kept. What lies before it is gone and never taken in
-- again; whether it was settled once makes no difference, because nobody can tell of it any more.
-- Aggregates have lines of their own, which lie earlier or are not drawn: they go on telling of
-- settled time whose minutes are gone.

CREATE TABLE retained (
    series_id integer NOT NULL,
    level smallint NOT NULL,
    since timestamptz NOT NULL,
    known tstzmultirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (series_id, level)
);
COMMENT ON TABLE retained IS 'since when bars are kept of a series some of which were dropped';
COMMENT ON COLUMN retained.level IS '0: the bars of the series; else an aggregate of its minutes';
COMMENT ON COLUMN retained.known IS
    'of an aggregate: settled time before the line of the minutes, of which it tells alone';

-- Draw the lines of a series: lines[1] that of its bars, lines[n + 1] that of the aggregate n, null
-- for none. A line never moves back. Bars before it are the caller's to delete, in the same
-- transaction; buckets of aggregates are deleted here.
--
-- Each line of an aggregate opens no later than the bucket that the line of the minutes lies in, and
-- than the bucket of each level made of it there: such a bucket may still change, and is recomputed
-- from all of its parts. The line of the minutes is a midnight, so it parts no bucket up to a day.
CREATE FUNCTION draw_lines(own integer, lines timestamptz[]) RETURNS void
LANGUAGE plpgsql
SET timezone = 'UTC'
AS $$
DECLARE
    stored series;
    rolled_up boolean;
    past tstzmultirange := tstzmultirange(tstzrange(NULL, lines[1]));
BEGIN
    SELECT around_the_clock AND timeframe = '1m' INTO STRICT rolled_up FROM series WHERE id = own;
    PERFORM prepare_to_drop(lines[1], rolled_up);
    SELECT * INTO STRICT stored FROM series WHERE id = own FOR NO KEY UPDATE;
    IF rolled_up THEN
        PERFORM settle_aggregates(own, lines[1]);
        INSERT INTO retained AS r (series_id, level, since, known)
        SELECT own, p.level, line, stored.known * past - tstzmultirange(tstzrange(NULL, line))
        FROM preaggregation_configs p
        CROSS JOIN LATERAL (SELECT coalesce(lines[p.level + 1], '-infinity')) l(line)
        ON CONFLICT (series_id, level) DO UPDATE SET
            since = greatest(r.since, excluded.since),
            known = (r.known + excluded.known)
                    - tstzmultirange(tstzrange(NULL, greatest(r.since, excluded.since)));
        PERFORM drop_aggregate(own, r.level, r.since)
        FROM retained r WHERE r.series_id = own AND r.level > 0 AND r.since > '-infinity';
    END IF;
    INSERT INTO retained AS r (series_id, level, since) VALUES (own, 0, lines[1])
    ON CONFLICT (series_id, level) DO UPDATE SET since = greatest(r.since, excluded.since);
    UPDATE series SET known = known - past WHERE id = own AND known && past;
END
$$;

-- Draw the lines of a series and delete the bars before them; return how many.
CREATE FUNCTION drop_bars(own integer, lines timestamptz[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    dropped bigint;
BEGIN
    PERFORM draw_lines(own, lines);
    -- EXECUTE plans for this very line, and so for the chunks before it.
    EXECUTE 'DELETE FROM bar WHERE series_id = $1 AND "timestamp" < $2' USING own, lines[1];
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$;

-- What merges bars is what it was. It is no longer called before what is too old was taken out.
ALTER FUNCTION write_bars(
    integer[], integer[], bigint[], bigint[], bigint[], integer[], bigint[], bigint[]
) RENAME TO merge_bars;

-- Merge the temporary table incoming into the bars of *ids*; see 0004. What opens before the line
-- of its series is left out first: neither stored nor known, nor among the columns returned.
-- retained_from is that line, null where none is drawn.
CREATE FUNCTION write_bars(
    ids integer[],
    covered_ids integer[], covered_since bigint[], covered_until bigint[],
    covered_observed bigint[],
    settled_ids integer[], settled_since bigint[], settled_until bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    positions bigint[], since bigint[], until bigint[],
    verdicts bytea, revisions bytea, updates bytea, retained_from bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    -- The lock comes first: a line that is drawn meanwhile is seen by the next statement.
    PERFORM FROM series s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM retained r WHERE r.series_id = ANY (ids)) THEN
        DELETE FROM incoming i USING retained r
        WHERE r.series_id = i.series_id AND r.level = 0 AND i."timestamp" < r.since;
        SELECT coalesce(array_agg(c.id), '{}'), coalesce(array_agg(c.since), '{}'),
               coalesce(array_agg(c.until), '{}')
        INTO settled_ids, settled_since, settled_until
        FROM (
            SELECT u.id, greatest(u.since, (extract(epoch FROM r.since) * 1000)::bigint) AS since,
                   u.until
            FROM unnest(settled_ids, settled_since, settled_until) u(id, since, until)
            LEFT JOIN retained r ON r.series_id = u.id AND r.level = 0
        ) c
        WHERE c.since < c.until;
    END IF;
    RETURN QUERY
    SELECT m.*, (SELECT (extract(epoch FROM r.since) * 1000)::bigint FROM retained r
                 WHERE r.series_id = m.id AND r.level = 0)
    FROM merge_bars(ids, covered_ids, covered_since, covered_until, covered_observed,
                    settled_ids, settled_since, settled_until) m;
END
$$;

-- Read bars as read_bars does (0006), and what of each series was dropped: since when its bars are
-- kept, and the settled time before that of which the level that is read tells; null for none.
CREATE FUNCTION read_retained(
    providers text[], markets text[], symbols text[], timeframes text[], adjustments text[],
    feeds text[], datasets text[], levels smallint[], sinces bigint[], untils bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    "time" bytea, prices bytea, volumes bytea, trades bytea, marks bytea, updated bytea,
    retained_from bigint, rolled bytea
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
    RETURN QUERY
    SELECT r.id, r.minutes_from, r."position", r.generation, r.known, r."time", r.prices, r.volumes,
           r.trades, r.marks, r.updated,
           (SELECT (extract(epoch FROM k.since) * 1000)::bigint FROM retained k
            WHERE k.series_id = r.id AND k.level = 0),
           (SELECT multirange_send(k.known) FROM retained k
            WHERE k.series_id = r.id AND k.level > 0 AND k.level = levels[r.ordinality::integer])
    FROM read_bars(providers, markets, symbols, timeframes, adjustments, feeds, datasets, levels,
                   sinces, untils) WITH ORDINALITY r;
END
$$;
