-- The log, and what is known of each tenant's lane (tenant and shard) of it; who may see what.
-- Fresh tables: takes no lock that anybody could wait for.
--
-- Who may what. The owner of this schema made it and logs in for nothing else. The host's role owns nothing: it reaches
-- the rows of one tenant at a time, of the tenant that its transaction names (`this_tenant`), and what works across
-- tenants only through the functions marked SECURITY DEFINER, which are the store's verbs and no more.
--
-- What may pile up. Somebody's long transaction keeps dead rows from being removed, so nothing on the way of an event
-- is updated in place: events and runs are only added, cursors and usage too (the newest row counts, the rows are
-- summed), and old ones go in passing.

-- Texts sort by their bytes, as everywhere else in the host.
CREATE DOMAIN word AS TEXT COLLATE "C";

-- The tenant that the transaction works for; nothing if it named none.
CREATE FUNCTION this_tenant() RETURNS BIGINT LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('bulkhead.tenant', true), '')::BIGINT
$$;

-- Names the tenant for the rest of the transaction.
CREATE FUNCTION be_tenant(whose BIGINT) RETURNS VOID LANGUAGE sql AS $$
    SELECT set_config('bulkhead.tenant', whose::TEXT, true)
$$;

-- The database's own clock, in microseconds.
CREATE FUNCTION micros() RETURNS BIGINT LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT
$$;

-- Puts a tenant's table under guard: a row is there only for its tenant, and for the store's own verbs.
CREATE FUNCTION guard(target REGCLASS, whose NAME DEFAULT 'tenant') RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY own ON %s USING (%I = (SELECT bulkhead.this_tenant()))
                    WITH CHECK (%2$I = (SELECT bulkhead.this_tenant()))', target, whose);
    EXECUTE format('CREATE POLICY verbs ON %s TO %I USING (true) WITH CHECK (true)', target, current_user);
END $$;

-- Lets a role be the host's: it may reach what is under guard, and call the verbs. Called after every migration.
CREATE FUNCTION admit(host NAME) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    target REGCLASS;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA bulkhead TO %I', host);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA bulkhead TO %I', host);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bulkhead TO %I', host);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION bulkhead.guard, bulkhead.admit FROM %I', host);
    EXECUTE format('GRANT SELECT ON bulkhead._sqlx_migrations, bulkhead.leases, bulkhead.nodes TO %I', host);
    FOR target IN
        SELECT c.oid::REGCLASS FROM pg_class c
        WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relforcerowsecurity AND NOT c.relispartition
    LOOP
        IF target IN ('bulkhead.events'::REGCLASS, 'bulkhead.runs'::REGCLASS) THEN
            EXECUTE format('GRANT SELECT, INSERT ON %s TO %I', target, host);
        ELSE
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', target, host);
        END IF;
    END LOOP;
END $$;
-- Not the host's to call.
REVOKE EXECUTE ON FUNCTION guard, admit FROM PUBLIC;

