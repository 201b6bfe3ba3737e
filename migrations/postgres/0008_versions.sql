-- Which version of a plugin runs, since when, and who said so.
-- Adds columns that are NULL or have a constant default, and small tables: no row but those of versions is written anew,
-- and each lock is held for a moment.

-- What the operator allows the tenant's plugins: a JSON object; what is not in it is the host's own setting.
ALTER TABLE tenants ADD COLUMN policy word NOT NULL DEFAULT '{}';

-- The versions that the run began with, as a JSON object of plugins' names and numbers; NULL: it has not begun.
ALTER TABLE unfinished ADD COLUMN pins word;

ALTER TABLE plugin_versions ADD COLUMN activated BIGINT; -- when it became active first
ALTER TABLE plugin_versions ADD COLUMN approver word;    -- who agreed to what it asks for beyond the one before it
ALTER TABLE plugin_versions ADD COLUMN approved BIGINT;  -- and when
ALTER TABLE plugin_versions ADD COLUMN signature word;   -- NULL: none was sent; else a JSON object
UPDATE plugin_versions v SET activated = v.created
FROM plugins p WHERE p.id = v.plugin AND v.number IN (p.active, p.previous);

-- What was done to a plugin's versions; append-only.
CREATE TABLE plugin_history (
    tenant  BIGINT  NOT NULL,
    plugin  BIGINT  NOT NULL REFERENCES plugins (id),
    number  BIGINT  NOT NULL,             -- from 1 in each plugin
    action  word    NOT NULL,
    version INTEGER NOT NULL,
    author  word    NOT NULL,
    at      BIGINT  NOT NULL,
    detail  word    NOT NULL,             -- a JSON object
    PRIMARY KEY (plugin, number)
);
SELECT guard('plugin_history');

-- Candidates under way, at most one of a kind in each plugin. `number` is that of the entry of its beginning.
CREATE TABLE rollouts (
    tenant  BIGINT   NOT NULL,
    plugin  BIGINT   NOT NULL REFERENCES plugins (id),
    kind    SMALLINT NOT NULL,            -- 0 canary, 1 shadow
    number  BIGINT   NOT NULL,
    version INTEGER  NOT NULL,
    author  word     NOT NULL,
    started BIGINT   NOT NULL,
    terms   word     NOT NULL,            -- a JSON object
    tally   word     NOT NULL,            -- likewise: what it came to so far
    PRIMARY KEY (plugin, kind)
);
CREATE INDEX rollouts_tenant ON rollouts (tenant);
SELECT guard('rollouts');

-- The versions that a run began with; only for runs that `read_batch` gave.
CREATE FUNCTION pins_of(whose BIGINT, at BIGINT, by_rule TEXT) RETURNS TEXT LANGUAGE sql STABLE AS $$
    SELECT u.pins FROM unfinished u WHERE u.tenant = whose AND u.pos = at AND u.rule = by_rule
$$;

-- Writes them beside what `commit_batch` has put, as a part of its transaction; does nothing if it was not applied.
CREATE FUNCTION put_pins(verdict INTEGER, whose BIGINT, poss BIGINT[], rules TEXT[], versions TEXT[]) RETURNS VOID
LANGUAGE sql AS $$
    UPDATE unfinished u SET pins = p.versions FROM unnest(poss, rules, versions) AS p (pos, rule, versions)
    WHERE verdict = 0 AND u.tenant = whose AND u.pos = p.pos AND u.rule = p.rule AND u.pins IS DISTINCT FROM p.versions
$$;
