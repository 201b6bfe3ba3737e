-- What is too old goes: segments as a whole; keys and deliveries, which lie in no segments, in a sweep behind them.
-- Adds a column without a default: no row is written anew, and the lock is held for a moment.

ALTER TABLE segments ADD COLUMN dropped BIGINT; -- when; NULL: it is there. The row goes once keys and deliveries have

DROP FUNCTION drop_segments(BIGINT);

-- As before, but a duplicate's key may be swept away between the look that finds it and the one that reads its place.
CREATE OR REPLACE FUNCTION put_events(
    tenants BIGINT[], shards BIGINT[], recordeds BIGINT[], times BIGINT[], hops BIGINT[], budgets BIGINT[],
    ids TEXT[], sources TEXT[], kinds TEXT[], subjects TEXT[], keys TEXT[], correlations TEXT[], causations TEXT[],
    types TEXT[], attributes TEXT[], hashes BYTEA[], datas BYTEA[], names UUID[]
) RETURNS TABLE (given BIGINT[], places BIGINT[]) LANGUAGE plpgsql AS $$
DECLARE
    added BIGINT;
BEGIN
    PERFORM take_turns(tenants);
    given := ARRAY(SELECT nextval('numbers') FROM generate_subscripts(tenants, 1));
    LOOP
        INSERT INTO event_keys (tenant, key, pos) SELECT * FROM unnest(tenants, names, given) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
        IF added = cardinality(tenants) THEN
            places := given;
            EXIT;
        END IF;
        places := ARRAY(
            SELECT k.pos FROM unnest(tenants, names) WITH ORDINALITY AS want (tenant, key, at)
            LEFT JOIN LATERAL (
                SELECT e.pos FROM event_keys e WHERE e.tenant = want.tenant AND e.key = want.key
            ) k ON true ORDER BY want.at
        );
        EXIT WHEN array_position(places, NULL) IS NULL;
    END LOOP;
    INSERT INTO events (pos, tenant, shard, recorded, time, hops, budget, id, source, kind, subject, key, correlation,
                        causation, content_type, attributes, hash, data)
    SELECT n.pos, n.tenant, n.shard, n.recorded, n.time, n.hops, n.budget, n.id, n.source, n.kind, n.subject, n.key,
           n.correlation, n.causation, n.content_type, n.attributes, n.hash, n.data
    FROM unnest(given, places, tenants, shards, recordeds, times, hops, budgets, ids, sources, kinds, subjects, keys,
                correlations, causations, types, attributes, hashes, datas)
         AS n (pos, place, tenant, shard, recorded, time, hops, budget, id, source, kind, subject, key, correlation,
               causation, content_type, attributes, hash, data)
    WHERE n.pos = n.place;
    INSERT INTO lanes (tenant, shard)
    SELECT DISTINCT n.tenant, n.shard FROM unnest(tenants, shards) AS n (tenant, shard)
    WHERE NOT EXISTS (SELECT 1 FROM lanes l WHERE l.tenant = n.tenant AND l.shard = n.shard)
    ON CONFLICT DO NOTHING;
    RETURN NEXT;
END $$;

-- A tenant with a run that has been parked since before a moment.
CREATE FUNCTION parked_before(before BIGINT) RETURNS BIGINT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT tenant FROM unfinished WHERE waiting = 3 AND updated < before LIMIT 1
$$;

