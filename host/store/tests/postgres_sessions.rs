//! Connections: used again and again, never more than allowed, and not trusted after a failure.

mod postgres;

use std::time::Duration;

use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_services::Database;
use bulkhead_services::Relay;
use bulkhead_services::sql;
use bulkhead_store::Error;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::work::Committed;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::Work as _;
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
    let (node, connections) = ("sessions".to_owned(), CONNECTIONS);
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
const PLANNED_EACH_TIME: [&str; 23] = [
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
    "expire_state",
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

/// Batches that each replace the same values, end the retry of the one before, and leave one.
async fn work(server: &Server, batches: u32, name: &str) {
    let store = open(server.database.host_url()).await;
    let tenant = match store.operator_tenant("a").await.expect("because the store answers") {
        Some(tenant) => tenant.id,
        None => tenant(&store, "a").await,
    };
    let fences = store.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    for number in 0..batches {
        store.host_append(vec![event(tenant, &format!("{name} {number}"))]).await.expect("because the store answers");
        let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
        let mut commit = commit_of(tenant, fence, &batch);
        let write = |key: u32| StateWrite {
            plugin: PluginId(1),
            key: format!("key {key}"),
            value: Some(number.to_string().into()),
            expires: None,
        };
        commit.writes = (0..4).map(write).collect();
        let ended = batch
            .due
            .iter()
            .map(|due| UnfinishedChange::End { position: due.run.position, rule: due.run.rule.clone() });
        let failed = batch.events.iter().map(|event| {
            UnfinishedChange::Put(Unfinished {
                position: event.position,
                event: event.event.event_key(),
                rule: "rule".into(),
                key: None,
                waiting: Waiting::Retry(NOW),
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
        });
        commit.unfinished = ended.chain(failed).collect();
        let committed = store.commit(commit).await.expect("because the store answers");
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
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
    run(&mut stranger, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bulkhead.state").await;
    work(&server, BATCHES, "before").await;
    server.owner(
        "SET allow_system_table_mods = on;
         UPDATE pg_class SET reltuples = 0 WHERE relnamespace = 'bulkhead'::REGNAMESPACE AND relkind IN ('r', 'i')",
    );
    let read = || -> u32 {
        let sum = "SELECT sum(idx_tup_read)::BIGINT FROM pg_stat_user_indexes
                   WHERE schemaname = 'bulkhead' AND relname IN ('progress', 'state');";
        server.owner(sum).parse().expect("because it is a number")
    };
    let before = read();
    work(&server, 3, "after").await;
    let walked = read() - before;
    drop(stranger);
    assert!(walked < BATCHES, "three batches read {walked} index entries, beside 4 dead rows a batch of {BATCHES}");
}
