-- What the operator allows a tenant.
-- Adds a column with a constant default: no row is written anew.

ALTER TABLE tenants ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}'; -- a JSON object; what is not in it is the host's default
