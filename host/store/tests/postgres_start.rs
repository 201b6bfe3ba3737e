//! Starting, and what becomes of calls when the server or the wire to it is gone.

mod postgres;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_services::Database;
use bulkhead_services::Postgres as Cluster;
use bulkhead_services::Proxy;
use bulkhead_services::shared;
use bulkhead_services::sql;
use bulkhead_store::Error;
use bulkhead_store::Result;
use bulkhead_store::catalogue::Settings as _;
use bulkhead_store::catalogue::Tenants as _;
use bulkhead_store::deliveries::Deliveries as _;
use bulkhead_store::leases::Leases as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::postgres::migrate;
use bulkhead_store::state::State as _;
use bulkhead_store::timers::Timers as _;
use bulkhead_store::usage::Usage as _;
use bulkhead_store::work::Committed;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::Work as _;
use postgres::ALL;
use postgres::LEASE;
use postgres::LONG;
use postgres::NOW;
use postgres::SHARDS;
use postgres::Server;
use postgres::bare;
use postgres::commit_of;
use postgres::event;
use postgres::home;
use postgres::made;
use postgres::open;
use postgres::run;
use postgres::tenant;
use postgres::until;

/// Calls end within this time, whatever has become of the server.
const BOUND: Duration = Duration::from_secs(10);

/// A password that no text may show.
const PASSWORD: &str = "hunter-2-secret";

fn cluster() -> Cluster {
    Cluster::start(shared::postgres_options()).expect("because the server's programs are there")
}

/// All that an error says, its causes included.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The same place under another port.
fn at_port(url: &str, from: u16, to: u16) -> String {
    url.replace(&format!(":{from}/"), &format!(":{to}/"))
}

fn with_user(url: &str, user: &str) -> String {
    let (_, server) = url.split_once('@').expect("because tests' addresses name a user");
    format!("postgres://{user}@{server}")
}

async fn refusal(url: &str) -> String {
    let begin = Instant::now();
    let error = Postgres::open(Options::new(url)).await.map(drop).expect_err("because it must be refused");
    assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let said = whole(&error);
    assert!(!said.contains(PASSWORD) && !format!("{error:?}").contains(PASSWORD), "{said}");
    said
}

