-- How far the import of a file has come, so that one that was interrupted goes on.
CREATE TABLE import_progress (
    job text PRIMARY KEY,
    state jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON COLUMN import_progress.job IS 'a digest of the file, the series and the choices made';
