-- A plan must not hang on statistics. Where all rows of a table are replaced every few seconds, those that the server
-- counts are dead before it is done, so it takes the table for empty; and a tenant may have a thousand times what others
-- have. A join with a list was then planned as a walk over all that the tenant has there, or ever had, where somebody's long
-- transaction keeps that: a commit took more than five seconds. One row at a time by its whole key, there is nothing else to
-- plan.
-- Functions and no tables: takes no lock that anybody could wait for.

CREATE OR REPLACE FUNCTION commit_batch(
    whose BIGINT, lane BIGINT, held_fence BIGINT, at_turn BIGINT, reached BIGINT, reaches BIGINT, present BIGINT,
    seen BIGINT, holds BOOLEAN, home BIGINT,
    s_lists TEXT, r_plugins BIGINT[], r_keys TEXT[], r_versions BIGINT[],
    w_plugins BIGINT[], w_keys TEXT[], w_values BYTEA[], w_expires BIGINT[],
    x_poss BIGINT[], x_rules TEXT[],
    u_poss BIGINT[], u_rules TEXT[], u_keys TEXT[], u_events UUID[], u_waitings BIGINT[], u_dues BIGINT[],
    u_attempts BIGINT[], u_codes TEXT[], u_reasons TEXT[], u_plugins TEXT[], u_hops BIGINT[], u_budgets BIGINT[],
    u_sets BIGINT[], u_sinces BIGINT[], u_updates BIGINT[],
    c_rules TEXT[], c_keys TEXT[],
    d_ids TEXT[], d_sinks TEXT[], d_keys TEXT[], d_poss BIGINT[], d_rules TEXT[], d_createds BIGINT[], d_types TEXT[],
    d_attributes TEXT[], d_bodies BYTEA[],
    t_plugins BIGINT[], t_gone TEXT[], t_set TEXT,
    a_poss BIGINT[], a_rules TEXT[], a_numbers BIGINT[], a_sets BIGINT[], a_events UUID[], a_plugins TEXT[],
    a_versions BIGINT[], a_states BIGINT[], a_codes TEXT[], a_reasons TEXT[], a_fuels BIGINT[], a_micros BIGINT[],
    a_endeds BIGINT[], a_effects BIGINT[], a_logs TEXT[],
    n_plugins TEXT[], n_rules TEXT[], n_counts BIGINT[],
    m_plugins TEXT[], m_rules TEXT[], m_units TEXT[], m_amounts DOUBLE PRECISION[],
    e_shards BIGINT[], e_recordeds BIGINT[], e_times BIGINT[], e_hops BIGINT[], e_budgets BIGINT[], e_ids TEXT[],
    e_sources TEXT[], e_kinds TEXT[], e_subjects TEXT[], e_keys TEXT[], e_correlations TEXT[], e_causations TEXT[],
    e_types TEXT[], e_attributes TEXT[], e_hashes BYTEA[], e_datas BYTEA[], e_names UUID[]
) RETURNS TABLE (verdict INTEGER, version BIGINT, woken SMALLINT[]) LANGUAGE plpgsql AS $$
DECLARE
    stands    BIGINT;
    turned    BIGINT;
    begun     BIGINT;
    listing   JSON;
    ended_key TEXT;
