-- Due deliveries by queue (tenant and sink): a look steps from one queue to the next, and no sink's deliveries are in the
-- way of another's. Reads the table once and holds up writers of deliveries meanwhile.
-- Nodes of the version before find no deliveries, backlog and due runs of others' afterwards; they take events in and work off what
-- they hear of until they are replaced.

CREATE INDEX deliveries_queue ON deliveries (shard, tenant, sink, due, seq) WHERE due IS NOT NULL;
DROP INDEX deliveries_due;
DROP FUNCTION due_deliveries, next_delivery;

-- Steps along the queues of these shards behind a place: where each stands, whether its tenant is at work, when the
-- first in it is due, and when the first that is not due yet will be. Of the queues that are known (in order), rows due
-- before a moment are not looked at: if there are many, they have gone, and somebody's long transaction keeps them.
CREATE FUNCTION due_queues(
    present BIGINT, shards BIGINT[], after_shard BIGINT, after_tenant BIGINT, after_sink TEXT, at_most BIGINT,
    k_shards BIGINT[], k_tenants BIGINT[], k_sinks TEXT[], k_oldests BIGINT[]
) RETURNS TABLE (its_shard SMALLINT, of_tenant BIGINT, to_sink word, is_active BOOLEAN, oldest BIGINT, next_due BIGINT)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    steps BIGINT  := 0;
    known INTEGER := 1;
    below BIGINT;
    until word;
BEGIN
    FOR its_shard IN SELECT DISTINCT shard FROM unnest(shards) AS shard WHERE shard >= after_shard ORDER BY shard LOOP
        of_tenant := CASE WHEN its_shard = after_shard THEN after_tenant ELSE 0 END;
        to_sink := CASE WHEN its_shard = after_shard THEN after_sink ELSE '' END;
        LOOP
            WHILE (k_shards[known], k_tenants[known], k_sinks[known]::word) <= (its_shard, of_tenant, to_sink) LOOP
                known := known + 1;
            END LOOP;
            below := 9223372036854775807;
            until := '';
            IF k_shards[known] = its_shard THEN
                below := k_tenants[known];
                until := k_sinks[known];
            END IF;
            -- Two looks, because one that compares pairs at its end would walk along the queue behind.
            SELECT d.tenant, d.sink, d.due INTO of_tenant, to_sink, oldest FROM (
                (SELECT d.tenant, d.sink, d.due FROM deliveries d
                 WHERE d.due IS NOT NULL AND d.shard = its_shard AND (d.tenant, d.sink) > (of_tenant, to_sink)
                 AND d.tenant < below ORDER BY d.tenant, d.sink, d.due, d.seq LIMIT 1)
                UNION ALL
                (SELECT d.tenant, d.sink, d.due FROM deliveries d
                 WHERE d.due IS NOT NULL AND d.shard = its_shard AND d.tenant = below
                 AND d.sink > CASE WHEN below = of_tenant THEN to_sink ELSE '' END AND d.sink < until
                 ORDER BY d.sink, d.due, d.seq LIMIT 1)
            ) d LIMIT 1;
            IF NOT FOUND THEN
                EXIT WHEN k_shards[known] IS DISTINCT FROM its_shard;
                of_tenant := below;
                to_sink := until;
                SELECT d.due INTO oldest FROM deliveries d
                WHERE d.shard = its_shard AND d.tenant = of_tenant AND d.sink = to_sink AND d.due >= k_oldests[known]
                ORDER BY d.due LIMIT 1;
                CONTINUE WHEN NOT FOUND;
            END IF;
            is_active := EXISTS (SELECT 1 FROM tenants t WHERE t.id = of_tenant AND t.state = 0);
            next_due := oldest;
            IF oldest <= present THEN
                SELECT d.due INTO next_due FROM deliveries d
                WHERE d.shard = its_shard AND d.tenant = of_tenant AND d.sink = to_sink AND d.due > present
                ORDER BY d.due LIMIT 1;
            END IF;
            RETURN NEXT;
            steps := steps + 1;
            IF steps >= at_most THEN
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- The first deliveries of these queues that are due, at most so many of each, but for those that are under way; the
-- narrow part of them.
CREATE FUNCTION due_deliveries(
    present BIGINT, shards BIGINT[], tenants BIGINT[], sinks TEXT[], oldests BIGINT[], each_max BIGINT,
    u_tenants BIGINT[], u_ids TEXT[]
) RETURNS TABLE (is_due BIGINT, its_seq BIGINT, of_tenant BIGINT, to_sink word, its_id word)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT one.due, one.seq, queue.tenant, one.sink, one.id
    FROM unnest(shards, tenants, sinks, oldests) AS queue (shard, tenant, sink, oldest)
    CROSS JOIN LATERAL (
        SELECT d.due, d.seq, d.sink, d.id FROM deliveries d
        WHERE d.shard = queue.shard AND d.tenant = queue.tenant AND d.sink = queue.sink
        AND d.due >= queue.oldest AND d.due <= present
        AND (d.tenant, d.id) NOT IN (SELECT u.tenant, u.id FROM unnest(u_tenants, u_ids) AS u (tenant, id))
        ORDER BY d.due, d.seq LIMIT each_max
    ) one
$$;

-- What nodes ask again and again is about their own shards and about tenants at work only.
DROP FUNCTION backlog, due_lanes, next_due;
DROP INDEX unfinished_due_all;

-- Lanes of these shards with unfinished runs: whether any is due, and when the first that is not due yet will be. Steps
-- from lane to lane, however many runs are due in one.
CREATE FUNCTION due_lanes(present BIGINT, shards BIGINT[])
RETURNS TABLE (of_tenant BIGINT, of_shard SMALLINT, is_due BOOLEAN, next_due BIGINT)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    oldest BIGINT;
BEGIN
    of_tenant := 0;
    of_shard := -1;
    LOOP
        SELECT u.tenant, u.shard, u.due INTO of_tenant, of_shard, oldest FROM unfinished u
        WHERE u.due IS NOT NULL AND (u.tenant, u.shard) > (of_tenant, of_shard)
        ORDER BY u.tenant, u.shard, u.due LIMIT 1;
        EXIT WHEN NOT FOUND;
        CONTINUE WHEN of_shard <> ALL (shards)
            OR NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = of_tenant AND t.state = 0);
        is_due := oldest <= present;
        next_due := oldest;
        IF is_due THEN
            SELECT u.due INTO next_due FROM unfinished u
            WHERE u.tenant = of_tenant AND u.shard = of_shard AND u.due > present ORDER BY u.due LIMIT 1;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Lanes of these shards with something to do.
CREATE FUNCTION backlog(present BIGINT, shards BIGINT[]) RETURNS TABLE (of_tenant BIGINT, of_shard SMALLINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT l.tenant, l.shard FROM lanes l JOIN tenants t ON t.id = l.tenant AND t.state = 0 CROSS JOIN LATERAL (
        SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant AND p.shard = l.shard
                         ORDER BY p.turn DESC LIMIT 1), 0) AS cursor
    ) done
    -- A look a lane: as EXISTS it would be planned as a join with all events there are.
    WHERE l.shard = ANY (shards)
    AND (SELECT e.pos FROM events e WHERE e.tenant = l.tenant AND e.shard = l.shard AND e.pos > done.cursor
         ORDER BY e.pos LIMIT 1) IS NOT NULL
    UNION
    SELECT d.of_tenant, d.of_shard FROM due_lanes(present, shards) d WHERE d.is_due
$$;
