//! Connections: used again and again, never more than allowed, and not trusted after a failure.

mod postgres;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_services::Database;
use bulkhead_services::Relay;
use bulkhead_services::sql;
use bulkhead_store::Error;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::deliveries::Deliveries as _;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::state::State as _;
use bulkhead_store::work::Committed;
use bulkhead_store::work::NewDelivery;
use bulkhead_store::work::TimerChange;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::Work as _;
use bytes::Bytes;
use futures_util::future::join_all;
use postgres::ALL;
use postgres::LEASE;
use postgres::LONG;
use postgres::NOW;
use postgres::Server;
use postgres::bare;
use postgres::commit_of;
use postgres::event;
use postgres::home;
use postgres::made;
use postgres::run;
use postgres::tenant;
use postgres::until;

/// Connections of a node.
const CONNECTIONS: u32 = 3;

async fn open(url: &str) -> Postgres {
    open_with(url, CONNECTIONS).await
}

async fn open_with(url: &str, connections: u32) -> Postgres {
    let node = "sessions".to_owned();
    let options = Options { node, connections, patience: LONG, ..Options::new(url) };
    Postgres::open(options).await.expect("because the tables are there")
}

/// The node's connections, as the server counts them.
fn connections(database: &Database) -> u32 {
    let script = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND application_name = 'bulkhead sessions';";
    let count = sql(database.owner_url(), script).expect("because the server runs");
    count.parse().expect("because it is a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_one_round_trip_and_looks_at_the_same_time_share_theirs() {
    let server = Server::new();
    made(&server.database).await;
    let relay = Relay::start(server.database.port()).expect("because there are ports");
    let store = open(&server.database.host_url_by(relay.port())).await;
    let mut tenants = Vec::new();
    for number in 0..20 {
        let tenant = tenant(&store, &number.to_string()).await;
        store.host_append(vec![event(tenant, "1")]).await.expect("because the store answers");
        tenants.push(tenant);
    }
    let read = || store.read_batch(tenants[0], home(tenants[0]), NOW, ALL);
    let look = |tenant| store.tail(tenant, Position::ZERO, None, 10);
    // The first of a kind on a connection prepares its statement.
    read().await.expect("because the store answers");
    look(tenants[0]).await.expect("because the store answers");
    let before = relay.trips();
    for _ in 0..10 {
        read().await.expect("because the store answers");
        look(tenants[0]).await.expect("because the store answers");
    }
    assert_eq!(relay.trips() - before, 20, "each asks once, and nobody asks whether the connection works");
    let before = relay.trips();
    for tail in join_all(tenants.iter().copied().map(look)).await {
        assert_eq!(tail.expect("because the store answers").events.len(), 1);
    }
    let trips = relay.trips() - before;
    assert!(trips <= 10, "20 looks took {trips} round trips");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_connections_than_allowed_and_none_is_left() {
    let server = Server::new();
    made(&server.database).await;
    let store = open(server.database.host_url()).await;
    let tenant = tenant(&store, "a").await;
    let calls = tokio::spawn({
        let store = store.clone();
        async move { join_all((0..300).map(|_| store.head(tenant))).await }
    });
    // At least once while they are under way or just after.
    loop {
        let (over, seen) = (calls.is_finished(), connections(&server.database));
        assert!((1..=CONNECTIONS).contains(&seen), "{seen} connections");
        if over {
            break;
        }
    }
    for head in calls.await.expect("because it does not panic") {
        assert_eq!(head.expect("because whoever waits gets its turn"), Position::ZERO);
    }
    let under_way = tokio::spawn({
        let store = store.clone();
        async move { join_all((0..20).map(|_| store.head(tenant))).await }
    });
    store.close().await;
    assert!(store.head(tenant).await.is_err(), "a closed store answers nothing");
    under_way.await.expect("because it does not panic");
    until("no connection is left", || async { connections(&server.database) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_connection_failed_the_others_are_not_trusted() {
    let server = Server::new();
    made(&server.database).await;
    let store = open(server.database.host_url()).await;
    let tenant = tenant(&store, "a").await;
    until("all connections are open", || async {
        join_all((0..20).map(|_| store.head(tenant))).await;
        connections(&server.database) == CONNECTIONS
    })
    .await;
    server.owner(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name = 'bulkhead sessions';",
    );
    until("the server has ended them", || async { connections(&server.database) == 0 }).await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += u32::from(store.head(tenant).await.is_err());
    }
    assert_eq!(failed, 1, "the first finds it out, and for all");
    tokio::time::timeout(Duration::from_secs(20), store.close()).await.expect("because nothing is waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_of_one_tenant_fails_its_looks_alone() {
    let server = Server::new();
    made(&server.database).await;
    let store = open(server.database.host_url()).await;
    let mut tenants = Vec::new();
    for number in 0..12 {
        let tenant = tenant(&store, &number.to_string()).await;
        store.host_append(vec![event(tenant, "1")]).await.expect("because the store answers");
        tenants.push(tenant);
    }
    let broken = tenants[5];
    server.owner(&format!(
        "CREATE OR REPLACE FUNCTION bulkhead.be_tenant(whose BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$ BEGIN
             IF whose = {} THEN RAISE EXCEPTION 'a page is broken' USING ERRCODE = 'data_corrupted'; END IF;
             PERFORM set_config('bulkhead.tenant', whose::TEXT, true);
         END $$;",
        broken.0
    ));
    // Several times, so that looks go together in many ways.
    for _ in 0..10 {
        let looks = tenants.iter().map(|tenant| store.tail(*tenant, Position::ZERO, None, 10));
        for (tenant, tail) in tenants.iter().zip(join_all(looks).await) {
            match tail {
                Ok(tail) => assert_eq!((tail.events.len(), *tenant == broken), (1, false)),
                Err(error) => assert!(*tenant == broken && matches!(error, Error::Damaged(_)), "{tenant:?}: {error:?}"),
            }
        }
    }
    store.close().await;
}

/// Functions in SQL are planned in every call. These are called seldom, or for many rows at once, or become a part of the
/// statement that asks for them (`this_tenant`).
const PLANNED_EACH_TIME: [&str; 22] = [
    "accepted_events",
    "add_key",
    "append_fired",
    "backlog",
    "clear_value",
    "component",
    "create_tenant",
    "delivery_depths",
    "depths",
    "expire_recordings",
    "find_tenants",
    "find_value",
    "known_tenants",
    "micros",
    "next_timer",
    "oldest_segment",
    "parked_before",
    "retire_usage",
    "revoke_key",
    "set_value",
    "take_timers",
    "this_tenant",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_batch_calls_is_planned_once_a_connection() {
    let server = Server::new();
    made(&server.database).await;
    let found = server.owner(
        "SELECT p.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
         WHERE p.pronamespace = 'bulkhead'::regnamespace AND l.lanname = 'sql' ORDER BY 1;",
    );
    assert_eq!(found.lines().collect::<Vec<_>>(), PLANNED_EACH_TIME);
}

/// Batches that each replace the same values (one of them comes and goes) and a timer, end the retry of the one before,
/// leave one and a parked run, and make a delivery that arrives in its line.
async fn work(server: &Server, batches: u32, name: &str) {
    let store = open(server.database.host_url()).await;
    let tenant = match store.operator_tenant("a").await.expect("because the store answers") {
        Some(tenant) => tenant.id,
        None => tenant(&store, "a").await,
    };
    let fences = store.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    for number in 0..batches {
        let id = format!("{name} {number}");
        store.host_append(vec![event(tenant, &id)]).await.expect("because the store answers");
        let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
        let mut commit = commit_of(tenant, fence, &batch);
        let write = |key: u32| StateWrite {
            plugin: PluginId(1),
            key: format!("key {key}"),
            value: Some(number.to_string().into()),
            expires: None,
        };
        commit.writes = (0..4).map(write).collect();
        // One comes and goes.
        commit.writes.push(StateWrite { value: (number % 2 == 0).then(Bytes::new), ..write(4) });
        let ended = batch
            .due
            .iter()
            .map(|due| UnfinishedChange::End { position: due.run.position, rule: due.run.rule.clone() });
        let waits = |event: &Logged, rule: &str, key: Option<&str>, waiting: Waiting| {
            UnfinishedChange::Put(Unfinished {
                position: event.position,
                event: event.event.event_key(),
                rule: rule.into(),
                key: key.map(str::to_owned),
                waiting,
                attempts: 1,
                code: "plugin:trap".into(),
                reason: "it trapped".into(),
                plugin: None,
                lineage: event.lineage,
                rule_set: 1,
                since: NOW,
                updated: NOW,
                pins: [("plugin".to_owned(), 1)].into(),
            })
        };
        let failed = batch.events.iter().map(|event| waits(event, "rule", None, Waiting::Retry(NOW)));
        let parked = batch.events.iter().map(|event| waits(event, "parked", Some(&id), Waiting::Parked));
        commit.unfinished = ended.chain(failed).chain(parked).collect();
        let delivery = |event: &Logged| NewDelivery {
            delivery: Delivery {
                id: format!("to {id}"),
                sink: "sink".to_owned(),
                content_type: "application/json".to_owned(),
                body: Bytes::from_static(b"{}"),
                attributes: Vec::new(),
            },
            position: event.position,
            rule: "rule".to_owned(),
            key: Some("line".to_owned()),
            created: NOW,
        };
        commit.deliveries = batch.events.iter().map(delivery).collect();
        let later = TimerChange::Set {
            plugin: PluginId(1),
            name: Some("again".to_owned()),
            due: Timestamp(i64::MAX),
            event: event(tenant, &format!("at last {id}")),
        };
        commit.timers = vec![later];
        let committed = store.commit(commit).await.expect("because the store answers");
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
        let due =
            store.host_due_deliveries(NOW, 10, &[home(tenant)], &[], &[]).await.expect("because the store answers");
        assert_eq!(due.0.len(), 1);
        let arrived = due.0.into_iter().map(|due| Settlement {
            tenant,
            id: due.delivery.id,
            settled: Settled::Delivered,
            attempts: 1,
            code: String::new(),
            reason: String::new(),
            at: NOW,
        });
        store.host_settle(arrived.collect()).await.expect("because the store answers");
    }
    store.close().await;
    // A connection says what it read when it ends.
    until("the connections' ends", || async { connections(&server.database) == 0 }).await;
}

/// Where all rows of a table are replaced while the server counts them, it takes the table for empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_walks_over_no_dead_rows_whatever_the_statistics_say() {
    const BATCHES: u32 = 200;
    let server = Server::new();
    made(&server.database).await;
    let mut stranger = bare(server.database.owner_url()).await;
    run(&mut stranger, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bulkhead.state_values").await;
    work(&server, BATCHES, "before").await;
    server.owner(
        "SET allow_system_table_mods = on;
         UPDATE pg_class SET reltuples = 0 WHERE oid IN (
             SELECT unnest(indrelid || ARRAY[indexrelid]) FROM pg_index
             WHERE indrelid::REGCLASS::TEXT IN (
                 'bulkhead.progress', 'bulkhead.state_values', 'bulkhead.state_keys', 'bulkhead.unfinished',
                 'bulkhead.timers', 'bulkhead.deliveries'
             )
         )",
    );
    let read = || -> BTreeMap<String, u32> {
        // But for the queue of deliveries: who sends looks over what was due.
        let sums = "SELECT t.relname || ' ' || t.seq_tup_read + (
                        SELECT sum(i.idx_tup_read)::BIGINT FROM pg_stat_user_indexes i WHERE i.relid = t.relid
                        AND i.indexrelname <> 'deliveries_queue'
                    ) FROM pg_stat_user_tables t
                    WHERE t.schemaname = 'bulkhead'
                    AND t.relname IN (
                        'progress', 'state_values', 'state_keys', 'unfinished', 'deliveries', 'timers'
                    );";
        let line = |line: &str| {
            let (table, sum) = line.split_once(' ')?;
            Some((table.to_owned(), sum.parse().ok()?))
        };
        server.owner(sums).lines().map(|text| line(text).expect("because it is a name and a number")).collect()
    };
    let before = read();
    work(&server, 3, "after").await;
    let walked: BTreeMap<String, u32> =
        read().into_iter().map(|(table, sum)| (table.clone(), sum - before[&table])).collect();
    drop(stranger);
    for (table, walked) in walked {
        let most = match table.as_str() {
            // The look for what is due walks over what was due, once a batch.
            "unfinished" => 4 * BATCHES,
            // That a key is not there is known when all that it was have been seen: two looks at half as many.
            "state_keys" => BATCHES * 5 / 4,
            _ => BATCHES,
        };
        assert!(
            walked < most,
            "three batches read {walked} entries of {table}, beside what {BATCHES} batches replaced"
        );
    }
}

/// How many entries of the indices of state were read. A connection says what it read when it ends.
async fn read_of_state(server: &Server, store: Postgres) -> u32 {
    store.close().await;
    until("the connections' ends", || async { connections(&server.database) == 0 }).await;
    let read = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('state_values', 'state_keys');";
    server.owner(read).parse().expect("because it is a number")
}

/// What a connection planned while there was nothing, it plans no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_found_by_themselves_by_who_began_with_none() {
    const KEYS: u32 = 200;
    let server = Server::new();
    made(&server.database).await;
    let store = open_with(server.database.host_url(), 1).await;
    let tenant = tenant(&store, "a").await;
    let fences = store.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    for number in 0..KEYS {
        let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
        let mut commit = commit_of(tenant, fence, &batch);
        for (key, value) in [(number, Some(Bytes::new())), (number / 2, None)] {
            store.state(tenant, PluginId(1), &format!("key {key}")).await.expect("because the store answers");
            commit.writes.push(StateWrite { plugin: PluginId(1), key: format!("key {key}"), value, expires: None });
        }
        commit.writes.dedup_by(|second, first| second.key == first.key);
        let committed = store.commit(commit).await.expect("because the store answers");
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    }
    let read = read_of_state(&server, store).await;
    // Two looks and a removal, in two tables, for each of two keys.
    assert!(read < KEYS * 12, "{KEYS} batches read {read} entries");
}

/// Nor are keys whose values expire looked for among all that there are, where nobody has counted these yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_expire_are_found_by_themselves_before_they_were_counted() {
    const KEYS: u32 = 2_000;
    let server = Server::new();
    made(&server.database).await;
    let store = open_with(server.database.host_url(), 1).await;
    let tenant = tenant(&store, "a").await;
    let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    let fences = store.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    let mut commit = commit_of(tenant, fence, &batch);
    let short = |number| StateWrite {
        plugin: PluginId(1),
        key: format!("short {number}"),
        value: Some(Bytes::new()),
        expires: Some(Timestamp(1)),
    };
    commit.writes = (0..KEYS).map(short).collect();
    let committed = store.commit(commit).await.expect("because the store answers");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    let expired = store.host_expire_state(NOW, 100_000).await.expect("because the store answers");
    assert_eq!(expired, u64::from(KEYS));
    let read = read_of_state(&server, store).await;
    assert!(read < KEYS * 4, "{KEYS} values read {read} entries");
    // A walk over a tenant's keys that are compared within the index counts as one entry.
    let looks = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'state_keys_slot';";
    assert_eq!(server.owner(looks), KEYS.to_string(), "each by its slot");
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.state_keys;"), "0");
}

/// The tables as migration 16 left them, with values of state, a timer that has a name, and a line of deliveries that has
/// come some way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_a_migration_goes_on_after_it() {
    let server = Server::new();
    made(&server.database).await;
    work(&server, 3, "before").await;
    server.owner(
        "UPDATE bulkhead.state_values SET expires = 9 WHERE slot = (SELECT min(slot) FROM bulkhead.state_values);",
    );
    let values = "SELECT k.tenant, k.plugin, k.key, v.version, v.expires, v.value
                  FROM bulkhead.state_values v FULL JOIN bulkhead.state_keys k USING (slot, tenant) ORDER BY k.key;";
    let before = server.owner(values);
    assert!(before.lines().count() >= 4 && before.contains("|9|"), "{before}");
    server.owner(
        "SET search_path = bulkhead;
         DELETE FROM _sqlx_migrations WHERE version > 16;
         DROP FUNCTION state_bytes, put_timers;
         CREATE TABLE state (
             tenant BIGINT, plugin BIGINT, version BIGINT, expires BIGINT, key word, value BYTEA,
             PRIMARY KEY (tenant, plugin, key, version)
         );
         CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;
         INSERT INTO state SELECT k.tenant, k.plugin, v.version, v.expires, k.key, v.value
         FROM state_values v JOIN state_keys k USING (slot);
         SELECT guard('state');
         DO $$ BEGIN CREATE ROLE \"who reports\"; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT SELECT ON state TO \"who reports\";
         DROP TABLE state_values, state_keys;
         DROP INDEX deliveries_arrived, timers_newest;
         ALTER TABLE timers DROP COLUMN number;
         CREATE UNIQUE INDEX timers_name ON timers (tenant, plugin, name) WHERE name IS NOT NULL;",
    );
    made(&server.database).await;
    assert_eq!(server.owner(values), before);
    let rights =
        "SELECT has_table_privilege('who reports', t, 'SELECT'), has_table_privilege('who reports', t, 'DELETE')
                  FROM unnest(ARRAY['bulkhead.state_keys', 'bulkhead.state_values']) AS t;";
    assert_eq!(server.owner(rights), "t|f\nt|f", "others may do what they might");
    work(&server, 3, "after").await;
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.state_keys;"), before.lines().count().to_string());
    let timers = "SELECT string_agg(name || ': ' || id, ', ') FROM bulkhead.timers;";
    assert_eq!(server.owner(timers), "again: at last after 2", "the one that was there was replaced");
}

/// Whether something has come to a socket of this machine from a port of it, and is not read.
fn has_unread(from: &str) -> bool {
    let from: u16 = from.parse().expect("because it is a port");
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("because this is Linux");
    let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Number, its address, the other's, state, what waits to be sent and to be read.
    lines.any(|line| line[2].ends_with(&format!(":{from:04X}")) && !line[4].ends_with(":00000000"))
}

/// One connection of many may be dead, and nobody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_is_not_answered_holds_no_other_up() {
    let server = Server::new();
    made(&server.database).await;
    let store = open_with(server.database.host_url(), 16).await;
    let (first, second) = (tenant(&store, "first").await, tenant(&store, "second").await);
    for tenant in [first, second] {
        store.host_append(vec![event(tenant, "1")]).await.expect("because the store answers");
        store.tail(tenant, Position::ZERO, None, 10).await.expect("because the store answers");
    }
    // The one that answered last is the one that is asked next.
    let asked = "SELECT pid || ' ' || client_port FROM pg_stat_activity WHERE query LIKE '%FROM tails(%'
                 AND application_name = 'bulkhead sessions' ORDER BY query_start DESC LIMIT 1;";
    let asked = server.owner(asked);
    let (process, port) = asked.split_once(' ').expect("because it is two numbers");
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, process]).status().expect("because there is such a program");
        assert!(status.success());
    };
    signal("-STOP");
    let held = tokio::spawn({
        let store = store.clone();
        async move { store.tail(first, Position::ZERO, None, 10).await.map(|tail| tail.events.len()) }
    });
    until("the question at the server", || async { has_unread(port) }).await;
    for _ in 0..5 {
        let began = Instant::now();
        let tail = store.tail(second, Position::ZERO, None, 10).await.expect("because the others answer");
        assert_eq!(tail.events.len(), 1);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert!(!held.is_finished(), "it was held up");
    signal("-CONT");
    assert_eq!(held.await.expect("because it does not panic").expect("because it is answered now"), 1);
    // Nor is the one that was held up kept waiting by others that go on asking.
    let asking = tokio::spawn({
        let store = store.clone();
        async move { while store.tail(second, Position::ZERO, None, 10).await.is_ok() {} }
    });
    let began = Instant::now();
    store.tail(first, Position::ZERO, None, 10).await.expect("because the store answers");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    asking.abort();
    store.close().await;
}

