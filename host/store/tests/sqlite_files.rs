//! What can happen to the files: a crash at any moment, no space, a second process, a newer program.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Event;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_store::Error;
use bulkhead_store::Store;
use bulkhead_store::conformance::Ground as _;
use bulkhead_store::log::Appended;
use bulkhead_store::log::NewEvent;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::work::BatchLimits;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bytes::Bytes;
use tempfile::TempDir;

use crate::common::OnDisk;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const PLUGIN: PluginId = PluginId(1);
const LEASE: Duration = Duration::from_secs(3_600);
const ALL: BatchLimits = BatchLimits { events: 100_000, bytes: 1 << 30, due: 100 };
/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

fn event(store: &Store, tenant: TenantId, id: &str, bytes: usize) -> NewEvent {
    let event = Event {
        id: id.to_owned(),
        source: "/source".into(),
        kind: "test.happened".into(),
        subject: None,
        time: NOW,
        key: None,
        correlation: id.to_owned(),
        causation: None,
        content_type: "application/json".into(),
        data: Bytes::from(vec![b'1'; bytes]),
        attributes: Vec::new(),
    };
    let shard = Shard::of(tenant, id, store.host_shards(), 1);
    NewEvent { tenant, shard, recorded: NOW, lineage: Lineage { hops: 0, budget: 10 }, event }
}

async fn tenant(store: &Store, name: &str) -> TenantId {
    store.operator_create_tenant(&format!("ten_{name}"), name, NOW).await.expect("because the name is new").id
}

/// A batch's commit that counts its events under one key and emits one event; the three change together or not at all.
async fn count(store: &Store, tenant: TenantId, number: usize) -> Result<(), Error> {
    let shard = Shard::of(tenant, "", store.host_shards(), 1);
    let fences = store.host_acquire("node", LEASE, u16::MAX).await?;
    let fence = fences.iter().find(|(held, _)| *held == shard).expect("because every shard is held").1;
    let batch = store.read_batch(tenant, shard, NOW, ALL).await?;
    let last = batch.events.last().map_or(batch.cursor, |event| event.position);
    let write = StateWrite {
        plugin: PLUGIN,
        key: "cursor".into(),
        value: Some(Bytes::from(last.0.to_string())),
        expires: None,
    };
    let committed = store
        .commit(Commit {
            tenant,
            shard,
            fence,
            cursor_from: batch.cursor,
            cursor_to: last,
            now: NOW,
            turn: None,
            settings: i64::MAX,
            reads: Vec::new(),
            writes: vec![write],
            emits: vec![event(store, tenant, &format!("emitted-{}-{number}", last.0), 10)],
            emits_unmatched: false,
            deliveries: Vec::new(),
            timers: Vec::new(),
            runs: Vec::new(),
            unfinished: Vec::new(),
            usage: Vec::new(),
            recordings: Recorded::default(),
        })
        .await?;
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    Ok(())
}

