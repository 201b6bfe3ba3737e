-- What components weigh, since when a plugin's active version is that, and what the operator asks of a tenant's versions.
-- Adds columns that are NULL or have a constant default; rows of plugins and versions are written anew, and they are few.

-- Bytes of the component. Of what a tenant keeps, each component counts once, however many versions have it.
ALTER TABLE plugin_versions ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE plugin_versions
SET size = coalesce((SELECT octet_length(b.bytes) FROM blobs b WHERE b.digest = plugin_versions.digest), 0);

-- A tenant's components are summed from the index alone.
DROP INDEX plugin_versions_digest;
CREATE INDEX plugin_versions_components ON plugin_versions (tenant, digest, size, retired);
-- Whether anybody has a component still.
CREATE INDEX plugin_versions_blob ON plugin_versions (digest);

ALTER TABLE plugins ADD COLUMN activated INTEGER; -- when its active version became so, the last time
UPDATE plugins SET activated = coalesce(
    (SELECT max(h.at) FROM plugin_history h WHERE h.plugin = plugins.id AND h.action IN ('activated', 'rolled-back')),
    (SELECT v.activated FROM plugin_versions v WHERE v.plugin = plugins.id AND v.number = plugins.active)
);

-- What the operator asks of versions of the tenant's plugins: a JSON object; what is not in it is not asked.
ALTER TABLE tenants ADD COLUMN asks TEXT NOT NULL DEFAULT '{}';
