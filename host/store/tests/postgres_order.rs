//! Nothing is skipped because a transaction with a lower position ends later; and nobody waits for a stranger's
//! transaction.

mod postgres;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::catalogue::Settings as _;
use bulkhead_store::deliveries::Deliveries as _;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Appended;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::state::State as _;
use bulkhead_store::timers::Timers as _;
use bulkhead_store::upkeep::Upkeep as _;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::Work as _;
use bytes::Bytes;
use postgres::ALL;
use postgres::LEASE;
use postgres::LONG;
use postgres::NOW;
use postgres::SHARDS;
use postgres::Server;
use postgres::bare;
use postgres::commit_of;
use postgres::event;
use postgres::furnish::effects;
use postgres::furnish::furnish;
use postgres::home;
use postgres::made;
use postgres::run;
use postgres::tenant;
use postgres::until;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Nobody who waits for nobody needs longer, on a busy machine too.
const SOON: Duration = Duration::from_secs(3);

/// Holds up what the node `slow` does where one of the triggers stands, until the gate is open.
const HOLD: &str = "
    CREATE FUNCTION bulkhead.hold() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        IF current_setting('application_name') = 'bulkhead slow' THEN
            PERFORM pg_advisory_xact_lock_shared(7);
        END IF;
        RETURN NULL;
    END $$;";
/// Whoever adds an event, between its position and its commit.
const GATE: &str =
    "CREATE TRIGGER hold AFTER INSERT ON bulkhead.events FOR EACH STATEMENT EXECUTE FUNCTION bulkhead.hold();";
/// Whoever commits a batch, when all of it is written.
const LAST_GATE: &str = "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON bulkhead.progress
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bulkhead.hold();";

/// Holds up everybody there, for a random time.
const DRAG: &str = "
    CREATE FUNCTION bulkhead.drag() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_sleep(random() * random() * 0.02);
        RETURN NULL;
    END $$;
    CREATE TRIGGER drag AFTER INSERT ON bulkhead.events FOR EACH STATEMENT EXECUTE FUNCTION bulkhead.drag();";

async fn node(server: &Server, name: &str) -> Postgres {
    made(&server.database).await;
    let options =
        Options { node: name.to_owned(), connections: 6, appenders: 3, ..Options::new(server.database.host_url()) };
    Postgres::open(options).await.expect("because the tables are there")
}

fn position(appended: &[Appended]) -> Position {
    match appended {
        [Appended::Accepted(position)] => *position,
        other => panic!("one new event was appended, not {other:?}"),
    }
}

async fn append(store: Postgres, tenant: TenantId, id: &'static str) -> Position {
    position(&store.host_append(vec![event(tenant, id)]).await.expect("because the store answers"))
}

async fn seen(store: &Postgres, tenant: TenantId, after: Position) -> Vec<Position> {
    let events = store.tail(tenant, after, None, 100).await.expect("because the store answers").events;
    events.iter().map(|event| event.position).collect()
}

/// Whether the node `slow` has its position and waits at the gate.
fn held(server: &Server) -> bool {
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database());";
    server.owner(waiting) == "1"
}

