-- What the store holds: its identity, the series, their bars, and the log of what changed.

CREATE TABLE store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO store DEFAULT VALUES;

-- The row of a series is also its lock: whoever changes bars or rollups of a series holds it to
-- the end of the transaction, so positions ascend in the order of commits.
CREATE TABLE series (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider text NOT NULL,
    market text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    adjustment text NOT NULL DEFAULT '',
    feed text NOT NULL DEFAULT '',
    dataset text NOT NULL DEFAULT '',
    base_currency text,
    quote_currency text,
    around_the_clock boolean NOT NULL,
    minutes_from timestamptz,
    position bigint NOT NULL DEFAULT 0,
    generation bigint NOT NULL DEFAULT 0,
    known tstzmultirange NOT NULL DEFAULT '{}',
    UNIQUE (provider, market, symbol, timeframe, adjustment, feed, dataset)
) WITH (fillfactor = 50);
COMMENT ON COLUMN series.minutes_from IS 'the oldest minute that coarser bars are computed from';
COMMENT ON COLUMN series.position IS 'of the newest entry in change';
COMMENT ON COLUMN series.generation IS 'grows when something changes inside known';
COMMENT ON COLUMN series.known IS 'time in which a missing bar is known not to exist';

-- No foreign key to series: only write_bars adds rows, and it has locked the series by then.
CREATE TABLE bar (
    "timestamp" timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    vwap double precision,
    trades bigint,
    observed_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    series_id integer NOT NULL,
    revision integer NOT NULL,
    source smallint NOT NULL,
    void boolean NOT NULL DEFAULT false,
    PRIMARY KEY (series_id, "timestamp"),
    -- PostgreSQL sorts NaN above Infinity, so these refuse NaN too.
    CHECK (low > '-Infinity' AND low <= least(open, close)
           AND high < 'Infinity' AND high >= greatest(open, close)),
    CHECK (volume >= 0 AND volume < 'Infinity'),
    CHECK (vwap > '-Infinity' AND vwap < 'Infinity'),
    CHECK (source BETWEEN 0 AND 2)
);
COMMENT ON COLUMN bar.source IS '0 MINUTES, 1 NATIVE, 2 TRADES';
COMMENT ON COLUMN bar.void IS 'withdrawn by the provider: hidden, but its revision still counts';
COMMENT ON COLUMN bar.observed_at IS 'when the provider was asked for these values';
COMMENT ON COLUMN bar.updated_at IS 'the provider''s time of the last input';

CREATE TABLE change (
    series_id integer NOT NULL,
    position bigint NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (series_id, position)
);

-- Positions up to series.position - change_log_length() are pruned.
CREATE FUNCTION change_log_length() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 10000::bigint;

CREATE FUNCTION from_epoch_ms(ms bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT RETURN to_timestamp(ms::double precision / 1000);

CREATE TABLE preaggregation_configs (
    level smallint PRIMARY KEY,
    view_name text NOT NULL UNIQUE,
    timeframe text NOT NULL UNIQUE,
    computed_from smallint REFERENCES preaggregation_configs,
    bucket interval NOT NULL,
    calendar_unit text CHECK (calendar_unit IN ('month', 'year'))
);
COMMENT ON TABLE preaggregation_configs IS
    'the aggregates: UTC buckets of one-minute series that trade around the clock';
COMMENT ON COLUMN preaggregation_configs.computed_from IS 'a finer level; null for the minutes';
INSERT INTO preaggregation_configs VALUES
    (1, 'ohlcv_5min', '5m', NULL, '5 minutes', NULL),
    (2, 'ohlcv_15min', '15m', 1, '15 minutes', NULL),
    (3, 'ohlcv_30min', '30m', 2, '30 minutes', NULL),
    (4, 'ohlcv_1h', '1h', 3, '1 hour', NULL),
    (5, 'ohlcv_4h', '4h', 4, '4 hours', NULL),
    (6, 'ohlcv_1d', '1d', 5, '24 hours', NULL),
    (7, 'ohlcv_1w', '1w', 6, '168 hours', NULL),
    (8, 'ohlcv_1mon', '1M', 6, '1 month', 'month'),
    (9, 'ohlcv_1y', '1y', 8, '1 year', 'year');
