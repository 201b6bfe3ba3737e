//! The commit: everything or nothing, by the owner of the shard, over what is still as it was read.

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::accepted;
use super::world::at;
use super::world::delivery;
use super::world::end;
use super::world::put;
use super::world::record;
use super::world::write;
use crate::Result;
use crate::deliveries::DeliveryQuery;
use crate::log::Appended;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::RunQuery;
use crate::work::RunState;
use crate::work::StateRead;
use crate::work::TimerChange;
use crate::work::UsageDelta;
use crate::work::Waiting;

const PLUGIN: PluginId = PluginId(1);

/// Two events, and a commit over them that has one of everything.
async fn rich(world: &World, tenant: TenantId) -> Result<(Commit, Vec<Logged>)> {
    let events = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
    let mut commit = world.commit(tenant).await?;
    commit.reads = vec![StateRead::Key { plugin: PLUGIN, key: "count".into(), version: 0 }];
    commit.writes = vec![write(PLUGIN, "count", Some("2"))];
    commit.emits = vec![world.event(tenant, "emitted")];
    commit.deliveries = vec![delivery(&events[0], "eff_1", "sink", None)];
    let event = world.event(tenant, "timer");
    commit.timers = vec![TimerChange::Set { plugin: PLUGIN, name: None, due: at(60), event }];
    commit.runs =
        vec![record(&events[0], "rule", RunState::Done, 1), record(&events[1], "rule", RunState::Retrying, 1)];
    commit.unfinished = vec![put(&events[1], "rule", Waiting::Retry(at(5)))];
    commit.usage = vec![UsageDelta { rule: "rule".into(), attempts: 2, done: 1, failed: 1, ..UsageDelta::default() }];
    Ok((commit, events))
}

/// What a rich commit leaves: cursor moved, state, emitted event, delivery, timer, runs, unfinished runs, usage.
async fn traces(world: &World, tenant: TenantId) -> Result<[usize; 8]> {
    let batch = world.batch(tenant, at(5)).await?;
    let state = world.store.state(tenant, PLUGIN, "count").await?;
    let query = DeliveryQuery { limit: 100, ..DeliveryQuery::default() };
    let usage = world.store.usage(tenant, at(0).day(), at(0).day()).await?;
    Ok([
        usize::from(batch.cursor > Position::ZERO),
        usize::from(state.is_some()),
        world.store.events_by_id(tenant, "emitted").await?.len(),
        world.store.deliveries(tenant, &query).await?.len(),
        world.store.timers(tenant, 100).await?.len(),
        world.store.runs(tenant, &RunQuery { limit: 100, ..RunQuery::default() }).await?.len(),
        batch.due.len(),
        usage.iter().filter(|line| line.rule == "rule").count(),
    ])
}

const NOTHING: [usize; 8] = [0; 8];
const EVERYTHING: [usize; 8] = [1, 1, 1, 1, 1, 2, 1, 1];

pub async fn everything_is_applied(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (commit, events) = rich(world, tenant).await?;
    assert_eq!(traces(world, tenant).await?, NOTHING);
    let committed = world.store.commit(commit).await?;
    let Committed::Done { woken, next_due, version } = committed else { panic!("{committed:?}") };
    assert_eq!((woken, next_due), (vec![world.home(tenant)], Some(at(5))));
    assert_eq!(traces(world, tenant).await?, EVERYTHING);
    let state = world.store.state(tenant, PLUGIN, "count").await?.expect("because it was written");
    assert_eq!((&state.value[..], state.version, state.expires), (&b"2"[..], version, None));
    let batch = world.batch(tenant, at(5)).await?;
    assert_eq!((batch.cursor, batch.events.len()), (events[1].position, 1));
    assert_eq!(batch.events[0].event.id, "emitted");
    assert_eq!(batch.due[0].event, events[1]);
    Ok(())
}

pub async fn everything_is_there_after_a_restart(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (commit, _) = rich(world, tenant).await?;
    let version = world.done(commit).await?;
    world.restart().await;
    assert_eq!(traces(world, tenant).await?, EVERYTHING);
    let next = world.write(tenant, PLUGIN, &[("count", Some("3"))]).await?;
    assert!(next > version, "versions grow over a restart");
    Ok(())
}