/// Copies the files as a crash at this moment would leave them: the database, then the log, whose end may be torn.
///
/// A reader stands by meanwhile. It keeps the log from being begun anew, so that whatever a checkpoint carries over
/// while the database is being copied is in the log's copy as well. Another process copies, because a file that this
/// one closes takes its locks with it.
fn copy(from: &Path, to: &Path) {
    let reader = rusqlite::Connection::open(from).expect("because the store is there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM tenants").expect("because the store reads");
    for end in ["", "-wal"] {
        let name = |path: &Path| format!("{}{end}", path.display());
        let copied = std::process::Command::new("cp").arg(name(from)).arg(name(to)).status();
        assert!(copied.expect("because cp is there").success(), "{from:?} is copied");
    }
    reader.execute_batch("COMMIT").expect("because the store reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_at_any_moment_has_all_that_was_acknowledged() {
    let folder = TempDir::new().expect("because the test may write");
    let path = folder.path().join("store.db");
    let store: Store = Arc::new(Sqlite::open(Options::new(&path)).await.expect("because the store opens"));
    let tenants = [tenant(&store, "a").await, tenant(&store, "b").await, tenant(&store, "c").await];
    let acknowledged = Arc::new(Mutex::new(Vec::<(TenantId, String, Position)>::new()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (number, tenant) in tenants.into_iter().cycle().take(9).enumerate() {
        let (store, acknowledged, stop) = (store.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if number < 3 {
                    count(&store, tenant, round).await.expect("because one task commits for a tenant");
                } else {
                    let id = format!("{number}-{round}");
                    let answers = store.host_append(vec![event(&store, tenant, &id, 700)]).await;
                    let Appended::Accepted(position) = answers.expect("because the store takes events")[0] else {
                        panic!("{id} is new");
                    };
                    acknowledged.lock().expect("because nobody panics").push((tenant, id, position));
                }
                round += 1;
            }
        }));
    }
    let begin = Instant::now();
    let mut seen = 0;
    for number in 0..12 {
        // Not before something happened since the last copy, so that each one is of another moment.
        while acknowledged.lock().expect("because nobody panics").len() < seen + 50 {
            assert!(begin.elapsed() < PATIENCE, "events are taken");
            tokio::task::yield_now().await;
        }
        let before = acknowledged.lock().expect("because nobody panics").clone();
        seen = before.len();
        let copied = folder.path().join(format!("copy-{number}.db"));
        copy(&path, &copied);
        check(&copied, &tenants, &before).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for task in tasks {
        task.await.expect("because nothing fails");
    }
}

async fn check(path: &Path, tenants: &[TenantId], acknowledged: &[(TenantId, String, Position)]) {
    let sqlite = Sqlite::open(Options::new(path)).await.expect("because a copy opens");
    let store: Store = Arc::new(sqlite.clone());
    for (tenant, id, position) in acknowledged {
        let found = store.events_by_id(*tenant, id).await.expect("because the copy reads");
        assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [*position], "event {id}");
    }
    for tenant in tenants {
        let shard = Shard::of(*tenant, "", store.host_shards(), 1);
        let batch = store.read_batch(*tenant, shard, NOW, ALL).await.expect("because the copy reads");
        let state = store.state(*tenant, PLUGIN, "cursor").await.expect("because the copy reads");
        let stated = state.map_or(0, |state| String::from_utf8_lossy(&state.value).parse().expect("because it is one"));
        assert_eq!(batch.cursor.0, stated, "the cursor and what was written with it");
    }
    let tenant = tenants[0];
    let shard = Shard::of(tenant, "", store.host_shards(), 1);
    count(&store, tenant, usize::MAX).await.expect("because the copy goes on");
    let batch = store.read_batch(tenant, shard, NOW, ALL).await.expect("because the copy reads");
    assert_eq!(batch.events.len(), 1, "the emitted event only");
    sqlite.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_is_said_and_nothing_acknowledged_is_lost() {
    let folder = TempDir::new().expect("because the test may write");
    let path = folder.path().join("store.db");
    let small = Options { file_bytes_max: Some(2 << 20), ..Options::new(&path) };
    let sqlite = Sqlite::open(small).await.expect("because the store opens");
    let store: Store = Arc::new(sqlite.clone());
    let tenant = tenant(&store, "a").await;
    let mut taken = Vec::new();
    let full = loop {
        let id = taken.len().to_string();
        match store.host_append(vec![event(&store, tenant, &id, 50_000)]).await {
            Ok(_) => taken.push(id),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "two megabytes do not hold five");
    };
    assert!(matches!(full, Error::Full), "{full}");
    // Many at once are told the same, and it can still be read.
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let (store, event) = (store.clone(), event(&store, tenant, &format!("more-{number}"), 50_000));
            tokio::spawn(async move { store.host_append(vec![event]).await })
        })
        .collect();
    for task in tasks {
        let answer = task.await.expect("because an append does not panic");
        assert!(matches!(answer, Err(Error::Full)), "{answer:?}");
    }
    let shard = Shard::of(tenant, "", store.host_shards(), 1);
    let read = async |store: &Store| {
        let batch = store.read_batch(tenant, shard, NOW, ALL).await.expect("because reading takes no space");
        batch.events.into_iter().map(|event| event.event.id).collect::<Vec<_>>()
    };
    assert_eq!(read(&store).await, taken);
    sqlite.close().await;
    let sqlite = Sqlite::open(Options::new(&path)).await.expect("because the store opens");
    let store: Store = Arc::new(sqlite.clone());
    assert_eq!(read(&store).await, taken);
    store.host_append(vec![event(&store, tenant, "again", 50_000)]).await.expect("because there is space again");
    taken.push("again".into());
    assert_eq!(read(&store).await, taken);
    sqlite.close().await;
}

