-- What a batch emits and no rule takes is worked off with the batch: it had cost a read and a commit of its own.
-- A function and no table: takes no lock that anybody could wait for.

-- Moves a lane's cursor beyond what `commit_batch` has just emitted into it, as a part of its transaction; says whether.
-- It stays where the batch left it if the batch was not applied, if another event stands before the emitted ones, or if
-- the tenant's settings are newer than `seen_settings` (NULL: a rule may take what was emitted).
CREATE FUNCTION pass_emits(verdict INTEGER, whose BIGINT, lane BIGINT, reaches BIGINT, seen_settings BIGINT)
RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    is_ours BOOLEAN;
BEGIN
    IF verdict <> 0 OR seen_settings IS NULL THEN
        RETURN false;
    END IF;
    -- Locked until this transaction has ended: whoever is told that a new rule is in force finds that what was passed before
    -- is there. Not waited for, because this transaction holds others up.
    PERFORM 1 FROM tenants t WHERE t.id = whose AND t.settings <= seen_settings FOR SHARE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- The tenant's turn is this transaction's since it emitted: what others appended stands before that, and is there to
    -- be seen. So if the first event beyond the batch was emitted here, all of them were.
    SELECT e.xmin = pg_current_xact_id()::XID INTO is_ours FROM events e
    WHERE e.tenant = whose AND e.pos > reaches AND e.shard = lane ORDER BY e.pos LIMIT 1;
    IF NOT FOUND THEN
        -- They were all there already.
        RETURN true;
    ELSIF NOT is_ours THEN
        RETURN false;
    END IF;
    UPDATE progress p SET cursor = (
        SELECT e.pos FROM events e WHERE e.tenant = whose AND e.pos > reaches AND e.shard = lane ORDER BY e.pos DESC LIMIT 1
    )
    WHERE p.tenant = whose AND p.shard = lane
    AND p.turn = (SELECT n.turn FROM progress n WHERE n.tenant = whose AND n.shard = lane ORDER BY n.turn DESC LIMIT 1);
    RETURN true;
END $$;
