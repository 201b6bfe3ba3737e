-- What live streams read, for many at a time: at four round trips a look, they were most of what a node with small batches
-- asked for. A function and no table: takes no lock that anybody could wait for.

-- What was recorded of each tenant beyond a position, oldest first. So many events are looked at for each, and those of a
-- type that is not wanted are left out (NULL: all are wanted); of the others as many are given as fit so many bytes of
-- data, but at least one. Each tenant's begin with a row that says how far was looked (e_pos) and whether there may be
-- more. The host's role runs this as itself, and each look is one in its tenant's name: other rows are not there.
CREATE FUNCTION tails(tenants BIGINT[], afters BIGINT[], wanted TEXT[], looks BIGINT[], bytes_max BIGINT)
RETURNS TABLE (
    at INTEGER, more BOOLEAN,
    e_pos BIGINT, e_shard SMALLINT, e_recorded BIGINT, e_time BIGINT, e_hops SMALLINT, e_budget INTEGER, e_id word,
    e_source word, e_kind word, e_subject word, e_key word, e_correlation word, e_causation word, e_content_type word,
    e_attributes word, e_hash BYTEA, e_data BYTEA
) LANGUAGE plpgsql AS $$
DECLARE
    whose   BIGINT;
    beyond  BIGINT;
    of_kind TEXT;
    reached BIGINT;
    seen    BIGINT;
    fitting BIGINT;
    hits    BIGINT;
BEGIN
    FOR one IN 1 .. cardinality(tenants) LOOP
        whose := tenants[one];
        beyond := afters[one];
        of_kind := wanted[one];
        PERFORM be_tenant(whose);
        -- Positions and lengths alone: what does not fit is not read.
        SELECT max(n.pos) FILTER (WHERE n.fits), count(*) FILTER (WHERE n.fits), count(*),
               count(n.length) FILTER (WHERE n.fits)
        INTO reached, fitting, seen, hits FROM (
            SELECT l.pos, l.length, coalesce(sum(l.length) OVER before, 0) <= bytes_max OR count(l.length) OVER before < 2
                   AS fits
            FROM (
                SELECT s.pos, CASE WHEN of_kind IS NULL OR s.kind = of_kind THEN octet_length(s.data) END AS length
                FROM events s WHERE s.tenant = whose AND s.pos > beyond ORDER BY s.pos LIMIT looks[one]
            ) l WINDOW before AS (ORDER BY l.pos ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        ) n;
        at := one;
        more := seen >= looks[one] OR fitting < seen;
        e_pos := coalesce(reached, beyond);
        RETURN NEXT;
        CONTINUE WHEN hits = 0;
        RETURN QUERY
            SELECT one, NULL::BOOLEAN,
                   e.pos, e.shard, e.recorded, e.time, e.hops, e.budget, e.id, e.source, e.kind, e.subject, e.key,
                   e.correlation, e.causation, e.content_type, e.attributes, e.hash, e.data
            FROM events e WHERE e.tenant = whose AND e.pos > beyond AND e.pos <= reached
            AND (of_kind IS NULL OR e.kind = of_kind) ORDER BY e.pos;
    END LOOP;
END $$;