-- What the host itself keeps: how many shards there are, its secrets, its switches.
CREATE TABLE host_values (
    name  word  NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE tenants (
    id       BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid      word     NOT NULL UNIQUE,
    name     word     NOT NULL UNIQUE,
    state    SMALLINT NOT NULL,           -- 0 active, 1 paused, 2 suspended
    settings BIGINT   NOT NULL,           -- grows with every change that dispatch must see
    rule_set BIGINT   NOT NULL,           -- the current one's number
    created  BIGINT   NOT NULL
);
SELECT guard('tenants', 'id');

-- Positions, versions of state, and the order of deliveries and runs: none is ever given out twice.
CREATE SEQUENCE numbers AS BIGINT CACHE 1;

-- Append-only, never updated; cut into segments by position, which are dropped as a whole. Rows are narrow because width
-- is what an append costs: what has a usual value is NULL.
CREATE TABLE events (
    pos          BIGINT   NOT NULL,
    tenant       BIGINT   NOT NULL,
    recorded     BIGINT   NOT NULL,
    time         BIGINT,                  -- NULL: as recorded
    budget       INTEGER  NOT NULL,
    shard        SMALLINT NOT NULL,
    hops         SMALLINT NOT NULL,
    id           word     NOT NULL,
    source       word     NOT NULL,
    kind         word     NOT NULL,
    subject      word,
    key          word,
    correlation  word,                    -- NULL: the event's own id
    causation    word,
    content_type word,                    -- NULL: application/json
    attributes   word,                    -- NULL: none; else a JSON array of pairs
    hash         BYTEA    NOT NULL,       -- over all fields; checked when a single event is read
    data         BYTEA    NOT NULL,
    PRIMARY KEY (tenant, pos)
) PARTITION BY RANGE (pos);
SELECT guard('events');

-- Only what follows from another event: first events are found by their own id.
CREATE INDEX events_by_correlation ON events (tenant, correlation, pos) WHERE correlation IS NOT NULL;

-- One row an event: refuses a second one with the same source and id, and finds an event by its id (the first four
-- bytes of a key are a hash of the id alone).
CREATE TABLE event_keys (
    tenant BIGINT NOT NULL,
    key    UUID   NOT NULL,
    pos    BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
SELECT guard('event_keys');

-- One row per tenant and shard that ever held an event.
CREATE TABLE lanes (
    tenant BIGINT   NOT NULL,
    shard  SMALLINT NOT NULL,
    PRIMARY KEY (tenant, shard)
);
SELECT guard('lanes');

-- How far each lane is worked off: a row a commit, of which the one with the greatest turn counts.
CREATE TABLE progress (
    tenant BIGINT   NOT NULL,
    shard  SMALLINT NOT NULL,
    turn   BIGINT   NOT NULL,
    cursor BIGINT   NOT NULL,
    PRIMARY KEY (tenant, shard, turn)
);
SELECT guard('progress');

-- What was used, per day: rows are added here and summed by readers, and folded into one now and then. Accepted events
-- are counted under the empty plugin and rule.
CREATE TABLE usage (
    tenant     BIGINT  NOT NULL,
    day        INTEGER NOT NULL,
    plugin     word    NOT NULL,
    rule       word    NOT NULL,
    events     BIGINT  NOT NULL DEFAULT 0,
    attempts   BIGINT  NOT NULL DEFAULT 0,
    done       BIGINT  NOT NULL DEFAULT 0,
    failed     BIGINT  NOT NULL DEFAULT 0,
    fuel       NUMERIC NOT NULL DEFAULT 0, -- sums of these may pass 64 bits
    micros     BIGINT  NOT NULL DEFAULT 0,
    emitted    BIGINT  NOT NULL DEFAULT 0,
    deliveries BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX usage_by_day ON usage (tenant, day);
SELECT guard('usage');

-- The segments of events and runs.
CREATE TABLE segments (
    number INTEGER NOT NULL PRIMARY KEY,  -- its positions begin at number << 32
    opened BIGINT  NOT NULL               -- when its first position may have been given out
);

-- A transaction that gives out positions holds the turn of its tenants until it ends, so that within a tenant positions
-- become visible in their order: who reads up to a position never finds one below it later. Tenants share turns, so that
-- there are few locks; they are taken in ascending order.
CREATE FUNCTION take_turns(tenants BIGINT[]) RETURNS VOID LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1112886321, turn) FROM (
        SELECT DISTINCT (tenant & 127)::INTEGER AS turn FROM unnest(tenants) AS tenant ORDER BY 1
    ) turns
$$;

-- A transaction that works on what a tenant's runs and deliveries wait for has them to itself.
CREATE FUNCTION have_tenant(tenant BIGINT) RETURNS VOID LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1112886322, (tenant & 2147483647)::INTEGER)
$$;

-- Adds events that are new; says for each the position that it was given, and the one where it is.
CREATE FUNCTION put_events(
    tenants BIGINT[], shards BIGINT[], recordeds BIGINT[], times BIGINT[], hops BIGINT[], budgets BIGINT[],
    ids TEXT[], sources TEXT[], kinds TEXT[], subjects TEXT[], keys TEXT[], correlations TEXT[], causations TEXT[],
    types TEXT[], attributes TEXT[], hashes BYTEA[], datas BYTEA[], names UUID[]
) RETURNS TABLE (given BIGINT[], places BIGINT[]) LANGUAGE plpgsql AS $$
DECLARE
    added BIGINT;
BEGIN
    PERFORM take_turns(tenants);
    given := ARRAY(SELECT nextval('numbers') FROM generate_subscripts(tenants, 1));
    INSERT INTO event_keys (tenant, key, pos) SELECT * FROM unnest(tenants, names, given) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added = cardinality(tenants) THEN
        places := given;
    ELSE
        places := ARRAY(
            SELECT k.pos FROM unnest(tenants, names) WITH ORDINALITY AS want (tenant, key, at)
            CROSS JOIN LATERAL (SELECT e.pos FROM event_keys e WHERE e.tenant = want.tenant AND e.key = want.key) k
            ORDER BY want.at
        );
    END IF;
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

-- Appends what came from outside, of any tenants, and counts what was accepted.
CREATE FUNCTION append(
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
    INSERT INTO usage (tenant, day, plugin, rule, events)
    SELECT n.tenant, n.recorded / 86400000000, '', '', count(*)
    FROM unnest(tenants, recordeds, given, places) AS n (tenant, recorded, pos, place)
    WHERE n.pos = n.place GROUP BY 1, 2;
    RETURN NEXT;
END $$;
