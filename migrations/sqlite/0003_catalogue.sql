-- What people set: keys, plugins, rules, sinks, secrets. Small, read often.
-- Fresh tables: takes no lock that anybody could wait for.

CREATE TABLE api_keys (
    id      TEXT    NOT NULL PRIMARY KEY,
    tenant  INTEGER REFERENCES tenants (id), -- NULL: the operator's
    hash    BLOB    NOT NULL,
    scopes  TEXT    NOT NULL,                -- a JSON array
    note    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_tenant ON api_keys (tenant, created);

CREATE TABLE plugins (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   INTEGER NOT NULL REFERENCES tenants (id),
    name     TEXT    NOT NULL,
    active   INTEGER,
    previous INTEGER,
    paused   INTEGER NOT NULL,
    config   TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    UNIQUE (tenant, name)
) STRICT;

-- Immutable but for `retired`.
CREATE TABLE plugin_versions (
    tenant     INTEGER NOT NULL,
    plugin     INTEGER NOT NULL REFERENCES plugins (id),
    number     INTEGER NOT NULL,
    digest     TEXT    NOT NULL,
    manifest   TEXT    NOT NULL,
    inspection TEXT    NOT NULL,
    grants     TEXT    NOT NULL,
    author     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    retired    INTEGER NOT NULL,
    PRIMARY KEY (plugin, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX plugin_versions_digest ON plugin_versions (tenant, digest);

-- Components by digest, once however many tenants have them; a tenant reaches one only through a version of its own.
CREATE TABLE blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;

CREATE TABLE rule_sets (
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    number  INTEGER NOT NULL,
    rules   TEXT    NOT NULL,
    author  TEXT    NOT NULL,
    note    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE paused_rules (
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    rule   TEXT    NOT NULL,
    PRIMARY KEY (tenant, rule)
) STRICT, WITHOUT ROWID;

CREATE TABLE sinks (
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    name    TEXT    NOT NULL,
    spec    TEXT    NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    tenant  INTEGER NOT NULL REFERENCES tenants (id),
    name    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    sealed  BLOB    NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
