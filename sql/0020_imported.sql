-- The time of which an import told all: minutes of it decide coarser bars, whenever these are asked for.
CREATE TABLE imported (
    series_id integer PRIMARY KEY,
    known tstzmultirange NOT NULL
);
COMMENT ON TABLE imported IS 'time of which imported files told all, a missing bar being none';
