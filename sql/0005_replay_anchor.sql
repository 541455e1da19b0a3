-- When each replay began, so that every process shares its clock and a restart continues it.
CREATE TABLE replay_anchor (
    dataset text PRIMARY KEY,
    anchored_at timestamptz NOT NULL
);
