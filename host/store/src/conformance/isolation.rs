//! Tenants are apart: with another tenant's ids every method finds nothing and changes nothing.
//!
//! Each case gives tenant `a` something, and asks for it as tenant `b`, who has a namesake where names can be the same.

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use super::plugins::KEPT;
use super::plugins::back;
use super::plugins::by;
use super::plugins::to;
use super::plugins::version;
use super::tenants::key;
use super::world::ALL;
use super::world::World;
use super::world::at;
use super::world::delivery;
use super::world::put;
use super::world::record;
use super::world::write;
use crate::Error;
use crate::Result;
use crate::deliveries::DeliveryQuery;
use crate::deliveries::DeliveryState;
use crate::deliveries::Settled;
use crate::deliveries::Settlement;
use crate::log::EventQuery;
use crate::work::Committed;
use crate::work::Held;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunState;
use crate::work::StateRead;
use crate::work::TimerChange;
use crate::work::UsageDelta;
use crate::work::Waiting;

const PLUGIN: PluginId = PluginId(1);

async fn two(world: &World) -> Result<(TenantId, TenantId)> {
    Ok((world.tenant("a").await?, world.tenant("b").await?))
}

/// An event of the tenant, appended.
async fn event(world: &World, tenant: TenantId, id: &str) -> Result<Logged> {
    Ok(world.append(vec![world.keyed(tenant, id, "key")]).await?.remove(0))
}

pub async fn events_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let of_a = event(world, a, "1").await?;
    let key = of_a.event.event_key();
    assert_eq!(world.store.events_by_id(b, "1").await?, []);
    assert_eq!(world.store.event_by_key(b, key).await?, None);
    assert_eq!(world.store.tail(b, Position::ZERO, None, 10).await?.events, []);
    assert_eq!(world.store.head(b).await?, Position::ZERO);
    for correlation in [None, Some("1".to_owned())] {
        let query = EventQuery { correlation, limit: 10, ..EventQuery::default() };
        assert_eq!(world.store.events(b, &query).await?, []);
    }
    let of_b = event(world, b, "1").await?;
    assert_eq!(world.store.events_by_id(b, "1").await?, std::slice::from_ref(&of_b));
    assert_eq!(world.store.event_by_key(b, key).await?, Some(of_b));
    assert_eq!(world.store.event_by_key(a, key).await?, Some(of_a.clone()));
    assert_eq!(world.store.tail(a, Position::ZERO, None, 10).await?.events, [of_a]);
    Ok(())
}

pub async fn looks_at_the_same_time_are_the_tenants_own(world: &mut World) -> Result<()> {
    let mut looks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let tenant = world.tenant(&number.to_string()).await?;
        let id = format!("of {number}");
        let logged = event(world, tenant, &id).await?;
        for after in [Position::ZERO, logged.position] {
            let (store, logged) = (world.store.clone(), logged.clone());
            looks.spawn(async move {
                let expected = if after == Position::ZERO { vec![logged] } else { vec![] };
                Ok::<_, crate::Error>((store.tail(tenant, after, None, 10).await?.events, expected))
            });
        }
    }
    for look in looks.join_all().await {
        let (found, expected) = look?;
        assert_eq!(found, expected);
    }
    Ok(())
}

pub async fn batches_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let of_a = event(world, a, "1").await?;
    let waits = vec![put(&of_a, "rule", Waiting::Retry(at(1)))];
    world.change(a, waits).await?;
    event(world, a, "2").await?;
    for shard in (0..world.store.host_shards()).map(Shard) {
        let batch = world.store.read_batch(b, shard, at(10), ALL).await?;
        assert_eq!((batch.cursor, batch.events.len(), batch.due.len()), (Position::ZERO, 0, 0));
        assert!(batch.blocked.is_empty());
    }
    // A new event of b with the key that is blocked in a.
    event(world, b, "1").await?;
    assert!(world.batch(b, at(10)).await?.blocked.is_empty());
    // In one shard, b's commit moves b's cursor.
    let before = world.batch(a, at(10)).await?;
    let mut commit = world.commit_of(b, Position::ZERO, Position(i64::MAX - 1));
    (commit.shard, commit.fence) = (world.home(a), world.fence(world.home(a)));
    assert!(matches!(world.store.commit(commit).await?, Committed::Done { .. }));
    let after = world.batch(a, at(10)).await?;
    assert_eq!((before.cursor, before.events), (after.cursor, after.events));
    // Even a run of b that names a's event does not show it.
    let mut commit = world.commit(b).await?;
    commit.unfinished = vec![put(&of_a, "rule", Waiting::Retry(at(1)))];
    world.done(commit).await?;
    assert_eq!(world.due(b, at(10)).await?, [""; 0]);
    Ok(())
}

