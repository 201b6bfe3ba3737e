-- What a plugin's settings ask of its versions, and what previews of them came to.
-- A column with a constant default and a small table: no row is written anew.

-- A JSON object; what is not in it is not asked.
ALTER TABLE plugins ADD COLUMN policy word NOT NULL DEFAULT '{}';

-- The last preview of each version against each other one.
CREATE TABLE plugin_previews (
    tenant  BIGINT NOT NULL,
    plugin  BIGINT NOT NULL REFERENCES plugins (id),
    version INTEGER NOT NULL,
    against INTEGER NOT NULL,             -- 0: the plugin had no active version
    author  word NOT NULL,
    at      BIGINT NOT NULL,
    counts  word NOT NULL,                  -- a JSON object
    PRIMARY KEY (plugin, version, against)
);
SELECT guard('plugin_previews');