pub async fn a_stale_fence_changes_nothing(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (commit, _) = rich(world, tenant).await?;
    for fence in [Fence(commit.fence.0 - 1), Fence(commit.fence.0 + 1), Fence(0)] {
        let late = Commit { fence, ..commit.clone() };
        assert_eq!(world.store.commit(late).await?, Committed::Fenced, "{fence:?}");
        assert_eq!(traces(world, tenant).await?, NOTHING);
    }
    world.done(commit).await?;
    assert_eq!(traces(world, tenant).await?, EVERYTHING);
    Ok(())
}

pub async fn a_wrong_cursor_changes_nothing(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (commit, events) = rich(world, tenant).await?;
    let late = Commit { cursor_from: events[0].position, ..commit.clone() };
    assert_eq!(world.store.commit(late).await?, Committed::Fenced);
    assert_eq!(traces(world, tenant).await?, NOTHING);
    world.done(commit).await?;
    // Nor does the cursor ever move back.
    let back = world.commit_of(tenant, events[1].position, events[0].position);
    assert_eq!(world.store.commit(back).await?, Committed::Fenced);
    Ok(())
}

/// Whoever resumes a rule looks for held runs once; a batch that began before must not hold one afterwards.
pub async fn a_run_is_not_held_under_settings_that_have_changed(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append(vec![world.event(tenant, "1")]).await?;
    world.store.pause_rule(tenant, "rule", true).await?;
    let settings = world.store.snapshot(tenant).await?.tenant.settings;
    let mut commit = world.commit(tenant).await?;
    commit.settings = settings;
    commit.unfinished = vec![put(&events[0], "rule", Waiting::Held)];
    world.store.pause_rule(tenant, "rule", false).await?;
    assert_eq!(world.store.commit(commit.clone()).await?, Committed::Conflict);
    let retries = vec![put(&events[0], "rule", Waiting::Retry(at(1)))];
    assert!(matches!(world.store.commit(Commit { unfinished: retries, ..commit }).await?, Committed::Done { .. }));
    Ok(())
}

pub async fn a_changed_key_changes_nothing(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let before = world.write(tenant, PLUGIN, &[("other", Some("1"))]).await?;
    let now = world.write(tenant, PLUGIN, &[("other", Some("2"))]).await?;
    let gone = world.write(tenant, PLUGIN, &[("gone", Some("1"))]).await?;
    world.write(tenant, PLUGIN, &[("gone", None)]).await?;
    let (mut commit, _) = rich(world, tenant).await?;
    let read = |key: &str, version| StateRead::Key { plugin: PLUGIN, key: key.into(), version };
    let untouched = traces(world, tenant).await?;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
            commit.fence = world.fence(commit.shard);
        }
        for wrong in [read("other", before), read("other", 0), read("gone", gone), read("never", 7)] {
            let mut commit = commit.clone();
            commit.reads.push(wrong.clone());
            assert_eq!(world.store.commit(commit).await?, Committed::Conflict, "{wrong:?}");
            assert_eq!(traces(world, tenant).await?, untouched);
        }
    }
    commit.reads.extend([read("other", now), read("gone", 0), read("never", 0)]);
    world.done(commit).await?;
    Ok(())
}

