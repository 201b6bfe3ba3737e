-- What the operator allows a tenant.
-- Adds a column with a constant default: no row is written anew, and the lock is held for a moment.

ALTER TABLE tenants ADD COLUMN quotas word NOT NULL DEFAULT '{}'; -- a JSON object; what is not in it is the host's default
