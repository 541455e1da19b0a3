-- Writing bars: the one place where revisions, voids, rollups and the change log are decided.

-- The temporary tables of this session that a write goes through; empty after every commit.
CREATE FUNCTION open_staging() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('pg_temp.incoming') IS NULL THEN
        -- vwap 'NaN' and trades -1 stand for null: rows of one length are built without a loop.
        CREATE TEMPORARY TABLE incoming (
            n integer NOT NULL,
            series_id integer NOT NULL,
            "timestamp" timestamptz NOT NULL,
            open double precision NOT NULL,
            high double precision NOT NULL,
            low double precision NOT NULL,
            close double precision NOT NULL,
            volume double precision NOT NULL,
            vwap double precision NOT NULL,
            trades bigint NOT NULL,
            observed_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            source smallint NOT NULL
        ) ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE changed (
            series_id integer NOT NULL,
            "timestamp" timestamptz NOT NULL
        ) ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE touched (
            level smallint NOT NULL,
            series_id integer NOT NULL,
            "timestamp" timestamptz NOT NULL
        ) ON COMMIT DELETE ROWS;
    END IF;
END
$$;

-- Log the rows of the temporary table changed and bump what they bump.
--
-- One entry a series, or up to 16 where the changes lie further apart than a long weekend.
-- settled_* are parallel arrays: time in which, from now on, a missing bar is known not to exist.
CREATE FUNCTION log_changes(
    ids integer[], settled_ids integer[], settled_since bigint[], settled_until bigint[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH hull AS (
        SELECT c.series_id, min(c."timestamp") AS first, max(c."timestamp") AS last
        FROM changed c GROUP BY c.series_id
    ), apart AS (
        SELECT series_id, "timestamp" AS since, before,
               row_number() OVER (PARTITION BY series_id ORDER BY before - "timestamp") AS nth
        FROM (SELECT series_id, "timestamp",
                     lag("timestamp") OVER (PARTITION BY series_id ORDER BY "timestamp") AS before
              FROM changed) c
        WHERE "timestamp" - before > interval '4 days'
    ), starts AS (
        SELECT series_id, first AS since, NULL::timestamptz AS before FROM hull
        UNION ALL
        SELECT series_id, since, before FROM apart WHERE nth <= 15
    ), entries AS (
        SELECT t.series_id, t.since,
               row_number() OVER ascending AS nth,
               coalesce(lead(t.before) OVER ascending, h.last) AS last
        FROM starts t JOIN hull h USING (series_id)
        WINDOW ascending AS (PARTITION BY t.series_id ORDER BY t.since)
    ), logged AS (
        INSERT INTO change (series_id, position, since, until)
        SELECT e.series_id, s.position + e.nth, e.since, e.last + interval '1 millisecond'
        FROM entries e JOIN series s ON s.id = e.series_id
        RETURNING series_id, position
    ), moved AS (
        SELECT series_id, max(position) AS position FROM logged GROUP BY series_id
    ), disturbed AS (
        SELECT k.id FROM (
            SELECT s.id, s.known * tstzmultirange(tstzrange(h.first, h.last, '[]')) AS known
            FROM hull h JOIN series s ON s.id = h.series_id
        ) k
        WHERE NOT isempty(k.known) AND EXISTS (
            SELECT FROM changed c WHERE c.series_id = k.id AND c."timestamp" <@ k.known)
    ), settled AS (
        SELECT u.id, range_agg(tstzrange(from_epoch_ms(u.since), from_epoch_ms(u.until))) AS spans
        FROM unnest(settled_ids, settled_since, settled_until) u(id, since, until)
        GROUP BY u.id
    ), bumped AS (
        UPDATE series s SET
            position = coalesce(m.position, s.position),
            generation = s.generation + (d.id IS NOT NULL)::integer,
            known = s.known + coalesce(k.spans, '{}')
        FROM unnest(ids) w(id)
        LEFT JOIN moved m ON m.series_id = w.id
        LEFT JOIN disturbed d ON d.id = w.id
        LEFT JOIN settled k ON k.id = w.id
        WHERE s.id = w.id
          AND (m.position IS NOT NULL OR NOT s.known @> coalesce(k.spans, '{}'))
        RETURNING s.id, s.position
    )
    DELETE FROM change c USING bumped b
    WHERE c.series_id = b.id AND c.position <= b.position - change_log_length();
END
$$;

-- Merge the temporary table incoming into the bars of the series *ids* (ascending, distinct).
--
-- A new bar starts at revision 1. A bar that differs from the stored one replaces it and adds 1,
-- unless it was asked for earlier; asked for in the same millisecond, the later to arrive wins.
-- Equal values only move observed_at on. Inside the covered_* spans a stored bar that incoming
-- lacks becomes void and adds 1, if it was asked for earlier than the span; coming back, it adds 1.
--
-- Returns a row a series: its state, the positions logged, and for its incoming bars in order of n
-- the verdict (0 new, 1 changed, 2 same, 3 dropped), stored revision and updated_at as the bytes
-- of array_send.
CREATE FUNCTION write_bars(
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
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    before bigint[];
    rolled_up integer[];
    answered integer[];
    answered_verdicts bytea[];
    answered_revisions bytea[];
    answered_updates bytea[];
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

    WITH judged AS MATERIALIZED (
        SELECT i.n, i.series_id, i."timestamp", i.open, i.high, i.low, i.close, i.volume,
               v.vwap, v.trades, i.observed_at, i.updated_at, i.source,
               b.revision AS stored_revision, b.updated_at AS stored_updated_at,
               i.observed_at > b.observed_at AS later,
               (CASE
                   WHEN b.series_id IS NULL THEN 0
                   WHEN NOT b.void AND b.open = i.open AND b.high = i.high AND b.low = i.low
                        AND b.close = i.close AND b.volume = i.volume
                        AND b.vwap IS NOT DISTINCT FROM v.vwap
                        AND b.trades IS NOT DISTINCT FROM v.trades THEN 2
                   WHEN i.observed_at < b.observed_at THEN 3
                   ELSE 1
               END)::smallint AS verdict
        FROM incoming i
        CROSS JOIN LATERAL (SELECT nullif(i.vwap, 'NaN'), nullif(i.trades, -1)) v(vwap, trades)
        LEFT JOIN bar b ON b.series_id = i.series_id AND b."timestamp" = i."timestamp"
    ), added AS (
        INSERT INTO bar (series_id, "timestamp", open, high, low, close, volume, vwap, trades,
                         observed_at, updated_at, source, revision)
        SELECT series_id, "timestamp", open, high, low, close, volume, vwap, trades,
               observed_at, updated_at, source, 1
        FROM judged WHERE verdict = 0
    ), replaced AS (
        UPDATE bar b SET
            open = j.open, high = j.high, low = j.low, close = j.close, volume = j.volume,
            vwap = j.vwap, trades = j.trades, observed_at = j.observed_at,
            updated_at = j.updated_at, source = j.source, revision = b.revision + 1, void = false
        FROM judged j
        WHERE j.verdict = 1 AND b.series_id = j.series_id AND b."timestamp" = j."timestamp"
    ), confirmed AS (
        UPDATE bar b SET observed_at = j.observed_at
        FROM judged j
        WHERE j.verdict = 2 AND j.later
          AND b.series_id = j.series_id AND b."timestamp" = j."timestamp"
    ), noted AS (
        INSERT INTO changed (series_id, "timestamp")
        SELECT series_id, "timestamp" FROM judged WHERE verdict IN (0, 1)
    ), columns AS (
        SELECT series_id,
               array_send(array_agg(verdict)) AS verdicts,
               array_send(array_agg(CASE verdict WHEN 0 THEN 1 WHEN 1 THEN stored_revision + 1
                                                 ELSE stored_revision END)) AS revisions,
               array_send(array_agg(CASE WHEN verdict IN (0, 1) THEN updated_at
                                         ELSE stored_updated_at END)) AS updates
        FROM (SELECT * FROM judged ORDER BY series_id, n) j
        GROUP BY series_id
    )
    SELECT array_agg(series_id), array_agg(verdicts), array_agg(revisions), array_agg(updates)
    INTO answered, answered_verdicts, answered_revisions, answered_updates
    FROM columns;

    IF cardinality(covered_ids) > 0 THEN
        -- What came just now has observed_at of the write or later; what is earlier was absent.
        WITH withdrawn AS (
            UPDATE bar b SET void = true, revision = b.revision + 1,
                             observed_at = c.observed_at,
                             updated_at = greatest(b.updated_at, c.observed_at)
            FROM (
                SELECT id, from_epoch_ms(since) AS since, from_epoch_ms(until) AS until,
                       from_epoch_ms(observed) AS observed_at
                FROM unnest(covered_ids, covered_since, covered_until, covered_observed)
                     u(id, since, until, observed)
            ) c
            WHERE b.series_id = c.id AND b."timestamp" >= c.since AND b."timestamp" < c.until
              AND NOT b.void AND b.observed_at < c.observed_at
            RETURNING b.series_id, b."timestamp"
        )
        INSERT INTO changed (series_id, "timestamp")
        SELECT series_id, "timestamp" FROM withdrawn;

        UPDATE bar b SET observed_at = c.observed_at
        FROM (
            SELECT id, from_epoch_ms(since) AS since, from_epoch_ms(until) AS until,
                   from_epoch_ms(observed) AS observed_at
            FROM unnest(covered_ids, covered_since, covered_until, covered_observed)
                 u(id, since, until, observed)
        ) c
        WHERE b.series_id = c.id AND b."timestamp" >= c.since AND b."timestamp" < c.until
          AND b.void AND b.observed_at < c.observed_at;
    END IF;

    PERFORM roll_up(rolled_up);
    PERFORM log_changes(ids, settled_ids, settled_since, settled_until);

    RETURN QUERY
    SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint, s.position, s.generation,
           multirange_send(s.known), l.positions, l.since, l.until,
           a.verdicts, a.revisions, a.updates
    FROM unnest(ids, before) w(id, position)
    JOIN series s ON s.id = w.id
    LEFT JOIN unnest(answered, answered_verdicts, answered_revisions, answered_updates)
         a(id, verdicts, revisions, updates) ON a.id = w.id
    LEFT JOIN LATERAL (
        SELECT array_agg(c.position ORDER BY c.position) AS positions,
               array_agg((extract(epoch FROM c.since) * 1000)::bigint ORDER BY c.position) AS since,
               array_agg((extract(epoch FROM c.until) * 1000)::bigint ORDER BY c.position) AS until
        FROM change c
        WHERE c.series_id = w.id AND c.position > w.position
    ) l ON true;
END
$$;

-- Let coarser bars of a series be computed from its minutes since *ms*: set at first use, later
-- only moved backwards. A move changes every coarser bar in between, so it is logged.
CREATE FUNCTION move_minutes_from(id_of_series integer, ms bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    stored series;
    target timestamptz := from_epoch_ms(ms);
BEGIN
    SELECT * INTO STRICT stored FROM series WHERE id = id_of_series FOR NO KEY UPDATE;
    IF stored.minutes_from IS NULL THEN
        UPDATE series SET minutes_from = target WHERE id = stored.id;
    ELSIF target < stored.minutes_from THEN
        UPDATE series SET minutes_from = target, position = stored.position + 1,
                          generation = stored.generation + 1
        WHERE id = stored.id;
        INSERT INTO change VALUES (stored.id, stored.position + 1, target, stored.minutes_from);
        DELETE FROM change WHERE series_id = stored.id
                             AND position <= stored.position + 1 - change_log_length();
    END IF;
END
$$;