pub async fn a_changed_listing_changes_nothing(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.write(tenant, PLUGIN, &[("a/1", Some("1")), ("a/2", Some("1")), ("b", Some("1"))]).await?;
    let list = |after: Option<&str>, limit, keys: &[&str]| StateRead::Keys {
        plugin: PLUGIN,
        prefix: "a/".into(),
        after: after.map(str::to_owned),
        limit,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    for (read, holds) in [
        (list(None, 10, &["a/1", "a/2"]), true),
        (list(None, 1, &["a/1"]), true),
        (list(Some("a/1"), 10, &["a/2"]), true),
        (list(None, 10, &["a/1"]), false),
        (list(None, 10, &["a/1", "a/2", "a/3"]), false),
        (list(None, 10, &[]), false),
    ] {
        let mut commit = world.commit(tenant).await?;
        commit.reads = vec![read.clone()];
        let committed = world.store.commit(commit).await?;
        assert_eq!(matches!(committed, Committed::Done { .. }), holds, "{read:?}: {committed:?}");
    }
    Ok(())
}

pub async fn the_same_commit_twice_is_applied_once(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (commit, _) = rich(world, tenant).await?;
    let again = commit.clone();
    let both = [world.store.clone(), world.store.clone()].into_iter().zip([commit.clone(), commit]);
    let tasks: Vec<_> = both.map(|(store, commit)| tokio::spawn(async move { store.commit(commit).await })).collect();
    let mut done = 0;
    for task in tasks {
        match task.await.expect("because a commit does not panic")? {
            Committed::Done { .. } => done += 1,
            other => assert_eq!(other, Committed::Fenced),
        }
    }
    assert_eq!(done, 1);
    assert_eq!(world.store.commit(again).await?, Committed::Fenced);
    assert_eq!(traces(world, tenant).await?, EVERYTHING);
    Ok(())
}

/// The cursor does not move when only retries are worked off, so it cannot tell.
pub async fn a_retry_that_was_applied_unheard_is_not_applied_again(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let event = world.append(vec![world.event(tenant, "1")]).await?.remove(0);
    world.change(tenant, vec![put(&event, "rule", Waiting::Retry(at(0)))]).await?;
    let batch = world.batch(tenant, at(1)).await?;
    let mut commit = world.commit_of(tenant, batch.cursor, batch.cursor);
    commit.turn = Some(batch.turn);
    commit.unfinished = vec![end(&event, "rule")];
    commit.runs = vec![record(&event, "rule", RunState::Done, 2)];
    let unheard = commit.clone();
    world.done(commit).await?;
    assert_eq!(world.store.commit(unheard).await?, Committed::Conflict);
    let runs = world.store.runs(tenant, &RunQuery { limit: 10, ..RunQuery::default() }).await?;
    assert_eq!(runs.len(), 1);
    let after = world.batch(tenant, at(1)).await?;
    assert!(after.turn > batch.turn, "every commit raises the turn");
    Ok(())
}

pub async fn one_of_two_that_read_the_same_is_applied(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    // Two shards of one tenant: the fence and the cursor keep nothing apart here, only what was read does.
    let shards = [world.home(tenant), Shard((world.home(tenant).0 + 1) % world.store.host_shards())];
    for round in 0..20 {
        let key = format!("key-{round}");
        let tasks = shards.map(|shard| {
            let mut commit = world.commit_of(tenant, Position::ZERO, Position::ZERO);
            (commit.shard, commit.fence) = (shard, world.fence(shard));
            commit.reads = vec![StateRead::Key { plugin: PLUGIN, key: key.clone(), version: 0 }];
            commit.writes = vec![write(PLUGIN, &key, Some(&shard.0.to_string()))];
            let store = world.store.clone();
            tokio::spawn(async move { (shard, store.commit(commit).await) })
        });
        let mut winner = None;
        for task in tasks {
            match task.await.expect("because a commit does not panic") {
                (shard, Ok(Committed::Done { .. })) => assert_eq!(winner.replace(shard), None, "both were applied"),
                (_, other) => assert_eq!(other?, Committed::Conflict),
            }
        }
        let state = world.store.state(tenant, PLUGIN, &key).await?.expect("because one of them wrote it");
        assert_eq!(Some(&*state.value), winner.map(|shard| shard.0.to_string()).as_deref().map(str::as_bytes));
    }
    Ok(())
}

pub async fn emitted_events_wake_their_shards(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.append(vec![world.event(tenant, "1")]).await?;
    let home = world.home(tenant);
    let other = Shard((home.0 + 1) % world.store.host_shards());
    let mut commit = world.commit(tenant).await?;
    let mut elsewhere = world.event(tenant, "elsewhere");
    elsewhere.shard = other;
    commit.emits = vec![world.event(tenant, "here"), elsewhere];
    let committed = world.store.commit(commit).await?;
    let Committed::Done { woken, next_due, .. } = committed else { panic!("{committed:?}") };
    let mut expected = vec![home, other];
    expected.sort_unstable();
    assert_eq!((woken, next_due), (expected, None));
    let batch = world.store.read_batch(tenant, other, at(0), super::world::ALL).await?;
    assert_eq!(batch.events.len(), 1);
    assert_eq!(batch.events[0].event.id, "elsewhere");
    Ok(())
}

/// Commits, and says whether the tenant's home is to be looked at again.
async fn wakes_home(world: &World, commit: Commit) -> Result<bool> {
    let home = world.home(commit.tenant);
    match world.store.commit(commit).await? {
        Committed::Done { woken, .. } => Ok(woken.contains(&home)),
        other => panic!("the commit was to be done, not {other:?}"),
    }
}

async fn waiting(world: &World, tenant: TenantId) -> Result<Vec<String>> {
    let batch = world.batch(tenant, at(0)).await?;
    Ok(batch.events.into_iter().map(|event| event.event.id).collect())
}

pub async fn what_no_rule_takes_is_worked_off_with_the_commit_that_emits_it(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for round in 0..40 {
        world.append(vec![world.event(tenant, &format!("event-{round}"))]).await?;
        let mut commit = world.commit(tenant).await?;
        commit.emits = vec![world.event(tenant, &format!("a-{round}")), world.event(tenant, &format!("b-{round}"))];
        commit.emits_unmatched = true;
        assert!(!wakes_home(world, commit).await?, "{round}");
        assert_eq!(waiting(world, tenant).await?, [""; 0], "{round}");
    }
    assert_eq!(world.store.host_backlog(at(0), &[world.home(tenant)]).await?, []);
    let events = world.store.tail(tenant, Position::ZERO, None, 1_000).await?.events;
    assert_eq!(events.len(), 120, "all of them are in the log");
    assert_eq!(world.batch(tenant, at(0)).await?.cursor, events[119].position);
    // As many as a batch may emit.
    world.append(vec![world.event(tenant, "of-many")]).await?;
    let mut commit = world.commit(tenant).await?;
    commit.emits = (0..4_000).map(|number| world.event(tenant, &format!("many-{number}"))).collect();
    commit.emits_unmatched = true;
    assert!(!wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, [""; 0]);
    // A batch of due runs alone moves no cursor by itself.
    let mut commit = world.commit(tenant).await?;
    commit.emits = vec![world.event(tenant, "of-a-retry")];
    commit.emits_unmatched = true;
    assert!(!wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, [""; 0]);
    world.restart().await;
    assert_eq!(waiting(world, tenant).await?, [""; 0]);
    world.append(vec![world.event(tenant, "next")]).await?;
    assert_eq!(waiting(world, tenant).await?, ["next"]);
    Ok(())
}

pub async fn an_emitted_event_is_never_worked_off_before_another(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let emit = async |world: &World, id: &str| {
        let mut commit = world.commit(tenant).await?;
        commit.emits = vec![world.event(tenant, id)];
        commit.emits_unmatched = true;
        Ok::<_, crate::Error>(commit)
    };
    // One that came after the batch was read.
    let commit = emit(world, "emitted").await?;
    world.append(vec![world.event(tenant, "late")]).await?;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["late", "emitted"]);
    // One that was left for the next batch.
    let mut commit = emit(world, "more").await?;
    commit.cursor_to = world.batch(tenant, at(0)).await?.events[0].position;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["emitted", "more"]);
    // An event that is emitted again stands where it stood.
    let mut commit = emit(world, "more").await?;
    commit.cursor_to = commit.cursor_from;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["emitted", "more"]);
    let commit = emit(world, "more").await?;
    assert!(!wakes_home(world, commit).await?, "it is worked off by this batch itself");
    assert_eq!(waiting(world, tenant).await?, [""; 0]);
    // One of the same name came from elsewhere meanwhile, and a rule may take that.
    let commit = emit(world, "theirs").await?;
    let mut theirs = world.event(tenant, "theirs");
    theirs.event.kind = "test.other".into();
    world.append(vec![theirs]).await?;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["theirs"]);
    let mut commit = emit(world, "theirs").await?;
    commit.cursor_to = commit.cursor_from;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["theirs"]);
    Ok(())
}

