-- A key of a plugin's state is kept once, and no longer with each of its values.
--
-- A value that is replaced stays, with its entry in the index, for as long as somebody's long transaction might look at it.
-- That entry held the tenant, the plugin and the key; now it has two numbers, however long the key is. Keys are listed, and
-- values counted, without a walk over what was replaced.
--
-- All values are written anew, about 7 s and 330 MB for a million of 100 bytes. Until that has ended nobody commits or reads
-- state; what waits meanwhile fails, and is done again. Who has the table open (a dump, a long transaction) makes the migration
-- give up after two seconds, in which dispatch stands still; it is begun again for a minute. What nodes of the release before
-- cannot do from then on is count the bytes of a tenant's state: who has a quota of storage is counted, and may upload, when a
-- node of this release does it.

SET LOCAL lock_timeout = '2s';
LOCK TABLE state IN ACCESS EXCLUSIVE MODE;

-- Which keys there are, each with a slot that was never another's.
CREATE TABLE state_keys (
    tenant BIGINT NOT NULL,
    plugin BIGINT NOT NULL,
    slot   BIGINT NOT NULL DEFAULT nextval('numbers'),
    key    word   NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
INSERT INTO state_keys (tenant, plugin, key) SELECT s.tenant, s.plugin, s.key FROM state s;
-- Of a key that was deleted and made again, the newest slot is found before those that were there.
ALTER TABLE state_keys ADD PRIMARY KEY (tenant, plugin, key, slot);
-- Has no order, so no look for a key's newest slot is ever planned as a walk along it, as if the table were empty.
CREATE INDEX state_keys_slot ON state_keys USING hash (slot);
SELECT guard('state_keys');

-- Values are replaced, never updated, as before: the newest version of a slot is found before all that were there. (The table
-- has another name than the old one, so that calls which wait for that one fail, and do not go on with half of what is new.)
CREATE TABLE state_values (
    slot    BIGINT NOT NULL,
    version BIGINT NOT NULL,
    tenant  BIGINT NOT NULL,
    expires BIGINT,
    value   BYTEA  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
INSERT INTO state_values (slot, version, tenant, expires, value)
SELECT k.slot, s.version, s.tenant, s.expires, s.value FROM state s JOIN state_keys k USING (tenant, plugin, key);
ALTER TABLE state_values ADD PRIMARY KEY (slot, version);
CREATE INDEX state_values_expires ON state_values (expires) WHERE expires IS NOT NULL;
SELECT guard('state_values');

-- The same rights on these as on what they replace, at once: nodes are at work.
DO $$
DECLARE
    held RECORD;
BEGIN
    FOR held IN
        SELECT a.grantee::REGROLE AS who, a.privilege_type AS what FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'state'::REGCLASS AND a.grantee <> c.relowner AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT %s ON state_keys, state_values TO %s', held.what, held.who);
    END LOOP;
END $$;
DROP TABLE state;
ANALYZE state_keys, state_values;

-- What a commit read is as it was, and where the values are that it replaces, as before.
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
                       SELECT s.place FROM (
                           SELECT k.slot FROM state_keys k
                           WHERE k.tenant = whose AND k.plugin = l.w_plugin AND k.key = l.w_key ORDER BY k.slot DESC LIMIT 1
                       ) named CROSS JOIN LATERAL (
                           SELECT o.ctid AS place FROM state_values o WHERE o.slot = named.slot ORDER BY o.version DESC LIMIT 1
                       ) s
                   )
               END)
        FROM unnest(r_plugins, r_keys, r_versions, w_plugins, w_keys) AS l (plugin, key, version, w_plugin, w_key)
        LEFT JOIN LATERAL (
            SELECT k.slot FROM state_keys k
            WHERE k.tenant = whose AND k.plugin = l.plugin AND k.key = l.key ORDER BY k.slot DESC LIMIT 1
        ) named ON true
        LEFT JOIN LATERAL (
            SELECT s.version, s.ctid AS place FROM state_values s WHERE s.slot = named.slot AND s.version >= l.version
            ORDER BY s.version DESC LIMIT 1
        ) held ON true;
END $$;

-- Puts what a commit writes in the place of what `find_state` found in the same transaction. No row can have come to one
-- of these places since: the transaction's own snapshot keeps what was there. Only who takes a value away may put another
-- into its slot, or take its key away; where somebody else did meanwhile (`expire_state`), the key gets a new slot.
CREATE OR REPLACE FUNCTION put_state(
    whose BIGINT, version BIGINT, replaced TID[], plugins BIGINT[], keys TEXT[], datas BYTEA[], expiries BIGINT[]
) RETURNS VOID LANGUAGE plpgsql
-- What was taken away is joined with the list by hashes, however few rows the server expects.
SET enable_seqscan = off SET enable_nestloop = off AS $$
DECLARE
    slots BIGINT[];
    fresh BIGINT[];
