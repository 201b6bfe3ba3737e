-- What single calls of plugins saw and what came of them, so that they can be made again.
-- A fresh table: takes no lock that anybody could wait for.

-- `number` tells recordings apart, and the oldest by it goes first when there are too many of a tenant's failures or
-- successes.
CREATE TABLE recordings (
    number         INTEGER PRIMARY KEY,
    tenant         INTEGER NOT NULL,
    pos            INTEGER NOT NULL,
    rule           TEXT    NOT NULL,
    event          BLOB    NOT NULL,
    attempt        INTEGER NOT NULL,
    step           INTEGER NOT NULL,
    item           INTEGER NOT NULL,
    plugin         TEXT    NOT NULL,
    plugin_version INTEGER NOT NULL,
    code           TEXT    NOT NULL,      -- empty: it was done
    recorded       INTEGER NOT NULL,
    size           INTEGER NOT NULL,      -- bytes of the body
    body           BLOB    NOT NULL
) STRICT;

-- What a tenant has, from the newest on, is summed without a look at the bodies.
CREATE INDEX recordings_by_tenant ON recordings (tenant, number, size, code);
CREATE INDEX recordings_by_run ON recordings (tenant, event, number);
CREATE INDEX recordings_by_plugin ON recordings (tenant, plugin, number);
CREATE INDEX recordings_by_age ON recordings (recorded);