pub async fn an_emitted_event_waits_for_its_turn_where_a_rule_may_take_it(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let home = world.home(tenant);
    // Under newer settings there may be another rule.
    let before = world.batch(tenant, at(0)).await?.settings;
    let mut commit = world.commit(tenant).await?;
    commit.settings = before;
    commit.emits = vec![world.event(tenant, "1")];
    commit.emits_unmatched = true;
    world.store.pause_rule(tenant, "rule", true).await?;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["1"]);
    // A commit moves the cursor of its own lane alone.
    let mut commit = world.commit(tenant).await?;
    let mut elsewhere = world.event(tenant, "elsewhere");
    elsewhere.shard = Shard((home.0 + 1) % world.store.host_shards());
    commit.emits = vec![world.event(tenant, "2"), elsewhere];
    commit.emits_unmatched = true;
    assert!(wakes_home(world, commit).await?);
    assert_eq!(waiting(world, tenant).await?, ["2"]);
    // A commit that is not applied moves nothing.
    let mut commit = world.commit(tenant).await?;
    commit.emits = vec![world.event(tenant, "3")];
    commit.emits_unmatched = true;
    let late = Commit { fence: Fence(commit.fence.0 - 1), ..commit };
    assert_eq!(world.store.commit(late).await?, Committed::Fenced);
    assert_eq!(waiting(world, tenant).await?, ["2"]);
    Ok(())
}