pub async fn runs_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let of_a = event(world, a, "1").await?;
    event(world, b, "1").await?;
    let mut commit = world.commit(a).await?;
    commit.runs = vec![record(&of_a, "rule", RunState::Parked, 1)];
    commit.unfinished = vec![put(&of_a, "rule", Waiting::Parked)];
    world.done(commit).await?;
    let run = RunId::of(of_a.event.event_key(), "rule");
    assert_eq!(world.store.attempts(b, run).await?, []);
    for position in [None, Some(of_a.position)] {
        let query = RunQuery { position, limit: 10, ..RunQuery::default() };
        assert_eq!(world.store.runs(b, &query).await?.len(), 0);
    }
    for runs in [vec![], vec![run]] {
        let filter = ParkedFilter { runs, ..ParkedFilter::default() };
        assert_eq!(world.store.parked(b, &filter, None, 10).await?.len(), 0);
    }
    assert_eq!(world.store.attempts(a, run).await?.len(), 1);
    Ok(())
}

pub async fn decisions_on_runs_touch_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let first = event(world, a, "1").await?;
    let second = event(world, a, "2").await?;
    event(world, b, "1").await?;
    world.change(a, vec![put(&first, "rule", Waiting::Parked), put(&second, "other", Waiting::Held)]).await?;
    let run = RunId::of(first.event.event_key(), "rule");
    for runs in [vec![], vec![run]] {
        let filter = ParkedFilter { runs, ..ParkedFilter::default() };
        assert_eq!(world.store.redrive(b, &filter, at(1)).await?, (0, vec![]));
        assert_eq!(world.store.discard(b, &filter, at(1)).await?, (0, vec![]));
    }
    assert_eq!(world.store.resume_held(b, &Held::Rule("other".into()), at(1)).await?, (0, vec![]));
    assert_eq!(world.store.resume_held(b, &Held::Plugin("plugin".into()), at(1)).await?, (0, vec![]));
    // A commit of b that names a's runs ends none of them.
    let mut commit = world.commit(b).await?;
    commit.unfinished = vec![super::world::end(&first, "rule"), super::world::end(&second, "other")];
    world.done(commit).await?;
    assert_eq!(world.due(a, at(10)).await?, [""; 0]);
    let depths = world.store.host_depths().await?;
    let of_a = depths.iter().find(|depth| depth.tenant == a).expect("because a has runs that wait");
    assert_eq!((of_a.parked, of_a.held), (1, 1));
    Ok(())
}

pub async fn state_is_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let version = world.write(a, PLUGIN, &[("k", Some("of a"))]).await?;
    assert_eq!(world.store.state(b, PLUGIN, "k").await?, None);
    assert_eq!(world.store.state_keys(b, PLUGIN, "", None, 10).await?, [""; 0]);
    let mut commit = world.commit(b).await?;
    commit.reads = vec![StateRead::Key { plugin: PLUGIN, key: "k".into(), version: 0 }];
    commit.writes = vec![write(PLUGIN, "k", Some("of b")), write(PLUGIN, "l", None)];
    world.done(commit).await?;
    let state = world.store.state(a, PLUGIN, "k").await?.expect("because it was written");
    assert_eq!((&state.value[..], state.version), (&b"of a"[..], version));
    world.write(b, PLUGIN, &[("k", None)]).await?;
    assert!(world.store.state(a, PLUGIN, "k").await?.is_some());
    Ok(())
}

pub async fn timers_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    for (tenant, id) in [(a, "t"), (b, "t")] {
        let mut commit = world.commit(tenant).await?;
        let event = world.event(tenant, id);
        commit.timers = vec![TimerChange::Set { plugin: PLUGIN, name: Some("n".into()), due: at(10), event }];
        world.done(commit).await?;
        assert_eq!(world.store.timers(tenant, 10).await?.len(), 1);
    }
    for timer in ["n", "t"] {
        let mut commit = world.commit(b).await?;
        commit.timers = vec![TimerChange::Cancel { plugin: PLUGIN, timer: timer.into() }];
        world.done(commit).await?;
        assert_eq!(world.store.timers(b, 10).await?.len(), 0);
        assert_eq!(world.store.timers(a, 10).await?.len(), 1, "cancelled by {timer}");
    }
    Ok(())
}

pub async fn deliveries_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    let (of_a, of_b) = (event(world, a, "1").await?, event(world, b, "1").await?);
    for (tenant, event) in [(a, &of_a), (b, &of_b)] {
        let mut commit = world.commit(tenant).await?;
        commit.deliveries = vec![delivery(event, "d", "sink", Some("key"))];
        world.done(commit).await?;
        world.store.put_sink(tenant, "sink", "{}", at(0)).await?;
    }
    let settle = |tenant, settled| Settlement {
        tenant,
        id: "d".into(),
        settled,
        attempts: 1,
        code: String::new(),
        reason: String::new(),
        at: at(1),
    };
    world.store.host_settle(vec![settle(a, Settled::Parked)]).await?;
    let (due, _) = world.store.host_due_deliveries(at(1), 10, &world.shards(), &[], &[]).await?;
    assert_eq!(due.iter().map(|due| due.tenant).collect::<Vec<_>>(), [b], "a's parked one holds a's key");
    for (sink, id) in [(None, None), (Some("sink"), None), (None, Some("d"))] {
        assert_eq!(world.store.redeliver(b, sink, id, at(2)).await?, 0);
        assert_eq!(world.store.drop_deliveries(b, sink, id, at(2)).await?, 0);
    }
    assert!(world.store.delete_sink(b, "sink", at(2)).await?);
    let query = |position| DeliveryQuery { position, limit: 10, ..DeliveryQuery::default() };
    assert_eq!(world.store.deliveries(b, &query(Some(of_a.position))).await?.len(), 0);
    for (tenant, event_id) in [(a, "1"), (b, "1")] {
        let views = world.store.deliveries(tenant, &query(None)).await?;
        assert_eq!(views.len(), 1);
        assert_eq!((views[0].state, &*views[0].event_id), (DeliveryState::Parked, event_id));
    }
    let views = world.store.deliveries(a, &query(None)).await?;
    assert_eq!(views[0].updated, at(1), "b's decisions left it alone");
    // An event's id is shown with a delivery of its own tenant only.
    let mut commit = world.commit(b).await?;
    commit.deliveries = vec![delivery(&of_a, "e", "sink", None)];
    world.done(commit).await?;
    let views = world.store.deliveries(b, &query(Some(of_a.position))).await?;
    assert_eq!(views[0].event_id, "");
    Ok(())
}

