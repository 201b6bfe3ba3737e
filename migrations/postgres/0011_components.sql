-- What components weigh, since when a plugin's active version is that, and what the operator asks of a tenant's versions.
-- Adds columns that are NULL or have a constant default; rows of plugins and versions are written anew, and they are few.

-- Bytes of the component. Of what a tenant keeps, each component counts once, however many versions have it.
ALTER TABLE plugin_versions ADD COLUMN size BIGINT NOT NULL DEFAULT 0;
UPDATE plugin_versions v SET size = octet_length(b.bytes) FROM blobs b WHERE b.digest = v.digest;

-- A tenant's components are summed from the index alone.
DROP INDEX plugin_versions_digest;
CREATE INDEX plugin_versions_components ON plugin_versions (tenant, digest, size, retired);
-- Whether anybody has a component still.
CREATE INDEX plugin_versions_blob ON plugin_versions (digest);

ALTER TABLE plugins ADD COLUMN activated BIGINT; -- when its active version became so, the last time
UPDATE plugins p SET activated = coalesce(
    (SELECT max(h.at) FROM plugin_history h WHERE h.plugin = p.id AND h.action IN ('activated', 'rolled-back')),
    (SELECT v.activated FROM plugin_versions v WHERE v.plugin = p.id AND v.number = p.active)
);

-- What the operator asks of versions of the tenant's plugins: a JSON object; what is not in it is not asked.
ALTER TABLE tenants ADD COLUMN asks word NOT NULL DEFAULT '{}';

-- Whoever brings a component and whoever lets the same one go keep out of each other's way until their transactions end:
-- else it could go when a version of somebody else's has just come to have it. Who does both lets go first.
CREATE OR REPLACE FUNCTION put_blob(its_digest TEXT, its_bytes BYTEA) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1112886327, hashtext(its_digest));
    INSERT INTO blobs (digest, bytes) VALUES (its_digest, its_bytes) ON CONFLICT DO NOTHING;
END $$;

-- Deletes a component that no version of any tenant has any more. A statement of its own after the lock, so that it sees
-- what was done until then.
CREATE FUNCTION drop_blob(its_digest TEXT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1112886327, hashtext(its_digest));
    DELETE FROM blobs b WHERE b.digest = its_digest
    AND NOT EXISTS (SELECT 1 FROM plugin_versions v WHERE v.digest = its_digest);
END $$;
