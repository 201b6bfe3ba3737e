-- What appends accepted, one row a call: a row of usage for each tenant of a call was up to a fifth of an append.
-- A fresh table: takes no lock that anybody could wait for.

-- Rows are added by `append` and folded into `usage`. Each holds many tenants, so only verbs reach it.
CREATE TABLE accepted (
    day     INTEGER  NOT NULL,
    tenants BIGINT[] NOT NULL -- of each event
);

CREATE OR REPLACE FUNCTION append(
    tenants BIGINT[], shards BIGINT[], recordeds BIGINT[], times BIGINT[], hops BIGINT[], budgets BIGINT[],
    ids TEXT[], sources TEXT[], kinds TEXT[], subjects TEXT[], keys TEXT[], correlations TEXT[], causations TEXT[],
    types TEXT[], attributes TEXT[], hashes BYTEA[], datas BYTEA[], names UUID[]
) RETURNS TABLE (given BIGINT[], places BIGINT[]) LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp
AS $$
BEGIN
    SELECT p.given, p.places INTO given, places FROM put_events(
        tenants, shards, recordeds, times, hops, budgets, ids, sources, kinds, subjects, keys, correlations,
        causations, types, attributes, hashes, datas, names
    ) p;
    INSERT INTO accepted (day, tenants)
    SELECT n.recorded / 86400000000, array_agg(n.tenant)
    FROM unnest(tenants, recordeds, given, places) AS n (tenant, recorded, pos, place)
    WHERE n.pos = n.place GROUP BY 1;
    RETURN NEXT;
END $$;

-- What was accepted of this tenant's and is not in `usage` yet.
CREATE FUNCTION accepted_events() RETURNS TABLE (on_day INTEGER, many BIGINT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT a.day, count(*) FROM accepted a CROSS JOIN LATERAL unnest(a.tenants) AS tenant
    WHERE tenant = this_tenant() GROUP BY 1
$$;

-- Makes one row of each line of a statement of usage of which there are several; says how many rows went.
CREATE OR REPLACE FUNCTION fold_usage() RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    folded BIGINT;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1112886325, 0) THEN
        RETURN 0;
    END IF;
    WITH gone AS (DELETE FROM accepted RETURNING day, tenants)
    INSERT INTO usage (tenant, day, plugin, rule, events)
    SELECT tenant, g.day, '', '', count(*) FROM gone g CROSS JOIN LATERAL unnest(g.tenants) AS tenant GROUP BY 1, 2;
    WITH line AS (
        SELECT tenant, day, plugin, rule FROM usage GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
    ), gone AS (
        DELETE FROM usage u USING line l
        WHERE u.tenant = l.tenant AND u.day = l.day AND u.plugin = l.plugin AND u.rule = l.rule RETURNING u.*
    ), added AS (
        INSERT INTO usage SELECT tenant, day, plugin, rule, sum(events), sum(attempts), sum(done), sum(failed), sum(fuel),
                                 sum(micros), sum(emitted), sum(deliveries) FROM gone GROUP BY 1, 2, 3, 4
    ) SELECT count(*) INTO folded FROM gone;
    WITH line AS (
        SELECT tenant, day, plugin, rule, unit FROM usage_units GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1
    ), gone AS (
        DELETE FROM usage_units u USING line l
        WHERE u.tenant = l.tenant AND u.day = l.day AND u.plugin = l.plugin AND u.rule = l.rule AND u.unit = l.unit
        RETURNING u.*
    )
    INSERT INTO usage_units
    SELECT tenant, day, plugin, rule, unit, sum(amount) FROM gone GROUP BY 1, 2, 3, 4, 5;
    RETURN folded;
END $$;
