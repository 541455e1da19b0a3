-- The names anyone can query: every stored bar, and the nine aggregates. Withdrawn bars are hidden.

CREATE VIEW ohlcv_data AS
SELECT s.market, s.provider, s.symbol, s.timeframe, b."timestamp", s.base_currency,
       s.quote_currency, b.open, b.high, b.low, b.close, b.volume,
       (ARRAY['MINUTES', 'NATIVE', 'TRADES'])[b.source + 1] AS source,
       b.trades, b.vwap, b.revision, s.adjustment, s.feed, s.dataset
FROM series s JOIN bar b ON b.series_id = s.id
WHERE NOT b.void;

DO $$
DECLARE
    aggregate preaggregation_configs;
BEGIN
    FOR aggregate IN SELECT * FROM preaggregation_configs ORDER BY level LOOP
        EXECUTE format($view$
            CREATE VIEW %I AS
            SELECT s.market, s.provider, s.symbol, r."timestamp", s.base_currency,
                   s.quote_currency, r.open, r.high, r.low, r.close, r.volume,
                   'MINUTES'::text AS source, r.trades, r.turnover / nullif(r.volume, 0) AS vwap,
                   r.revision, s.adjustment, s.feed, s.dataset
            FROM series s JOIN rollup r ON r.series_id = s.id AND r.level = %s
            WHERE NOT r.void
        $view$, aggregate.view_name, aggregate.level);
    END LOOP;
END
$$;
