-- What dispatch leaves behind: runs, what is unfinished, state, deliveries, timers, usage; and who may dispatch.
-- Fresh tables: takes no lock that anybody could wait for.

-- Nodes at work. Times are the database's own, in microseconds. One row is renewed a node, not one a shard.
CREATE TABLE nodes (
    name  word   NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);

-- Who works on a shard, for as long as its node lives. `fence` only grows.
CREATE TABLE leases (
    shard SMALLINT NOT NULL PRIMARY KEY,
    owner word,                           -- NULL: free
    fence BIGINT   NOT NULL
);

-- Ended attempts; append-only, cut as events are. `number` tells attempts apart also after a redrive, which counts them
-- anew.
CREATE TABLE runs (
    tenant         BIGINT   NOT NULL,
    pos            BIGINT   NOT NULL,
    rule           word     NOT NULL,
    number         BIGINT   NOT NULL,
    rule_set       BIGINT   NOT NULL,
    fuel           BIGINT   NOT NULL,
    micros         BIGINT   NOT NULL,
    ended          BIGINT   NOT NULL,
    event          UUID     NOT NULL,
    attempt        INTEGER  NOT NULL,
    effects        INTEGER  NOT NULL,
    plugin_version INTEGER,
    state          SMALLINT NOT NULL,     -- 0 done, 1 retrying, 2 parked, 3 dropped
    plugin         word,
    code           word     NOT NULL,
    reason         word     NOT NULL,
    logs           word,                  -- NULL: none; else a JSON array
    PRIMARY KEY (tenant, pos, rule, number)
) PARTITION BY RANGE (pos);
SELECT guard('runs');

-- Failures are what people look for, and they are few.
CREATE INDEX runs_not_done ON runs (tenant, state, pos) WHERE state <> 0;

-- Runs that must happen again, or have not begun. Sparse. The first of a (tenant, rule, key) is never blocked.
CREATE TABLE unfinished (
    tenant   BIGINT   NOT NULL,
    pos      BIGINT   NOT NULL,
    rule     word     NOT NULL,
    shard    SMALLINT NOT NULL,
    key      word,                        -- NULL: the rule asks for no order
    event    UUID     NOT NULL,
    waiting  SMALLINT NOT NULL,           -- 0 retry, 1 blocked, 2 held, 3 parked
    due      BIGINT,                      -- NULL unless it waits for a retry
    attempts INTEGER  NOT NULL,
    code     word     NOT NULL,
    reason   word     NOT NULL,
    plugin   word,
    hops     SMALLINT NOT NULL,
    budget   INTEGER  NOT NULL,
    rule_set BIGINT   NOT NULL,
    since    BIGINT   NOT NULL,
    updated  BIGINT   NOT NULL,
    PRIMARY KEY (tenant, pos, rule)
);
SELECT guard('unfinished');

CREATE INDEX unfinished_due ON unfinished (tenant, shard, due) WHERE due IS NOT NULL;
CREATE INDEX unfinished_due_all ON unfinished (due, tenant, shard) WHERE due IS NOT NULL;
CREATE INDEX unfinished_chain ON unfinished (tenant, rule, key, pos) WHERE key IS NOT NULL;
-- Every blocked chain has its first row here, so this answers "is the key blocked" without a walk along the chain.
CREATE INDEX unfinished_heads ON unfinished (tenant, key, rule) WHERE key IS NOT NULL AND waiting <> 1;
CREATE INDEX unfinished_waiting ON unfinished (tenant, waiting, pos);

