-- The outbox: events that an application writes in its own transactions, and that Bulkhead takes from there.
-- For Postgres 14 and newer, in the application's own database. To be run by whoever owns its tables, as often as
-- one likes:
--
--     psql "$APPLICATION_DATABASE" -v ON_ERROR_STOP=1 -f outbox.sql
--
-- What the columns mean, and how to write them, stands in docs/outbox.md. Another name than bulkhead_outbox: replace it
-- throughout; the table of refused rows is always called <name>_rejected, and the channel is the table's name.

CREATE TABLE IF NOT EXISTS bulkhead_outbox (
    -- The order. Keep the sequence as it is: one number at a time (CACHE 1), never set back.
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Whose event it is: the tenant's name, or its id (ten_…).
    tenant          TEXT NOT NULL,
    -- CloudEvents' attributes. Without event_id the row's id, without source `outbox:<the source's name>`.
    event_id        TEXT,
    source          TEXT,
    type            TEXT NOT NULL,
    subject         TEXT,
    time            TIMESTAMPTZ,
    datacontenttype TEXT,
    -- Events of one key keep their order on all their way.
    partitionkey    TEXT,
    -- Extension attributes: one object of texts, numbers, true and false.
    attributes      JSONB,
    -- The payload: JSON, or else bytes.
    data            JSONB,
    data_bytes      BYTEA,
    created_at      TIMESTAMPTZ DEFAULT now(),
    CONSTRAINT bulkhead_outbox_one_payload CHECK (num_nonnulls(data, data_bytes) <= 1),
    -- Far beyond what is taken in; no single row may trouble who reads it.
    CONSTRAINT bulkhead_outbox_payload_size
        CHECK (pg_column_size(data) <= 67108864 AND octet_length(data_bytes) <= 67108864)
);

-- Rows come and go: what was deleted is cleaned up by number, not by share, and at once.
ALTER TABLE bulkhead_outbox SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);

-- Rows that can never be taken in, with the reason. Nobody empties it but you.
CREATE TABLE IF NOT EXISTS bulkhead_outbox_rejected (
    rejected_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The row as it was; of a very large or unreadable one only id, tenant and type.
    row         JSONB NOT NULL,
    code        TEXT NOT NULL,
    reason      TEXT NOT NULL,
    rejected_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Wakes Bulkhead when a transaction with new rows commits. Equal notifications of a transaction are one. It saves time,
-- not events: without it rows are found by looking, once a second.
CREATE OR REPLACE FUNCTION bulkhead_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_NAME, '');
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER bulkhead_outbox_notify AFTER INSERT ON bulkhead_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_outbox_notify();

-- Who may what. The application's role only writes:
--
--     GRANT INSERT ON bulkhead_outbox TO application;
--
-- Bulkhead's role can do this and nothing else in this database:
--
--     CREATE ROLE bulkhead_drain LOGIN PASSWORD '…';
--     GRANT SELECT, DELETE ON bulkhead_outbox TO bulkhead_drain;
--     GRANT INSERT ON bulkhead_outbox_rejected TO bulkhead_drain;
