-- The log, and what is known of each tenant's lane (tenant and shard) of it.
-- Fresh tables: takes no lock that anybody could wait for.

-- What the host itself keeps: how many shards there are, its secrets, its switches.
CREATE TABLE host_values (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    uid      TEXT    NOT NULL UNIQUE,
    name     TEXT    NOT NULL UNIQUE,
    state    INTEGER NOT NULL,            -- 0 active, 1 paused, 2 suspended
    settings INTEGER NOT NULL,            -- grows with every change that dispatch must see
    rule_set INTEGER NOT NULL,            -- the current one's number
    created  INTEGER NOT NULL
) STRICT;

-- Append-only, never updated. Rows are narrow because width is what an append costs: what has a usual value is NULL.
CREATE TABLE events (
    pos          INTEGER PRIMARY KEY,
    tenant       INTEGER NOT NULL,
    shard        INTEGER NOT NULL,
    recorded     INTEGER NOT NULL,
    time         INTEGER,                 -- NULL: as recorded
    hops         INTEGER NOT NULL,
    budget       INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    source       TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    subject      TEXT,
    key          TEXT,
    correlation  TEXT,                    -- NULL: the event's own id
    causation    TEXT,
    content_type TEXT,                    -- NULL: application/json
    attributes   TEXT,                    -- NULL: none; else a JSON array of pairs
    hash         BLOB    NOT NULL,        -- over all fields; checked when a single event is read
    data         BLOB    NOT NULL
) STRICT;

-- Dispatch reads a lane in order; readers of a tenant merge its lanes.
CREATE INDEX events_by_lane ON events (tenant, shard, pos);
-- Only what follows from another event: first events are found by their own id.
CREATE INDEX events_by_correlation ON events (tenant, correlation, pos) WHERE correlation IS NOT NULL;

-- One row an event: refuses a second one with the same source and id, and finds an event by its id (the first four
-- bytes of a key are a hash of the id alone).
CREATE TABLE event_keys (
    tenant INTEGER NOT NULL,
    key    BLOB    NOT NULL,
    pos    INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- One row per tenant and shard that ever held an event. `head` is moved by appends, `cursor` by commits alone.
-- `number` is the last of the store's numbers that a commit here used, so that none is given out twice.
CREATE TABLE progress (
    tenant INTEGER NOT NULL,
    shard  INTEGER NOT NULL,
    head   INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (tenant, shard)
) STRICT, WITHOUT ROWID;

-- The backlog after a restart, without a look at events or idle tenants.
CREATE INDEX progress_backlog ON progress (tenant, shard) WHERE cursor < head;
