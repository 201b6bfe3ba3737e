//! Moving a store from SQLite to Postgres: all of it is there afterwards, and goes on where it was.

mod postgres;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::proof::Counts;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_services::sql;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Key;
use bulkhead_store::catalogue::NewVersion;
use bulkhead_store::catalogue::TenantState;
use bulkhead_store::copy;
use bulkhead_store::copy::Compared;
use bulkhead_store::deliveries::DeliveryQuery;
use bulkhead_store::deliveries::Settled;
use bulkhead_store::deliveries::Settlement;
use bulkhead_store::log::Appended;
use bulkhead_store::log::EventQuery;
use bulkhead_store::log::NewEvent;
use bulkhead_store::postgres::migrate;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Switch;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::Held;
use bulkhead_store::work::NewDelivery;
use bulkhead_store::work::ParkedFilter;
use bulkhead_store::work::RunQuery;
use bulkhead_store::work::RunState;
use bulkhead_store::work::StateRead;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::Waiting;
use bytes::Bytes;
use postgres::ALL;
use postgres::LEASE;
use postgres::NOW;
use postgres::SHARDS;
use postgres::Server;
use postgres::event;
use postgres::furnish::effects;
use postgres::home;
use postgres::open;
use tempfile::TempDir;

/// Shards of the store on Postgres.
const MANY: u16 = 48;
/// After everything that is due ever was.
const LATER: Timestamp = Timestamp(NOW.0 + 3_600_000_000);
const WORD: &str = "word";

type Fences = HashMap<Shard, Fence>;

async fn fences(store: &Store) -> Fences {
    store.host_acquire("node", LEASE, u16::MAX).await.expect("because nobody else is there").into_iter().collect()
}

/// A store on disk that a host has left.
struct Left {
    folder: TempDir,
}

impl Left {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("because the test may write") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    async fn open(&self) -> (Sqlite, Store) {
        let sqlite = Sqlite::open(Options::new(self.path())).await.expect("because the store opens");
        (sqlite.clone(), Arc::new(sqlite))
    }

    /// Changes it behind its back.
    fn change(&self, script: &str) {
        let conn = rusqlite::Connection::open(self.path()).expect("because the store is there");
        conn.execute_batch(script).expect("because nothing is wrong with the script");
    }
}

/// A commit in a lane that moves the cursor up to a position.
fn commit(store: &Batch<'_>, to: Position) -> Commit {
    let mut commit = postgres::commit(store.tenant, store.fences[&store.shard], store.cursor, to);
    commit.shard = store.shard;
    commit.turn = Some(store.turn);
    commit
}

/// A lane and where it stands.
struct Batch<'f> {
    tenant: TenantId,
    shard: Shard,
    fences: &'f Fences,
    cursor: Position,
    turn: i64,
    events: Vec<Logged>,
}

async fn batch<'f>(store: &Store, fences: &'f Fences, tenant: TenantId, shard: Shard) -> Batch<'f> {
    let read = store.read_batch(tenant, shard, NOW, ALL).await.expect("because the tenant is there");
    Batch { tenant, shard, fences, cursor: read.cursor, turn: read.turn, events: read.events }
}

async fn done(store: &Store, commit: Commit) -> i64 {
    match store.commit(commit).await.expect("because the store works") {
        Committed::Done { version, .. } => version,
        other => panic!("the commit was to be done, not {other:?}"),
    }
}

/// An event with a key.
fn keyed(tenant: TenantId, id: &str, key: &str) -> NewEvent {
    let mut new = event(tenant, id);
    new.event.key = Some(key.to_owned());
    new
}

fn unfinished(event: &Logged, rule: &str, waiting: Waiting) -> UnfinishedChange {
    let mut commit = postgres::commit(TenantId(1), Fence(0), Position::ZERO, Position::ZERO);
    effects(&mut commit, event, PluginId(1), WORD);
    let UnfinishedChange::Put(mut run) = commit.unfinished.remove(0) else { unreachable!("because it puts one") };
    run.rule = rule.to_owned();
    run.key = event.event.key.clone();
    run.waiting = waiting;
    UnfinishedChange::Put(run)
}

