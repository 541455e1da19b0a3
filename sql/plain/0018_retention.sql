-- What draw_lines leaves to the mode of the store: here aggregates are exact rows of one table.

CREATE FUNCTION prepare_to_drop(before timestamptz, rolled_up boolean) RETURNS void
LANGUAGE sql AS '';

CREATE FUNCTION settle_aggregates(own integer, before timestamptz) RETURNS void
LANGUAGE sql AS '';

-- Delete the buckets of one aggregate of a series that open before a time.
CREATE FUNCTION drop_aggregate(own integer, of_level smallint, before timestamptz) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM rollup WHERE series_id = own AND level = of_level AND "timestamp" < before;
$$;
