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

-- Moves what was accepted into `usage`; says how many rows that made. One node at a time, and nobody waits for it.
CREATE FUNCTION fold_accepted() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    made BIGINT := 0;
BEGIN
    IF pg_try_advisory_xact_lock(1112886325, 1) THEN
        WITH gone AS (DELETE FROM accepted RETURNING day, tenants)
        INSERT INTO usage (tenant, day, plugin, rule, events)
        SELECT tenant, g.day, '', '', count(*) FROM gone g CROSS JOIN LATERAL unnest(g.tenants) AS tenant GROUP BY 1, 2;
        GET DIAGNOSTICS made = ROW_COUNT;
    END IF;
    RETURN made;
END $$;