BEGIN
    PERFORM be_tenant(whose);
    PERFORM have_tenant(whose);
    SELECT t.settings INTO begun FROM tenants t WHERE t.id = whose;
    IF NOT FOUND THEN
        verdict := 3; RETURN NEXT; RETURN;
    END IF;
    SELECT p.cursor, p.turn INTO stands, turned FROM progress p
    WHERE p.tenant = whose AND p.shard = lane ORDER BY p.turn DESC LIMIT 1;
    IF coalesce(stands, 0) <> reached OR reaches < reached OR NOT EXISTS (
        SELECT 1 FROM leases l WHERE l.shard = lane AND l.fence = held_fence AND l.owner IS NOT NULL
    ) THEN
        verdict := 1; RETURN NEXT; RETURN;
    END IF;
    turned := coalesce(turned, 0);
    IF at_turn <> turned OR (holds AND begun > seen) OR EXISTS (
        SELECT 1 FROM unnest(r_plugins, r_keys, r_versions) AS r (plugin, key, version)
        WHERE r.version <> coalesce((SELECT s.version FROM state s WHERE s.tenant = whose AND s.plugin = r.plugin
                                     AND s.key = r.key ORDER BY s.version DESC LIMIT 1), 0)
    ) THEN
        verdict := 2; RETURN NEXT; RETURN;
    END IF;
    IF s_lists IS NOT NULL THEN
        FOR listing IN SELECT * FROM json_array_elements(s_lists::JSON) LOOP
            IF ARRAY(
                SELECT list_keys(whose, (listing->>'plugin')::BIGINT, listing->>'prefix', listing->>'beyond',
                                 listing->>'after', (listing->>'limit')::BIGINT)
            ) <> ARRAY(SELECT json_array_elements_text(listing->'keys')) THEN
                verdict := 2; RETURN NEXT; RETURN;
            END IF;
        END LOOP;
    END IF;
    verdict := 0;
    version := nextval('numbers');
    INSERT INTO progress (tenant, shard, turn, cursor) VALUES (whose, lane, turned + 1, reaches);
    IF (turned + 1) % 16 = 0 THEN
        -- Not further back than what is certainly there: a look at all that is dead would cost more and more.
        DELETE FROM progress p WHERE p.tenant = whose AND p.shard = lane AND p.turn <= turned AND p.turn > turned - 32;
    END IF;
    FOR at IN 1 .. cardinality(w_keys) LOOP
        -- Each by its whole key: only that leads past the dead ones.
        DELETE FROM state s WHERE s.tenant = whose AND s.plugin = w_plugins[at] AND s.key = w_keys[at] AND s.version = (
            SELECT n.version FROM state n WHERE n.tenant = whose AND n.plugin = w_plugins[at] AND n.key = w_keys[at]
            ORDER BY n.version DESC LIMIT 1
        );
    END LOOP;
    IF w_keys <> '{}' THEN
        INSERT INTO state (tenant, plugin, key, value, version, expires)
        SELECT whose, w.plugin, w.key, w.value, commit_batch.version, w.expires
        FROM unnest(w_plugins, w_keys, w_values, w_expires) AS w (plugin, key, value, expires) WHERE w.value IS NOT NULL;
    END IF;
    FOR at IN 1 .. cardinality(x_rules) LOOP
        DELETE FROM unfinished u WHERE u.tenant = whose AND u.pos = x_poss[at] AND u.rule = x_rules[at]
        RETURNING u.key INTO ended_key;
        IF ended_key IS NOT NULL THEN
            c_rules := c_rules || x_rules[at];
            c_keys := c_keys || ended_key;
        END IF;
    END LOOP;
    IF u_rules <> '{}' THEN
        INSERT INTO unfinished (tenant, pos, rule, shard, key, event, waiting, due, attempts, code, reason, plugin, hops,
                                budget, rule_set, since, updated)
        SELECT whose, u.pos, u.rule, lane, u.key, u.event, u.waiting, u.due, u.attempts, u.code, u.reason, u.plugin,
               u.hops, u.budget, u.rule_set, u.since, u.updated
        FROM unnest(u_poss, u_rules, u_keys, u_events, u_waitings, u_dues, u_attempts, u_codes, u_reasons, u_plugins,
                    u_hops, u_budgets, u_sets, u_sinces, u_updates)
             AS u (pos, rule, key, event, waiting, due, attempts, code, reason, plugin, hops, budget, rule_set, since,
                   updated)
        ON CONFLICT (tenant, pos, rule) DO UPDATE SET shard = excluded.shard, key = excluded.key,
            waiting = excluded.waiting, due = excluded.due, attempts = excluded.attempts, code = excluded.code,
            reason = excluded.reason, plugin = excluded.plugin, hops = excluded.hops, budget = excluded.budget,
            rule_set = excluded.rule_set, since = excluded.since, updated = excluded.updated;
    END IF;
    IF c_rules <> '{}' THEN
        woken := ARRAY(SELECT promote(whose, c_rules, c_keys, present));
    END IF;
    IF d_ids <> '{}' THEN
        INSERT INTO deliveries (seq, tenant, shard, id, sink, key, pos, rule, state, due, attempts, code, reason, created,
                                updated, content_type, attributes, body)
        SELECT nextval('numbers'), whose, home, d.id, d.sink, d.key, d.pos, d.rule, 0,
               CASE WHEN d.key IS NULL THEN d.created END, 0, '', '', d.created, d.created, d.type, d.attributes, d.body
        FROM unnest(d_ids, d_sinks, d_keys, d_poss, d_rules, d_createds, d_types, d_attributes, d_bodies)
             AS d (id, sink, key, pos, rule, created, type, attributes, body)
        ON CONFLICT (tenant, id) DO NOTHING;
        IF EXISTS (SELECT 1 FROM unnest(d_keys) AS key WHERE key IS NOT NULL) THEN
            PERFORM advance(array_fill(whose, ARRAY[cardinality(d_ids)]), d_sinks, d_keys);
        END IF;
    END IF;
    FOR at IN 1 .. cardinality(t_gone) LOOP
        DELETE FROM timers t WHERE t.tenant = whose AND t.plugin = t_plugins[at] AND t.name = t_gone[at];
        DELETE FROM timers t WHERE t.tenant = whose AND t.plugin = t_plugins[at] AND t.id = t_gone[at];
    END LOOP;
    IF t_set IS NOT NULL THEN
        INSERT INTO timers (tenant, id, plugin, name, due, shard, hops, budget, source, kind, subject, time, key,
                            correlation, causation, content_type, attributes, data)
        SELECT whose, t.id, t.plugin, t.name, t.due, t.shard, t.hops, t.budget, t.source, t.kind, t.subject, t.time,
               t.key, t.correlation, t.causation, t.content_type, t.attributes, decode(t.data, 'base64')
        FROM json_to_recordset(t_set::JSON) AS t (
            id TEXT, plugin BIGINT, name TEXT, due BIGINT, shard INTEGER, hops INTEGER, budget INTEGER, source TEXT,
            kind TEXT, subject TEXT, time BIGINT, key TEXT, correlation TEXT, causation TEXT, content_type TEXT,
            attributes TEXT, data TEXT)
        ON CONFLICT (tenant, id) DO UPDATE SET plugin = excluded.plugin, name = excluded.name, due = excluded.due,
            shard = excluded.shard, hops = excluded.hops, budget = excluded.budget, source = excluded.source,
            kind = excluded.kind, subject = excluded.subject, time = excluded.time, key = excluded.key,
            correlation = excluded.correlation, causation = excluded.causation,
            content_type = excluded.content_type, attributes = excluded.attributes, data = excluded.data;
    END IF;
    IF a_rules <> '{}' THEN
        INSERT INTO runs (tenant, pos, rule, number, attempt, rule_set, event, plugin, plugin_version, state, code, reason,
                          fuel, micros, ended, effects, logs)
        SELECT whose, a.pos, a.rule, nextval('numbers'), a.attempt, a.rule_set, a.event, a.plugin, a.plugin_version,
               a.state, a.code, a.reason, a.fuel, a.micros, a.ended, a.effects, a.logs
        FROM unnest(a_poss, a_rules, a_numbers, a_sets, a_events, a_plugins, a_versions, a_states, a_codes, a_reasons,
                    a_fuels, a_micros, a_endeds, a_effects, a_logs)
             AS a (pos, rule, attempt, rule_set, event, plugin, plugin_version, state, code, reason, fuel, micros, ended,
                   effects, logs);
    END IF;
    IF n_rules <> '{}' THEN
        -- Seven counts a line, one after another.
        INSERT INTO usage (tenant, day, plugin, rule, attempts, done, failed, fuel, micros, emitted, deliveries)
        SELECT whose, present / 86400000000, n.plugin, n.rule, n_counts[n.at * 7 - 6], n_counts[n.at * 7 - 5],
               n_counts[n.at * 7 - 4], n_counts[n.at * 7 - 3], n_counts[n.at * 7 - 2], n_counts[n.at * 7 - 1],
               n_counts[n.at * 7]
        FROM unnest(n_plugins, n_rules) WITH ORDINALITY AS n (plugin, rule, at);
    END IF;
    IF m_units <> '{}' THEN
        INSERT INTO usage_units (tenant, day, plugin, rule, unit, amount)
        SELECT whose, present / 86400000000, m.plugin, m.rule, m.unit, m.amount
        FROM unnest(m_plugins, m_rules, m_units, m_amounts) AS m (plugin, rule, unit, amount);
    END IF;
    -- Last, so that the turn of appends is held for as short as can be.
    IF e_ids <> '{}' THEN
        PERFORM put_events(array_fill(whose, ARRAY[cardinality(e_ids)]), e_shards, e_recordeds, e_times, e_hops,
                           e_budgets, e_ids, e_sources, e_kinds, e_subjects, e_keys, e_correlations, e_causations,
                           e_types, e_attributes, e_hashes, e_datas, e_names);
    END IF;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION promote(whose BIGINT, rules TEXT[], keys TEXT[], present BIGINT) RETURNS SETOF SMALLINT
LANGUAGE plpgsql AS $$
DECLARE
    chain RECORD;
BEGIN
    FOR chain IN SELECT DISTINCT c.rule, c.key FROM unnest(rules, keys) AS c (rule, key) LOOP
        RETURN QUERY
            UPDATE unfinished SET waiting = 0, due = present, updated = present
            WHERE unfinished.tenant = whose AND unfinished.rule = chain.rule AND unfinished.pos = (
                SELECT u.pos FROM unfinished u WHERE u.tenant = whose AND u.rule = chain.rule AND u.key = chain.key
                ORDER BY u.pos LIMIT 1
            )
            AND unfinished.waiting = 1 RETURNING unfinished.shard;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION put_pins(verdict INTEGER, whose BIGINT, poss BIGINT[], rules TEXT[], versions TEXT[])
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF verdict <> 0 THEN
        RETURN;
    END IF;
    FOR at IN 1 .. cardinality(rules) LOOP
        UPDATE unfinished u SET pins = versions[at]
        WHERE u.tenant = whose AND u.pos = poss[at] AND u.rule = rules[at] AND u.pins IS DISTINCT FROM versions[at];
    END LOOP;
END $$;