pub async fn an_emitted_event_that_is_there_is_left_alone(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let there = world.append(vec![world.event(tenant, "there")]).await?;
    let mut commit = world.commit(tenant).await?;
    let mut other = world.event(tenant, "there");
    other.event.kind = "test.other".into();
    commit.emits = vec![other, world.event(tenant, "new"), world.event(tenant, "new")];
    world.done(commit).await?;
    assert_eq!(world.store.events_by_id(tenant, "there").await?, there);
    assert_eq!(world.store.events_by_id(tenant, "new").await?.len(), 1);
    let answers = world.store.host_append(vec![world.event(tenant, "new")]).await?;
    assert!(matches!(answers[..], [Appended::Duplicate(_)]), "an emitted event is known to appends");
    Ok(())
}

pub async fn commits_of_many_tenants_at_once_keep_apart(world: &mut World) -> Result<()> {
    let mut tenants = Vec::new();
    for number in 0..30 {
        tenants.push(world.tenant(&format!("t{number}")).await?);
    }
    for round in 0..5 {
        let mut tasks = Vec::new();
        for tenant in &tenants {
            let id = format!("event-{round}");
            let position = accepted(world.store.host_append(vec![world.event(*tenant, &id)]).await?[0]);
            let mut commit = world.commit(*tenant).await?;
            assert_eq!(commit.cursor_to, position);
            // Every third of them comes too late.
            if tenant.0 % 3 == 0 {
                commit.fence = Fence(commit.fence.0 - 1);
            }
            commit.writes = vec![write(PLUGIN, "round", Some(&format!("{}-{round}", tenant.0)))];
            let (store, tenant) = (world.store.clone(), *tenant);
            tasks.push(tokio::spawn(async move { (tenant, store.commit(commit).await) }));
        }
        for task in tasks {
            let (tenant, committed) = task.await.expect("because a commit does not panic");
            let state = world.store.state(tenant, PLUGIN, "round").await?;
            if tenant.0 % 3 == 0 {
                assert_eq!((committed?, state), (Committed::Fenced, None));
            } else {
                assert!(matches!(committed?, Committed::Done { .. }));
                let value = state.expect("because it was written").value;
                assert_eq!(value, format!("{}-{round}", tenant.0));
            }
        }
    }
    Ok(())
}