/// Two nodes append for one tenant, of which the first hangs between position and commit. Gives what a reader saw that
/// looked before and after, and what there is.
async fn race(server: &Server) -> (Vec<Position>, Vec<Position>) {
    let (slow, quick) = (node(server, "slow").await, node(server, "quick").await);
    let (tenant, other) = (tenant(&quick, "a").await, tenant(&quick, "b").await);
    // Known, so that nothing is asked for but the append.
    let first = append(slow.clone(), tenant, "0").await;
    append(quick.clone(), other, "0").await;
    server.owner(&[HOLD, GATE].concat());
    let mut gate = bare(server.database.owner_url()).await;
    run(&mut gate, "SELECT pg_advisory_lock(7)").await;
    let late = tokio::spawn(append(slow.clone(), tenant, "late"));
    until("the first append has its position", || async { held(server) }).await;
    let mut next = tokio::spawn(append(quick.clone(), tenant, "next"));
    // Either it waits for its turn, or it is there at once: a reader must not be led past what is on its way.
    let overtook = timeout(Duration::from_millis(500), &mut next).await;
    let mut read = vec![first];
    read.extend(timeout(SOON, seen(&quick, tenant, first)).await.expect("because readers wait for nobody"));
    assert_eq!(
        timeout(SOON, quick.head(tenant)).await.expect("because readers wait for nobody").ok(),
        read.last().copied()
    );
    // Others' events, and commits that add none, wait for nobody either.
    timeout(SOON, append(quick.clone(), other, "1")).await.expect("because tenants do not wait for each other");
    let fences = quick.host_acquire("quick", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    let batch = quick.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    assert_eq!(batch.events.last().map(|event| event.position), read.last().copied(), "dispatch sees what readers see");
    let commit = commit_of(tenant, fence, &batch);
    let committed = timeout(SOON, quick.commit(commit)).await.expect("because it takes no turn");
    assert!(matches!(committed, Ok(Committed::Done { .. })), "{committed:?}");
    run(&mut gate, "SELECT pg_advisory_unlock(7)").await;
    let late = late.await.expect("because it does not panic");
    let next = match overtook {
        Ok(next) => next,
        Err(_) => next.await,
    }
    .expect("because it does not panic");
    let last = *read.last().expect("because one was there");
    read.extend(seen(&quick, tenant, last).await);
    let rest = quick.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    let dispatched = batch.events.iter().chain(&rest.events).map(|event| event.position).collect::<Vec<_>>();
    assert_eq!(dispatched, read, "dispatch sees what readers see");
    slow.close().await;
    quick.close().await;
    let mut all = vec![first, late, next];
    all.sort();
    (read, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_position_that_commits_later_is_not_skipped() {
    let server = Server::new();
    let (read, all) = race(&server).await;
    assert_eq!(read, all);
}

/// The same race where nobody takes turns: the test would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_turns_it_would_be_skipped() {
    let server = Server::new();
    made(&server.database).await;
    server.owner(
        "CREATE OR REPLACE FUNCTION bulkhead.take_turns(tenants BIGINT[]) RETURNS VOID LANGUAGE sql AS 'SELECT';",
    );
    let (read, all) = race(&server).await;
    assert_eq!((read.len(), all.len()), (2, 3), "the one that was late is missing");
}

/// Appends of one node: each client one event after another.
async fn appends(store: Postgres, tenants: Vec<TenantId>, node: &'static str) -> Vec<(TenantId, Position)> {
    let mut clients = Vec::new();
    for client in 0..8_usize {
        let (store, tenants) = (store.clone(), tenants.clone());
        clients.push(tokio::spawn(async move {
            let mut added = Vec::new();
            for number in 0..60 {
                let tenant = tenants[(client + number) % tenants.len()];
                let id = format!("{node} {client} {number}");
                let mut new = event(tenant, &id);
                new.shard = Shard::of(tenant, &id, SHARDS, 1);
                let appended = store.host_append(vec![new]).await.expect("because the store answers");
                added.push((tenant, position(&appended)));
            }
            added
        }));
    }
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("because it does not panic"));
    }
    all
}

/// Follows a tenant's log as a live stream does.
async fn follow(store: Postgres, tenant: TenantId, ended: Arc<AtomicBool>) -> Vec<Position> {
    let mut read = vec![Position::ZERO];
    loop {
        // Looked at before, so that after the last append there is one more look.
        let last = ended.load(Ordering::SeqCst);
        let events = store.tail(tenant, read[read.len() - 1], None, 7).await.expect("because the store answers").events;
        read.extend(events.iter().map(|event| event.position));
        if last && events.is_empty() {
            read.remove(0);
            return read;
        }
    }
}

