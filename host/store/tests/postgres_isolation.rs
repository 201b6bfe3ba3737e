//! Tenants are apart also where the ports' code could be wrong: by row-level security that the host's role cannot leave.

mod postgres;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_services::sql;
use bulkhead_store::catalogue::Plugins as _;
use bulkhead_store::deliveries::Deliveries as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::state::State as _;
use bulkhead_store::timers::Timers as _;
use bulkhead_store::work::Held;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Work as _;
use postgres::ALL;
use postgres::LEASE;
use postgres::NOW;
use postgres::Server;
use postgres::attempt;
use postgres::bare;
use postgres::commit_of;
use postgres::dump_of;
use postgres::furnish::effects;
use postgres::furnish::furnish;
use postgres::home;
use postgres::run;
use postgres::tenant;
use sqlx::PgConnection;

/// The role that tests' hosts have.
const HOST: &str = "bulkhead_host";

/// What is wrong with a table that has tenants' rows, a line each. The way to a row is the whole table: it has one
/// policy that holds for the host's role, and that one compares the tenant. A segment is no way at all.
const UNGUARDED: &str = "
    WITH target AS (
        SELECT c.oid, c.relname, c.relispartition, c.relrowsecurity, c.relforcerowsecurity, c.relacl, a.attname
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
        AND a.attname = CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant' END
        WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    ), held AS (
        SELECT p.polrelid, p.polcmd, p.polpermissive,
               pg_get_expr(p.polqual, p.polrelid) AS sees, pg_get_expr(p.polwithcheck, p.polrelid) AS writes
        FROM pg_policy p WHERE EXISTS (
            SELECT 1 FROM unnest(p.polroles) AS role
            WHERE role = 0 OR pg_has_role('bulkhead_host', role, 'MEMBER')
        )
    ), own AS (
        SELECT t.oid, format('(%I = ( SELECT bulkhead.this_tenant() AS this_tenant))', t.attname) AS rule FROM target t
    )
    SELECT relname || ': row-level security is not enabled' FROM target WHERE NOT relrowsecurity
    UNION ALL
    SELECT relname || ': row-level security is not forced' FROM target WHERE NOT relforcerowsecurity
    UNION ALL
    SELECT relname || ': no policy for the host' FROM target t
    WHERE NOT relispartition AND NOT EXISTS (SELECT 1 FROM held h WHERE h.polrelid = t.oid)
    UNION ALL
    SELECT relname || ': a policy for the host that is not the tenant''s own' FROM target t
    JOIN held h ON h.polrelid = t.oid JOIN own USING (oid)
    WHERE NOT relispartition AND (
        NOT h.polpermissive OR h.polcmd <> '*' OR h.sees IS DISTINCT FROM own.rule OR h.writes IS DISTINCT FROM own.rule
    )
    UNION ALL
    SELECT relname || ': a segment that the host may reach' FROM target t
    WHERE relispartition AND (
        EXISTS (SELECT 1 FROM held h WHERE h.polrelid = t.oid)
        OR has_table_privilege('bulkhead_host', t.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    )
    ORDER BY 1;";

/// Tables with tenants' rows that have a name of their own.
const TABLES: &str = "
    SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
    AND a.attname = CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant' END
    WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1;";

fn ask(server: &Server, script: &str) -> Vec<String> {
    server.owner(script).lines().map(str::to_owned).collect()
}

/// The column that says whose a row is.
fn owner_of(table: &str) -> &str {
    if table == "tenants" { "id" } else { "tenant" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_with_tenants_is_under_guard() {
    let server = Server::new();
    let store = server.connect().await;
    let segments =
        ask(&server, "SELECT count(*) FROM pg_class WHERE relname ~ '^(events|runs)_[0-9]+$' AND relkind = 'r';");
    assert_eq!(segments, ["4"], "the walk meets segments");
    assert!(ask(&server, TABLES).len() >= 19, "the walk meets tables: {:?}", ask(&server, TABLES));
    assert_eq!(ask(&server, UNGUARDED), [""; 0]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_forgotten_is_found() {
    let server = Server::new();
    let store = server.connect().await;
    for (mistake, found) in [
        ("CREATE TABLE loose (tenant BIGINT)", "loose: row-level security is not enabled"),
        ("CREATE VIEW seen AS SELECT * FROM state_values", "seen: row-level security is not enabled"),
        ("ALTER TABLE state_values DISABLE ROW LEVEL SECURITY", "state_values: row-level security is not enabled"),
        ("ALTER TABLE state_values NO FORCE ROW LEVEL SECURITY", "state_values: row-level security is not forced"),
        ("ALTER TABLE events_1 NO FORCE ROW LEVEL SECURITY", "events_1: row-level security is not forced"),
        ("DROP POLICY own ON tenants", "tenants: no policy for the host"),
        (
            "CREATE POLICY open ON state_values FOR SELECT TO bulkhead_host USING (true)",
            "state_values: a policy for the host that is not the tenant's own",
        ),
        (
            "ALTER POLICY verbs ON state_values TO PUBLIC",
            "state_values: a policy for the host that is not the tenant's own",
        ),
        (
            "ALTER POLICY own ON state_values WITH CHECK (true)",
            "state_values: a policy for the host that is not the tenant's own",
        ),
        ("GRANT SELECT ON events_0 TO bulkhead_host", "events_0: a segment that the host may reach"),
        ("CREATE POLICY open ON runs_0 USING (true)", "runs_0: a segment that the host may reach"),
    ] {
        let script = format!("SET search_path = bulkhead; BEGIN; {mistake}; {UNGUARDED} ROLLBACK;");
        let said = ask(&server, &script);
        assert!(said.iter().any(|line| line == found), "{mistake}: {said:?}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_role_is_a_plain_one() {
    let server = Server::new();
    let store = server.connect().await;
    let attributes = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles
                      WHERE rolname = 'bulkhead_host';";
    assert_eq!(ask(&server, attributes), ["f|f|f|f|f"]);
    assert_eq!(
        ask(&server, "SELECT roleid::REGROLE FROM pg_auth_members WHERE member = 'bulkhead_host'::REGROLE;"),
        [""; 0]
    );
    // Of all that anybody owns in this database, the database included.
    let owned = "SELECT classid::REGCLASS, objid FROM pg_shdepend WHERE deptype = 'o'
                 AND refobjid = 'bulkhead_host'::REGROLE
                 AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()));";
    assert_eq!(ask(&server, owned), [""; 0]);
    // What belongs to nobody, it may read where it has to.
    let shared = "SELECT c.relname FROM pg_class c
                  WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p', 'v')
                  AND NOT c.relforcerowsecurity AND has_table_privilege('bulkhead_host', c.oid, 'SELECT') ORDER BY 1;";
    assert_eq!(ask(&server, shared), ["_sqlx_migrations", "leases", "nodes"]);
    let written = "SELECT c.relname FROM pg_class c
                   WHERE c.relnamespace = 'bulkhead'::REGNAMESPACE AND c.relkind IN ('r', 'p', 'v')
                   AND NOT c.relforcerowsecurity
                   AND has_table_privilege('bulkhead_host', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE');";
    assert_eq!(ask(&server, written), [""; 0]);
    // What runs with the owner's rights looks nowhere but in the owner's schema, and is set nothing else than how to plan.
    let open = "SELECT proname FROM pg_proc WHERE pronamespace = 'bulkhead'::REGNAMESPACE AND prosecdef
                AND array_remove(proconfig, 'enable_seqscan=off')
                    IS DISTINCT FROM ARRAY['search_path=bulkhead, pg_temp'];";
    assert_eq!(ask(&server, open), [""; 0]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_role_cannot_become_more() {
    let server = Server::new();
    let store = server.connect().await;
    let (_, victim, _) = two(&store).await;
    let before = (server.dump(), ask(&server, UNGUARDED));
    let mut host = bare(server.database.host_url()).await;
    for hostile in [
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "ALTER ROLE bulkhead_host BYPASSRLS",
        "ALTER ROLE bulkhead_host SUPERUSER",
        "CREATE ROLE friend",
        "GRANT postgres TO bulkhead_host",
        "GRANT pg_read_all_data TO bulkhead_host",
        "ALTER SYSTEM SET row_security = off",
        "SET session_replication_role = replica",
        "CREATE TABLE bulkhead.mine (a INT)",
        "CREATE VIEW bulkhead.mine AS SELECT 1",
        "CREATE FUNCTION bulkhead.mine() RETURNS INT LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION bulkhead.this_tenant() RETURNS BIGINT LANGUAGE sql STABLE AS 'SELECT 1::BIGINT'",
        "CREATE TABLE public.mine (a INT)",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION dblink",
        "CREATE LANGUAGE plperlu",
        "CREATE TRIGGER mine BEFORE INSERT ON bulkhead.state_values EXECUTE FUNCTION bulkhead.this_tenant()",
        "ALTER TABLE bulkhead.state_values DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE bulkhead.state_values NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE bulkhead.state_values OWNER TO bulkhead_host",
        "DROP POLICY own ON bulkhead.state_values",
        "ALTER POLICY own ON bulkhead.state_values USING (true)",
        "CREATE POLICY mine ON bulkhead.state_values USING (true)",
        "DROP TABLE bulkhead.state_values",
        "DROP SCHEMA bulkhead CASCADE",
        "DROP FUNCTION bulkhead.this_tenant() CASCADE",
        "TRUNCATE bulkhead.state_values",
        "ALTER FUNCTION bulkhead.backlog(BIGINT, BIGINT[]) RESET ALL",
        "ALTER SEQUENCE bulkhead.numbers RESTART",
        "SELECT setval('bulkhead.numbers', 1)",
        "SELECT bulkhead.guard('bulkhead.state_values')",
        "SELECT bulkhead.admit('bulkhead_host')",
        "TABLE bulkhead.host_values",
        "TABLE bulkhead.blobs",
        "TABLE bulkhead.accepted",
        "INSERT INTO bulkhead.accepted VALUES (1, '{1}')",
        "TABLE bulkhead.segments",
        "TABLE bulkhead.events_0",
        "TABLE bulkhead.runs_0",
        "INSERT INTO bulkhead.events_0 SELECT * FROM bulkhead.events",
        "UPDATE bulkhead.leases SET fence = 0",
        "DELETE FROM bulkhead.nodes",
        "UPDATE bulkhead.events SET data = ''",
        "DELETE FROM bulkhead.events",
        "UPDATE bulkhead.runs SET code = ''",
        "DELETE FROM bulkhead.runs",
        "DELETE FROM bulkhead._sqlx_migrations",
        "COPY bulkhead.state_values TO PROGRAM 'cat'",
        "COPY bulkhead.state_values TO '/tmp/bulkhead_state'",
        "COPY bulkhead.state_values FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file(pg_relation_filepath('bulkhead.state_values'))",
        "SELECT pg_ls_dir('base')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/bulkhead_object')",
        "SELECT query_to_xml('TABLE bulkhead.blobs', true, true, '')",
        "LOAD 'passwordcheck'",
        "TABLE pg_authid",
        "SELECT stavalues1 FROM pg_statistic",
    ] {
        let refused = attempt(&mut host, hostile).await;
        assert!(refused.is_err(), "{hostile}: {refused:?}");
    }
    // What statistics tell of values, they tell of none under guard.
    server.owner("ANALYZE;");
    assert_eq!(
        attempt(
            &mut host,
            "SELECT 1 FROM pg_stats WHERE schemaname = 'bulkhead' AND tablename <> 'leases'
                                   AND tablename <> 'nodes' AND tablename <> '_sqlx_migrations'"
        )
        .await,
        Ok(0)
    );
    assert_eq!((server.dump(), ask(&server, UNGUARDED)), before);
    assert!(!dump_of(&server.database, victim).is_empty());
    store.close().await;
}

/// Two tenants that have a row in every table: who attacks and who is attacked, and the fence of the attacker's home.
async fn two(store: &Postgres) -> (TenantId, TenantId, Fence) {
    let held = store.host_acquire("node", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = |tenant| held.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    let (attacker, victim) = (tenant(store, "attacker").await, tenant(store, "victim").await);
    for (whose, word) in [(attacker, "mine"), (victim, "precious")] {
        furnish(store, whose, fence(whose), word).await.expect("because the store answers");
    }
    (attacker, victim, fence(attacker))
}

/// A session of the host's role in which the hostile statements run.
async fn session(server: &Server, context: &str) -> PgConnection {
    let mut host = bare(server.database.host_url()).await;
    run(
        &mut host,
        &format!("SET search_path = bulkhead, pg_temp; SELECT set_config('bulkhead.tenant', '{context}', false)"),
    )
    .await;
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_statements_in_another_tenants_context_get_nothing() {
    let server = Server::new();
    let store = server.connect().await;
    let (attacker, victim, _) = two(&store).await;
    let before = dump_of(&server.database, victim);
    let mut host = session(&server, &attacker.0.to_string()).await;
    let mut empty = session(&server, "").await;
    let mut none = bare(server.database.host_url()).await;
    run(&mut none, "SET search_path = bulkhead, pg_temp").await;
    for table in ask(&server, TABLES) {
        let column = owner_of(&table);
        let same = if table == "tenants" { "name" } else { column };
        let victims = format!("{table} WHERE {column} = {}", victim.0);
        let row =
            ask(&server, &format!("SELECT to_json(t) FROM bulkhead.{table} t WHERE {column} = {} LIMIT 1;", victim.0));
        let row = row.first().unwrap_or_else(|| panic!("the victim has something in {table}")).replace('\'', "''");
        let insert = format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(NULL::{table}, '{row}')"
        );
        assert!(
            attempt(&mut host, &format!("SELECT 1 FROM {table}")).await > Ok(0),
            "the attacker sees its own {table}"
        );
        for reader in [&mut host, &mut empty, &mut none] {
            assert_eq!(attempt(reader, &format!("SELECT 1 FROM {victims}")).await, Ok(0), "{table}");
            // A function of the attacker's own, cheap enough to be asked before any policy.
            let leak = format!(
                "CREATE OR REPLACE FUNCTION pg_temp.leak(t TEXT) RETURNS BOOLEAN COST 0.0001 LANGUAGE plpgsql AS
                 $$ BEGIN RAISE 'leaked %', t; END $$;
                 SELECT 1 FROM {table} t WHERE {column} <> {} AND pg_temp.leak(t::TEXT)",
                attacker.0
            );
            assert_eq!(attempt(reader, &leak).await, Ok(0), "{table}");
            let refused = attempt(reader, &insert).await.expect_err("because the row is the victim's");
            assert!(refused.contains("row-level security"), "{table}: {refused}");
            let taken = attempt(reader, &format!("{insert} ON CONFLICT DO NOTHING")).await;
            assert!(taken.expect_err("because it tells whether it is there").contains("row-level security"), "{table}");
            for change in [format!("UPDATE {table} SET {same} = {same}"), format!("DELETE FROM {table}")] {
                let done = attempt(reader, &format!("{change} WHERE {column} = {}", victim.0)).await;
                match done {
                    Ok(rows) => assert_eq!(rows, 0, "{table}"),
                    Err(refused) => assert!(refused.contains("permission denied"), "{table}: {refused}"),
                }
            }
            let off = format!("BEGIN; SET LOCAL row_security = off; SELECT 1 FROM {victims}; COMMIT");
            let refused = attempt(reader, &off).await.expect_err("because the role cannot switch it off");
            assert!(refused.contains("row-level security"), "{table}: {refused}");
            run(reader, "ROLLBACK").await;
        }
        let copy = format!(
            "SET search_path = bulkhead, pg_temp; SET bulkhead.tenant = {}; COPY (SELECT * FROM {victims}) TO STDOUT;",
            attacker.0
        );
        assert_eq!(sql(server.database.host_url(), &copy).expect("because it may copy its own"), "", "{table}");
        // Neither can it give the victim something of its own.
        let given = attempt(&mut host, &format!("UPDATE {table} SET {column} = {}", victim.0)).await;
        let refused = given.expect_err("because the row would be the victim's");
        assert!(
            ["row-level security", "permission denied", "can only be updated to DEFAULT"]
                .iter()
                .any(|reason| refused.contains(reason)),
            "{table}: {refused}"
        );
        // Without a tenant there is nothing at all.
        for reader in [&mut empty, &mut none] {
            assert_eq!(attempt(reader, &format!("SELECT 1 FROM {table}")).await, Ok(0), "{table}");
        }
    }
    // A value of its own that expires in the victim's slot does not take the victim's key along.
    for slot in ask(&server, &format!("SELECT slot FROM bulkhead.state_keys WHERE tenant = {};", victim.0)) {
        let value = format!(
            "INSERT INTO state_values (slot, version, tenant, expires, value) VALUES ({slot}, 0, {}, 0, '')",
            attacker.0
        );
        assert_eq!(attempt(&mut host, &value).await, Ok(1), "slot {slot}");
    }
    assert!(store.host_expire_state(Timestamp(0), 100).await.expect("because the store answers") > 0);
    assert_eq!(dump_of(&server.database, victim), before);
    store.close().await;
}

/// Functions that do not name the tenant themselves are bound by who the transaction works for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_called_with_another_tenants_id_find_nothing() {
    let server = Server::new();
    let store = server.connect().await;
    let (attacker, victim, _) = two(&store).await;
    let plugin =
        store.plugin(victim, "precious").await.expect("because it is there").expect("because it is there").0.id;
    let before = server.dump();
    let mut host = session(&server, &attacker.0.to_string()).await;
    let whose = victim.0;
    for (call, rows) in [
        (format!("SELECT * FROM list_keys({whose}, {}, '', NULL, NULL, 100)", plugin.0), Some(0)),
        (format!("SELECT * FROM promote({whose}, ARRAY['precious'], ARRAY['precious'], 1)"), Some(0)),
        (format!("SELECT advance(ARRAY[{whose}::BIGINT], ARRAY['precious'], ARRAY['precious'])"), Some(1)),
        (format!("SELECT put_timers({whose}, ARRAY[{}::BIGINT], ARRAY['precious'], NULL)", plugin.0), Some(1)),
        (
            format!(
                "SELECT put_events(ARRAY[{whose}::BIGINT], '{{1}}', '{{1}}', '{{1}}', '{{1}}', '{{1}}', '{{x}}', '{{x}}',
                 '{{x}}', '{{x}}', '{{x}}', '{{x}}', '{{x}}', '{{x}}', '{{x}}', '{{x}}', '{{x}}',
                 ARRAY[gen_random_uuid()])"
            ),
            None,
        ),
    ] {
        match (attempt(&mut host, &call).await, rows) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{call}"),
            (Err(refused), None) => assert!(refused.contains("row-level security"), "{call}: {refused}"),
            (other, _) => panic!("{call}: {other:?}"),
        }
    }
    assert_eq!(server.dump(), before);
    // The context lasts as long as the transaction, and is none that a value can name.
    let mut fresh = session(&server, "").await;
    run(&mut fresh, &format!("BEGIN; SELECT be_tenant({whose}); COMMIT")).await;
    assert_eq!(
        attempt(&mut fresh, "SELECT 1 FROM state_values").await,
        Ok(0),
        "the context ended with its transaction"
    );
    for nonsense in ["victim", "1 OR true", "0x1", "*", "9223372036854775808"] {
        let mut host = session(&server, nonsense).await;
        let refused = attempt(&mut host, "SELECT 1 FROM state_values").await;
        assert!(refused.is_err(), "{nonsense}: {refused:?}");
    }
    store.close().await;
}

/// Texts that a tenant can choose are texts, whatever they look like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_are_values() {
    let server = Server::new();
    let store = server.connect().await;
    let (_, victim, _) = two(&store).await;
    let held = store.host_acquire("node", LEASE, u16::MAX).await.expect("because they are this node's");
    let before = dump_of(&server.database, victim);
    let huge = "x'".repeat(1 << 10);
    let hostile = [
        "'",
        "''; DROP TABLE bulkhead.state_values; --",
        "'); SELECT set_config('bulkhead.tenant', '2', false); --",
        "\"; RESET ALL; --",
        "\\'; TRUNCATE state_values; --",
        "$1",
        "$$; DELETE FROM state_values; $$",
        "%I %L %s %1$s",
        "%",
        "_%",
        "{\"a\":1,NULL,\"}",
        "NULL",
        "\u{0}",
        "a\u{0}'; --",
        "\u{202e}\u{feff}\u{10ffff}",
        "/* ",
        "\r\n\t",
        &huge,
    ];
    for (number, word) in hostile.iter().enumerate() {
        let attacker =
            tenant(&store, &format!("attacker {number} {}", word.chars().take(60).collect::<String>())).await;
        let fence = held.iter().find(|(shard, _)| *shard == home(attacker)).expect("because all are held").1;
        furnish(&store, attacker, fence, word).await.unwrap_or_else(|error| panic!("{word:?}: {error:?}"));
        // They come back as they were; a zero, which Postgres has not, as the sign for it.
        let kept = word.replace('\0', "\u{2400}");
        let events = store.tail(attacker, bulkhead_domain::id::Position::ZERO, None, 10).await;
        let events = events.unwrap_or_else(|error| panic!("{word:?}: {error:?}")).events;
        assert_eq!(events.len(), 3, "{word:?}");
        assert_eq!(events[0].event.key.as_deref(), Some(kept.as_str()));
        assert_eq!(events[0].event.data, word.as_bytes(), "payloads are bytes");
        let plugin =
            store.plugin(attacker, word).await.expect("because the store answers").expect("because it is there").0;
        let keys = store.state_keys(attacker, plugin.id, word, None, 10).await.expect("because the store answers");
        assert_eq!(keys, [kept.as_str()], "a prefix is no pattern");
        for prefix in ["%", "_", "prec"] {
            let keys =
                store.state_keys(attacker, plugin.id, prefix, None, 10).await.expect("because the store answers");
            assert!(keys.iter().all(|key| key.starts_with(prefix)), "{word:?}: {keys:?}");
        }
        let filter =
            ParkedFilter { rule: Some((*word).to_owned()), key: Some((*word).to_owned()), ..ParkedFilter::default() };
        assert_eq!(store.redrive(attacker, &filter, NOW).await.expect("because the store answers").0, 1, "{word:?}");
        let held = Held::Plugin((*word).to_owned());
        assert_eq!(store.resume_held(attacker, &held, NOW).await.expect("because the store answers").0, 0, "{word:?}");
        let dropped = store.drop_deliveries(attacker, Some(word), None, NOW).await;
        assert_eq!(dropped.expect("because the store answers"), 0, "nothing is parked");
        assert_eq!(store.timers(attacker, 10).await.expect("because the store answers").len(), 1);
    }
    assert_eq!(dump_of(&server.database, victim), before);
    store.close().await;
}

/// A commit whose every part names what is another tenant's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_names_anothers_things_does_not_reach_them() {
    let server = Server::new();
    let store = server.connect().await;
    let (attacker, victim, fence) = two(&store).await;
    let before = dump_of(&server.database, victim);
    let plugin =
        store.plugin(victim, "precious").await.expect("because it is there").expect("because it is there").0.id;
    let cause = store
        .tail(victim, bulkhead_domain::id::Position::ZERO, None, 1)
        .await
        .expect("because it is there")
        .events
        .remove(0);
    let batch = store.read_batch(attacker, home(attacker), NOW, ALL).await.expect("because the store answers");
    let mut commit = commit_of(attacker, fence, &batch);
    effects(&mut commit, &cause, plugin, "precious");
    commit.unfinished.push(UnfinishedChange::End { position: cause.position, rule: "precious".to_owned() });
    commit.timers.push(bulkhead_store::work::TimerChange::Cancel { plugin, timer: "precious".to_owned() });
    for change in &mut commit.writes {
        change.value = None;
    }
    store.commit(commit).await.expect("because the store answers");
    assert_eq!(dump_of(&server.database, victim), before);
    for plugin in [plugin, PluginId(-1)] {
        assert_eq!(store.state(attacker, plugin, "precious").await.expect("because the store answers"), None);
    }
    store.close().await;
}

/// What the tests' own role is, is what a role is that the migration makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_made_is_a_plain_one() {
    let server = Server::new();
    let name = format!("{}_made", server.database.name());
    let url = server.database.host_url().replacen(&format!("{HOST}:{HOST}@"), &format!("{name}:it%27s%20one@"), 1);
    bulkhead_store::postgres::migrate(server.database.owner_url(), &url, 4)
        .await
        .expect("because the database is empty");
    let attributes =
        format!("SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = '{name}';");
    assert_eq!(ask(&server, &attributes), ["f|f|f|f"]);
    postgres::open(&url).await.close().await;
    let script = format!("DROP OWNED BY {name}; DROP ROLE {name};");
    sql(server.database.owner_url(), &script).expect("because nobody uses it any more");
}
