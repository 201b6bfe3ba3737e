-- What dispatch leaves behind: runs, what is unfinished, state, deliveries, timers, usage; and who may dispatch.
-- Fresh tables: takes no lock that anybody could wait for.

-- Who works on a shard. `fence` only grows; times are the database's own, in microseconds.
CREATE TABLE leases (
    shard INTEGER NOT NULL PRIMARY KEY,
    owner TEXT,                           -- NULL: free
    fence INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;

-- Ended attempts; append-only. `number` tells attempts apart also after a redrive, which counts them anew.
CREATE TABLE runs (
    tenant         INTEGER NOT NULL,
    pos            INTEGER NOT NULL,
    rule           TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    rule_set       INTEGER NOT NULL,
    event          BLOB    NOT NULL,
    plugin         TEXT,
    plugin_version INTEGER,
    state          INTEGER NOT NULL,      -- 0 done, 1 retrying, 2 parked, 3 dropped
    code           TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    fuel           INTEGER NOT NULL,
    micros         INTEGER NOT NULL,
    ended          INTEGER NOT NULL,
    effects        INTEGER NOT NULL,
    logs           TEXT,                  -- NULL: none; else a JSON array
    PRIMARY KEY (tenant, pos, rule, number)
) STRICT, WITHOUT ROWID;

-- Failures are what people look for, and they are few.
CREATE INDEX runs_not_done ON runs (tenant, state, pos) WHERE state <> 0;

-- Runs that must happen again, or have not begun. Sparse. The first of a (tenant, rule, key) is never blocked.
CREATE TABLE unfinished (
    tenant   INTEGER NOT NULL,
    pos      INTEGER NOT NULL,
    rule     TEXT    NOT NULL,
    shard    INTEGER NOT NULL,
    key      TEXT,                        -- NULL: the rule asks for no order
    event    BLOB    NOT NULL,
    waiting  INTEGER NOT NULL,            -- 0 retry, 1 blocked, 2 held, 3 parked
    due      INTEGER,                     -- NULL unless it waits for a retry
    attempts INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    plugin   TEXT,
    hops     INTEGER NOT NULL,
    budget   INTEGER NOT NULL,
    rule_set INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    PRIMARY KEY (tenant, pos, rule)
) STRICT, WITHOUT ROWID;

CREATE INDEX unfinished_due ON unfinished (tenant, shard, due) WHERE due IS NOT NULL;
CREATE INDEX unfinished_due_all ON unfinished (due, tenant, shard) WHERE due IS NOT NULL;
CREATE INDEX unfinished_chain ON unfinished (tenant, rule, key, pos) WHERE key IS NOT NULL;
-- Every blocked chain has its first row here, so this answers "is the key blocked" without a walk along the chain.
CREATE INDEX unfinished_heads ON unfinished (tenant, key, rule) WHERE key IS NOT NULL AND waiting <> 1;
CREATE INDEX unfinished_waiting ON unfinished (tenant, waiting, pos);

-- Plugins' keys and values.
CREATE TABLE state (
    tenant  INTEGER NOT NULL,
    plugin  INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    value   BLOB    NOT NULL,
    version INTEGER NOT NULL,
    expires INTEGER,
    PRIMARY KEY (tenant, plugin, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;

-- Effects on their way out. `due` is set while a delivery is pending and nothing of its (tenant, sink, key) is before it.
CREATE TABLE deliveries (
    seq          INTEGER PRIMARY KEY,
    tenant       INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    sink         TEXT    NOT NULL,
    key          TEXT,
    pos          INTEGER NOT NULL,
    rule         TEXT    NOT NULL,
    state        INTEGER NOT NULL,        -- 0 pending, 1 delivered, 2 parked, 3 dropped
    due          INTEGER,
    attempts     INTEGER NOT NULL,
    code         TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    content_type TEXT    NOT NULL,
    attributes   TEXT,
    body         BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX deliveries_id ON deliveries (tenant, id);
CREATE INDEX deliveries_due ON deliveries (due, seq, tenant, sink) WHERE due IS NOT NULL;
CREATE INDEX deliveries_chain ON deliveries (tenant, sink, key, seq) WHERE key IS NOT NULL AND state IN (0, 2);
CREATE INDEX deliveries_open ON deliveries (tenant, sink, state) WHERE state IN (0, 2);
CREATE INDEX deliveries_made ON deliveries (tenant, created, id);
CREATE INDEX deliveries_event ON deliveries (tenant, pos);

-- Events that will be appended at a time.
CREATE TABLE timers (
    tenant       INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    plugin       INTEGER NOT NULL,
    name         TEXT,
    due          INTEGER NOT NULL,
    shard        INTEGER NOT NULL,
    hops         INTEGER NOT NULL,
    budget       INTEGER NOT NULL,
    source       TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    subject      TEXT,
    time         INTEGER NOT NULL,
    key          TEXT,
    correlation  TEXT    NOT NULL,
    causation    TEXT,
    content_type TEXT    NOT NULL,
    attributes   TEXT,
    data         BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX timers_due ON timers (due);
CREATE INDEX timers_soonest ON timers (tenant, due);
CREATE UNIQUE INDEX timers_name ON timers (tenant, plugin, name) WHERE name IS NOT NULL;

-- What was used, per day. Accepted events are counted under the empty plugin and rule.
CREATE TABLE usage (
    tenant     INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    plugin     TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    events     INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    fuel       INTEGER NOT NULL,
    micros     INTEGER NOT NULL,
    emitted    INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (tenant, day, plugin, rule)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_units (
    tenant INTEGER NOT NULL,
    day    INTEGER NOT NULL,
    plugin TEXT    NOT NULL,
    rule   TEXT    NOT NULL,
    unit   TEXT    NOT NULL,
    amount REAL    NOT NULL,
    PRIMARY KEY (tenant, day, plugin, rule, unit)
) STRICT, WITHOUT ROWID;