fn delivery(event: &Logged, id: &str, sink: &str, key: Option<&str>) -> NewDelivery {
    let mut commit = postgres::commit(TenantId(1), Fence(0), Position::ZERO, Position::ZERO);
    effects(&mut commit, event, PluginId(1), WORD);
    let mut new = commit.deliveries.remove(0);
    new.delivery.id = id.to_owned();
    new.delivery.sink = sink.to_owned();
    new.key = key.map(str::to_owned);
    new
}

fn version(word: &str) -> NewVersion {
    NewVersion {
        room: bulkhead_store::catalogue::Room::default(),
        digest: format!("sha256:{word}"),
        wasm: Bytes::from(vec![0, 1, 0xff, 0x7f]),
        manifest: "{}".into(),
        inspection: "{\"größe\":1}".into(),
        grants: "{}".into(),
        author: word.into(),
        approves: false,
        signature: None,
    }
}

/// Everything that people set, for one tenant.
async fn settle_in(store: &Store, tenant: TenantId) -> bulkhead_store::Result<PluginId> {
    for (id, tenant) in [(format!("key-{}", tenant.0), Some(tenant)), (format!("op-{}", tenant.0), None)] {
        let key = Key {
            id,
            tenant,
            hash: vec![0xff, 0],
            scopes: vec!["read".into()],
            note: "a note".into(),
            created: NOW,
            revoked: tenant.map(|_| LATER),
        };
        store.host_add_key(&key).await?;
    }
    store.add_version(tenant, "plugin", &version("first"), NOW).await?;
    store.add_version(tenant, "plugin", &version("second"), NOW).await?;
    store.add_version(tenant, "plugin", &version("third"), NOW).await?;
    store.set_config(tenant, "plugin", "{\"a\":1}").await?;
    let act = Act::by("key", NOW);
    store.switch_version(tenant, "plugin", &Switch::to(1, act.clone())).await?;
    let plugin = store.switch_version(tenant, "plugin", &Switch::to(2, act.clone())).await?.id;
    store.retire(tenant, "plugin", 3, 100, &act).await?;
    store.approve(tenant, "plugin", 1, &act).await?;
    store.start_rollout(tenant, "plugin", Kind::Shadow, 1, "{}", &act).await?;
    let preview = Preview { version: 1, against: None, author: "key_1".into(), at: NOW, counts: Counts::default() };
    store.add_preview(tenant, "plugin", &preview).await?;
    store.add_version(tenant, "other", &version("first"), NOW).await?;
    store.pause_plugin(tenant, "other", true).await?;
    store.put_rules(tenant, 0, "[]", "author", "note", NOW).await?;
    store.put_rules(tenant, 1, "[{}]", "author", "", LATER).await?;
    store.pause_rule(tenant, "paused", true).await?;
    store.put_sink(tenant, "hook", "{\"type\":\"log\"}", NOW).await?;
    store.put_secret(tenant, "token", 1, &[0, 0xff], NOW).await?;
    store.put_secret(tenant, "token", 2, &[1, 0xff], NOW).await?;
    let quotas: Quotas = serde_json::from_str("{\"backlog_events\":100}").expect("because that is a quota");
    store.set_quotas(tenant, &quotas).await?;
    Ok(plugin)
}