/// What dispatch did in a lane.
#[derive(Default)]
struct Dispatched {
    read: Vec<Position>,
    emitted: u64,
    /// Ids of emitted events that were worked off with the commits that emitted them.
    passed: BTreeSet<String>,
}

/// Works a tenant's lane off as dispatch does; every third commit emits an event into the same lane, and no rule takes
/// every second of these.
async fn dispatch(store: Postgres, tenant: TenantId, shard: Shard, fence: Fence, ended: Arc<AtomicBool>) -> Dispatched {
    let limits = BatchLimits { events: 5, ..ALL };
    let (mut done, mut commits) = (Dispatched::default(), 0);
    loop {
        let last = ended.load(Ordering::SeqCst);
        let batch = store.read_batch(tenant, shard, NOW, limits).await.expect("because the store answers");
        if batch.events.is_empty() {
            if last {
                return done;
            }
            continue;
        }
        let mut commit = commit_of(tenant, fence, &batch);
        commit.shard = shard;
        commits += 1;
        let id = format!("emitted {} {commits}", shard.0);
        let emits = commits % 3 == 0 && !last;
        let unmatched = emits && commits % 2 == 0;
        if emits {
            let mut new = event(tenant, &id);
            new.shard = shard;
            commit.emits.push(new);
            commit.emits_unmatched = unmatched;
            done.emitted += 1;
        }
        let committed = store.commit(commit).await.expect("because the store answers");
        let Committed::Done { woken, .. } = committed else { panic!("{committed:?}") };
        if emits && !woken.contains(&shard) {
            assert!(unmatched, "what a rule may take is never passed");
            done.passed.insert(id);
        }
        done.read.extend(batch.events.iter().map(|event| event.position));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_appends_of_two_nodes_reach_readers_and_dispatch_once_and_in_order() {
    let server = Server::new();
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    server.owner(DRAG);
    let mut tenants = Vec::new();
    for name in ["a", "b", "c"] {
        tenants.push(tenant(&a, name).await);
    }
    let fences = a.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let ended = Arc::new(AtomicBool::new(false));
    // Readers go on until the lanes are done, whose last commits emit events.
    let settled = Arc::new(AtomicBool::new(false));
    let (mut readers, mut lanes) = (Vec::new(), Vec::new());
    for tenant in &tenants {
        readers.push(tokio::spawn(follow(b.clone(), *tenant, Arc::clone(&settled))));
        // Two of the lanes; the others have readers enough.
        for (shard, fence) in fences.iter().take(2) {
            let task = tokio::spawn(dispatch(a.clone(), *tenant, *shard, *fence, Arc::clone(&ended)));
            lanes.push((*tenant, *shard, task));
        }
    }
    let of_a = tokio::spawn(appends(a.clone(), tenants.clone(), "a"));
    let of_b = tokio::spawn(appends(b.clone(), tenants.clone(), "b"));
    let mut added: BTreeMap<TenantId, BTreeSet<Position>> = BTreeMap::new();
    for node in [of_a, of_b] {
        for (tenant, position) in node.await.expect("because it does not panic") {
            assert!(added.entry(tenant).or_default().insert(position), "no position is given twice");
        }
    }
    ended.store(true, Ordering::SeqCst);
    let (mut emitted, mut passed) = (0, 0);
    let mut dispatched: BTreeMap<(TenantId, Shard), Dispatched> = BTreeMap::new();
    for (tenant, shard, lane) in lanes {
        let done = lane.await.expect("because it does not panic");
        emitted += done.emitted;
        passed += done.passed.len();
        dispatched.insert((tenant, shard), done);
    }
    settled.store(true, Ordering::SeqCst);
    let mut more = 0;
    for (tenant, reader) in tenants.iter().zip(readers) {
        let read = reader.await.expect("because it does not panic");
        assert!(read.is_sorted_by(|a, b| a < b), "in order, and each once");
        let read: BTreeSet<Position> = read.into_iter().collect();
        assert_eq!(added[tenant].difference(&read).next(), None, "a reader skips nothing");
        more += read.len() - added[tenant].len();
        // What is there now, by lane.
        let all = b.tail(*tenant, Position::ZERO, None, 10_000).await.expect("because the store answers").events;
        assert_eq!(all.iter().map(|event| event.position).collect::<BTreeSet<_>>(), read, "a reader sees all there is");
        for (shard, _) in fences.iter().take(2) {
            let done = &dispatched[&(*tenant, *shard)];
            let lane = all.iter().filter(|event| event.shard == *shard && !done.passed.contains(&event.event.id));
            let lane: Vec<Position> = lane.map(|event| event.position).collect();
            assert_eq!(done.read, lane, "dispatch sees each event of a lane once, in order");
        }
    }
    assert_eq!(more as u64, emitted, "readers see what commits emit");
    assert!(emitted > 0, "commits emitted something");
    println!("{passed} of {emitted} emitted events were worked off with their commits");
    a.close().await;
    b.close().await;
}

/// Commits that pass what they emit beside appends to the same lane, until often enough both of them were first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_commit_passes_never_stands_behind_what_others_append() {
    const OFTEN: usize = 20;
    let server = Server::new();
    let (a, b) = (node(&server, "a").await, node(&server, "b").await);
    let tenant = tenant(&a, "a").await;
    let fences = a.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    let (go, ended) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let appending = tokio::spawn({
        let (go, ended) = (Arc::clone(&go), Arc::clone(&ended));
        async move {
            let mut appended = 0;
            loop {
                go.notified().await;
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                let new = event(tenant, &format!("appended {appended}"));
                b.host_append(vec![new]).await.expect("because the store answers");
                appended += 1;
            }
            b.close().await;
            appended
        }
    });
    let (mut read, mut passed, mut refused) = (Vec::new(), BTreeSet::new(), 0);
    let begin = Instant::now();
    for round in 0.. {
        if passed.len() >= OFTEN && refused >= OFTEN {
            break;
        }
        assert!(begin.elapsed() < LONG, "{} passed, {refused} not", passed.len());
        // Beside the read, beside the commit, or not at all.
        if round % 3 == 0 {
            go.notify_one();
        }
        let batch = a.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
        let mut commit = commit_of(tenant, fence, &batch);
        let id = format!("emitted {}", batch.turn);
        commit.emits = vec![event(tenant, &id)];
        commit.emits_unmatched = true;
        if round % 3 == 1 {
            go.notify_one();
        }
        let Committed::Done { woken, .. } = a.commit(commit).await.expect("because the store answers") else {
            panic!("nobody else works there")
        };
        match woken.is_empty() {
            true => _ = passed.insert(id),
            false => refused += 1,
        }
        read.extend(batch.events.into_iter().map(|event| event.event.id));
    }
    ended.store(true, Ordering::SeqCst);
    go.notify_one();
    let appended: usize = appending.await.expect("because it does not panic");
    let rest = a.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    read.extend(rest.events.into_iter().map(|event| event.event.id));
    let all = a.tail(tenant, Position::ZERO, None, 100_000).await.expect("because the store answers");
    assert_eq!(all.events.len(), appended + passed.len() + refused);
    let dispatched = all.events.into_iter().map(|event| event.event.id).filter(|id| !passed.contains(id));
    assert_eq!(read, dispatched.collect::<Vec<_>>(), "all that was not passed, once and in order");
    a.close().await;
}

/// How many of the database's sessions wait for a lock.
fn waiting(server: &Server) -> usize {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    server.owner(waiting).parse().expect("because it is a number")
}

/// A commit that moves the cursor beyond what it emits, under the settings of the moment.
async fn passing(store: &Postgres, tenant: TenantId, fence: Fence) -> Commit {
    let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    let mut commit = commit_of(tenant, fence, &batch);
    commit.settings = batch.settings;
    commit.emits = vec![event(tenant, &format!("emitted {}", batch.turn))];
    commit.emits_unmatched = true;
    commit
}

/// Whoever is told that rules are in force finds that what is emitted from then on is not passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_stored_before_or_after_what_a_commit_passes_and_never_meanwhile() {
    let server = Server::new();
    let (slow, quick) = (node(&server, "slow").await, node(&server, "quick").await);
    let tenant = tenant(&slow, "a").await;
    let fences = slow.host_acquire("slow", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    server.owner(&[HOLD, LAST_GATE].concat());
    let mut gate = bare(server.database.owner_url()).await;
    run(&mut gate, "SELECT pg_advisory_lock(7)").await;
    let commit = passing(&slow, tenant, fence).await;
    let committing = tokio::spawn({
        let slow = slow.clone();
        async move { slow.commit(commit).await }
    });
    until("the commit at the gate", || async { waiting(&server) == 1 }).await;
    let storing = tokio::spawn({
        let quick = quick.clone();
        async move { quick.put_rules(tenant, 0, "[1]", "", "", NOW).await }
    });
    until("the rules behind it", || async { waiting(&server) == 2 }).await;
    assert!(!committing.is_finished() && !storing.is_finished());
    run(&mut gate, "SELECT pg_advisory_unlock(7)").await;
    let committed = committing.await.expect("because it does not panic").expect("because the store answers");
    assert!(matches!(&committed, Committed::Done { woken, .. } if woken.is_empty()), "it was first: {committed:?}");
    storing.await.expect("because it does not panic").expect("because nobody stored others");

    // And the other way round: rules that are being stored are not waited for, and nothing is passed.
    let commit = passing(&slow, tenant, fence).await;
    run(&mut gate, "BEGIN").await;
    run(&mut gate, "UPDATE bulkhead.tenants SET settings = settings + 1").await;
    let committed = timeout(SOON, slow.commit(commit)).await.expect("because it waits for nobody");
    assert!(matches!(&committed, Ok(Committed::Done { woken, .. }) if !woken.is_empty()), "{committed:?}");
    run(&mut gate, "COMMIT").await;
    let batch = slow.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
    assert_eq!(batch.events.len(), 1, "what was not passed is there for the new rules");
    // Under settings that have been replaced since, nothing is passed either.
    let commit = Commit { settings: batch.settings - 1, ..passing(&slow, tenant, fence).await };
    let committed = slow.commit(commit).await;
    assert!(matches!(&committed, Ok(Committed::Done { woken, .. }) if !woken.is_empty()), "{committed:?}");
    slow.close().await;
    quick.close().await;
}

/// Whichever is first: what a commit puts in the place of an expired value is there afterwards, under its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_written_does_not_expire_meanwhile() {
    const EXPIRED: Timestamp = Timestamp(1);
    let server = Server::new();
    let (slow, quick) = (node(&server, "slow").await, node(&server, "quick").await);
    let (a, b) = (tenant(&slow, "a").await, tenant(&slow, "b").await);
    let fences = slow.host_acquire("slow", LEASE, u16::MAX).await.expect("because nobody else is there");
    let fence = |tenant| fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    let writing = async |tenant, value: Option<&'static str>, expires| {
        let batch = slow.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because the store answers");
        let write = StateWrite { plugin: PluginId(1), key: "key".into(), value: value.map(Bytes::from), expires };
        Commit { writes: vec![write], ..commit_of(tenant, fence(tenant), &batch) }
    };
    let held = async |tenant| {
        let held = quick.state(tenant, PluginId(1), "key").await.expect("because the store answers");
        let keys = quick.state_keys(tenant, PluginId(1), "", None, 100).await.expect("because the store answers");
        (held.map(|held| held.value), keys)
    };
    for tenant in [a, b] {
        let old = writing(tenant, Some("old"), Some(EXPIRED)).await;
        slow.commit(old).await.expect("because the store answers");
    }
    let new = writing(a, Some("new"), Some(EXPIRED)).await;
    server.owner(&[HOLD, LAST_GATE].concat());
    let mut gate = bare(server.database.owner_url()).await;
    run(&mut gate, "SELECT pg_advisory_lock(7)").await;
    let committing = |commit| {
        let slow = slow.clone();
        tokio::spawn(async move { slow.commit(commit).await })
    };
    let commit = committing(new);
    until("the commit at the gate", || async { waiting(&server) == 1 }).await;
    let expired = timeout(SOON, quick.host_expire_state(NOW, 100)).await.expect("because it waits for nobody");
    assert_eq!(expired.expect("because the store answers"), 1, "the other tenant's");
    assert_eq!(held(b).await, (None, Vec::new()));
    run(&mut gate, "SELECT pg_advisory_unlock(7)").await;
    let committed = commit.await.expect("because it does not panic").expect("because the store answers");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    assert_eq!(held(a).await, (Some("new".into()), vec!["key".to_owned()]));

    // And the other way round: the commit finds the value, and waits for who takes it away, or does not after all.
    for (end, value) in [("COMMIT", Some("a")), ("ROLLBACK", Some("b")), ("COMMIT", None), ("ROLLBACK", None)] {
        let short = writing(a, Some("short"), Some(EXPIRED)).await;
        slow.commit(short).await.expect("because the store answers");
        let newest = writing(a, value, None).await;
        run(&mut gate, "BEGIN").await;
        run(&mut gate, "SELECT bulkhead.expire_state(2, 100)").await;
        let commit = committing(newest);
        until("the commit behind it", || async { waiting(&server) == 1 }).await;
        run(&mut gate, end).await;
        let committed = commit.await.expect("because it does not panic").expect("because the store answers");
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
        let keys = value.map(|_| "key".to_owned()).into_iter().collect();
        assert_eq!(held(a).await, (value.map(Bytes::from), keys), "{end}, {value:?}");
        let alone = "SELECT count(*) FROM bulkhead.state_keys k FULL JOIN bulkhead.state_values v USING (slot, tenant)
                     WHERE k.key IS NULL OR v.value IS NULL;";
        assert_eq!(server.owner(alone), "0", "no value without a key, no key without a value");
    }
    slow.close().await;
    quick.close().await;
}