#[tokio::test]
async fn the_store_takes_events_again_when_space_returns() {
    let folder = TempDir::new().expect("because the test may write");
    let small = Options { file_bytes_max: Some(2 << 20), ..Options::new(folder.path().join("store.db")) };
    let sqlite = Sqlite::open(small).await.expect("because the store opens");
    let store: Store = Arc::new(sqlite.clone());
    let tenant = tenant(&store, "a").await;
    let too_much = store.host_append(vec![event(&store, tenant, "large", 4 << 20)]).await;
    assert!(matches!(too_much, Err(Error::Full)), "{too_much:?}");
    let fits = store.host_append(vec![event(&store, tenant, "small", 1_000)]).await.expect("because it fits");
    assert!(matches!(fits[..], [Appended::Accepted(_)]));
    sqlite.close().await;
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_why() {
    let mut ground = OnDisk::new();
    let _first = ground.open().await;
    // The lock belongs to the open file, so that a second opening in one process is refused as another process' is.
    let refused = Sqlite::open(Options::new(ground.path())).await.expect_err("because the store is open");
    assert!(refused.to_string().contains("another process has the store"), "{refused}");
    ground.close().await;
    Sqlite::open(Options::new(ground.path())).await.expect("because it is closed").close().await;
}

#[tokio::test]
async fn tables_of_a_newer_program_are_refused_and_left_alone() {
    let mut ground = OnDisk::new();
    ground.open().await;
    ground.close().await;
    let conn = rusqlite::Connection::open(ground.path()).expect("because the file is there");
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         VALUES (9999, 'future', '2030-01-01', 1, x'00', 0)",
        [],
    )
    .expect("because the table is there");
    drop(conn);
    let refused = Sqlite::open(Options::new(ground.path())).await.expect_err("because the tables are newer");
    assert!(refused.to_string().contains("made by a newer program"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let ground = OnDisk::new();
    std::fs::write(ground.path(), vec![b'x'; 10_000]).expect("because the test may write");
    Sqlite::open(Options::new(ground.path())).await.expect_err("because it is no database");
    assert_eq!(std::fs::read(ground.path()).expect("because it is there"), vec![b'x'; 10_000], "it is left alone");
}

/// Appends so many mebibytes; says how long the log's file was at most meanwhile.
async fn append_mebibytes(store: &Store, tenant: TenantId, name: &str, mebibytes: usize, log: &Path) -> u64 {
    let mut longest = 0;
    for number in 0..mebibytes * 2 {
        let events = (0..32).map(|at| event(store, tenant, &format!("{name}-{number}-{at}"), 16 << 10)).collect();
        store.host_append(events).await.expect("because the store takes events");
        longest = longest.max(std::fs::metadata(log).expect("because there is a log").len());
    }
    longest >> 20
}

/// The writer would fold a log of 64 MiB by itself, and all would wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_folded_beside_the_writer() {
    let folder = TempDir::new().expect("because the test may write");
    let (path, log) = (folder.path().join("store.db"), folder.path().join("store.db-wal"));
    let sqlite = Sqlite::open(Options::new(&path)).await.expect("because the store opens");
    let store: Store = Arc::new(sqlite.clone());
    let tenant = tenant(&store, "a").await;
    let longest = append_mebibytes(&store, tenant, "steady", 160, &log).await;
    assert!((16..56).contains(&longest), "the log grew to {longest} MiB");
    // Who reads keeps the log from being begun anew, and no longer than it reads.
    let reader = rusqlite::Connection::open(&path).expect("because the store is there");
    reader.execute_batch("BEGIN; SELECT count(*) FROM tenants").expect("because the store reads");
    let held = append_mebibytes(&store, tenant, "held", 70, &log).await;
    assert!(held > 70, "the log grew to {held} MiB only");
    reader.execute_batch("COMMIT").expect("because the store reads");
    let after = append_mebibytes(&store, tenant, "after", 120, &log).await;
    assert!(after < held + 60, "the log grew from {held} to {after} MiB");
    drop(reader);
    sqlite.close().await;
    assert!(!log.exists(), "an orderly close leaves no log");
}