pub async fn keys_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    world.store.host_add_key(&key("k", Some(a), 1)).await?;
    assert!(world.store.operator_keys(Some(b)).await?.is_empty());
    assert!(world.store.operator_keys(None).await?.is_empty());
    for of in [Some(b), None] {
        assert!(matches!(world.store.operator_revoke_key(of, "k", at(2)).await, Err(Error::NotFound { .. })));
    }
    let (found, of) = world.store.host_key("k").await?.expect("because it was added");
    assert_eq!((found.revoked, of.map(|tenant| tenant.id)), (None, Some(a)));
    Ok(())
}

pub async fn plugins_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    for digest in ["1", "2"] {
        world.store.add_version(a, "p", &version(digest), at(1)).await?;
    }
    world.store.switch_version(a, "p", &to(1)).await?;
    let before = format!("{:?}", world.store.plugin(a, "p").await?);
    assert!(world.store.plugins(b).await?.is_empty());
    assert!(world.store.plugin(b, "p").await?.is_none());
    assert_eq!(world.store.component(b, "sha256:1").await?, None);
    assert!(matches!(world.store.switch_version(b, "p", &to(2)).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.switch_version(b, "p", &back()).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.retire(b, "p", 2, KEPT, &by()).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.pause_plugin(b, "p", true).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.set_config(b, "p", "{\"b\":1}").await, Err(Error::NotFound { .. })));
    // A namesake has versions and a number of its own.
    let (first, _) = world.store.add_version(b, "p", &version("3"), at(2)).await?;
    world.store.switch_version(b, "p", &to(1)).await?;
    world.store.pause_plugin(b, "p", true).await?;
    assert_eq!(first.number, 1);
    let (of_b, _) = world.store.plugin(b, "p").await?.expect("because it was added");
    let (of_a, _) = world.store.plugin(a, "p").await?.expect("because it was added");
    assert_ne!(of_a.id, of_b.id);
    assert_eq!(world.store.component(b, "sha256:1").await?, None);
    assert_eq!(format!("{:?}", world.store.plugin(a, "p").await?), before);
    Ok(())
}

pub async fn settings_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    world.store.put_rules(a, 0, "[1]", "", "", at(1)).await?;
    world.store.pause_rule(a, "rule", true).await?;
    world.store.put_sink(a, "sink", "{}", at(1)).await?;
    world.store.put_secret(a, "secret", 1, b"sealed", at(1)).await?;
    let before = format!("{:?}", world.store.snapshot(a).await?);
    assert_eq!(world.store.rules(b).await?.number, 0);
    assert!(world.store.rule_set(b, 1).await?.is_none());
    assert!(world.store.rule_sets(b, None, 10).await?.is_empty());
    assert!(world.store.sinks(b).await?.is_empty() && world.store.secrets(b).await?.is_empty());
    let snapshot = world.store.snapshot(b).await?;
    assert!(snapshot.paused_rules.is_empty() && snapshot.sinks.is_empty() && snapshot.secrets.is_empty());
    world.store.pause_rule(b, "rule", false).await?;
    assert!(!world.store.delete_sink(b, "sink", at(2)).await?);
    assert!(!world.store.delete_secret(b, "secret").await?);
    world.store.put_secret(b, "secret", 1, b"other", at(2)).await?;
    world.store.put_rules(b, 0, "[2]", "", "", at(2)).await?;
    world.store.put_sink(b, "sink", "{\"b\":1}", at(2)).await?;
    assert_eq!(format!("{:?}", world.store.snapshot(a).await?), before);
    Ok(())
}

pub async fn usage_is_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = two(world).await?;
    event(world, a, "1").await?;
    let mut commit = world.commit(a).await?;
    let units = [("unit".to_owned(), 2.0)].into();
    commit.usage = vec![UsageDelta { rule: "rule".into(), attempts: 1, units, ..UsageDelta::default() }];
    world.done(commit).await?;
    assert_eq!(world.store.usage(b, 0, i64::MAX).await?, []);
    assert_eq!(world.store.usage(a, 0, i64::MAX).await?.len(), 2);
    Ok(())
}
