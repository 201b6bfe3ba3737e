-- Due deliveries by queue (tenant and sink): a look steps from one queue to the next, and no sink's deliveries are in the
-- way of another's. Reads the table once and holds up writers meanwhile: about a second for a million rows.

CREATE INDEX deliveries_queue ON deliveries (tenant, sink, due, seq) WHERE due IS NOT NULL;
DROP INDEX deliveries_due;

-- Runs that are due are found lane by lane, too.
DROP INDEX unfinished_due_all;