BEGIN
    WITH gone AS (
        DELETE FROM state_values s WHERE s.ctid = ANY (replaced) AND s.tenant = whose RETURNING s.ctid AS place, s.slot
    )
    SELECT array_agg(g.slot ORDER BY w.at) INTO slots
    FROM unnest(replaced) WITH ORDINALITY AS w (place, at) LEFT JOIN gone g ON g.place = w.place;
    IF array_position(slots, NULL) IS NOT NULL THEN
        fresh := ARRAY(
            SELECT CASE WHEN w.slot IS NULL AND w.data IS NOT NULL THEN nextval('numbers') END
            FROM unnest(slots, datas) WITH ORDINALITY AS w (slot, data, at) ORDER BY w.at
        );
        INSERT INTO state_keys (tenant, plugin, slot, key)
        SELECT whose, n.plugin, n.slot, n.key FROM unnest(plugins, fresh, keys) AS n (plugin, slot, key)
        WHERE n.slot IS NOT NULL;
    END IF;
    INSERT INTO state_values (slot, version, tenant, expires, value)
    SELECT coalesce(w.slot, w.fresh), put_state.version, whose, w.expires, w.value
    FROM unnest(slots, fresh, datas, expiries) AS w (slot, fresh, value, expires) WHERE w.value IS NOT NULL;
    IF array_position(datas, NULL) IS NOT NULL THEN
        FOR at IN 1 .. cardinality(datas) LOOP
            IF datas[at] IS NULL AND slots[at] IS NOT NULL THEN
                DELETE FROM state_keys k
                WHERE k.tenant = whose AND k.plugin = plugins[at] AND k.key = keys[at] AND k.slot = slots[at];
            END IF;
        END LOOP;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION list_keys(
    whose BIGINT, of BIGINT, prefix TEXT, beyond TEXT, after TEXT, at_most BIGINT
) RETURNS SETOF TEXT LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
        SELECT k.key::TEXT FROM state_keys k WHERE k.tenant = whose AND k.plugin = of AND k.key >= prefix
        AND (beyond IS NULL OR k.key < beyond) AND (after IS NULL OR k.key > after) ORDER BY k.key LIMIT at_most;
END $$;

CREATE OR REPLACE FUNCTION read_state(whose BIGINT, of BIGINT, named TEXT)
RETURNS TABLE (value BYTEA, version BIGINT, expires BIGINT) LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM be_tenant(whose);
    RETURN QUERY
        SELECT s.value, s.version, s.expires FROM (
            SELECT k.slot FROM state_keys k WHERE k.tenant = whose AND k.plugin = of AND k.key = named
            ORDER BY k.slot DESC LIMIT 1
        ) one CROSS JOIN LATERAL (
            SELECT o.value, o.version, o.expires FROM state_values o WHERE o.slot = one.slot ORDER BY o.version DESC LIMIT 1
        ) s;
END $$;

-- Bytes of all keys and values of a tenant: 2 µs a key.
CREATE FUNCTION state_bytes(whose BIGINT) RETURNS BIGINT LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM be_tenant(whose);
    RETURN (
        SELECT coalesce(sum(octet_length(k.key) + s.bytes), 0) FROM state_keys k CROSS JOIN LATERAL (
            SELECT octet_length(o.value) AS bytes FROM state_values o WHERE o.slot = k.slot ORDER BY o.version DESC LIMIT 1
        ) s WHERE k.tenant = whose
    );
END $$;

-- Deletes expired values, and their keys; says how many. A value that is being replaced is no longer there to expire.
CREATE OR REPLACE FUNCTION expire_state(present BIGINT, at_most BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp SET enable_seqscan = off AS $$
DECLARE
    gone RECORD;
    many BIGINT := 0;
BEGIN
    FOR gone IN
        DELETE FROM state_values WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM state_values WHERE expires <= present ORDER BY expires LIMIT at_most FOR UPDATE SKIP LOCKED
        )) RETURNING tenant, slot
    LOOP
        -- Computed, the tenant fits no index: to a planner that knows nothing of the table, a walk over a tenant's keys is as
        -- good as a look at a slot.
        DELETE FROM state_keys k WHERE k.slot = gone.slot AND k.tenant + 0 = gone.tenant;
        many := many + 1;
    END LOOP;
    RETURN many;
END $$;