-- Plugins' keys and values. A value that is written is a new row, and the one before it goes; so there is one row a key,
-- and the index finds it before all that were there: however many of these somebody's long transaction keeps, nobody
-- walks over them.
CREATE TABLE state (
    tenant  BIGINT NOT NULL,
    plugin  BIGINT NOT NULL,
    version BIGINT NOT NULL,
    expires BIGINT,
    key     word   NOT NULL,
    value   BYTEA  NOT NULL,
    PRIMARY KEY (tenant, plugin, key, version)
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
SELECT guard('state');

CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;

-- Effects on their way out. `due` is set while a delivery is pending and nothing of its (tenant, sink, key) is before it.
-- `shard` is the tenant's home: its node sends.
CREATE TABLE deliveries (
    seq          BIGINT   NOT NULL,
    tenant       BIGINT   NOT NULL,
    pos          BIGINT   NOT NULL,
    due          BIGINT,
    created      BIGINT   NOT NULL,
    updated      BIGINT   NOT NULL,
    attempts     INTEGER  NOT NULL,
    shard        SMALLINT NOT NULL,
    state        SMALLINT NOT NULL,       -- 0 pending, 1 delivered, 2 parked, 3 dropped
    id           word     NOT NULL,
    sink         word     NOT NULL,
    key          word,
    rule         word     NOT NULL,
    code         word     NOT NULL,
    reason       word     NOT NULL,
    content_type word     NOT NULL,
    attributes   word,
    body         BYTEA    NOT NULL,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 85);
SELECT guard('deliveries');

CREATE INDEX deliveries_due ON deliveries (due, seq, tenant, sink) WHERE due IS NOT NULL;
CREATE INDEX deliveries_chain ON deliveries (tenant, sink, key, seq) WHERE key IS NOT NULL AND state IN (0, 2);
CREATE INDEX deliveries_open ON deliveries (tenant, sink, state, seq) WHERE state IN (0, 2);
CREATE INDEX deliveries_made ON deliveries (tenant, created, id);
CREATE INDEX deliveries_event ON deliveries (tenant, pos);

-- Events that will be appended at a time.
CREATE TABLE timers (
    tenant       BIGINT   NOT NULL,
    id           word     NOT NULL,
    plugin       BIGINT   NOT NULL,
    name         word,
    due          BIGINT   NOT NULL,
    shard        SMALLINT NOT NULL,
    hops         SMALLINT NOT NULL,
    budget       INTEGER  NOT NULL,
    source       word     NOT NULL,
    kind         word     NOT NULL,
    subject      word,
    time         BIGINT   NOT NULL,
    key          word,
    correlation  word     NOT NULL,
    causation    word,
    content_type word     NOT NULL,
    attributes   word,
    data         BYTEA    NOT NULL,
    PRIMARY KEY (tenant, id)
);
SELECT guard('timers');

CREATE INDEX timers_due ON timers (due);
CREATE INDEX timers_soonest ON timers (tenant, due);
CREATE UNIQUE INDEX timers_name ON timers (tenant, plugin, name) WHERE name IS NOT NULL;

-- What plugins counted themselves; added and folded as `usage`.
CREATE TABLE usage_units (
    tenant BIGINT           NOT NULL,
    day    INTEGER          NOT NULL,
    plugin word             NOT NULL,
    rule   word             NOT NULL,
    unit   word             NOT NULL,
    amount DOUBLE PRECISION NOT NULL
);
CREATE INDEX usage_units_by_day ON usage_units (tenant, day);
SELECT guard('usage_units');

-- Makes sure that there is a segment for the positions to come, and begins a new one a day, so that old ones can be
-- dropped by age. Says how many were made.
CREATE FUNCTION grow() RETURNS INTEGER LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
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
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                           target || '_' || segment, target);
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

-- Drops segments whose newest event is older than `before` and of which nothing is left to do. Says how many.
CREATE FUNCTION drop_segments(before BIGINT) RETURNS INTEGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = bulkhead, pg_temp AS $$
DECLARE
    segment INTEGER;
    dropped INTEGER := 0;
    first   BIGINT;
    beyond  BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(1112886323, 0);
    SET LOCAL lock_timeout = '500ms';
    FOR segment IN
        SELECT number FROM segments WHERE number < (SELECT last_value >> 32 FROM numbers) ORDER BY number
    LOOP
        first := segment::BIGINT << 32;
        beyond := (segment + 1)::BIGINT << 32;
        -- Older ones first, and none is skipped.
        EXIT WHEN EXISTS (SELECT 1 FROM segments WHERE number = segment + 1 AND opened > before);
        EXIT WHEN EXISTS (SELECT 1 FROM unfinished WHERE pos >= first AND pos < beyond);
        EXIT WHEN EXISTS (SELECT 1 FROM deliveries WHERE state IN (0, 2) AND pos >= first AND pos < beyond);
        EXIT WHEN EXISTS (
            SELECT 1 FROM lanes l CROSS JOIN LATERAL (
                SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant AND p.shard = l.shard
                                 ORDER BY p.turn DESC LIMIT 1), 0) AS cursor
            ) done
            WHERE (SELECT e.pos FROM events e WHERE e.tenant = l.tenant AND e.shard = l.shard
                   AND e.pos > done.cursor AND e.pos >= first AND e.pos < beyond ORDER BY e.pos LIMIT 1) IS NOT NULL
        );
        EXECUTE format('DROP TABLE %I, %I', 'events_' || segment, 'runs_' || segment);
        DELETE FROM event_keys WHERE pos >= first AND pos < beyond;
        DELETE FROM deliveries WHERE pos >= first AND pos < beyond;
        DELETE FROM segments WHERE number = segment;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

