-- Backfills: jobs that close the holes of a stored series in a window. The row is the truth of a job.

CREATE TABLE backfill (
    id uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    idempotency_key text NOT NULL UNIQUE,
    asked text NOT NULL,
    provider text NOT NULL,
    market text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    adjustment text NOT NULL DEFAULT '',
    feed text NOT NULL DEFAULT '',
    dataset text NOT NULL DEFAULT '',
    native boolean NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'done', 'cancelled', 'failed')),
    reason text,
    message text,
    holes bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    bars bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    fence bigint NOT NULL DEFAULT 0,
    held_until timestamptz,
    again_since timestamptz,
    again_until timestamptz,
    again_at timestamptz,
    CHECK (since < until),
    CHECK ((ended_at IS NULL) = (state IN ('queued', 'running')))
);
COMMENT ON COLUMN backfill.number IS 'grows with every job; pages go by it';
COMMENT ON COLUMN backfill.asked IS 'the input that came with the idempotency key';
COMMENT ON COLUMN backfill.native IS 'whether the base that is filled has bars of the provider''s own';
COMMENT ON COLUMN backfill.holes IS 'milliseconds that were missing when the job first ran';
COMMENT ON COLUMN backfill.done IS 'milliseconds of these that are told by now';
COMMENT ON COLUMN backfill.fence IS 'grows with every claim; what an earlier holder writes is refused';
COMMENT ON COLUMN backfill.held_until IS 'until when a runner has the job to itself; null: nobody has';
COMMENT ON COLUMN backfill.again_at IS 'when recent time that had no trades is looked at once more';

CREATE UNIQUE INDEX backfill_one_a_series
    ON backfill (provider, market, symbol, timeframe, adjustment, feed, dataset)
    WHERE state IN ('queued', 'running');
CREATE INDEX backfill_look_again ON backfill (again_at) WHERE again_at IS NOT NULL;
