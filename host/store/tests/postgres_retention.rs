//! Segments on Postgres: dropped as a whole, and never at the price of somebody else's wait.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod postgres;

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_store::conformance::Ground as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Appended;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::upkeep::Expiry;
use bulkhead_store::upkeep::Mark;
use bulkhead_store::upkeep::Retired;
use bulkhead_store::upkeep::Upkeep as _;
use bulkhead_store::work::Committed;
use bulkhead_store::work::Work as _;
use postgres::ALL;
use postgres::LEASE;
use postgres::NOW;
use postgres::SHARDS;
use postgres::Server;
use postgres::bare;
use postgres::commit_of;
use postgres::event;
use postgres::home;
use postgres::run;
use postgres::tenant;

/// Whatever the database's clock says, everything is older.
const OLD: Expiry = Expiry { events: Some(Timestamp(i64::MAX / 2)), parked: None, usage: None, now: NOW };

/// A whole pass.
async fn pass(store: &Postgres) -> Retired {
    let (mut all, mut mark) = (Retired::default(), Some(Mark::default()));
    while let Some(at) = mark {
        let (some, next) = store.host_retire(&OLD, at).await.unwrap();
        all.segments += some.segments;
        all.keys += some.keys;
        mark = next;
    }
    all
}

/// A store whose first segment has some events that are worked off, and is not the present one any more.
async fn worked_off(server: &mut Server) -> Postgres {
    let store = server.connect().await;
    let tenant = tenant(&store, "a").await;
    let fences = store.host_acquire("node", LEASE, SHARDS).await.unwrap();
    let fence = fences.into_iter().find(|(shard, _)| *shard == home(tenant)).unwrap().1;
    store.host_append((0..10).map(|at| event(tenant, &at.to_string())).collect()).await.unwrap();
    let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.unwrap();
    let committed = store.commit(commit_of(tenant, fence, &batch)).await.unwrap();
    assert!(matches!(committed, Committed::Done { .. }));
    server.turn_over().await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn somebodys_open_transaction_is_not_waited_for_and_stops_nobody() {
    let mut server = Server::new();
    let store = worked_off(&mut server).await;
    let mut somebody = bare(server.database.owner_url()).await;
    run(&mut somebody, "BEGIN; SELECT count(*) FROM bulkhead.events; SELECT count(*) FROM bulkhead.event_keys").await;
    let began = Instant::now();
    assert_eq!(pass(&store).await, Retired::default());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Nobody stands in a line behind it.
    let tenant = bulkhead_domain::id::TenantId(1);
    let appended = store.host_append(vec![event(tenant, "meanwhile")]).await.unwrap();
    assert!(matches!(appended[..], [Appended::Accepted(_)]));
    run(&mut somebody, "COMMIT").await;
    let gone = pass(&store).await;
    assert_eq!((gone.segments, gone.keys), (1, 10));
    assert_eq!(server.owner("SELECT to_regclass('bulkhead.events_0') IS NULL").trim(), "t");
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.segments WHERE dropped IS NOT NULL").trim(), "0");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_forgotten_while_it_comes_again_is_new_and_the_others_keep_their_places() {
    let mut server = Server::new();
    let store = worked_off(&mut server).await;
    let tenant = bulkhead_domain::id::TenantId(1);
    // Known, and swept away behind the look that finds it: the append has to look again.
    server.owner(
        "SET search_path = bulkhead;
         CREATE FUNCTION forget() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER SET search_path = bulkhead AS $$
         BEGIN
             DELETE FROM event_keys WHERE pos < 1::BIGINT << 32;
             RETURN NULL;
         END $$;
         CREATE TRIGGER forgets AFTER INSERT ON event_keys FOR EACH STATEMENT EXECUTE FUNCTION forget();",
    );
    let ids = ["new", "3", "newer", "4", "newest"];
    let appended = store.host_append(ids.iter().map(|id| event(tenant, id)).collect()).await.unwrap();
    let places: Vec<_> = appended
        .iter()
        .map(|one| match one {
            Appended::Accepted(position) => *position,
            Appended::Duplicate(position) => panic!("it was forgotten, and is at {position:?}"),
        })
        .collect();
    assert!(places.is_sorted());
    for (id, place) in ids.iter().zip(places) {
        let found = store.events_by_id(tenant, id).await.unwrap();
        assert_eq!(found.iter().map(|logged| logged.position).collect::<Vec<_>>(), [place], "{id}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_at_it_at_once_do_no_harm() {
    let mut server = Server::new();
    let (store, other) = (worked_off(&mut server).await, server.connect().await);
    let (one, two) = tokio::join!(pass(&store), pass(&other));
    let rest = pass(&store).await;
    assert_eq!((one.segments + two.segments, one.keys + two.keys + rest.keys), (1, 10));
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.event_keys").trim(), "0");
    store.close().await;
    other.close().await;
}
