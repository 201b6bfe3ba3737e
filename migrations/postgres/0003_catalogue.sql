-- What people set: keys, plugins, rules, sinks, secrets. Small, read often.
-- Fresh tables: takes no lock that anybody could wait for.

CREATE TABLE api_keys (
    id      word   NOT NULL PRIMARY KEY,
    tenant  BIGINT REFERENCES tenants (id), -- NULL: the operator's
    hash    BYTEA  NOT NULL,
    scopes  word   NOT NULL,                -- a JSON array
    note    word   NOT NULL,
    created BIGINT NOT NULL,
    revoked BIGINT
);
CREATE INDEX api_keys_tenant ON api_keys (tenant, created);
SELECT guard('api_keys');

CREATE TABLE plugins (
    id       BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant   BIGINT  NOT NULL REFERENCES tenants (id),
    name     word    NOT NULL,
    active   INTEGER,
    previous INTEGER,
    paused   BOOLEAN NOT NULL,
    config   word    NOT NULL,
    created  BIGINT  NOT NULL,
    UNIQUE (tenant, name)
);
SELECT guard('plugins');

-- Immutable but for `retired`.
CREATE TABLE plugin_versions (
    tenant     BIGINT  NOT NULL,
    plugin     BIGINT  NOT NULL REFERENCES plugins (id),
    number     INTEGER NOT NULL,
    digest     word    NOT NULL,
    manifest   word    NOT NULL,
    inspection word    NOT NULL,
    grants     word    NOT NULL,
    author     word    NOT NULL,
    created    BIGINT  NOT NULL,
    retired    BOOLEAN NOT NULL,
    PRIMARY KEY (plugin, number)
);
CREATE INDEX plugin_versions_digest ON plugin_versions (tenant, digest);
SELECT guard('plugin_versions');

-- Components by digest, once however many tenants have them; a tenant reaches one only through a version of its own.
CREATE TABLE blobs (
    digest word  NOT NULL PRIMARY KEY,
    bytes  BYTEA NOT NULL
);
ALTER TABLE blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;

CREATE TABLE rule_sets (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    number  BIGINT NOT NULL,
    rules   word   NOT NULL,
    author  word   NOT NULL,
    note    word   NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (tenant, number)
);
SELECT guard('rule_sets');

CREATE TABLE paused_rules (
    tenant BIGINT NOT NULL REFERENCES tenants (id),
    rule   word   NOT NULL,
    PRIMARY KEY (tenant, rule)
);
SELECT guard('paused_rules');

CREATE TABLE sinks (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    name    word   NOT NULL,
    spec    word   NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
SELECT guard('sinks');

CREATE TABLE secrets (
    tenant  BIGINT  NOT NULL REFERENCES tenants (id),
    name    word    NOT NULL,
    version INTEGER NOT NULL,
    sealed  BYTEA   NOT NULL,
    updated BIGINT  NOT NULL,
    PRIMARY KEY (tenant, name)
);
SELECT guard('secrets');

-- The operator's verbs on tenants and keys, and the host's own values.

CREATE FUNCTION create_tenant(its_uid TEXT, its_name TEXT, present BIGINT) RETURNS SETOF tenants
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    INSERT INTO tenants (uid, name, state, settings, rule_set, created) VALUES (its_uid, its_name, 0, 1, 0, present)
    ON CONFLICT DO NOTHING RETURNING *
$$;

-- All tenants, or those with a name or uid.
CREATE FUNCTION find_tenants(named TEXT) RETURNS SETOF tenants
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT * FROM tenants WHERE named IS NULL OR name = named OR uid = named ORDER BY name
$$;

-- Which of these are tenants.
CREATE FUNCTION known_tenants(ids BIGINT[]) RETURNS SETOF BIGINT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT id FROM tenants WHERE id = ANY (ids)
$$;

CREATE FUNCTION find_keys(by_id TEXT, by_tenant BIGINT, of_operator BOOLEAN) RETURNS SETOF api_keys
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT * FROM api_keys WHERE (id = by_id OR tenant = by_tenant OR (of_operator AND tenant IS NULL))
    ORDER BY created DESC, id DESC
$$;

-- 1 if it was added, 0 if its id is taken.
CREATE FUNCTION add_key(its_id TEXT, of_tenant BIGINT, its_hash BYTEA, its_scopes TEXT, its_note TEXT, at BIGINT,
                        until BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH added AS (
        INSERT INTO api_keys (id, tenant, hash, scopes, note, created, revoked)
        VALUES (its_id, of_tenant, its_hash, its_scopes, its_note, at, until) ON CONFLICT DO NOTHING RETURNING 1
    ) SELECT count(*) FROM added
$$;

-- Who revokes again does not change when it was revoked first.
CREATE FUNCTION revoke_key(of_tenant BIGINT, its_id TEXT, present BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH changed AS (
        UPDATE api_keys SET revoked = coalesce(revoked, present)
        WHERE id = its_id AND tenant IS NOT DISTINCT FROM of_tenant RETURNING 1
    ) SELECT count(*) FROM changed
$$;

CREATE FUNCTION find_value(named TEXT) RETURNS BYTEA
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT value FROM host_values WHERE name = named
$$;

-- Sets a value if it is not there yet.
CREATE FUNCTION set_value(named TEXT, new BYTEA) RETURNS VOID
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    INSERT INTO host_values (name, value) VALUES (named, new) ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION clear_value(named TEXT) RETURNS VOID
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    DELETE FROM host_values WHERE name = named
$$;

CREATE FUNCTION put_blob(its_digest TEXT, its_bytes BYTEA) RETURNS VOID
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    INSERT INTO blobs (digest, bytes) VALUES (its_digest, its_bytes) ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION component(whose BIGINT, wanted TEXT) RETURNS BYTEA
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    SELECT b.bytes FROM blobs b WHERE b.digest = wanted
    AND EXISTS (SELECT 1 FROM plugin_versions v WHERE v.tenant = whose AND v.digest = wanted)
$$;
