-- Which version of a plugin runs, since when, and who said so.
-- Adds columns that are NULL or have a constant default, and small tables: no row but those of versions is written anew.

-- What the operator allows the tenant's plugins: a JSON object; what is not in it is the host's own setting.
ALTER TABLE tenants ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';

-- The versions that the run began with, as a JSON object of plugins' names and numbers; NULL: it has not begun.
ALTER TABLE unfinished ADD COLUMN pins TEXT;

ALTER TABLE plugin_versions ADD COLUMN activated INTEGER; -- when it became active first
ALTER TABLE plugin_versions ADD COLUMN approver TEXT;     -- who agreed to what it asks for beyond the one before it
ALTER TABLE plugin_versions ADD COLUMN approved INTEGER;  -- and when
ALTER TABLE plugin_versions ADD COLUMN signature TEXT;    -- NULL: none was sent; else a JSON object
UPDATE plugin_versions SET activated = created
WHERE EXISTS (SELECT 1 FROM plugins p WHERE p.id = plugin AND number IN (p.active, p.previous));

-- What was done to a plugin's versions; append-only.
CREATE TABLE plugin_history (
    tenant  INTEGER NOT NULL,
    plugin  INTEGER NOT NULL REFERENCES plugins (id),
    number  INTEGER NOT NULL,             -- from 1 in each plugin
    action  TEXT    NOT NULL,
    version INTEGER NOT NULL,
    author  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    detail  TEXT    NOT NULL,             -- a JSON object
    PRIMARY KEY (plugin, number)
) STRICT, WITHOUT ROWID;

-- Candidates under way, at most one of a kind in each plugin. `number` is that of the entry of its beginning.
CREATE TABLE rollouts (
    tenant  INTEGER NOT NULL,
    plugin  INTEGER NOT NULL REFERENCES plugins (id),
    kind    INTEGER NOT NULL,             -- 0 canary, 1 shadow
    number  INTEGER NOT NULL,
    version INTEGER NOT NULL,
    author  TEXT    NOT NULL,
    started INTEGER NOT NULL,
    terms   TEXT    NOT NULL,             -- a JSON object
    tally   TEXT    NOT NULL,             -- likewise: what it came to so far
    PRIMARY KEY (plugin, kind)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollouts_tenant ON rollouts (tenant);