/// A tenant in whose lane something of everything waits. Gives its plugin.
async fn work(store: &Store, fences: &Fences, tenant: TenantId) -> bulkhead_store::Result<PluginId> {
    let plugin = settle_in(store, tenant).await?;
    let ids = ["parked", "blocked", "held", "retried", "odd"];
    store.host_append(ids.iter().map(|id| keyed(tenant, id, &format!("key of {}", &id[..1]))).collect()).await?;
    let read = batch(store, fences, tenant, home(tenant)).await;
    let [parked, blocked, held, retried, odd] = &read.events[..] else { panic!("five events came") };
    let mut first = commit(&read, odd.position);
    effects(&mut first, odd, plugin, WORD);
    first.runs[0].reason = "it said \0 and stopped".into();
    let mut behind = unfinished(blocked, "order", Waiting::Blocked);
    if let UnfinishedChange::Put(run) = &mut behind {
        run.key = parked.event.key.clone();
    }
    first.unfinished = vec![
        unfinished(parked, "order", Waiting::Parked),
        behind,
        unfinished(held, "paused", Waiting::Held),
        unfinished(retried, "order", Waiting::Retry(Timestamp(NOW.0 + 5))),
    ];
    first.deliveries = vec![
        delivery(parked, "eff_one", "hook", Some("line")),
        delivery(blocked, "eff_two", "hook", Some("line")),
        delivery(held, "eff_three", "hook", None),
        delivery(odd, "eff_four", "hook", None),
        delivery(odd, "eff_five", "hook", None),
    ];
    first.writes.push(StateWrite {
        plugin,
        key: "empty \u{10ffff} é".into(),
        value: Some(Bytes::new()),
        expires: None,
    });
    done(store, first).await;
    for (id, settled) in [("eff_three", Settled::Parked), ("eff_four", Settled::Delivered)] {
        let settlement = Settlement {
            tenant,
            id: id.into(),
            settled,
            attempts: 3,
            code: "http:500".into(),
            reason: "no".into(),
            at: LATER,
        };
        store.host_settle(vec![settlement]).await?;
    }
    // What nobody has read yet, here and in a lane that is not the tenant's home.
    store.host_append(vec![event(tenant, "unread 1"), event(tenant, "unread 2")]).await?;
    let shard = beside(tenant, SHARDS);
    let there = |id| NewEvent { shard, ..event(tenant, id) };
    store.host_append(vec![there("beside 1"), there("beside 2")]).await?;
    let read = batch(store, fences, tenant, shard).await;
    done(store, commit(&read, read.events[0].position)).await;
    Ok(plugin)
}

/// A shard where a tenant's events are that spread over several.
fn beside(tenant: TenantId, shards: u16) -> Shard {
    Shard((Shard::of(tenant, "", shards, 1).0 + 3) % shards)
}

/// Fills a store with something of everything; gives its tenants, and the plugin of the first.
async fn fill(store: &Store) -> (Vec<TenantId>, PluginId) {
    let fences = fences(store).await;
    let mut tenants = Vec::new();
    let mut plugin = PluginId(0);
    for (name, state) in
        [("acme", TenantState::Active), ("bolt", TenantState::Active), ("calm", TenantState::Suspended)]
    {
        let made = store.operator_create_tenant(&format!("ten_{name}"), name, NOW).await;
        let tenant = made.expect("because the name is free").id;
        if state == TenantState::Active {
            let its = work(store, &fences, tenant).await.expect("because the store works");
            plugin = if tenants.is_empty() { its } else { plugin };
        }
        store.set_tenant_state(tenant, state).await.expect("because the tenant is there");
        tenants.push(tenant);
    }
    store.operator_set_paused(true).await.expect("because the store works");
    store.host_value_or("effect_secret", &[7; 32]).await.expect("because the store works");
    (tenants, plugin)
}

