-- A backfill whose provider fails waits, and is tried again later, before it is given up.

ALTER TABLE backfill ADD COLUMN failing_since timestamptz;
COMMENT ON COLUMN backfill.failing_since IS 'since when the provider has answered nothing; null: it answers';
COMMENT ON COLUMN backfill.held_until IS
    'until when a runner has the job to itself, or a queued one rests; null: neither';
