"""The SQL of backfill jobs. A job is unfinished while it is queued or running."""

# ruff: noqa: S608 - the parts put together are constants of this module, never input

_SERIES = "provider, market, symbol, timeframe, adjustment, feed, dataset"
_UNFINISHED = "state IN ('queued', 'running')"
_HELD = f"id = $1 AND fence = $2 AND {_UNFINISHED}"

# Adding is rare, and counts what others add: one at a time.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('bargraph backfill', 0))"
BY_ID = "SELECT * FROM backfill WHERE id = $1"
BY_KEY = "SELECT * FROM backfill WHERE idempotency_key = $1"
RUNNING = f"""
    SELECT * FROM backfill
    WHERE ({_SERIES}) = ($1, $2, $3, $4, $5, $6, $7) AND {_UNFINISHED}
"""
# Those that wait for another provider that fails are in nobody's way.
COUNT = f"""
    SELECT count(*) FROM backfill WHERE {_UNFINISHED} AND (failing_since IS NULL OR provider = $1)
"""
ADD = f"""
    INSERT INTO backfill ({_SERIES}, id, idempotency_key, asked, native, since, until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
            from_epoch_ms($12::bigint), from_epoch_ms($13::bigint))
    RETURNING *
"""
PRUNE = """
    DELETE FROM backfill WHERE number IN (
        SELECT number FROM backfill WHERE ended_at IS NOT NULL ORDER BY number DESC OFFSET $1
    )
"""
PAGE = """
    SELECT * FROM backfill WHERE $2::bigint IS NULL OR number < $2 ORDER BY number DESC LIMIT $1
"""
CANCEL = f"""
    UPDATE backfill SET state = 'cancelled', reason = 'CANCELLED', message = NULL,
                        ended_at = now(), updated_at = now(), held_until = NULL,
                        failing_since = NULL
    WHERE id = $1 AND {_UNFINISHED}
    RETURNING *
"""
CLAIM = f"""
    UPDATE backfill SET state = 'running', fence = fence + 1,
                        held_until = clock_timestamp() + $2 * interval '1 second',
                        started_at = coalesce(started_at, now()), updated_at = now()
    WHERE id = $1 AND {_UNFINISHED} AND coalesce(held_until, '-infinity') < clock_timestamp()
    RETURNING *
"""
RENEW = f"""
    UPDATE backfill SET held_until = clock_timestamp() + $3 * interval '1 second'
    WHERE {_HELD}
    RETURNING id
"""
RELEASE = f"UPDATE backfill SET held_until = NULL WHERE {_HELD}"
# Only what takes the job further than ever ends a failure: each run hears again what the provider
# does not offer, and so it might go on for ever.
PROGRESS = f"""
    UPDATE backfill SET holes = $3, done = greatest(done, $4), bars = bars + $5, updated_at = now(),
                        message = CASE WHEN $6 AND $4 > done THEN NULL ELSE message END,
                        failing_since = CASE WHEN $6 AND $4 > done THEN NULL ELSE failing_since END
    WHERE {_HELD}
    RETURNING *
"""
# With another fence: the runner that put it off has nothing to release any more. However long the
# provider asks for, the job comes back once more at the end.
PUT_OFF = f"""
    UPDATE backfill SET state = 'queued', fence = fence + 1, message = $3, updated_at = now(),
                        failing_since = coalesce(failing_since, now()),
                        held_until = least(
                            coalesce(failing_since, now()) + $6 * interval '1 second',
                            clock_timestamp() + interval '1 second' * greatest($7::float8,
                                least($5::float8, greatest($4::float8,
                                    extract(epoch FROM now() - failing_since)))))
    WHERE {_HELD} AND coalesce(failing_since, now()) > now() - $6 * interval '1 second'
    RETURNING *
"""
FREE_KEY = """
    UPDATE backfill SET idempotency_key = idempotency_key || ' ' || id
    WHERE idempotency_key = $1 AND state = 'failed'
          AND ended_at < now() - $2 * interval '1 second'
"""
FINISH = f"""
    UPDATE backfill SET state = $3, reason = $4, message = $5, ended_at = now(),
                        updated_at = now(), held_until = NULL, failing_since = NULL,
                        again_since = from_epoch_ms($6::bigint),
                        again_until = from_epoch_ms($7::bigint),
                        again_at = now() + $8 * interval '1 second'
    WHERE {_HELD}
    RETURNING *
"""
ORPHANS = f"""
    SELECT id FROM backfill
    WHERE {_UNFINISHED} AND coalesce(held_until, '-infinity') < clock_timestamp()
    ORDER BY number
"""
# Taken for a while rather than for good: if the look fails, another one is due then.
TAKE_LOOK = """
    UPDATE backfill SET again_at = now() + $1 * interval '1 second'
    WHERE id = (
        SELECT id FROM backfill WHERE again_at <= now() ORDER BY again_at LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING *
"""
LOOKED = "UPDATE backfill SET again_at = NULL WHERE id = $1"
GIVE_UP_LOOKS = """
    UPDATE backfill SET again_at = NULL
    WHERE again_at IS NOT NULL AND ended_at < now() - $1 * interval '1 second'
"""
