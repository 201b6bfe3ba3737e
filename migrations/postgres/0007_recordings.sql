-- What single calls of plugins saw and what came of them, so that they can be made again.
-- A fresh table: takes no lock that anybody could wait for.

-- `number` tells recordings apart, and the oldest by it goes first when there are too many of a tenant's failures or
-- successes.
CREATE TABLE recordings (
    tenant         BIGINT  NOT NULL,
    number         BIGINT  NOT NULL,
    pos            BIGINT  NOT NULL,
    recorded       BIGINT  NOT NULL,
    event          UUID    NOT NULL,
    attempt        INTEGER NOT NULL,
    step           INTEGER NOT NULL,
    item           INTEGER NOT NULL,
    plugin_version INTEGER NOT NULL,
    size           INTEGER NOT NULL,      -- bytes of the body
    rule           word    NOT NULL,
    plugin         word    NOT NULL,
    code           word    NOT NULL,      -- empty: it was done
    body           BYTEA   NOT NULL,
    PRIMARY KEY (tenant, number) INCLUDE (size, code)
);
SELECT guard('recordings');

CREATE INDEX recordings_by_run ON recordings (tenant, event, number);
CREATE INDEX recordings_by_plugin ON recordings (tenant, plugin, number);
CREATE INDEX recordings_by_age ON recordings (recorded);

-- Adds recordings of calls, if the commit that they belong to is done, and lets the oldest go beyond what a tenant may
-- have of each kind. Called in the statement of the commit, which holds the tenant.
CREATE FUNCTION put_recordings(
    verdict INTEGER, whose BIGINT, poss BIGINT[], rules TEXT[], events UUID[], attempts BIGINT[], steps BIGINT[],
    items BIGINT[], plugins TEXT[], versions BIGINT[], codes TEXT[], recordeds BIGINT[], bodies BYTEA[], count_max BIGINT,
    bytes_max BIGINT
) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF verdict <> 0 OR rules = '{}' THEN
        RETURN;
    END IF;
    INSERT INTO recordings (tenant, number, pos, rule, event, attempt, step, item, plugin, plugin_version, code, recorded,
                            size, body)
    SELECT whose, nextval('numbers'), n.pos, n.rule, n.event, n.attempt, n.step, n.item, n.plugin, n.version, n.code,
           n.recorded, octet_length(n.body), n.body
    FROM unnest(poss, rules, events, attempts, steps, items, plugins, versions, codes, recordeds, bodies)
         AS n (pos, rule, event, attempt, step, item, plugin, version, code, recorded, body);
    DELETE FROM recordings r USING (
        SELECT k.number, count(*) OVER newest AS many, sum(k.size) OVER newest AS bytes
        FROM recordings k WHERE k.tenant = whose WINDOW newest AS (PARTITION BY k.code = '' ORDER BY k.number DESC)
    ) kept
    WHERE r.tenant = whose AND r.number = kept.number AND (kept.many > count_max OR kept.bytes > bytes_max);
END $$;

-- Deletes recordings that are older than `before`; says how many.
CREATE FUNCTION expire_recordings(before BIGINT, at_most BIGINT) RETURNS BIGINT
LANGUAGE sql SECURITY DEFINER SET search_path = bulkhead, pg_temp AS $$
    WITH gone AS (
        DELETE FROM recordings WHERE (tenant, number) IN (
            SELECT tenant, number FROM recordings WHERE recorded < before ORDER BY recorded LIMIT at_most
            FOR UPDATE SKIP LOCKED
        ) RETURNING 1
    ) SELECT count(*) FROM gone
$$;
