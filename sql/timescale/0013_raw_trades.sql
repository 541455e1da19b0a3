-- Raw trades in chunks by time: what is written and read belongs to the last minutes, so a day of
-- all series is what stays in memory. A week later nothing is expected any more, and a day is
-- compressed by series; trades that come later still go in.

SELECT create_hypertable('raw_trades', by_range('timestamp', interval '1 day'),
                         create_default_indexes => false, migrate_data => true);
ALTER TABLE raw_trades SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'series_id',
    timescaledb.orderby = '"timestamp", trade_id'
);
CALL add_columnstore_policy('raw_trades', after => interval '7 days');

-- As in 0012, but by whole chunks: the trades of the day that *edge* is in stay.
CREATE OR REPLACE FUNCTION forget_trades(edge timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    edge := date_trunc('minute', edge);
    PERFORM FROM series WHERE id IN (SELECT series_id FROM trades_told)
    ORDER BY id FOR NO KEY UPDATE;
    UPDATE trades_told SET told = told - tstzmultirange(tstzrange(NULL, edge))
    WHERE told && tstzrange(NULL, edge);
    PERFORM drop_chunks('raw_trades', older_than => edge);
END
$$;