/// All that a store answers, but for shards.
async fn story(store: &Store) -> bulkhead_store::Result<String> {
    let mut story = String::new();
    let mut tell = |what: &str, said: &dyn std::fmt::Debug| _ = writeln!(story, "{what}: {said:#?}");
    let shards: Vec<Shard> = (0..store.host_shards()).map(Shard).collect();
    tell("paused", &store.operator_paused().await?);
    tell("secret", &store.host_value("effect_secret").await?);
    tell("keys", &store.operator_keys(None).await?);
    let mut depths: Vec<_> = store.host_depths().await?;
    depths.sort_unstable_by_key(|depth| depth.tenant);
    tell("depths", &depths);
    tell("due", &store.host_due_deliveries(LATER, 100, &shards, &[], &[]).await?);
    for tenant in store.operator_tenants().await? {
        tell("tenant", &tenant);
        let tenant = tenant.id;
        tell("keys", &store.operator_keys(Some(tenant)).await?);
        tell("snapshot", &store.snapshot(tenant).await?);
        tell("rules", &store.rule_sets(tenant, None, 100).await?);
        for (plugin, _) in store.plugins(tenant).await? {
            tell("plugin", &store.plugin(tenant, &plugin.name).await?);
            let versions = store.versions(tenant, &plugin.name, None, 100).await?;
            tell("versions", &versions);
            for head in versions {
                tell("version", &store.version(tenant, &plugin.name, head.number).await?);
            }
            tell("history", &store.history(tenant, &plugin.name, None, 100).await?);
            for key in store.state_keys(tenant, plugin.id, "", None, 100).await? {
                tell(&key, &store.state(tenant, plugin.id, &key).await?);
            }
        }
        for digest in ["sha256:first", "sha256:second", "sha256:none"] {
            tell("component", &store.component(tenant, digest).await?);
        }
        let query = EventQuery { limit: 1_000, ..EventQuery::default() };
        for mut event in store.events(tenant, &query).await? {
            event.shard = Shard(0);
            tell("event", &event);
            tell("by id", &store.events_by_id(tenant, &event.event.id).await?.len());
            tell("by key", &store.event_by_key(tenant, event.event.event_key()).await?.map(|event| event.position));
            let run = RunId::of(event.event.event_key(), WORD);
            tell("attempts", &store.attempts(tenant, run).await?);
        }
        let query = RunQuery { limit: 1_000, ..RunQuery::default() };
        tell("runs", &store.runs(tenant, &query).await?);
        tell("parked", &store.parked(tenant, &ParkedFilter::default(), None, 100).await?);
        let query = DeliveryQuery { limit: 1_000, ..DeliveryQuery::default() };
        tell("deliveries", &store.deliveries(tenant, &query).await?);
        tell("timers", &store.timers(tenant, 100).await?);
        tell("usage", &store.usage(tenant, 0, i64::MAX / 100_000_000_000).await?);
        tell("head", &store.head(tenant).await?);
        tell("backlog", &store.backlog(tenant, 1_000).await?);
        tell("bytes", &store.state_bytes(tenant).await?);
    }
    Ok(story)
}

async fn told(store: &Store) -> String {
    // In what people read, a NUL is shown as its sign.
    story(store).await.expect("because the store works").replace("\\0", "\u{2400}")
}

async fn copied(from: &Path, server: &Server) -> copy::Result<Vec<Compared>> {
    copy::copy(from, server.database.owner_url(), &mut |_, _, _| {}).await
}

async fn verified(from: &Path, server: &Server) -> Vec<Compared> {
    let verified = copy::verify(from, server.database.owner_url(), &mut |_, _, _| {}).await;
    verified.expect("because both stores are there")
}

fn differing(compared: &[Compared]) -> Vec<&str> {
    compared.iter().filter(|table| !table.is_equal).map(|table| table.what).collect()
}

async fn target(shards: u16) -> Server {
    let server = Server::new();
    let database = &server.database;
    migrate(database.owner_url(), database.host_url(), shards).await.expect("because the database is empty");
    server
}

async fn opened(server: &Server) -> Store {
    Arc::new(open(server.database.host_url()).await)
}

