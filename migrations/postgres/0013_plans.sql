-- Functions in SQL are parsed and planned anew in every call, which was a quarter of the server's work where batches are
-- small. In PL/pgSQL a connection plans each statement once. What they do is what they did.
-- Functions and no tables: takes no lock that anybody could wait for.

CREATE OR REPLACE FUNCTION be_tenant(whose BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('bulkhead.tenant', whose::TEXT, true);
END $$;

CREATE OR REPLACE FUNCTION have_tenant(tenant BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1112886322, (tenant & 2147483647)::INTEGER);
END $$;

CREATE OR REPLACE FUNCTION take_turns(tenants BIGINT[]) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1112886321, turn) FROM (
        SELECT DISTINCT (tenant & 127)::INTEGER AS turn FROM unnest(tenants) AS tenant ORDER BY 1
    ) turns;
END $$;

CREATE OR REPLACE FUNCTION promote(whose BIGINT, rules TEXT[], keys TEXT[], present BIGINT) RETURNS SETOF SMALLINT
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
        UPDATE unfinished SET waiting = 0, due = present, updated = present
        FROM (
            SELECT chain.rule, (SELECT u.pos FROM unfinished u WHERE u.tenant = whose AND u.rule = chain.rule
                                AND u.key = chain.key ORDER BY u.pos LIMIT 1) AS pos
            FROM (SELECT DISTINCT * FROM unnest(rules, keys) AS c (rule, key)) chain
        ) head
        WHERE unfinished.tenant = whose AND unfinished.pos = head.pos AND unfinished.rule = head.rule
        AND unfinished.waiting = 1 RETURNING unfinished.shard;
END $$;

CREATE OR REPLACE FUNCTION advance(tenants BIGINT[], sinks TEXT[], keys TEXT[]) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deliveries SET due = created FROM (
        SELECT line.tenant, first.id FROM (
            SELECT DISTINCT * FROM unnest(tenants, sinks, keys) AS l (tenant, sink, key) WHERE key IS NOT NULL
        ) line CROSS JOIN LATERAL (
            SELECT d.id FROM deliveries d WHERE d.tenant = line.tenant AND d.sink = line.sink AND d.key = line.key
            AND d.state IN (0, 2) ORDER BY d.seq LIMIT 1
        ) first
    ) head
    WHERE deliveries.tenant = head.tenant AND deliveries.id = head.id AND deliveries.state = 0 AND deliveries.due IS NULL;
END $$;

CREATE OR REPLACE FUNCTION list_keys(
    whose BIGINT, of BIGINT, prefix TEXT, beyond TEXT, after TEXT, at_most BIGINT
) RETURNS SETOF TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
        SELECT s.key::TEXT FROM state s WHERE s.tenant = whose AND s.plugin = of AND s.key >= prefix
        AND (beyond IS NULL OR s.key < beyond) AND (after IS NULL OR s.key > after) ORDER BY s.key LIMIT at_most;
END $$;

CREATE OR REPLACE FUNCTION due_deliveries(
    present BIGINT, shards BIGINT[], tenants BIGINT[], sinks TEXT[], oldests BIGINT[], each_max BIGINT,
    u_tenants BIGINT[], u_ids TEXT[]
) RETURNS TABLE (is_due BIGINT, its_seq BIGINT, of_tenant BIGINT, to_sink word, its_id word)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT one.due, one.seq, queue.tenant, one.sink, one.id
        FROM unnest(shards, tenants, sinks, oldests) AS queue (shard, tenant, sink, oldest)
        CROSS JOIN LATERAL (
            SELECT d.due, d.seq, d.sink, d.id FROM deliveries d
            WHERE d.shard = queue.shard AND d.tenant = queue.tenant AND d.sink = queue.sink
            AND d.due >= queue.oldest AND d.due <= present
            AND (d.tenant, d.id) NOT IN (SELECT u.tenant, u.id FROM unnest(u_tenants, u_ids) AS u (tenant, id))
            ORDER BY d.due, d.seq LIMIT each_max
        ) one;
END $$;

CREATE OR REPLACE FUNCTION fetch_deliveries(tenants BIGINT[], ids TEXT[])
RETURNS TABLE (
    d_tenant BIGINT, d_id word, d_sink word, d_content_type word, d_body BYTEA, d_attributes word, d_pos BIGINT,
    d_rule word, d_key word, d_attempts INTEGER, d_created BIGINT
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    RETURN QUERY
        SELECT d.tenant, d.id, d.sink, d.content_type, d.body, d.attributes, d.pos, d.rule, d.key, d.attempts, d.created
        FROM unnest(tenants, ids) AS want (tenant, id) JOIN deliveries d ON d.tenant = want.tenant AND d.id = want.id
        WHERE d.due IS NOT NULL ORDER BY d.due, d.seq;
END $$;

-- Most batches leave no run that has pins.
CREATE OR REPLACE FUNCTION put_pins(verdict INTEGER, whose BIGINT, poss BIGINT[], rules TEXT[], versions TEXT[])
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF verdict <> 0 OR rules = '{}' THEN
        RETURN;
    END IF;
    UPDATE unfinished u SET pins = p.versions FROM unnest(poss, rules, versions) AS p (pos, rule, versions)
    WHERE u.tenant = whose AND u.pos = p.pos AND u.rule = p.rule AND u.pins IS DISTINCT FROM p.versions;
END $$;

CREATE OR REPLACE FUNCTION pins_of(whose BIGINT, at BIGINT, by_rule TEXT) RETURNS TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT u.pins FROM unfinished u WHERE u.tenant = whose AND u.pos = at AND u.rule = by_rule);
END $$;

-- A key by its id is what every stream and every request of a node asks for that has not seen it lately.
CREATE OR REPLACE FUNCTION find_keys(by_id TEXT, by_tenant BIGINT, of_operator BOOLEAN) RETURNS SETOF api_keys
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    IF by_id IS NOT NULL THEN
        RETURN QUERY SELECT * FROM api_keys k WHERE k.id = by_id;
    ELSE
        RETURN QUERY
            SELECT * FROM api_keys k WHERE k.tenant = by_tenant OR (of_operator AND k.tenant IS NULL)
            ORDER BY k.created DESC, k.id DESC;
    END IF;
END $$;

-- Whose key it is comes with it.
CREATE FUNCTION tenant_of(whose BIGINT) RETURNS SETOF tenants
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM tenants t WHERE t.id = whose;
END $$;
