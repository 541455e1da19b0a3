-- Bars made of those in a hypertable: the function of 0015, planned for the times at hand as in 0007.
--
-- Here a slice is read at once and cut into its buckets then, because in a compressed chunk each
-- lookup unpacks a thousand bars. Whoever asks makes slices of about a week: what one holds is
-- grouped in little memory. No order of the bars is relied on.
CREATE OR REPLACE FUNCTION made_bars(
    providers text[], markets text[], symbols text[], timeframes text[], adjustments text[],
    feeds text[], datasets text[], firsts integer[], lasts integer[],
    slice_sinces bigint[], slice_untils bigint[], slice_steps bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    "time" bytea, prices bytea, volumes bytea, trades bytea, marks bytea, updated bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY EXECUTE $query$
        SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint, s.position,
               s.generation, multirange_send(s.known), c.*
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
             WITH ORDINALITY u(provider, market, symbol, timeframe, adjustment, feed, dataset,
                               first, last, n)
        LEFT JOIN series s
               ON (s.provider, s.market, s.symbol, s.timeframe, s.adjustment, s.feed, s.dataset)
                = (u.provider, u.market, u.symbol, u.timeframe, u.adjustment, u.feed, u.dataset)
        CROSS JOIN LATERAL (
            SELECT array_send(array_agg(m.opening)),
                   array_send(array_agg(lseg(
                       point(coalesce(m.open, 0), coalesce(m.high, 0)),
                       point(coalesce(m.low, 0), coalesce(m.close, 0))
                   ))),
                   array_send(array_agg(point(
                       coalesce(m.volume, 0), coalesce(m.turnover / nullif(m.volume, 0), 'NaN')
                   ))),
                   CASE WHEN count(m.trades) > 0
                        THEN array_send(array_agg(coalesce(m.trades, -1))) END,
                   array_send(array_agg(8 * m.revision + 4 * m.void::integer + m.source)),
                   array_send(array_agg(coalesce(m.updated_at, m.opening)))
            FROM unnest($10[u.first:u.last], $11[u.first:u.last], $12[u.first:u.last])
                 q(since, until, step)
            CROSS JOIN LATERAL (
                SELECT from_epoch_ms(q.since) AS since, from_epoch_ms(q.until) AS until,
                       q.step * interval '1 millisecond' AS step
            ) t
            CROSS JOIN LATERAL (
                SELECT date_bin(t.step, b."timestamp", t.since) AS opening,
                       first(b.open, b."timestamp") FILTER (WHERE NOT b.void) AS open,
                       max(b.high) FILTER (WHERE NOT b.void) AS high,
                       min(b.low) FILTER (WHERE NOT b.void) AS low,
                       last(b.close, b."timestamp") FILTER (WHERE NOT b.void) AS close,
                       sum(b.volume) FILTER (WHERE NOT b.void) AS volume,
                       sum(b.volume * coalesce(b.vwap, 'NaN'))
                           FILTER (WHERE b.volume > 0 AND NOT b.void) AS turnover,
                       CASE WHEN count(b.trades) FILTER (WHERE NOT b.void)
                                 = count(*) FILTER (WHERE NOT b.void)
                            THEN (sum(b.trades) FILTER (WHERE NOT b.void))::bigint END AS trades,
                       max(b.updated_at) FILTER (WHERE NOT b.void) AS updated_at,
                       sum(b.revision) AS revision,
                       bool_and(b.void) AS void,
                       coalesce(bit_or(b.source) FILTER (WHERE NOT b.void), 0) AS source
                FROM bar b
                WHERE b.series_id = s.id
                  AND b."timestamp" >= t.since AND b."timestamp" < t.until
                  -- The hull of all slices, for the planner.
                  AND b."timestamp" >= $13 AND b."timestamp" < $14
                GROUP BY 1 ORDER BY 1
            ) m
        ) c
        ORDER BY u.n
    $query$
    USING providers, markets, symbols, timeframes, adjustments, feeds, datasets, firsts, lasts,
          slice_sinces, slice_untils, slice_steps,
          (SELECT from_epoch_ms(min(s)) FROM unnest(slice_sinces) s),
          (SELECT from_epoch_ms(max(u)) FROM unnest(slice_untils) u);
END
$$;
