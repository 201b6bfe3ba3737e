-- What somebody's long transaction keeps, and looks walk over: dead versions of values, of deliveries in their lines, of
-- timers. These looks now begin behind them.
--
-- Until this has ended nobody writes a delivery or a timer: an index is made, about a second for a million deliveries. Who has
-- one of these tables open meanwhile (a long transaction; of timers also a dump) makes the migration give up after two
-- seconds, in which dispatch stands still; it is begun again for a minute.

-- What a commit read is looked for from the version that it read upwards: a leaf of the index is full of one key's dead
-- versions, and a look reads all of them that it has not excluded before it takes the newest.
CREATE OR REPLACE FUNCTION find_state(
    whose BIGINT, r_plugins BIGINT[], r_keys TEXT[], r_versions BIGINT[], w_plugins BIGINT[], w_keys TEXT[]
) RETURNS TABLE (is_stale BOOLEAN, replaced TID[]) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
        -- A value that is older than what was read (of a restored database) counts as none: stale, too.
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
            WHERE s.tenant = whose AND s.plugin = l.plugin AND s.key = l.key AND s.version >= l.version
            ORDER BY s.version DESC LIMIT 1
        ) held ON true;
END $$;

-- Makes the first open delivery of each line due. Only the first of a line is sent, so before one that arrived all have
-- ended. (Where rows are guarded, a limit that is computed within a condition does not bound a walk along an index.)
CREATE OR REPLACE FUNCTION advance(tenants BIGINT[], sinks TEXT[], keys TEXT[]) RETURNS VOID LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    line    RECORD;
    arrived BIGINT;
    head    RECORD;
BEGIN
    FOR line IN
        SELECT DISTINCT l.tenant, l.sink, l.key FROM unnest(tenants, sinks, keys) AS l (tenant, sink, key)
        WHERE l.key IS NOT NULL
    LOOP
        SELECT d.seq INTO arrived FROM deliveries d
        WHERE d.tenant = line.tenant AND d.sink = line.sink AND d.key = line.key AND d.state = 1
        ORDER BY d.seq DESC LIMIT 1;
        arrived := coalesce(arrived, 0);
        SELECT d.ctid AS place, d.state = 0 AND d.due IS NULL AS waits INTO head FROM deliveries d
        WHERE d.tenant = line.tenant AND d.sink = line.sink AND d.key = line.key AND d.seq > arrived
        AND d.state IN (0, 2) ORDER BY d.seq LIMIT 1;
        IF head.waits THEN
            UPDATE deliveries d SET due = d.created WHERE d.ctid = head.place AND d.tenant = line.tenant;
        END IF;
    END LOOP;
END $$;

-- Few are due, so the server takes the index of those for small; but it holds all that were due and are kept.
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
            SELECT * FROM deliveries one WHERE one.tenant = want.tenant AND one.id = want.id OFFSET 0
        ) d WHERE d.due IS NOT NULL ORDER BY d.due, d.seq;
END $$;

-- Takes timers back, by name or id, and sets others (JSON). Of one name, the one that was set last is there, if any.
CREATE FUNCTION put_timers(whose BIGINT, plugins BIGINT[], gone TEXT[], set_anew TEXT) RETURNS VOID
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    FOR at IN 1 .. cardinality(gone) LOOP
        DELETE FROM timers t WHERE t.tenant = whose AND t.id = (
            SELECT n.id FROM timers n WHERE n.tenant = whose AND n.plugin = plugins[at] AND n.name = gone[at]
            ORDER BY n.number DESC LIMIT 1
        );
        DELETE FROM timers t WHERE t.tenant = whose AND t.plugin = plugins[at] AND t.id = gone[at];
    END LOOP;
    IF set_anew IS NOT NULL THEN
        INSERT INTO timers (tenant, id, plugin, name, due, shard, hops, budget, source, kind, subject, time, key,
                            correlation, causation, content_type, attributes, data)
        SELECT whose, t.id, t.plugin, t.name, t.due, t.shard, t.hops, t.budget, t.source, t.kind, t.subject, t.time,
               t.key, t.correlation, t.causation, t.content_type, t.attributes, decode(t.data, 'base64')
        FROM json_to_recordset(set_anew::JSON) AS t (
            id TEXT, plugin BIGINT, name TEXT, due BIGINT, shard INTEGER, hops INTEGER, budget INTEGER, source TEXT,
            kind TEXT, subject TEXT, time BIGINT, key TEXT, correlation TEXT, causation TEXT, content_type TEXT,
            attributes TEXT, data TEXT)
        ON CONFLICT (tenant, id) DO UPDATE SET plugin = excluded.plugin, name = excluded.name, due = excluded.due,
            shard = excluded.shard, hops = excluded.hops, budget = excluded.budget, source = excluded.source,
            kind = excluded.kind, subject = excluded.subject, time = excluded.time, key = excluded.key,
            correlation = excluded.correlation, causation = excluded.causation,
            content_type = excluded.content_type, attributes = excluded.attributes, data = excluded.data,
            number = excluded.number;
    END IF;
END $$;

-- As before, but for `put_timers`.
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
    IF t_gone <> '{}' OR t_set IS NOT NULL THEN
        PERFORM put_timers(whose, t_plugins, t_gone, t_set);
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

-- As before, but for where it looks whether anything is unfinished.
CREATE OR REPLACE FUNCTION read_batch(
    whose BIGINT, lane BIGINT, present BIGINT, events_max BIGINT, bytes_max BIGINT, due_max BIGINT
)
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
    -- Those that were parked may be old; of the others the newest, because many before it have ended.
    IF (SELECT u.pos FROM unfinished u WHERE u.tenant = whose AND u.waiting >= 2 ORDER BY u.waiting, u.pos LIMIT 1) IS NULL
       AND (SELECT u.pos FROM unfinished u WHERE u.tenant = whose ORDER BY u.pos DESC LIMIT 1) IS NULL THEN
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

-- Last, because until this transaction ends nobody else writes to these two tables. Who cannot have them at once gives up,
-- before anything is made, and the migration is begun again. Who waits already, for the first, must not wait much longer.
SET LOCAL lock_timeout = '2s';
LOCK TABLE deliveries IN SHARE MODE;
SET LOCAL lock_timeout = '1500ms';
LOCK TABLE timers IN ACCESS EXCLUSIVE MODE;
CREATE INDEX deliveries_arrived ON deliveries (tenant, sink, key, seq) WHERE key IS NOT NULL AND state = 1;
ALTER TABLE timers ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
ALTER TABLE timers ALTER COLUMN number SET DEFAULT nextval('numbers');
CREATE INDEX timers_newest ON timers (tenant, plugin, name, number) WHERE name IS NOT NULL;
DROP INDEX timers_name;

-- Of indices that seem as good, the server takes the one that was made last. While it plans for an empty table all of a
-- tenant's do, and whole keys were looked for among all that the tenant had. Where there are rows, it knows better.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM deliveries) THEN
        ALTER TABLE deliveries DROP CONSTRAINT deliveries_pkey, ADD PRIMARY KEY (tenant, id);
    END IF;
END $$;