-- Renews a node, and gives it shards that are free or whose node is gone, up to so many in all. A shard that comes from
-- another node has a greater fence.
CREATE FUNCTION acquire(node TEXT, ttl BIGINT, at_most BIGINT) RETURNS TABLE (held SMALLINT, fenced BIGINT)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    present BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(1112886324, 0);
    present := micros();
    INSERT INTO nodes (name, until) VALUES (node, present + ttl) ON CONFLICT (name) DO UPDATE SET until = excluded.until;
    DELETE FROM nodes WHERE until < present - 86400000000;
    UPDATE leases SET fence = fence + 1, owner = node WHERE shard IN (
        SELECT l.shard FROM leases l LEFT JOIN nodes n ON n.name = l.owner
        WHERE l.owner IS DISTINCT FROM node AND (n.until IS NULL OR n.until <= present)
        ORDER BY l.shard
        LIMIT greatest(at_most - (SELECT count(*) FROM leases o WHERE o.owner = node), 0)
    );
    RETURN QUERY SELECT l.shard, l.fence FROM leases l WHERE l.owner = node ORDER BY l.shard;
END $$;

-- Gives shards back; without a list, all of them, and the node is gone.
CREATE FUNCTION release(node TEXT, shards BIGINT[]) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1112886324, 0);
    UPDATE leases SET owner = NULL WHERE owner = node AND (shards IS NULL OR shard = ANY (shards));
    IF shards IS NULL THEN
        DELETE FROM nodes WHERE name = node;
    END IF;
END $$;

-- Lanes with something to do.
CREATE FUNCTION backlog(present BIGINT) RETURNS TABLE (of_tenant BIGINT, of_shard SMALLINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT l.tenant, l.shard FROM lanes l CROSS JOIN LATERAL (
        SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant AND p.shard = l.shard
                         ORDER BY p.turn DESC LIMIT 1), 0) AS cursor
    ) done
    -- A look a lane: as EXISTS it would be planned as a join with all events there are.
    WHERE (SELECT e.pos FROM events e WHERE e.tenant = l.tenant AND e.shard = l.shard AND e.pos > done.cursor
           ORDER BY e.pos LIMIT 1) IS NOT NULL
    UNION
    SELECT tenant, shard FROM unfinished WHERE due <= present
$$;