-- Ends deliveries of one tenant that have been parked since before a moment; says how many.
CREATE FUNCTION expire_deliveries(before BIGINT, present BIGINT, code_of TEXT, at_most BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    whose BIGINT;
    many  BIGINT;
    sinks TEXT[];
    lines TEXT[];
BEGIN
    SELECT d.tenant INTO whose FROM deliveries d WHERE d.state = 2 AND d.updated < before LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM have_tenant(whose);
    WITH chosen AS (
        SELECT d.id FROM deliveries d WHERE d.tenant = whose AND d.state = 2 AND d.updated < before LIMIT at_most
    ), gone AS (
        UPDATE deliveries d SET state = 3, due = NULL, updated = present, code = code_of,
               reason = format('parked for longer than such are kept, with %s: %s', d.code, d.reason)
        FROM chosen WHERE d.tenant = whose AND d.id = chosen.id RETURNING d.sink, d.key
    )
    SELECT count(*), array_agg(g.sink::TEXT), array_agg(g.key::TEXT) INTO many, sinks, lines FROM gone g;
    IF many > 0 THEN
        PERFORM advance(array_fill(whose, ARRAY[many::INTEGER]), sinks, lines);
    END IF;
    RETURN many;
END $$;

-- Drops the first segment after `beyond` whose newest event is older than `before`, unless something in it is not over or
-- somebody is in the way. Says which one it was, whether it is gone, and about how much was in it; nothing if there is
-- none, or another node is at it.
--
-- Whoever reads or writes events and runs waits while they are locked, so nobody is waited for: within a twentieth of a
-- second it has the locks, or gives way.
CREATE FUNCTION retire_segment(before BIGINT, beyond BIGINT)
RETURNS TABLE (segment BIGINT, is_gone BOOLEAN, gone_events BIGINT, gone_runs BIGINT) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = bulkhead, pg_temp AS $$
DECLARE
    first BIGINT;
    past  BIGINT;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1112886326, 0) THEN
        RETURN;
    END IF;
    SELECT s.number INTO segment FROM segments s
    WHERE s.number > beyond AND s.dropped IS NULL AND s.number < (SELECT last_value >> 32 FROM numbers)
    AND NOT EXISTS (SELECT 1 FROM segments n WHERE n.number = s.number + 1 AND n.opened > before)
    ORDER BY s.number LIMIT 1;
    IF segment IS NULL THEN
        RETURN;
    END IF;
    first := segment << 32;
    past := (segment + 1) << 32;
    -- Whatever is over stays over, so it is enough to look before anything is locked.
    is_gone := NOT EXISTS (SELECT 1 FROM unfinished WHERE pos >= first AND pos < past)
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE state IN (0, 2) AND pos >= first AND pos < past)
        AND NOT EXISTS (
            SELECT 1 FROM lanes l CROSS JOIN LATERAL (
                SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant AND p.shard = l.shard
                                 ORDER BY p.turn DESC LIMIT 1), 0) AS cursor
            ) done
            WHERE (SELECT e.pos FROM events e WHERE e.tenant = l.tenant AND e.shard = l.shard
                   AND e.pos > done.cursor AND e.pos >= first AND e.pos < past ORDER BY e.pos LIMIT 1) IS NOT NULL
        );
    IF is_gone THEN
        SELECT greatest(c.reltuples, 0) INTO gone_events FROM pg_class c
        WHERE c.oid = format('bulkhead.%I', 'events_' || segment)::REGCLASS;
        SELECT greatest(c.reltuples, 0) INTO gone_runs FROM pg_class c
        WHERE c.oid = format('bulkhead.%I', 'runs_' || segment)::REGCLASS;
        BEGIN
            SET LOCAL lock_timeout = '50ms';
            -- The segments first: whoever vacuums one does not make everybody wait for the whole. Then in the order in
            -- which commits write.
            EXECUTE format('LOCK TABLE %I, %I IN ACCESS EXCLUSIVE MODE', 'runs_' || segment, 'events_' || segment);
            LOCK TABLE ONLY runs, ONLY events IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('DROP TABLE %I, %I', 'runs_' || segment, 'events_' || segment);
            UPDATE segments s SET dropped = micros() WHERE s.number = segment;
        EXCEPTION WHEN lock_not_available THEN
            is_gone := false;
        END;
    END IF;
    RETURN NEXT;
END $$;

-- Deletes what of a table's blocks from `block` on belongs to segments that are gone: keys (0) or deliveries (1). Says how
-- much, and from which block to go on; NULL if that was the end, or no segment has gone since the last sweep.
CREATE FUNCTION sweep(what BIGINT, block BIGINT, blocks BIGINT) RETURNS TABLE (gone BIGINT, next_block BIGINT)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    low  TID := format('(%s,0)', block)::TID;
    high TID := format('(%s,0)', block + blocks)::TID;
    size BIGINT;
BEGIN
    gone := 0;
    IF EXISTS (SELECT 1 FROM segments WHERE dropped IS NOT NULL) THEN
        -- Of none that is there: so a sweep also takes what an earlier one has missed.
        IF what = 0 THEN
            DELETE FROM event_keys k WHERE k.ctid >= low AND k.ctid < high
            AND NOT EXISTS (SELECT 1 FROM segments s WHERE s.number = k.pos >> 32 AND s.dropped IS NULL);
            GET DIAGNOSTICS gone = ROW_COUNT;
            size := pg_relation_size('event_keys');
        ELSE
            DELETE FROM deliveries d WHERE d.ctid >= low AND d.ctid < high AND d.state IN (1, 3)
            AND NOT EXISTS (SELECT 1 FROM segments s WHERE s.number = d.pos >> 32 AND s.dropped IS NULL);
            GET DIAGNOSTICS gone = ROW_COUNT;
            size := pg_relation_size('deliveries');
        END IF;
        IF block + blocks < size / current_setting('block_size')::BIGINT THEN
            next_block := block + blocks;
        ELSIF what = 1 THEN
            DELETE FROM segments WHERE dropped IS NOT NULL;
        END IF;
    END IF;
    RETURN NEXT;
END $$;

-- Deletes usage of days before one; says how many rows went.
CREATE FUNCTION retire_usage(before BIGINT, at_most BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH lines AS (
        DELETE FROM usage WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage WHERE day < before LIMIT at_most)) RETURNING 1
    ), units AS (
        DELETE FROM usage_units
        WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_units WHERE day < before LIMIT at_most)) RETURNING 1
    ) SELECT (SELECT count(*) FROM lines) + (SELECT count(*) FROM units)
$$;

-- When the oldest segment was begun.
CREATE FUNCTION oldest_segment() RETURNS BIGINT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT min(opened) FROM segments WHERE dropped IS NULL
$$;
