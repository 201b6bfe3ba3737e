-- What the server did in vain.
--
-- Rows that are replaced were looked for again and again: a value of state four times in a commit, each time a walk down an
-- index that may not fit the server's memory. Now they are found once and reached by their place. And as in migration 14, no
-- list is joined with a table: there is a look for each of its members (`LATERAL` with a limit or an offset, a scalar query, a
-- loop), and none reads a whole table because it was small when a connection planned (`enable_seqscan`).
--
-- Tables that only grow were vacuumed each time they had grown by a fifth. There is nothing to remove in them, and beside
-- somebody's long transaction nothing to mark either, so each time the whole table was read. Segments are dropped before
-- they have to be frozen, or are frozen once.
--
-- Takes no lock that a reader or writer could wait for, but in the end for two indices, one of which is made anew: about a
-- second for a million runs. Who has one of their tables open meanwhile (a dump, a long transaction) makes the migration give
-- up after two seconds, in which dispatch stands still; it is begun again for a minute.

-- The others that a batch calls. Whoever replaces one of them says so again.
ALTER FUNCTION put_pins SET enable_seqscan = off;
ALTER FUNCTION pins_of SET enable_seqscan = off;
ALTER FUNCTION pass_emits SET enable_seqscan = off;
ALTER FUNCTION promote SET enable_seqscan = off;

ALTER TABLE event_keys SET (autovacuum_vacuum_insert_threshold = -1);

DO $$
DECLARE
    segment INTEGER;
    target  TEXT;
BEGIN
    -- None goes or comes meanwhile.
    PERFORM pg_advisory_xact_lock(1112886326, 0), pg_advisory_xact_lock(1112886323, 0);
    FOR segment IN SELECT s.number FROM segments s WHERE s.dropped IS NULL LOOP
        FOREACH target IN ARRAY ARRAY['events', 'runs'] LOOP
            EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_threshold = -1)', target || '_' || segment);
        END LOOP;
    END LOOP;
END $$;

-- What a commit read is as it was, and where the values are that it replaces: one look for each key. What is written and
-- was read too stands at the same place in both lists (or is looked for by itself).
CREATE FUNCTION find_state(
    whose BIGINT, r_plugins BIGINT[], r_keys TEXT[], r_versions BIGINT[], w_plugins BIGINT[], w_keys TEXT[]
) RETURNS TABLE (is_stale BOOLEAN, replaced TID[]) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
        SELECT coalesce(bool_or(l.version <> coalesce(held.version, 0)), false),
               array_agg(CASE
                   WHEN l.w_key = l.key AND l.w_plugin = l.plugin THEN held.place
                   WHEN l.w_key IS NOT NULL THEN (
                       SELECT s.ctid FROM state s WHERE s.tenant = whose AND s.plugin = l.w_plugin AND s.key = l.w_key
                       ORDER BY s.version DESC LIMIT 1
                   )
               END)
        FROM unnest(r_plugins, r_keys, r_versions, w_plugins, w_keys) AS l (plugin, key, version, w_plugin, w_key)
        LEFT JOIN LATERAL (
            SELECT s.version, s.ctid AS place FROM state s
            WHERE s.tenant = whose AND s.plugin = l.plugin AND s.key = l.key ORDER BY s.version DESC LIMIT 1
        ) held ON true;
END $$;

-- Puts what a commit writes in the place of what `find_state` found in the same transaction. No row can have come to one
-- of these places since: the transaction's own snapshot keeps what was there. If somebody else took that away, it is gone.
CREATE FUNCTION put_state(
    whose BIGINT, version BIGINT, replaced TID[], plugins BIGINT[], keys TEXT[], datas BYTEA[], expiries BIGINT[]
) RETURNS VOID LANGUAGE plpgsql
-- To a planner that takes the table for empty, a walk over all that the tenant has is cheaper than some places.
SET enable_indexscan = off AS $$
BEGIN
    DELETE FROM state s WHERE s.ctid = ANY (replaced) AND s.tenant = whose;
    INSERT INTO state (tenant, plugin, key, value, version, expires)
    SELECT whose, w.plugin, w.key, w.value, put_state.version, w.expires
    FROM unnest(plugins, keys, datas, expiries) AS w (plugin, key, value, expires) WHERE w.value IS NOT NULL;
END $$;

-- As before, but for `find_state` and `put_state`.
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
) RETURNS TABLE (verdict INTEGER, version BIGINT, woken SMALLINT[]) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    stands    BIGINT;
    turned    BIGINT;
    begun     BIGINT;
    stale     BOOLEAN;
    replaced  TID[];
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
    SELECT f.is_stale, f.replaced INTO stale, replaced
    FROM find_state(whose, r_plugins, r_keys, r_versions, w_plugins, w_keys) AS f;
    IF at_turn <> turned OR (holds AND begun > seen) OR stale THEN
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
    IF w_keys <> '{}' THEN
        PERFORM put_state(whose, version, replaced, w_plugins, w_keys, w_values, w_expires);
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