-- Lanes with unfinished runs that are due.
CREATE FUNCTION due_lanes(present BIGINT) RETURNS TABLE (of_tenant BIGINT, of_shard SMALLINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT DISTINCT tenant, shard FROM unfinished WHERE due <= present
$$;

-- When the next unfinished run is due.
CREATE FUNCTION next_due(present BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT due FROM unfinished WHERE due > present ORDER BY due LIMIT 1
$$;

-- How much waits: events beyond the cursors, as waiting NULL, and unfinished runs by what they wait for.
CREATE FUNCTION depths() RETURNS TABLE (of_tenant BIGINT, what SMALLINT, many BIGINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT l.tenant, NULL::SMALLINT, sum(waiting.many)::BIGINT FROM lanes l CROSS JOIN LATERAL (
        SELECT count(*) AS many FROM events e WHERE e.tenant = l.tenant AND e.shard = l.shard AND e.pos > (
            SELECT coalesce((SELECT p.cursor FROM progress p WHERE p.tenant = l.tenant AND p.shard = l.shard
                             ORDER BY p.turn DESC LIMIT 1), 0))
    ) waiting WHERE waiting.many > 0 GROUP BY l.tenant
    UNION ALL
    SELECT tenant, waiting, count(*) FROM unfinished GROUP BY tenant, waiting
$$;

-- What there is to do in a lane, in one answer: where it stands (what = 0), new events (1), runs that are due (2), what
-- comes right behind each of those in its chain (3), and keys that are blocked (4).
CREATE FUNCTION read_batch(whose BIGINT, lane BIGINT, present BIGINT, events_max BIGINT, bytes_max BIGINT, due_max BIGINT)
RETURNS TABLE (
    what SMALLINT, at BIGINT, waits SMALLINT, lies SMALLINT,
    e_pos BIGINT, e_shard SMALLINT, e_recorded BIGINT, e_time BIGINT, e_hops SMALLINT, e_budget INTEGER, e_id word,
    e_source word, e_kind word, e_subject word, e_key word, e_correlation word, e_causation word, e_content_type word,
    e_attributes word, e_hash BYTEA, e_data BYTEA,
    u_pos BIGINT, u_event UUID, u_rule word, u_key word, u_waiting SMALLINT, u_due BIGINT, u_attempts INTEGER,
    u_code word, u_reason word, u_plugin word, u_hops SMALLINT, u_budget INTEGER, u_rule_set BIGINT, u_since BIGINT,
    u_updated BIGINT
) LANGUAGE plpgsql AS $$
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
            JOIN unfinished u ON u.tenant = whose AND u.pos = kind.pos AND u.rule = kind.rule
            JOIN events e ON e.tenant = whose AND e.pos = u.pos
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
        ) want JOIN unfinished u ON u.tenant = whose AND u.key = want.key AND u.waiting <> 1;
END $$;

-- Makes the first run of each chain due if it is blocked; gives the shards where that happened.
CREATE FUNCTION promote(whose BIGINT, rules TEXT[], keys TEXT[], present BIGINT) RETURNS SETOF SMALLINT
LANGUAGE sql AS $$
    UPDATE unfinished SET waiting = 0, due = present, updated = present
    FROM (
        SELECT chain.rule, (SELECT u.pos FROM unfinished u WHERE u.tenant = whose AND u.rule = chain.rule
                            AND u.key = chain.key ORDER BY u.pos LIMIT 1) AS pos
        FROM (SELECT DISTINCT * FROM unnest(rules, keys) AS c (rule, key)) chain
    ) head
    WHERE unfinished.tenant = whose AND unfinished.pos = head.pos AND unfinished.rule = head.rule
    AND unfinished.waiting = 1 RETURNING unfinished.shard
$$;

-- Makes the first unsettled delivery of each line due, if it is pending: a parked one holds its line.
CREATE FUNCTION advance(tenants BIGINT[], sinks TEXT[], keys TEXT[]) RETURNS VOID LANGUAGE sql AS $$
    UPDATE deliveries SET due = created FROM (
        SELECT line.tenant, first.id FROM (
            SELECT DISTINCT * FROM unnest(tenants, sinks, keys) AS l (tenant, sink, key) WHERE key IS NOT NULL
        ) line CROSS JOIN LATERAL (
            SELECT d.id FROM deliveries d WHERE d.tenant = line.tenant AND d.sink = line.sink AND d.key = line.key
            AND d.state IN (0, 2) ORDER BY d.seq LIMIT 1
        ) first
    ) head
    WHERE deliveries.tenant = head.tenant AND deliveries.id = head.id AND deliveries.state = 0 AND deliveries.due IS NULL
$$;

-- Applies a batch as a whole, or not at all. Says what became of it (0 done, 1 fenced, 2 conflict, 3 no such tenant), the
-- version of what was written, and the shards in which runs became due because others made room.
--
-- `at_turn` is the lane's as the batch found it; NULL lets any count. Lists of one kind stand side by side: `s_` listings
-- read (as JSON), `r_` keys read, `w_` keys written, `x_` runs ended, `u_` runs put, `c_` chains touched, `d_`
-- deliveries, `t_` timers taken back and (as JSON) set, `a_` attempts, `n_` usage, `m_` units, `e_` events emitted.
CREATE FUNCTION commit_batch(
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
    stands  BIGINT;
    turned  BIGINT;
    begun   BIGINT;
    listing JSON;
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
    IF w_keys <> '{}' THEN
        -- Each by its whole key: only that leads past the dead ones. OFFSET 0 keeps the version a value to look for; pulled
        -- up, it would be a condition on all that the rest of the key finds.
        DELETE FROM state s USING (
            SELECT w.plugin, w.key, (SELECT n.version FROM state n WHERE n.tenant = whose AND n.plugin = w.plugin
                                     AND n.key = w.key ORDER BY n.version DESC LIMIT 1) AS version
            FROM unnest(w_plugins, w_keys) AS w (plugin, key) OFFSET 0
        ) old
        WHERE s.tenant = whose AND s.plugin = old.plugin AND s.key = old.key AND s.version = old.version;
        INSERT INTO state (tenant, plugin, key, value, version, expires)
        SELECT whose, w.plugin, w.key, w.value, commit_batch.version, w.expires
        FROM unnest(w_plugins, w_keys, w_values, w_expires) AS w (plugin, key, value, expires) WHERE w.value IS NOT NULL;
    END IF;
    IF x_rules <> '{}' THEN
        WITH gone AS (
            DELETE FROM unfinished u USING unnest(x_poss, x_rules) AS x (pos, rule)
            WHERE u.tenant = whose AND u.pos = x.pos AND u.rule = x.rule RETURNING u.rule, u.key
        )
        SELECT c_rules || coalesce(array_agg(g.rule::TEXT), '{}'), c_keys || coalesce(array_agg(g.key::TEXT), '{}')
        INTO c_rules, c_keys FROM gone g WHERE g.key IS NOT NULL;
    END IF;
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
    IF t_gone <> '{}' THEN
        DELETE FROM timers t USING unnest(t_plugins, t_gone) AS g (plugin, timer)
        WHERE t.tenant = whose AND t.plugin = g.plugin AND (t.name = g.timer OR t.id = g.timer);
    END IF;
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

-- Keys with a prefix, in byte order, beyond `after`; `beyond` is the least text that is greater than all with the prefix.
CREATE FUNCTION list_keys(whose BIGINT, of BIGINT, prefix TEXT, beyond TEXT, after TEXT, at_most BIGINT)
RETURNS SETOF TEXT LANGUAGE sql STABLE AS $$
    SELECT s.key FROM state s WHERE s.tenant = whose AND s.plugin = of AND s.key >= prefix
    AND (beyond IS NULL OR s.key < beyond) AND (after IS NULL OR s.key > after) ORDER BY s.key LIMIT at_most
$$;

-- A value under a key.
CREATE FUNCTION read_state(whose BIGINT, of BIGINT, named TEXT)
RETURNS TABLE (value BYTEA, version BIGINT, expires BIGINT) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM be_tenant(whose);
    RETURN QUERY SELECT s.value, s.version, s.expires FROM state s
                 WHERE s.tenant = whose AND s.plugin = of AND s.key = named ORDER BY s.version DESC LIMIT 1;
END $$;

-- Deletes expired values; says how many.
CREATE FUNCTION expire_state(present BIGINT, at_most BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH gone AS (
        DELETE FROM state WHERE (tenant, plugin, key, version) IN (
            SELECT tenant, plugin, key, version FROM state WHERE expires <= present ORDER BY expires LIMIT at_most
            FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    ) SELECT count(*) FROM gone
$$;

-- Deliveries of these shards that are due, of active tenants, oldest first; the narrow part of them, from a moment and
-- place on.
CREATE FUNCTION due_deliveries(present BIGINT, shards BIGINT[], after_due BIGINT, after_seq BIGINT, at_most BIGINT)
RETURNS TABLE (is_due BIGINT, its_seq BIGINT, of_tenant BIGINT, its_sink word, its_id word)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT d.due, d.seq, d.tenant, d.sink, d.id FROM deliveries d JOIN tenants t ON t.id = d.tenant
    WHERE d.due <= present AND (d.due, d.seq) > (after_due, after_seq) AND t.state = 0 AND d.shard = ANY (shards)
    ORDER BY d.due, d.seq LIMIT at_most
$$;

-- When the next delivery of these shards is due.
CREATE FUNCTION next_delivery(present BIGINT, shards BIGINT[]) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT d.due FROM deliveries d JOIN tenants t ON t.id = d.tenant
    WHERE d.due > present AND t.state = 0 AND d.shard = ANY (shards) ORDER BY d.due LIMIT 1
$$;

-- Those deliveries whole.
CREATE FUNCTION fetch_deliveries(tenants BIGINT[], ids TEXT[])
RETURNS TABLE (d_tenant BIGINT, d_id word, d_sink word, d_content_type word, d_body BYTEA, d_attributes word,
               d_pos BIGINT, d_rule word, d_key word, d_attempts INTEGER, d_created BIGINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT d.tenant, d.id, d.sink, d.content_type, d.body, d.attributes, d.pos, d.rule, d.key, d.attempts, d.created
    FROM unnest(tenants, ids) AS want (tenant, id) JOIN deliveries d ON d.tenant = want.tenant AND d.id = want.id
    WHERE d.due IS NOT NULL ORDER BY d.due, d.seq
$$;

-- Records the ends of attempts. A person may have parked or dropped a delivery while it was on its way: only its arrival
-- is news then.
CREATE FUNCTION settle(
    tenants BIGINT[], ids TEXT[], states BIGINT[], dues BIGINT[], tries BIGINT[], codes TEXT[], reasons TEXT[],
    ats BIGINT[]
) RETURNS VOID LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    line_tenants BIGINT[];
    line_sinks   TEXT[];
    line_keys    TEXT[];
BEGIN
    -- Whose deliveries stand in lines: there nobody may add or end another meanwhile.
    PERFORM have_tenant(whose.tenant) FROM (
        SELECT DISTINCT s.tenant FROM unnest(tenants, ids) AS s (tenant, id)
        JOIN deliveries d ON d.tenant = s.tenant AND d.id = s.id WHERE d.key IS NOT NULL ORDER BY 1
    ) whose;
    WITH settled AS (
        UPDATE deliveries SET state = s.state, due = s.due, attempts = s.attempts, code = s.code, reason = s.reason,
               updated = s.at
        FROM unnest(tenants, ids, states, dues, tries, codes, reasons, ats)
             AS s (tenant, id, state, due, attempts, code, reason, at)
        WHERE deliveries.tenant = s.tenant AND deliveries.id = s.id
        AND (deliveries.state = 0 OR deliveries.state <> 1 AND s.state = 1)
        RETURNING deliveries.tenant, deliveries.sink, deliveries.key
    )
    SELECT array_agg(l.tenant), array_agg(l.sink::TEXT), array_agg(l.key::TEXT)
    INTO line_tenants, line_sinks, line_keys FROM settled l WHERE l.key IS NOT NULL;
    IF line_tenants IS NOT NULL THEN
        PERFORM advance(line_tenants, line_sinks, line_keys);
    END IF;
END $$;

-- How many deliveries are pending and parked, per tenant and sink.
CREATE FUNCTION delivery_depths() RETURNS TABLE (of_tenant BIGINT, of_sink word, pending BIGINT, parked BIGINT)
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT tenant, sink, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 2)
    FROM deliveries WHERE state IN (0, 2) GROUP BY tenant, sink
$$;

-- Takes timers that are due, for the same transaction to append their events.
CREATE FUNCTION take_timers(present BIGINT, at_most BIGINT) RETURNS SETOF timers
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH gone AS (
        DELETE FROM timers WHERE (tenant, id) IN (
            SELECT tenant, id FROM timers WHERE due <= present ORDER BY due, tenant, id LIMIT at_most
            FOR UPDATE SKIP LOCKED
        ) RETURNING *
    ) SELECT * FROM gone ORDER BY due, tenant, id
$$;

-- When the next timer is due, of those due after `beyond`.
CREATE FUNCTION next_timer(beyond BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT due FROM timers WHERE due > beyond ORDER BY due LIMIT 1
$$;

-- Adds emitted events of any tenants within a transaction of the store's own verbs: those of timers.
CREATE FUNCTION append_fired(
    tenants BIGINT[], shards BIGINT[], recordeds BIGINT[], times BIGINT[], hops BIGINT[], budgets BIGINT[],
    ids TEXT[], sources TEXT[], kinds TEXT[], subjects TEXT[], keys TEXT[], correlations TEXT[], causations TEXT[],
    types TEXT[], attributes TEXT[], hashes BYTEA[], datas BYTEA[], names UUID[]
) RETURNS TABLE (given BIGINT[], places BIGINT[]) LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp
AS $$
    SELECT * FROM put_events(tenants, shards, recordeds, times, hops, budgets, ids, sources, kinds, subjects, keys,
                             correlations, causations, types, attributes, hashes, datas, names)
$$;

-- Makes one row of each line of a statement of usage of which there are several; says how many rows went.
CREATE FUNCTION fold_usage() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
DECLARE
    folded BIGINT;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1112886325, 0) THEN
        RETURN 0;
    END IF;
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