async fn owners_refusal(owner: &str, host: &str) -> String {
    let begin = Instant::now();
    let error = migrate(owner, host, SHARDS).await.expect_err("because it must be refused");
    assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
    let said = whole(&error);
    assert!(!said.contains(PASSWORD) && !format!("{error:?}").contains(PASSWORD), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_the_tables_once() {
    let server = Server::new();
    let (owner, host) = (server.database.owner_url().to_owned(), server.database.host_url().to_owned());
    let starts = (0..4).map(|_| {
        let (owner, host) = (owner.clone(), host.clone());
        tokio::spawn(async move {
            migrate(&owner, &host, SHARDS).await?;
            Postgres::open(Options { connections: 2, ..Options::new(host) }).await
        })
    });
    for start in starts.collect::<Vec<_>>() {
        let store = start.await.expect("because it does not panic").expect("because the database is empty or ours");
        assert_eq!(store.host_shards(), SHARDS);
        store.close().await;
    }
    let ran = server.owner("SELECT count(*), bool_and(success) FROM bulkhead._sqlx_migrations;");
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/postgres"));
    let files = files.expect("because the migrations are there").count();
    assert_eq!(ran, format!("{files}|t"));
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.segments;"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_programs_tables_are_refused() {
    let server = Server::new();
    made(&server.database).await;
    server.owner(
        "INSERT INTO bulkhead._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, '', 0);",
    );
    let before = server.dump();
    for said in [
        refusal(server.database.host_url()).await,
        owners_refusal(server.database.owner_url(), server.database.host_url()).await,
    ] {
        assert!(said.contains("version 9999") && said.contains("newer program"), "{said}");
    }
    assert_eq!(server.dump(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_missing_or_old_are_named() {
    let server = Server::new();
    let said = refusal(server.database.host_url()).await;
    assert!(said.contains("are not there") && said.contains("store_owner"), "{said}");
    made(&server.database).await;
    server.owner("DELETE FROM bulkhead._sqlx_migrations WHERE version > 2;");
    let said = refusal(server.database.host_url()).await;
    assert!(said.contains("have version 2, and this program needs"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_above_row_level_security_are_refused() {
    let cluster = cluster();
    let database = cluster.database().expect("because the server makes databases");
    sql(
        database.owner_url(),
        &format!(
            "CREATE ROLE owner LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE friend LOGIN IN ROLE owner;
             CREATE ROLE above LOGIN BYPASSRLS; GRANT CREATE ON DATABASE {} TO owner;",
            database.name()
        ),
    )
    .expect("because the owner may do that");
    let owner = with_user(database.owner_url(), &format!("owner:{PASSWORD}"));
    migrate(&owner, database.host_url(), SHARDS).await.expect("because an owner need not be a superuser");
    open(database.host_url()).await.close().await;
    for (user, why) in [
        ("postgres".to_owned(), "is a superuser"),
        ("above".to_owned(), "may bypass row-level security"),
        (format!("owner:{PASSWORD}"), "owns the tables"),
        ("friend".to_owned(), "may act as their owner"),
    ] {
        let said = refusal(&with_user(database.owner_url(), &user)).await;
        assert!(said.contains(why), "{user}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_connect_is_told_why_and_shown_no_password() {
    let cluster = cluster();
    let database = cluster.database().expect("because the server makes databases");
    made(&database).await;
    let login = format!("keyed:{PASSWORD}");
    let url = with_user(database.owner_url(), &login);
    let place = format!("127.0.0.1:{}", cluster.port());
    // From now on the server asks this role for its password.
    let rules = "host all keyed 127.0.0.1/32 scram-sha-256\\nhost all all 127.0.0.1/32 trust";
    let script = format!(
        "CREATE ROLE keyed LOGIN PASSWORD 'another';
         SELECT format('COPY (SELECT unnest(string_to_array(E''{rules}'', E''\\n''))) TO %L', current_setting('hba_file'))
         \\gexec
         SELECT pg_reload_conf();"
    );
    sql(database.owner_url(), &script).expect("because the superuser may do that");
    let rejected = "password authentication failed";
    until("the server has read its rules", || async {
        let opened = Postgres::open(Options::new(url.clone())).await;
        opened.is_err_and(|error| whole(&error).contains(rejected))
    })
    .await;
    let nowhere = with_user(&database.owner_url().replace(database.name(), "nowhere"), "bulkhead_host:bulkhead_host");
    for said in [refusal(&nowhere).await, owners_refusal(&nowhere, &nowhere).await] {
        assert!(said.contains("database \"nowhere\" does not exist") && said.contains(&place), "{said}");
    }
    for said in [refusal(&url).await, owners_refusal(&url, &url).await] {
        assert!(said.contains(rejected) && said.contains("keyed") && said.contains(&place), "{said}");
    }
    // A port where nobody is, and a wire on which nothing comes.
    let gone = Proxy::start(cluster.port()).expect("because there are ports");
    let port = gone.port();
    gone.cut();
    let silent = at_port(&url, cluster.port(), port);
    for said in [refusal(&silent).await, owners_refusal(&silent, &silent).await] {
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    }
    drop(gone);
    until("nobody listens there any more", || async { refusal(&silent).await.contains("refused") }).await;
    for said in [refusal(&silent).await, owners_refusal(&silent, &silent).await] {
        assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("refused"), "{said}");
    }
    for url in
        [format!("postgres:{PASSWORD}"), format!("redis://u:{PASSWORD}@h/d"), format!("postgres://u:{PASSWORD}@h:x/d")]
    {
        refusal(&url).await;
        owners_refusal(&url, &url).await;
    }
}

/// What a node's clients were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<String>,
    failed: usize,
}

/// Appends one event after another until it is over, and what failed again.
async fn publish(store: Postgres, tenant: TenantId, name: String, over: Arc<AtomicBool>) -> Told {
    let (mut told, mut number) = (Told::default(), 0);
    while !over.load(Ordering::SeqCst) {
        let id = format!("{name} {number}");
        match store.host_append(vec![event(tenant, &id)]).await {
            Ok(_) => {
                told.acknowledged.insert(id);
                number += 1;
            }
            Err(Error::Unavailable { .. }) => told.failed += 1,
            Err(other) => panic!("a server that is gone is unavailable, not {other:?}"),
        }
    }
    told
}

/// Works the tenant's home off until it is over and nothing is left; a run for each event. Says how often it failed.
async fn work_off(store: Postgres, tenant: TenantId, fence: Fence, over: Arc<AtomicBool>) -> usize {
    let mut failed = 0;
    loop {
        let last = over.load(Ordering::SeqCst);
        let step = async {
            let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await?;
            if batch.events.is_empty() {
                return Ok(None);
            }
            let mut commit = commit_of(tenant, fence, &batch);
            commit.runs = batch
                .events
                .iter()
                .map(|event| RunRecord {
                    position: event.position,
                    event: event.event.event_key(),
                    rule: "rule".to_owned(),
                    rule_set: 1,
                    plugin: None,
                    state: RunState::Done,
                    attempt: 1,
                    code: String::new(),
                    reason: String::new(),
                    fuel: 0,
                    duration: Duration::ZERO,
                    ended: NOW,
                    effects: 0,
                    logs: Vec::new(),
                })
                .collect();
            store.commit(commit).await.map(Some)
        };
        match step.await {
            Ok(None) if last => return failed,
            // Fenced: it was applied after all, and its answer was lost.
            Ok(None | Some(Committed::Done { .. } | Committed::Fenced)) => {}
            Ok(Some(Committed::Conflict)) => panic!("nothing was read"),
            Err(Error::Unavailable { .. }) => failed += 1,
            Err(other) => panic!("a server that is gone is unavailable, not {other:?}"),
        }
    }
}

/// What is left open on a database by a node's connections.
fn connections(database: &Database) -> usize {
    let script = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND application_name LIKE 'bulkhead %';";
    let count = sql(database.owner_url(), script).expect("because the server runs");
    count.parse().expect("because it is a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_under_writes_loses_nothing_that_was_acknowledged() {
    let cluster = Arc::new(cluster());
    let database = cluster.database().expect("because the server makes databases");
    made(&database).await;
    let store = open(database.host_url()).await;
    let tenant = tenant(&store, "a").await;
    let held = store.host_acquire("node", LEASE, SHARDS).await.expect("because nobody else is there");
    let fence = held.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    // The worker goes on until the last of the publishers has its answer.
    let (over, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let publishers: Vec<_> = (0..6)
        .map(|number| tokio::spawn(publish(store.clone(), tenant, format!("p{number}"), Arc::clone(&over))))
        .collect();
    let worker = tokio::spawn(work_off(store.clone(), tenant, fence, Arc::clone(&published)));
    let mut back = Duration::ZERO;
    for fault in ["kill -9", "immediate", "kill -9", "restart"] {
        let before = store.head(tenant).await.unwrap_or(Position::ZERO);
        until("events come in", || async { store.head(tenant).await.is_ok_and(|head| head.0 > before.0 + 600) }).await;
        let harmed = Arc::clone(&cluster);
        let begin = tokio::task::spawn_blocking(move || {
            match fault {
                "kill -9" => harmed.kill().and_then(|()| harmed.start_again()),
                "immediate" => harmed.stop_immediate().and_then(|()| harmed.start_again()),
                _ => harmed.restart_fast(),
            }
            .expect("because the server comes back");
            Instant::now()
        });
        let begin = begin.await.expect("because it does not panic");
        let after = tokio::time::timeout(BOUND, async {
            loop {
                if let Ok(head) = store.head(tenant).await {
                    return head;
                }
            }
        });
        let after = after.await.expect("because work resumes without being opened again");
        until("appends go on", || async { store.head(tenant).await.is_ok_and(|head| head > after) }).await;
        back = back.max(begin.elapsed());
    }
    over.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut failed) = (BTreeSet::new(), 0);
    for publisher in publishers {
        let told = publisher.await.expect("because it does not panic");
        acknowledged.extend(told.acknowledged);
        failed += told.failed;
    }
    published.store(true, Ordering::SeqCst);
    let commits_failed = worker.await.expect("because it does not panic");
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    let mut after = Position::ZERO;
    loop {
        let some = store.tail(tenant, after, None, 1_000).await.expect("because the server runs").events;
        let Some(last) = some.last() else { break };
        after = last.position;
        for event in some {
            *stored.entry(event.event.id).or_default() += 1;
        }
    }
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(stored.values().all(|times| *times == 1), "each event is there once");
    let runs = "SELECT count(*), count(DISTINCT pos), (SELECT count(*) FROM bulkhead.events) FROM bulkhead.runs;";
    let counts = sql(database.owner_url(), runs).expect("because the server runs");
    assert_eq!(counts, format!("{0}|{0}|{0}", stored.len()), "each event was worked off once");
    println!(
        "4 ends of the server: {} acknowledged, 0 lost, {failed} appends and {commits_failed} batches failed and were \
         retried, at work again at most {back:?} after the server answered",
        acknowledged.len()
    );
    assert!(failed > 0, "the faults were felt");
    store.close().await;
}

fn shards() -> Vec<Shard> {
    (0..SHARDS).map(Shard).collect()
}

/// Every kind of call, by name; each ends as soon as its answer has come or cannot come.
async fn all_calls(
    store: &Postgres,
    tenant: TenantId,
    fence: Fence,
    round: &'static str,
) -> BTreeMap<&'static str, (Duration, Result<()>)> {
    let mut tasks = Vec::new();
    macro_rules! call {
        ($name:literal, |$store:ident| $call:expr) => {
            let $store = store.clone();
            tasks.push(tokio::spawn(async move {
                let begin = Instant::now();
                let answer = $call.await.map(drop);
                ($name, (begin.elapsed(), answer))
            }));
        };
    }
    call!("append", |store| store.host_append(vec![event(tenant, round)]));
    call!("append of a tenant not known yet", |store| store.host_append(vec![event(TenantId(tenant.0 + 1), round)]));
    call!("head", |store| store.head(tenant));
    call!("tail", |store| store.tail(tenant, Position::ZERO, None, 10));
    call!("read_batch", |store| store.read_batch(tenant, home(tenant), NOW, ALL));
    call!("commit", |store| async {
        let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await?;
        store.commit(commit_of(tenant, fence, &batch)).await
    });
    call!("acquire", |store| store.host_acquire("node", LEASE, SHARDS));
    call!("nodes", |store| store.host_nodes());
    call!("fire_timers", |store| store.host_fire_timers(NOW, 10));
    call!("due_deliveries", |store| store.host_due_deliveries(NOW, 10, &shards(), &[], &[]));
    call!("snapshot", |store| store.snapshot(tenant));
    call!("put_rules", |store| async {
        let number = store.rules(tenant).await?.number;
        store.put_rules(tenant, number, "[]", "", "", NOW).await
    });
    call!("state", |store| store.state(tenant, bulkhead_domain::id::PluginId(1), "key"));
    call!("backlog", |store| store.host_backlog(NOW, &shards()));
    call!("usage", |store| store.usage(tenant, 0, i64::from(i32::MAX)));
    call!("tenants", |store| store.operator_tenants());
    let mut ends = BTreeMap::new();
    for task in tasks {
        let (name, end) = task.await.expect("because it does not panic");
        ends.insert(name, end);
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_a_cut_wire_end_and_work_resumes_when_it_is_mended() {
    let cluster = cluster();
    let database = cluster.database().expect("because the server makes databases");
    made(&database).await;
    let wire = Proxy::start(cluster.port()).expect("because there are ports");
    let url = at_port(database.host_url(), cluster.port(), wire.port());
    let connections_max = 12;
    let options = Options { connections: connections_max, ..Options::new(url) };
    let store = Postgres::open(options).await.expect("because the tables are there");
    let (whose, _) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let held = store.host_acquire("node", LEASE, SHARDS).await.expect("because nobody else is there");
    let fence = held.iter().find(|(shard, _)| *shard == home(whose)).expect("because all are held").1;
    for (name, (_, answer)) in all_calls(&store, whose, fence, "before").await {
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
    // One is under way when the wire is cut: it waits for a lock that a test holds.
    let mut lock = bare(database.owner_url()).await;
    run(&mut lock, &format!("BEGIN; SELECT bulkhead.take_turns(ARRAY[{}::BIGINT])", whose.0)).await;
    let under_way = tokio::spawn({
        let store = store.clone();
        async move {
            let begin = Instant::now();
            let answer = store.host_append(vec![event(whose, "under way")]).await;
            (begin.elapsed(), answer)
        }
    });
    until("the append waits", || async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted;";
        sql(database.owner_url(), waiting).expect("because the server runs") == "1"
    })
    .await;
    wire.cut();
    let mut longest = Duration::ZERO;
    // Twice: with connections that were open, and without.
    for round in ["first", "second"] {
        for (name, (took, answer)) in all_calls(&store, whose, fence, round).await {
            assert!(matches!(answer, Err(Error::Unavailable { .. })), "{round}: {name}: {answer:?}");
            assert!(took < BOUND, "{round}: {name} took {took:?}");
            longest = longest.max(took);
        }
    }
    let (took, answer) = under_way.await.expect("because it does not panic");
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    assert!(took < BOUND, "{took:?}");
    run(&mut lock, "ROLLBACK").await;
    let begin = Instant::now();
    wire.heal();
    until("work resumes", || async { store.host_append(vec![event(whose, "healed")]).await.is_ok() }).await;
    let healed = begin.elapsed();
    for (name, (_, answer)) in all_calls(&store, whose, fence, "after").await {
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
    assert!(healed < BOUND, "{healed:?}");
    until("abandoned connections end", || async { connections(&database) <= connections_max as usize }).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%';";
    until("nothing is left open", || async {
        sql(database.owner_url(), open).expect("because the server runs") == "0"
    })
    .await;
    println!("over a cut wire the longest call took {longest:?}; work resumed {healed:?} after it was mended");
    // Closing ends too, with the wire cut.
    wire.cut();
    tokio::time::timeout(LONG, store.close()).await.expect("because closing waits for nothing that cannot come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_from_an_outage() {
    let server = Server::new();
    let store = server.connect().await;
    let tenant = tenant(&store, "a").await;
    let held = store.host_acquire("node", LEASE, SHARDS).await.expect("because nobody else is there");
    let fence = held.iter().find(|(shard, _)| *shard == home(tenant)).expect("because all are held").1;
    store.host_append(vec![event(tenant, "before")]).await.expect("because there is room");
    server.owner(
        "CREATE FUNCTION bulkhead.full() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100';
         END $$;
         CREATE TRIGGER full_events BEFORE INSERT ON bulkhead.events FOR EACH STATEMENT EXECUTE FUNCTION bulkhead.full();
         CREATE TRIGGER full_progress BEFORE INSERT ON bulkhead.progress FOR EACH STATEMENT
         EXECUTE FUNCTION bulkhead.full();",
    );
    // Also those that went in one call with others.
    let callers: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.host_append(vec![event(tenant, &format!("full {number}"))]).await })
        })
        .collect();
    for caller in callers {
        let answer = caller.await.expect("because it does not panic");
        assert!(matches!(answer, Err(Error::Full)), "{answer:?}");
    }
    let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await.expect("because reading needs no room");
    assert_eq!(batch.events.len(), 1);
    let committed = store.commit(commit_of(tenant, fence, &batch)).await;
    assert!(matches!(committed, Err(Error::Full)), "{committed:?}");
    server.owner(
        "DROP TRIGGER full_events ON bulkhead.events; DROP TRIGGER full_progress ON bulkhead.progress;
         DROP FUNCTION bulkhead.full();",
    );
    store.host_append(vec![event(tenant, "after")]).await.expect("because there is room again");
    let committed = store.commit(commit_of(tenant, fence, &batch)).await.expect("because there is room again");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    store.close().await;
}