/// What a stranger may have left open beside us.
const STRANGERS: [(&str, &str); 4] = [
    (
        "a snapshot",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bulkhead.events, bulkhead.state_values",
    ),
    ("a lock on a table", "BEGIN; LOCK TABLE public.strange IN ACCESS EXCLUSIVE MODE"),
    ("a write", "BEGIN; INSERT INTO public.strange VALUES (2); SELECT txid_current()"),
    (
        "a serializable write",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM bulkhead.tenants; INSERT INTO public.other VALUES (2)",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_open_transaction_holds_nobody_up() {
    for (number, (what, left_open)) in STRANGERS.iter().enumerate() {
        let server = Server::new();
        let store = node(&server, "a").await;
        server.owner("CREATE TABLE public.strange (a INT); CREATE TABLE public.other (a INT);");
        let tenant = tenant(&store, "a").await;
        let fences = store.host_acquire("a", LEASE, u16::MAX).await.expect("because nobody else is there");
        let fence = fences.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
        furnish(&store, tenant, fence, "before").await.expect("because the store answers");
        let mut stranger = bare(server.database.owner_url()).await;
        run(&mut stranger, left_open).await;
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'
                    AND datname = current_database();";
        assert_eq!(server.owner(open), "1", "{what}");
        timeout(SOON * 4, everything(&server, &store, tenant, fence))
            .await
            .unwrap_or_else(|_| panic!("{number}: {what} of a stranger holds us up"));
        assert_eq!(server.owner(open), "1", "{what}: it was open all the time");
        drop(stranger);
        store.close().await;
    }
}

/// Every kind of call that writes, and those that dispatch lives by.
async fn everything(server: &Server, store: &Postgres, tenant: TenantId, fence: Fence) {
    let shard = home(tenant);
    // Also a node that starts now, with its migrations.
    let new = node(server, "new").await;
    let first = append(new.clone(), tenant, "1").await;
    let second = append(store.clone(), tenant, "2").await;
    assert!(first < second);
    assert_eq!(new.head(tenant).await.expect("because the store answers"), second);
    let batch = new.read_batch(tenant, shard, NOW, ALL).await.expect("because the store answers");
    let positions: Vec<Position> = batch.events.iter().map(|event| event.position).collect();
    assert!(positions.ends_with(&[first, second]), "{positions:?} ends with {first:?}, {second:?}");
    // The first run of a key waits for a retry, the second behind it.
    let mut commit = commit_of(tenant, fence, &batch);
    let cause = batch.events.last().expect("because two were appended");
    effects(&mut commit, cause, bulkhead_domain::id::PluginId(1), "now");
    let Some(UnfinishedChange::Put(run)) = commit.unfinished.pop() else { panic!("it has an unfinished run") };
    let mut head = run.clone();
    (head.position, head.waiting) = (first, Waiting::Retry(NOW));
    let blocked = bulkhead_store::work::Unfinished { waiting: Waiting::Blocked, ..run };
    commit.unfinished = vec![UnfinishedChange::Put(head.clone()), UnfinishedChange::Put(blocked)];
    let committed = store.commit(commit).await.expect("because the store answers");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    // The end of the first makes the second due.
    let batch = store.read_batch(tenant, shard, NOW, ALL).await.expect("because the store answers");
    let mut commit = commit_of(tenant, fence, &batch);
    commit.unfinished = vec![UnfinishedChange::End { position: first, rule: head.rule }];
    let committed = store.commit(commit).await.expect("because the store answers");
    assert!(matches!(&committed, Committed::Done { woken, .. } if woken == &[shard]), "{committed:?}");
    let later = Timestamp(NOW.0 + 1_000_000);
    let batch = store.read_batch(tenant, shard, later, ALL).await.expect("because the store answers");
    assert!(batch.due.iter().any(|due| due.run.position == second), "{:?}", batch.due);
    assert_eq!(store.host_fire_timers(later, 100).await.expect("because the store answers").count, 2);
    let shards: Vec<Shard> = (0..SHARDS).map(Shard).collect();
    let (due, _) = store.host_due_deliveries(later, 10, &shards, &[], &[]).await.expect("because the store answers");
    assert_eq!(due.len(), 2);
    let arrived = due.iter().map(|due| Settlement {
        tenant,
        id: due.delivery.id.clone(),
        settled: Settled::Delivered,
        attempts: 1,
        code: String::new(),
        reason: String::new(),
        at: later,
    });
    store.host_settle(arrived.collect()).await.expect("because the store answers");
    store.host_acquire("a", LEASE, u16::MAX).await.expect("because the store answers");
    store.host_tidy().await.expect("because the store answers");
    // Room for what comes, too.
    server.owner("SELECT bulkhead.grow();");
    new.close().await;
}

/// What the server said no to tells the appender what to do next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_where_segments_are_used_up_and_beside_one_that_is_refused() {
    let server = Server::new();
    let store = node(&server, "a").await;
    let tenant = tenant(&store, "a").await;
    append(store.clone(), tenant, "first").await;
    server.owner("SELECT setval('bulkhead.numbers', ((last_value >> 32) + 9) << 32) FROM bulkhead.numbers;");
    append(store.clone(), tenant, "beyond").await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        let mut event = event(tenant, &format!("merged-{number}"));
        if number == 20 {
            // The server's column has no room for it.
            event.shard = Shard(u16::MAX);
        }
        let store = store.clone();
        tasks.push(tokio::spawn(async move { (number, store.host_append(vec![event]).await) }));
    }
    for task in tasks {
        let (number, answer) = task.await.expect("because it does not panic");
        assert_eq!(answer.is_ok(), number != 20, "append {number}: {answer:?}");
    }
}