-- Makes lanes that are not there: one look for each, not for each event.
CREATE FUNCTION put_lanes(tenants BIGINT[], shards BIGINT[]) RETURNS VOID LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO lanes (tenant, shard)
    SELECT n.tenant, n.shard FROM (SELECT DISTINCT * FROM unnest(tenants, shards) AS l (tenant, shard) OFFSET 0) n
    WHERE (SELECT l.shard FROM lanes l WHERE l.tenant = n.tenant AND l.shard = n.shard) IS NULL
    ON CONFLICT DO NOTHING;
END $$;

-- As before, but for `put_lanes`.
CREATE OR REPLACE FUNCTION put_events(
    tenants BIGINT[], shards BIGINT[], recordeds BIGINT[], times BIGINT[], hops BIGINT[], budgets BIGINT[],
    ids TEXT[], sources TEXT[], kinds TEXT[], subjects TEXT[], keys TEXT[], correlations TEXT[], causations TEXT[],
    types TEXT[], attributes TEXT[], hashes BYTEA[], datas BYTEA[], names UUID[]
) RETURNS TABLE (given BIGINT[], places BIGINT[]) LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
    PERFORM put_lanes(tenants, shards);
    RETURN NEXT;
END $$;

-- As before, but for the looks at runs and keys.
CREATE OR REPLACE FUNCTION read_batch(whose BIGINT, lane BIGINT, present BIGINT, events_max BIGINT, bytes_max BIGINT, due_max BIGINT)
RETURNS TABLE (
    what SMALLINT, at BIGINT, waits SMALLINT, lies SMALLINT,
    e_pos BIGINT, e_shard SMALLINT, e_recorded BIGINT, e_time BIGINT, e_hops SMALLINT, e_budget INTEGER, e_id word,
    e_source word, e_kind word, e_subject word, e_key word, e_correlation word, e_causation word, e_content_type word,
    e_attributes word, e_hash BYTEA, e_data BYTEA,
    u_pos BIGINT, u_event UUID, u_rule word, u_key word, u_waiting SMALLINT, u_due BIGINT, u_attempts INTEGER,
    u_code word, u_reason word, u_plugin word, u_hops SMALLINT, u_budget INTEGER, u_rule_set BIGINT, u_since BIGINT,
    u_updated BIGINT
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    reached BIGINT;
    turned  BIGINT;
    heads   BIGINT[];
    rules   TEXT[];
    keys    TEXT[];
    begun   BIGINT;
BEGIN
    PERFORM be_tenant(whose);
    SELECT t.settings INTO begun FROM tenants t WHERE t.id = whose;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT p.cursor, p.turn INTO reached, turned FROM progress p
    WHERE p.tenant = whose AND p.shard = lane ORDER BY p.turn DESC LIMIT 1;
    reached := coalesce(reached, 0);
    what := 0; at := begun; e_pos := reached; u_pos := coalesce(turned, 0);
    RETURN NEXT;
    RETURN QUERY
        SELECT 1::SMALLINT, NULL::BIGINT, NULL::SMALLINT, NULL::SMALLINT,
               e.pos, e.shard, e.recorded, e.time, e.hops, e.budget, e.id, e.source, e.kind, e.subject, e.key,
               e.correlation, e.causation, e.content_type, e.attributes, e.hash, e.data,
               NULL::BIGINT, NULL::UUID, NULL::word, NULL::word, NULL::SMALLINT, NULL::BIGINT, NULL::INTEGER,
               NULL::word, NULL::word, NULL::word, NULL::SMALLINT, NULL::INTEGER, NULL::BIGINT, NULL::BIGINT,
               NULL::BIGINT
        FROM (
            -- One more than fits, which tells that there is more.
            SELECT *, sum(octet_length(n.data)) OVER (
                ORDER BY n.pos ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS before FROM (
                SELECT * FROM events s WHERE s.tenant = whose AND s.shard = lane AND s.pos > reached
                ORDER BY s.pos LIMIT events_max + 1
            ) n
        ) e WHERE coalesce(e.before, 0) <= bytes_max ORDER BY e.pos;
    IF NOT EXISTS (SELECT 1 FROM unfinished u WHERE u.tenant = whose) THEN
        RETURN;
    END IF;
    IF due_max > 0 THEN
        SELECT array_agg(d.pos ORDER BY d.due, d.pos), array_agg(d.rule ORDER BY d.due, d.pos),
               array_agg(d.key ORDER BY d.due, d.pos)
        INTO heads, rules, keys FROM (
            SELECT u.pos, u.rule, u.key, u.due FROM unfinished u
            WHERE u.tenant = whose AND u.shard = lane AND u.due <= present ORDER BY u.due, u.pos LIMIT due_max
        ) d;
        RETURN QUERY
            SELECT kind.what, head.at, u.waiting, u.shard,
                   e.pos, e.shard, e.recorded, e.time, e.hops, e.budget, e.id, e.source, e.kind, e.subject, e.key,
                   e.correlation, e.causation, e.content_type, e.attributes, e.hash, e.data,
                   u.pos, u.event, u.rule, u.key, u.waiting, u.due, u.attempts, u.code, u.reason, u.plugin, u.hops,
                   u.budget, u.rule_set, u.since, u.updated
            FROM unnest(heads, rules, keys) WITH ORDINALITY AS head (pos, rule, key, at)
            CROSS JOIN LATERAL (
                SELECT 2::SMALLINT AS what, head.pos AS pos, head.rule AS rule
                UNION ALL
                (SELECT 3::SMALLINT, b.pos, b.rule FROM unfinished b
                 WHERE b.tenant = whose AND b.rule = head.rule AND b.key = head.key AND b.pos > head.pos
                 ORDER BY b.pos LIMIT greatest(due_max - cardinality(heads), 0))
            ) kind
            CROSS JOIN LATERAL (
                SELECT * FROM unfinished one WHERE one.tenant = whose AND one.pos = kind.pos AND one.rule = kind.rule
                OFFSET 0
            ) u
            CROSS JOIN LATERAL (SELECT * FROM events one WHERE one.tenant = whose AND one.pos = u.pos OFFSET 0) e
            ORDER BY head.at, kind.what, u.pos;
    END IF;
    RETURN QUERY
        SELECT DISTINCT 4::SMALLINT, NULL::BIGINT, NULL::SMALLINT, NULL::SMALLINT,
               NULL::BIGINT, NULL::SMALLINT, NULL::BIGINT, NULL::BIGINT, NULL::SMALLINT, NULL::INTEGER, NULL::word,
               NULL::word, NULL::word, NULL::word, NULL::word, NULL::word, NULL::word, NULL::word, NULL::word,
               NULL::BYTEA, NULL::BYTEA,
               NULL::BIGINT, NULL::UUID, u.rule, u.key, NULL::SMALLINT, NULL::BIGINT, NULL::INTEGER, NULL::word,
               NULL::word, NULL::word, NULL::SMALLINT, NULL::INTEGER, NULL::BIGINT, NULL::BIGINT, NULL::BIGINT
        FROM (
            SELECT coalesce(n.key, n.subject) AS key FROM (
                SELECT s.key, s.subject FROM events s WHERE s.tenant = whose AND s.shard = lane AND s.pos > reached
                ORDER BY s.pos LIMIT events_max
            ) n
            UNION SELECT unnest(keys)
        ) want CROSS JOIN LATERAL (
            SELECT b.rule, b.key FROM unfinished b WHERE b.tenant = whose AND b.key = want.key AND b.waiting <> 1 OFFSET 0
        ) u;
END $$;

CREATE OR REPLACE FUNCTION advance(tenants BIGINT[], sinks TEXT[], keys TEXT[]) RETURNS VOID LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    line RECORD;
BEGIN
    FOR line IN
        SELECT DISTINCT l.tenant, l.sink, l.key FROM unnest(tenants, sinks, keys) AS l (tenant, sink, key)
        WHERE l.key IS NOT NULL
    LOOP
        UPDATE deliveries d SET due = d.created
        WHERE d.tenant = line.tenant AND d.id = (
            SELECT f.id FROM deliveries f WHERE f.tenant = line.tenant AND f.sink = line.sink AND f.key = line.key
            AND f.state IN (0, 2) ORDER BY f.seq LIMIT 1
        )
        AND d.state = 0 AND d.due IS NULL;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION settle(
    tenants BIGINT[], ids TEXT[], states BIGINT[], dues BIGINT[], tries BIGINT[], codes TEXT[], reasons TEXT[],
    ats BIGINT[]
) RETURNS VOID LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp SET enable_seqscan = off AS $$
DECLARE
    line         RECORD;
    line_tenants BIGINT[];
    line_sinks   TEXT[];
    line_keys    TEXT[];
BEGIN
    -- Whose deliveries stand in lines: there nobody may add or end another meanwhile.
    PERFORM have_tenant(whose.tenant) FROM (
        SELECT DISTINCT s.tenant FROM unnest(tenants, ids) AS s (tenant, id)
        WHERE (SELECT d.key FROM deliveries d WHERE d.tenant = s.tenant AND d.id = s.id) IS NOT NULL ORDER BY 1
    ) whose;
    FOR at IN 1 .. cardinality(ids) LOOP
        UPDATE deliveries d SET state = states[at], due = dues[at], attempts = tries[at], code = codes[at],
               reason = reasons[at], updated = ats[at]
        WHERE d.tenant = tenants[at] AND d.id = ids[at] AND (d.state = 0 OR d.state <> 1 AND states[at] = 1)
        RETURNING d.tenant, d.sink, d.key INTO line;
        IF line.key IS NOT NULL THEN
            line_tenants := line_tenants || line.tenant;
            line_sinks := line_sinks || line.sink::TEXT;
            line_keys := line_keys || line.key::TEXT;
        END IF;
    END LOOP;
    IF line_tenants IS NOT NULL THEN
        PERFORM advance(line_tenants, line_sinks, line_keys);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION fetch_deliveries(tenants BIGINT[], ids TEXT[])
RETURNS TABLE (
    d_tenant BIGINT, d_id word, d_sink word, d_content_type word, d_body BYTEA, d_attributes word, d_pos BIGINT,
    d_rule word, d_key word, d_attempts INTEGER, d_created BIGINT
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
        SELECT d.tenant, d.id, d.sink, d.content_type, d.body, d.attributes, d.pos, d.rule, d.key, d.attempts, d.created
        FROM unnest(tenants, ids) AS want (tenant, id)
        CROSS JOIN LATERAL (
            SELECT * FROM deliveries one WHERE one.tenant = want.tenant AND one.id = want.id AND one.due IS NOT NULL
            OFFSET 0
        ) d ORDER BY d.due, d.seq;
END $$;

CREATE OR REPLACE FUNCTION take_timers(present BIGINT, at_most BIGINT) RETURNS SETOF timers
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH gone AS (
        DELETE FROM timers WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM timers WHERE due <= present ORDER BY due, tenant, id LIMIT at_most FOR UPDATE SKIP LOCKED
        )) RETURNING *
    ) SELECT * FROM gone ORDER BY due, tenant, id
$$;

CREATE OR REPLACE FUNCTION expire_state(present BIGINT, at_most BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH gone AS (
        DELETE FROM state WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM state WHERE expires <= present ORDER BY expires LIMIT at_most FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    ) SELECT count(*) FROM gone
$$;

-- As before, but for the setting.
CREATE OR REPLACE FUNCTION grow() RETURNS INTEGER LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    present INTEGER;
    made    INTEGER := 0;
    target  TEXT;
BEGIN
    PERFORM pg_advisory_xact_lock(1112886323, 0);
    SELECT last_value >> 32 INTO present FROM numbers;
    IF EXISTS (SELECT 1 FROM segments WHERE number = present AND opened < micros() - 86400000000)
       AND EXISTS (SELECT 1 FROM events WHERE pos >= present::BIGINT << 32) THEN
        -- Nobody is giving out positions while the next one jumps to the new segment.
        PERFORM pg_advisory_xact_lock(1112886321, turn) FROM generate_series(0, 127) AS turn;
        present := present + 1;
        PERFORM setval('numbers', greatest((SELECT last_value FROM numbers), present::BIGINT << 32));
        UPDATE segments SET opened = micros() WHERE number = present;
    END IF;
    FOR segment IN present .. present + 1 LOOP
        CONTINUE WHEN EXISTS (SELECT 1 FROM segments WHERE number = segment);
        FOREACH target IN ARRAY ARRAY['events', 'runs'] LOOP
            -- Made apart and then attached: that lets appends go on.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                            WITH (autovacuum_vacuum_insert_threshold = -1)', target || '_' || segment, target);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target || '_' || segment);
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', target || '_' || segment);
            -- Rows are reached by way of the whole table, whose policies hold; by itself a segment shows nothing.
            EXECUTE format('CREATE POLICY verbs ON %I TO %I USING (true) WITH CHECK (true)',
                           target || '_' || segment, current_user);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', target,
                           target || '_' || segment, segment::BIGINT << 32, (segment + 1)::BIGINT << 32);
        END LOOP;
        INSERT INTO segments (number, opened) VALUES (segment, micros());
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Last, because until this transaction ends nobody else reaches these two tables. Who cannot have them at once gives up, and
-- the migration is begun again.
--
-- Whole keys are looked for in primary keys. To a planner that takes a table for empty, another index that begins alike is as
-- good; one without most of the rows is not thought of, and costs those nothing. Nobody lists a tenant's timers often.
SET LOCAL lock_timeout = '2s';
DROP INDEX unfinished_waiting;
CREATE INDEX unfinished_waiting ON unfinished (tenant, waiting, pos) WHERE waiting >= 2; -- held and parked
-- Who waits already, for the first, must not wait much longer.
SET LOCAL lock_timeout = '500ms';
DROP INDEX timers_soonest;
