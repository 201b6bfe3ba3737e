//! Connections: used again and again, never more than allowed, and not trusted after a failure.

mod postgres;

use std::time::Duration;

use bulkhead_domain::id::Position;
use bulkhead_services::Database;
use bulkhead_services::Relay;
use bulkhead_services::sql;
use bulkhead_store::Error;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::work::Work as _;
use futures_util::future::join_all;
use postgres::ALL;
use postgres::LONG;
use postgres::NOW;
use postgres::Server;
use postgres::event;
use postgres::home;
use postgres::made;
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