/// What went wrong, whole.
fn refusal(outcome: copy::Result<Vec<Compared>>) -> String {
    let error = outcome.expect_err("because it must be refused");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Nothing of any tenant is there.
fn assert_empty(server: &Server) {
    let sql = "SELECT (SELECT count(*) FROM bulkhead.tenants) + (SELECT count(*) FROM bulkhead.host_values)
               + (SELECT count(*) FROM bulkhead.events);";
    assert_eq!(server.owner(sql), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_there_is_there_afterwards() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    fill(&store).await;
    let before = told(&store).await;
    drop(store);
    sqlite.close().await;
    for shards in [MANY, SHARDS] {
        let server = target(shards).await;
        let mut heard = Vec::new();
        let mut hear = |doing, what, _| heard.push((doing, what));
        let compared = copy::copy(&left.path(), server.database.owner_url(), &mut hear).await;
        let compared = compared.expect("because nothing is wrong with either");
        assert_eq!(differing(&compared), Vec::<&str>::new());
        assert!(compared.iter().all(|table| table.source == table.target && table.source > 0), "{compared:?}");
        assert!(heard.contains(&("copying", "events")) && heard.contains(&("checking", "events")));
        let store = opened(&server).await;
        assert_eq!(store.host_shards(), shards);
        assert_eq!(told(&store).await, before);
        drop(store);
        assert_eq!(differing(&verified(&left.path(), &server).await), Vec::<&str>::new());
    }
    // The original is as it was, and whoever goes back to it finds everything.
    let (sqlite, store) = left.open().await;
    assert_eq!(told(&store).await, before);
    drop(store);
    sqlite.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_goes_on_where_it_was() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    let (tenants, plugin) = fill(&store).await;
    let tenant = tenants[0];
    let query = EventQuery { limit: 1_000, ..EventQuery::default() };
    let old = store.events(tenant, &query).await.expect("because the store works");
    let state = store.state(tenant, plugin, WORD).await.expect("because the store works");
    let state = state.expect("because it was written");
    let mut plugins = Vec::new();
    for tenant in &tenants {
        let its = store.plugins(*tenant).await.expect("because the store works");
        plugins.extend(its.into_iter().map(|(plugin, _)| plugin.id));
    }
    drop(store);
    sqlite.close().await;
    let server = target(MANY).await;
    copied(&left.path(), &server).await.expect("because nothing is wrong with either");
    let store = opened(&server).await;
    let fences = fences(&store).await;
    assert_eq!(fences.len(), usize::from(MANY));
    let (home, beside) = (Shard::of(tenant, "", MANY, 1), beside(tenant, MANY));

    // Unread events come once, in both lanes, and nowhere else.
    let mut unread = BTreeMap::new();
    for shard in (0..MANY).map(Shard) {
        let read = batch(&store, &fences, tenant, shard).await;
        let ids: Vec<_> = read.events.iter().map(|event| event.event.id.clone()).collect();
        if let Some(last) = read.events.last() {
            done(&store, commit(&read, last.position)).await;
            assert!(batch(&store, &fences, tenant, shard).await.events.is_empty());
            unread.insert(shard, ids);
        }
    }
    let expected = [
        (home, vec!["emitted word".to_owned(), "unread 1".into(), "unread 2".into()]),
        (beside, vec!["beside 2".to_owned()]),
    ];
    assert_eq!(unread, BTreeMap::from(expected));
    let shards: Vec<Shard> = (0..store.host_shards()).map(Shard).collect();
    let lanes = store.host_backlog(NOW, &shards).await.expect("because the store works");
    assert!(!lanes.iter().any(|(of, _)| *of == tenant), "{lanes:?}");

    // A duplicate is known as such; what is new lies beyond everything.
    let last = old.iter().map(|event| event.position).max().expect("because there are events");
    let appended = store.host_append(vec![
        NewEvent { shard: home, ..event(tenant, "unread 1") },
        NewEvent { shard: home, ..event(tenant, "new") },
    ]);
    let appended = appended.await.expect("because the store works");
    let known = old.iter().find(|event| event.event.id == "unread 1").expect("because it was appended").position;
    assert_eq!(appended[0], Appended::Duplicate(known));
    assert!(matches!(appended[1], Appended::Accepted(position) if position > last), "{appended:?}");

    // The parked run resumes, then what is blocked behind it.
    let due = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let found =
        |batch: bulkhead_store::work::Batch| batch.due.into_iter().map(|due| due.event.event.id).collect::<Vec<_>>();
    let read = store.read_batch(tenant, home, LATER, ALL).await.expect("because the store works");
    assert!(read.blocked.iter().any(|(rule, key)| rule == "order" && key == "key of r"), "{:?}", read.blocked);
    assert_eq!(found(read), due(&["retried"]));
    let filter = ParkedFilter { rule: Some("order".into()), ..ParkedFilter::default() };
    let redriven = store.redrive(tenant, &filter, NOW).await.expect("because the store works");
    assert_eq!(redriven, (1, vec![home]));
    let read = store.read_batch(tenant, home, NOW, ALL).await.expect("because the store works");
    assert_eq!(found(read), due(&["parked", "blocked"]));
    let resumed = store.resume_held(tenant, &Held::Rule("paused".into()), NOW).await.expect("because the store works");
    assert_eq!(resumed, (1, vec![home]));

    // State is as the plugin last saw it, and a new version lies beyond the old one.
    let read = batch(&store, &fences, tenant, home).await;
    let mut write = commit(&read, read.cursor);
    write.reads = vec![StateRead::Key { plugin, key: WORD.into(), version: state.version }];
    write.writes = vec![StateWrite { plugin, key: WORD.into(), value: Some(Bytes::from_static(b"2")), expires: None }];
    let version = done(&store, write).await;
    assert!(version > state.version && version > last.0, "{version} {state:?} {last:?}");

    // Deliveries are due one after another.
    let shards: Vec<Shard> = (0..MANY).map(Shard).collect();
    let due = async || {
        let (due, _) = store.host_due_deliveries(LATER, 100, &shards, &[], &[]).await.expect("because the store works");
        let due = due.into_iter().filter(|due| due.tenant == tenant).map(|due| due.delivery.id);
        due.collect::<Vec<_>>()
    };
    assert_eq!(due().await, ["eff_one", "eff_five"]);
    let settlement = Settlement {
        tenant,
        id: "eff_one".into(),
        settled: Settled::Delivered,
        attempts: 1,
        code: String::new(),
        reason: String::new(),
        at: LATER,
    };
    store.host_settle(vec![settlement]).await.expect("because the store works");
    assert_eq!(due().await, ["eff_two", "eff_five"]);
    let again = store.redeliver(tenant, None, Some("eff_three"), NOW).await.expect("because the store works");
    assert_eq!(again, 1);

    // Timers fire into the lane that they were meant for.
    let fired = store.host_fire_timers(LATER, 100).await.expect("because the store works");
    assert_eq!(fired.count, 2);
    assert!(fired.woken.contains(&(tenant, home)), "{fired:?}");
    let read = batch(&store, &fences, tenant, home).await;
    assert_eq!(read.events.last().map(|event| event.event.id.as_str()), Some("timer word"));

    // Attempts go on, and a run that ends leaves its record beside the old ones.
    let mut end = commit(&read, read.cursor);
    let parked = old.iter().find(|event| event.event.id == "parked").expect("because it was appended");
    let mut some = postgres::commit(tenant, Fence(0), Position::ZERO, Position::ZERO);
    effects(&mut some, parked, plugin, "order");
    let mut record = some.runs.remove(0);
    record.state = RunState::Done;
    record.duration = Duration::from_micros(2);
    end.runs = vec![record];
    end.unfinished = vec![UnfinishedChange::End { position: parked.position, rule: "order".into() }];
    done(&store, end).await;
    let run = RunId::of(parked.event.event_key(), "order");
    assert_eq!(store.attempts(tenant, run).await.expect("because the store works").len(), 1);

    // New tenants and plugins get numbers that nobody had.
    let new = store.operator_create_tenant("ten_new", "new", NOW).await.expect("because the name is free").id;
    assert!(tenants.iter().all(|tenant| *tenant < new), "{new:?} {tenants:?}");
    store.add_version(new, "plugin", &self::version("first"), NOW).await.expect("because the store works");
    let added = store.plugins(new).await.expect("because the store works")[0].0.id;
    assert!(plugins.iter().all(|plugin| plugin.0 < added.0), "{added:?} {plugins:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_changed_behind_its_back_is_found() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    fill(&store).await;
    drop(store);
    sqlite.close().await;
    let server = target(MANY).await;
    copied(&left.path(), &server).await.expect("because nothing is wrong with either");
    let mut wrong = Vec::new();
    for (table, change) in [
        (
            "state_values",
            "UPDATE bulkhead.state_values v SET value = 'x' FROM bulkhead.state_keys k
             WHERE k.slot = v.slot AND k.key = 'word' AND k.tenant = 1",
        ),
        ("state_keys", "UPDATE bulkhead.state_keys SET key = 'words' WHERE key = 'word' AND tenant = 1"),
        ("deliveries", "DELETE FROM bulkhead.deliveries WHERE id = 'eff_five' AND tenant = 1"),
        ("progress", "UPDATE bulkhead.progress SET cursor = cursor + 1"),
        ("api_keys", "UPDATE bulkhead.api_keys SET revoked = NULL WHERE id = 'key-1'"),
        ("sequences", "SELECT setval('bulkhead.numbers', 3)"),
    ] {
        server.owner(&format!("{change};"));
        wrong.push(table);
        let compared = verified(&left.path(), &server).await;
        let mut found = differing(&compared);
        found.sort_unstable();
        wrong.sort_unstable();
        assert_eq!(found, wrong);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_kept_is_named_and_nothing_is_copied() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    let (tenants, _) = fill(&store).await;
    let plugin = store.plugin(tenants[1], "plugin").await.expect("because the store works");
    let plugin = plugin.expect("because it was added").0.id;
    drop(store);
    sqlite.close().await;
    let server = target(MANY).await;
    for (damage, mend, said) in [
        (
            "UPDATE state SET key = 'a' || char(0) || 'b' WHERE tenant = 2 AND key = 'word'",
            "UPDATE state SET key = 'word' WHERE tenant = 2 AND instr(key, char(0)) > 0",
            "a row of state_keys cannot be copied (tenant 2, plugin PLUGIN, key \"a\\0b\"): key has a NUL in it",
        ),
        (
            "UPDATE timers SET subject = CAST(x'61ff' AS TEXT) WHERE tenant = 1",
            "UPDATE timers SET subject = NULL WHERE tenant = 1",
            "a row of timers cannot be copied (tenant 1, id \"timer word\"): subject is not UTF-8",
        ),
        (
            "UPDATE event_keys SET key = x'61' WHERE tenant = 1 AND pos = 1",
            "UPDATE event_keys SET key = x'61626364656667686162636465666768' WHERE tenant = 1 AND pos = 1",
            "a row of event_keys cannot be copied (tenant 1, key 61): key is 1 bytes long instead of 16",
        ),
    ] {
        left.change(damage);
        let refused = refusal(copied(&left.path(), &server).await);
        let said = said.replace("PLUGIN", &plugin.0.to_string());
        assert!(refused.starts_with(&said), "{refused}");
        assert_empty(&server);
        left.change(mend);
    }
    let compared = copied(&left.path(), &server).await.expect("because all is mended");
    assert_eq!(differing(&compared), Vec::<&str>::new());

    // A lane that lies further behind its home than there are shards.
    let few = target(2).await;
    let refused = refusal(copied(&left.path(), &few).await);
    assert!(refused.contains("has no place among 2: make more shards"), "{refused}");
    assert_empty(&few);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_not_as_they_must_be_are_refused() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    fill(&store).await;
    let server = Server::new();
    let owner = server.database.owner_url().to_owned();
    assert_eq!(copy::version(&owner).await.expect("because the server answers"), 0);

    // A host has the store open.
    let refused = refusal(copied(&left.path(), &server).await);
    assert!(refused.contains("another process has the store"), "{refused}");
    drop(store);
    sqlite.close().await;

    let refused = refusal(copied(&left.path().with_extension("none"), &server).await);
    assert!(refused.starts_with("there is no file"), "{refused}");
    let other = left.folder.path().join("other.db");
    let conn = rusqlite::Connection::open(&other).expect("because the test may write");
    conn.execute_batch("CREATE TABLE a (b)").expect("because the file is new");
    drop(conn);
    let refused = refusal(copied(&other, &server).await);
    assert!(refused.ends_with("is no store"), "{refused}");
    assert!(!other.with_extension("db.lock").exists());

    let refused = refusal(copied(&left.path(), &server).await);
    assert!(refused.contains("has no tables: make them with `bulkhead store migrate`"), "{refused}");
    migrate(&owner, server.database.host_url(), MANY).await.expect("because the database is empty");
    assert!(copy::version(&owner).await.expect("because the server answers") >= 4);
    let refused = refusal(copy::copy(&left.path(), server.database.host_url(), &mut |_, _, _| {}).await);
    assert!(refused.contains("do not belong to that role"), "{refused}");
    let nobody = owner.replacen(":5", ":1", 1).replace("postgres://", "postgres://x:hunter2@");
    let refused = refusal(copy::copy(&left.path(), &nobody, &mut |_, _, _| {}).await);
    assert!(!refused.contains("hunter2"), "{refused}");

    // A host is at work on the target.
    let store = opened(&server).await;
    fences(&store).await;
    let refused = refusal(copied(&left.path(), &server).await);
    assert!(refused.contains("hosts work on the target: node"), "{refused}");
    store.host_release("node").await.expect("because the store works");

    // One has been there before.
    store.host_value_or("effect_secret", &[8; 32]).await.expect("because the store works");
    let refused = refusal(copied(&left.path(), &server).await);
    assert!(refused.contains("is not empty: there are rows in host_values."), "{refused}");
    assert_eq!(server.owner("SELECT count(*) FROM bulkhead.tenants;"), "0");
    server.owner("DELETE FROM bulkhead.host_values;");
    copied(&left.path(), &server).await.expect("because nothing is wrong with either any more");
    let refused = refusal(copied(&left.path(), &server).await);
    assert!(refused.contains("is not empty: there are rows in host_values, tenants, "), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_is_nobody_else_copies_and_its_policies_hold() {
    let left = Left::new();
    let (sqlite, store) = left.open().await;
    let (tenants, _) = fill(&store).await;
    drop(store);
    sqlite.close().await;
    let server = Server::new();
    let name = format!("owner_of_{}", server.database.name());
    let admin = server.database.owner_url().to_owned();
    let script = format!(
        "CREATE ROLE {name} LOGIN NOSUPERUSER NOBYPASSRLS; ALTER DATABASE {} OWNER TO {name};",
        server.database.name()
    );
    sql(&admin, &script).expect("because a superuser may do that");
    let place = admin.split_once('@').map_or_else(|| admin.trim_start_matches("postgres://"), |(_, place)| place);
    let owner = format!("postgres://{name}@{place}");
    migrate(&owner, server.database.host_url(), MANY).await.expect("because the database is empty");
    let compared = copy::copy(&left.path(), &owner, &mut |_, _, _| {}).await.expect("because it owns the tables");
    assert_eq!(differing(&compared), Vec::<&str>::new());
    let store = opened(&server).await;
    let query = EventQuery { limit: 100, ..EventQuery::default() };
    let events = store.events(tenants[1], &query).await.expect("because the store works");
    assert_eq!(events.len(), 10);
    drop(store);
    let script = format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name};");
    sql(&admin, &script).expect("because a superuser may do that");
}
