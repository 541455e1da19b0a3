-- Reading bars made of stored ones: one for each bucket of any zone, session or length.
--
-- The columns are those of read_bars (0006), and so is how a plan is kept. A bar's time is the
-- opening of its bucket, and there is one wherever a bar is stored, a withdrawn one included; so
-- what is sent grows with the buckets and not with what they are made of. The buckets of a series
-- are its *slices*, first to last, counted from one: stretches of buckets that touch and are
-- equally long, *step* milliseconds.
--
-- Withdrawn bars count in the revision alone; void says that there are no others. Each bucket is
-- looked up by itself, so that its bars come in the order of the primary key and need no sort: the
-- first and the last element of an aggregated array are the opening and the closing price.
CREATE FUNCTION made_bars(
    providers text[], markets text[], symbols text[], timeframes text[], adjustments text[],
    feeds text[], datasets text[], firsts integer[], lasts integer[],
    slice_sinces bigint[], slice_untils bigint[], slice_steps bigint[]
) RETURNS TABLE (
    id integer, minutes_from bigint, "position" bigint, generation bigint, known bytea,
    "time" bytea, prices bytea, volumes bytea, trades bytea, marks bytea, updated bytea
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.id, (extract(epoch FROM s.minutes_from) * 1000)::bigint, s.position, s.generation,
           multirange_send(s.known), c.*
    FROM unnest(providers, markets, symbols, timeframes, adjustments, feeds, datasets,
                firsts, lasts)
         WITH ORDINALITY u(provider, market, symbol, timeframe, adjustment, feed, dataset,
                           first, last, n)
    LEFT JOIN series s
           ON (s.provider, s.market, s.symbol, s.timeframe, s.adjustment, s.feed, s.dataset)
            = (u.provider, u.market, u.symbol, u.timeframe, u.adjustment, u.feed, u.dataset)
    CROSS JOIN LATERAL (
        SELECT array_send(array_agg(from_epoch_ms(o.opening))),
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
               -- Of what is hidden nobody asks when it was updated.
               array_send(array_agg(coalesce(m.updated_at, from_epoch_ms(o.opening))))
        FROM unnest(slice_sinces[u.first:u.last], slice_untils[u.first:u.last],
                    slice_steps[u.first:u.last]) q(since, until, step)
        CROSS JOIN LATERAL generate_series(q.since, q.until - q.step, q.step) o(opening)
        CROSS JOIN LATERAL (
            SELECT (array_agg(b.open) FILTER (WHERE NOT b.void))[1] AS open,
                   max(b.high) FILTER (WHERE NOT b.void) AS high,
                   min(b.low) FILTER (WHERE NOT b.void) AS low,
                   (array_agg(b.close) FILTER (WHERE NOT b.void))[
                       count(*) FILTER (WHERE NOT b.void)] AS close,
                   sum(b.volume) FILTER (WHERE NOT b.void) AS volume,
                   -- One NaN makes the sum NaN: a part with volume gives no vwap.
                   sum(b.volume * coalesce(b.vwap, 'NaN'))
                       FILTER (WHERE b.volume > 0 AND NOT b.void) AS turnover,
                   CASE WHEN count(b.trades) FILTER (WHERE NOT b.void)
                             = count(*) FILTER (WHERE NOT b.void)
                        THEN (sum(b.trades) FILTER (WHERE NOT b.void))::bigint END AS trades,
                   max(b.updated_at) FILTER (WHERE NOT b.void) AS updated_at,
                   sum(b.revision) AS revision,
                   bool_and(b.void) AS void,
                   coalesce(bit_or(b.source) FILTER (WHERE NOT b.void), 0) AS source
            FROM (
                SELECT * FROM bar
                WHERE bar.series_id = s.id
                  AND bar."timestamp" >= from_epoch_ms(o.opening)
                  AND bar."timestamp" < from_epoch_ms(o.opening + q.step)
                ORDER BY bar."timestamp"
            ) b
            HAVING count(*) > 0
        ) m
    ) c
    ORDER BY u.n;
END
$$;
