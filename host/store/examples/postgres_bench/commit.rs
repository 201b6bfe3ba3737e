//! Commit: full batches from append to commit, and the round trips to the server that they take.

use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_services::Relay;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::work::Committed;
use bulkhead_store::work::Work as _;

use crate::Failure;
use crate::Ground;
use crate::load::BATCH;
use crate::load::LIMITS;
use crate::load::Lane;
use crate::load::NOW;
use crate::load::PAYLOAD;
use crate::load::event;
use crate::load::fences;
use crate::load::payload;
use crate::load::tenants;

#[derive(Default)]
struct Spent {
    events: u64,
    append: Duration,
    read: Duration,
    commit: Duration,
}

pub async fn run(time: Duration) -> Result<(), Failure> {
    println!("commit: batches of {BATCH} events of 1 KiB, a run and a state write each, and one key that all write");
    for (count, counted) in [(1, false), (16, false), (16, true)] {
        let ground = Ground::new().await?;
        let relay = Relay::start(ground.cluster.port())?;
        let (url, relayed) = (ground.database.host_url(), ground.database.host_url_by(relay.port()));
        let store = Postgres::open(Options::new(if counted { &relayed } else { url })).await?;
        let fences = fences(&store).await?;
        let tenants = tenants(&store, count).await?;
        // The first round prepares statements on every connection.
        let time = if counted { time / 2 } else { time };
        round(&store, &tenants, &fences, time / 10).await?;
        let (before, begin) = (relay.trips(), Instant::now());
        let all = round(&store, &tenants, &fences, time).await?;
        let trips = relay.trips() - before;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / all.events.max(1) as f64;
        let rate = all.events as f64 / begin.elapsed().as_secs_f64();
        if counted {
            println!(
                "  {count:2} tenant(s) through a relay that counts: {:.4} round trips an event, the pool's own included",
                trips as f64 / all.events as f64
            );
        } else {
            println!(
                "  {count:2} tenant(s): {rate:6.0} events/s; waited per event: append {:.1}, read {:.1}, commit {:.1} µs",
                each(all.append),
                each(all.read),
                each(all.commit)
            );
        }
        store.close().await;
    }
    Ok(())
}

async fn round(
    store: &Postgres,
    tenants: &[TenantId],
    fences: &std::collections::HashMap<Shard, Fence>,
    time: Duration,
) -> Result<Spent, Failure> {
    let mut tasks = Vec::new();
    for tenant in tenants {
        let fence = fences[&Shard::of(*tenant, "", 16, 1)];
        tasks.push(tokio::spawn(lane(store.clone(), *tenant, fence, time)));
    }
    let mut all = Spent::default();
    for task in tasks {
        let spent = task.await??;
        all.events += spent.events;
        all.append += spent.append;
        all.read += spent.read;
        all.commit += spent.commit;
    }
    Ok(all)
}

async fn lane(store: Postgres, tenant: TenantId, fence: Fence, time: Duration) -> Result<Spent, Failure> {
    let (begin, payload) = (Instant::now(), payload(PAYLOAD));
    let shard = Shard::of(tenant, "", 16, 1);
    let (mut spent, mut lane) = (Spent::default(), Lane::default());
    while begin.elapsed() < time {
        let events = (0..BATCH).map(|_| event(tenant, &payload)).collect();
        let since = Instant::now();
        store.host_append(events).await?;
        spent.append += since.elapsed();
        let since = Instant::now();
        let batch = store.read_batch(tenant, shard, NOW, LIMITS).await?;
        spent.read += since.elapsed();
        let mut commit = lane.commit(tenant, fence, &batch);
        // What an earlier round wrote is not known here.
        commit.reads.clear();
        let since = Instant::now();
        let committed = store.commit(commit).await?;
        spent.commit += since.elapsed();
        let Committed::Done { version, .. } = committed else { return Err(format!("{committed:?}").into()) };
        lane.done(version);
        spent.events += batch.events.len() as u64;
    }
    Ok(spent)
}