/// Nodes of the release before say what they read and what they write in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_compared_wherever_it_stands_in_the_lists() {
    let server = Server::new();
    made(&server.database).await;
    work(&server, 1, "first").await;
    let version: i64 =
        server.owner("SELECT max(version) FROM bulkhead.state_values;").parse().expect("because it is a number");
    let find = |keys: &str, versions: &str, written: &str| {
        let found = server.owner(&format!(
            "SET search_path = bulkhead;
             SELECT f.is_stale, ARRAY(SELECT coalesce((
                        SELECT k.key::TEXT FROM state_values s JOIN state_keys k USING (slot) WHERE s.ctid = p), '')
                    FROM unnest(f.replaced) AS p)
             FROM bulkhead.find_state((SELECT id FROM bulkhead.tenants), array_fill(1, ARRAY[cardinality({keys}::TEXT[])]),
                  {keys}, {versions}, array_fill(1, ARRAY[cardinality({written}::TEXT[])]), {written}) AS f;"
        ));
        found.lines().last().unwrap_or_default().to_owned()
    };
    let both = format!("ARRAY[{version}, {version}]");
    assert_eq!(find("ARRAY['key 1', 'key 2']", &both, "ARRAY['key 1', 'key 2']"), "f|{\"key 1\",\"key 2\"}");
    assert_eq!(find("ARRAY['key 1', 'key 2']", &both, "ARRAY['key 2', 'key 1']"), "f|{\"key 2\",\"key 1\"}");
    assert_eq!(find("ARRAY['key 1']", "ARRAY[0]", "ARRAY['key 2', 'key 1']"), "t|{\"key 2\",\"key 1\"}");
    assert_eq!(find("ARRAY['none', 'key 3']", &format!("ARRAY[0, {version}]"), "ARRAY['new']"), "f|{\"\",\"\"}");
    assert_eq!(find("ARRAY['none', 'key 3']", &both, "ARRAY['new']"), "t|{\"\",\"\"}");
    let nothing = "'{}'::TEXT[]";
    assert_eq!(find(nothing, "'{}'", "ARRAY['key 0']"), "f|{\"key 0\"}");
    assert_eq!(find(nothing, "'{}'", nothing), "f|{}");
}
