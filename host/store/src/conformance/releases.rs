//! Decisions about versions, and the history of them.

use std::collections::BTreeMap;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::ceiling::TenantPolicy;
use bulkhead_domain::policy::proof;
use bulkhead_domain::policy::proof::Lack;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::proof::RequirePreview;
use bulkhead_domain::policy::rollout::Counts;

use super::plugins::KEPT;
use super::plugins::back;
use super::plugins::by;
use super::plugins::to;
use super::plugins::version;
use super::world::World;
use super::world::at;
use super::world::end;
use super::world::unfinished;
use crate::Error;
use crate::Result;
use crate::catalogue::NewVersion;
use crate::catalogue::Room;
use crate::releases::Act;
use crate::releases::Action;
use crate::releases::Ending;
use crate::releases::Kind;
use crate::releases::Rollout;
use crate::releases::Switch;
use crate::releases::Tally;
use crate::work::Unfinished;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

async fn three(world: &mut World) -> Result<TenantId> {
    let tenant = world.tenant("a").await?;
    for digest in ["1", "2", "3"] {
        world.store.add_version(tenant, "p", &version(digest), at(1)).await?;
    }
    Ok(tenant)
}

async fn start(world: &World, tenant: TenantId, kind: Kind, version: u32) -> Result<Rollout> {
    world.store.start_rollout(tenant, "p", kind, version, "{\"a\":1}", &by()).await
}

fn ending(number: Option<i64>) -> Ending {
    let mut detail = serde_json::Map::new();
    detail.insert("reason".to_owned(), "enough".into());
    Ending { number, promote: false, detail, act: Act::by("key_2", at(9)) }
}

pub async fn every_decision_is_in_the_history(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    assert!(world.store.history(tenant, "p", None, 10).await?.is_empty());
    world.store.switch_version(tenant, "p", &to(1)).await?;
    world.store.switch_version(tenant, "p", &Switch::to(2, Act::by("key_2", at(2)))).await?;
    world.store.switch_version(tenant, "p", &to(2)).await?;
    world.store.switch_version(tenant, "p", &back()).await?;
    let named = Switch { back: true, ..to(2) };
    world.store.switch_version(tenant, "p", &named).await?;
    world.store.retire(tenant, "p", 3, KEPT, &by()).await?;
    world.store.retire(tenant, "p", 3, KEPT, &by()).await?;
    world.restart().await;
    let history = world.store.history(tenant, "p", None, 10).await?;
    let told: Vec<_> = history.iter().map(|entry| (entry.number, entry.action, entry.version)).collect();
    let expected = [
        (5, Action::Retired, 3),
        (4, Action::RolledBack, 2),
        (3, Action::RolledBack, 1),
        (2, Action::Activated, 2),
        (1, Action::Activated, 1),
    ];
    assert_eq!(told, expected, "newest first, and what changed nothing is not told");
    assert_eq!((&*history[3].author, history[3].at, &*history[3].detail), ("key_2", at(2), "{\"from\":1}"));
    let page = world.store.history(tenant, "p", Some(4), 2).await?;
    assert_eq!(page.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3, 2]);
    let versions = world.store.versions(tenant, "p", None, 9).await?;
    assert_eq!(versions.iter().map(|version| version.activated).collect::<Vec<_>>(), [None, Some(at(2)), Some(at(1))]);
    let (plugin, one) = world.store.version(tenant, "p", 1).await?.expect("because it was added");
    assert_eq!((plugin.active, one.number, one.activated), (Some(2), 1, Some(at(1))));
    assert!(world.store.version(tenant, "p", 9).await?.is_none());
    assert!(matches!(world.store.history(tenant, "no", None, 1).await, Err(Error::NotFound { .. })));
    Ok(())
}

pub async fn a_decision_over_something_else_is_refused(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    let seen = |version, seen| Switch { seen: Some(seen), ..to(version) };
    world.store.switch_version(tenant, "p", &seen(1, None)).await?;
    let late = world.store.switch_version(tenant, "p", &seen(2, None)).await;
    assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
    assert_eq!(world.store.switch_version(tenant, "p", &seen(2, Some(1))).await?.active, Some(2));
    assert_eq!(world.store.switch_version(tenant, "p", &seen(2, Some(1))).await?.active, Some(2), "it is already");
    Ok(())
}

pub async fn consent_is_remembered(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    let approved = world.store.approve(tenant, "p", 2, &Act::by("key_2", at(5))).await?;
    assert_eq!(approved.approval, Some(("key_2".to_owned(), at(5))));
    let again = world.store.approve(tenant, "p", 2, &Act::by("key_3", at(6))).await?;
    assert_eq!(again.approval, Some(("key_2".to_owned(), at(5))), "who agreed first did");
    world.store.switch_version(tenant, "p", &Switch::to(3, by().consenting(true))).await?;
    let uploaded = NewVersion { approves: true, signature: Some("{\"by\":\"x\"}".to_owned()), ..version("4") };
    let (fourth, _) = world.store.add_version(tenant, "p", &uploaded, at(7)).await?;
    assert_eq!((fourth.approval, fourth.signature), (Some(("key_1".to_owned(), at(7))), uploaded.signature));
    let signed = NewVersion { signature: Some("{\"by\":\"y\"}".to_owned()), ..version("1") };
    let (first, new) = world.store.add_version(tenant, "p", &signed, at(8)).await?;
    assert_eq!((first.number, new, first.signature), (1, false, signed.signature.clone()), "a signature comes later");
    world.restart().await;
    let versions = world.store.versions(tenant, "p", None, 9).await?;
    let agreed: Vec<_> = versions.iter().map(|version| version.approval.is_some()).collect();
    assert_eq!(agreed, [true, false, true, false], "there was nothing to agree to in the third");
    assert_eq!(versions[3].signature, signed.signature);
    let history = world.store.history(tenant, "p", None, 10).await?;
    let told: Vec<_> = history.iter().map(|entry| (entry.action, entry.version)).collect();
    assert_eq!(told, [(Action::Activated, 3), (Action::Approved, 2)]);
    assert!(matches!(world.store.approve(tenant, "p", 9, &by()).await, Err(Error::NotFound { .. })));
    Ok(())
}

/// A version that asks to emit these.
fn emitting(digest: &str, kinds: &[&str]) -> NewVersion {
    NewVersion { grants: serde_json::json!({ "emit": kinds }).to_string(), ..version(digest) }
}

pub async fn nothing_runs_that_nobody_agreed_to(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for (digest, kinds) in [("1", &[][..]), ("2", &["x"]), ("3", &["x"]), ("4", &["x", "y"])] {
        world.store.add_version(tenant, "p", &emitting(digest, kinds), at(1)).await?;
    }
    world.store.switch_version(tenant, "p", &to(1)).await?;
    let added = |error: Option<Error>| match error {
        Some(Error::Unagreed { added, .. }) => added,
        other => panic!("it is refused otherwise: {other:?}"),
    };
    assert_eq!(added(world.store.switch_version(tenant, "p", &to(4)).await.err()), ["emit x", "emit y"]);
    for kind in [Kind::Canary, Kind::Shadow] {
        assert_eq!(added(start(world, tenant, kind, 2).await.err()), ["emit x"]);
    }
    // Whoever may agree does so with what they do; what asks for no more needs nobody.
    let agreeing = by().consenting(true);
    world.store.switch_version(tenant, "p", &Switch::to(2, agreeing.clone())).await?;
    let plugin = start(world, tenant, Kind::Canary, 3).await?.plugin;
    start(world, tenant, Kind::Shadow, 3).await?;
    // The way back leaves nobody with more than the active version has.
    world.store.switch_version(tenant, "p", &back()).await?;
    assert!(world.store.rollouts(tenant, plugin).await?.is_empty());
    let history = world.store.history(tenant, "p", None, 2).await?;
    let told: Vec<_> = history.iter().map(|entry| (entry.action, entry.version)).collect();
    assert_eq!(told, [(Action::ShadowEnded, 3), (Action::CanaryEnded, 3)]);
    let detail: serde_json::Value = serde_json::from_str(&history[0].detail).expect("because it is JSON");
    assert_eq!((&detail["reason"], &detail["added"][0]), (&"asks-for-more".into(), &"emit x".into()));
    let promotion = Ending { promote: true, ..ending(None) };
    assert_eq!(world.store.end_rollout(tenant, "p", Kind::Canary, &promotion).await?, None);
    assert_eq!(added(world.store.switch_version(tenant, "p", &to(3)).await.err()), ["emit x"]);
    // What was agreed to goes on, whatever is active.
    let start = world.store.start_rollout(tenant, "p", Kind::Canary, 3, "{}", &agreeing).await?;
    world.store.switch_version(tenant, "p", &to(2)).await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    assert_eq!(world.store.rollouts(tenant, plugin).await?, [start]);
    world.store.end_rollout(tenant, "p", Kind::Canary, &promotion).await?.expect("because it is under way");
    let versions = world.store.versions(tenant, "p", None, 9).await?;
    let agreed: Vec<_> = versions.iter().map(|version| (version.number, version.approval.is_some())).collect();
    assert_eq!(agreed, [(4, false), (3, true), (2, true), (1, false)], "not to what asks for nothing");
    Ok(())
}

pub async fn a_candidate_is_counted_until_it_ends(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    assert!(matches!(start(world, tenant, Kind::Canary, 2).await, Err(Error::Conflict { .. })), "nothing is active");
    world.store.switch_version(tenant, "p", &to(1)).await?;
    assert!(matches!(start(world, tenant, Kind::Canary, 1).await, Err(Error::Conflict { .. })), "it is the active one");
    assert!(matches!(start(world, tenant, Kind::Canary, 9).await, Err(Error::NotFound { .. })));
    let canary = start(world, tenant, Kind::Canary, 2).await?;
    assert!(matches!(start(world, tenant, Kind::Canary, 3).await, Err(Error::Conflict { .. })), "one is under way");
    let shadow = start(world, tenant, Kind::Shadow, 3).await?;
    assert!(matches!(world.store.retire(tenant, "p", 2, KEPT, &by()).await, Err(Error::Conflict { .. })));
    let id = canary.plugin;
    let more = Tally {
        active: Counts { runs: 9, fuel: 90, micros: 9, ..Counts::default() },
        candidate: Counts::of(true, 10, std::time::Duration::from_micros(2)),
        ..Tally::default()
    };
    world.store.count_rollout(tenant, id, Kind::Canary, canary.number, &more).await?;
    world.restart().await;
    let sum = world.store.count_rollout(tenant, id, Kind::Canary, canary.number, &more).await?;
    let sum = sum.expect("because it is under way").tally;
    assert_eq!((sum.active.runs, sum.candidate.failed, sum.candidate.fuel), (18, 2, 20));
    let samples = Tally { samples: vec![1.into(); 15], changed: 15, ..Tally::default() };
    for _ in 0..2 {
        world.store.count_rollout(tenant, id, Kind::Shadow, shadow.number, &samples).await?;
    }
    let under_way = world.store.rollouts(tenant, id).await?;
    assert_eq!((under_way[1].tally.changed, under_way[1].tally.samples.len()), (30, crate::releases::SAMPLES_MAX));
    let snapshot = world.store.snapshot(tenant).await?;
    let seen: Vec<_> = snapshot.rollouts.iter().map(|(rollout, version)| (rollout.kind, version.number)).collect();
    assert_eq!(seen, [(Kind::Canary, 2), (Kind::Shadow, 3)]);
    let ended = world.store.end_rollout(tenant, "p", Kind::Canary, &ending(Some(canary.number))).await?;
    assert_eq!(ended.map(|ended| ended.tally), Some(sum));
    assert_eq!(world.store.count_rollout(tenant, id, Kind::Canary, canary.number, &more).await?, None);
    assert_eq!(world.store.end_rollout(tenant, "p", Kind::Canary, &ending(None)).await?, None);
    world.store.end_rollout(tenant, "p", Kind::Shadow, &ending(None)).await?.expect("because it is under way");
    let history = world.store.history(tenant, "p", None, 10).await?;
    let told: Vec<_> = history.iter().map(|entry| (entry.action, entry.version)).collect();
    let expected = [
        (Action::ShadowEnded, 3),
        (Action::CanaryEnded, 2),
        (Action::ShadowStarted, 3),
        (Action::CanaryStarted, 2),
        (Action::Activated, 1),
    ];
    assert_eq!(told, expected);
    let detail: serde_json::Value = serde_json::from_str(&history[1].detail).expect("because it is JSON");
    assert_eq!((&detail["reason"], &detail["tally"]["candidate"]["failed"]), (&"enough".into(), &2.into()));
    assert_eq!((history[3].detail.as_str(), history[3].number), ("{\"a\":1}", canary.number));
    Ok(())
}

pub async fn of_many_that_end_a_candidate_one_does(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    let first = world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{}", &by()).await?;
    let end = ending(Some(first.number));
    let ends = (0..8).map(|_| world.store.end_rollout(tenant, "p", Kind::Canary, &end));
    let ended = futures_util::future::try_join_all(ends).await?;
    assert_eq!(ended.iter().flatten().count(), 1);
    let second = world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{}", &by()).await?;
    assert_eq!(world.store.end_rollout(tenant, "p", Kind::Canary, &end).await?, None, "another one is meant");
    let id = second.plugin;
    assert_eq!(world.store.count_rollout(tenant, id, Kind::Canary, first.number, &Tally::default()).await?, None);
    assert_eq!(world.store.rollouts(tenant, id).await?.len(), 1);
    Ok(())
}

pub async fn a_promoted_candidate_is_active(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{}", &by()).await?;
    let end = Ending { promote: true, ..ending(None) };
    world.store.end_rollout(tenant, "p", Kind::Canary, &end).await?;
    let (plugin, _) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    assert_eq!((plugin.active, plugin.previous), (Some(2), Some(1)));
    // A candidate that is activated otherwise ends as well.
    world.store.start_rollout(tenant, "p", Kind::Shadow, 3, "{}", &by()).await?;
    world.store.switch_version(tenant, "p", &to(3)).await?;
    assert!(world.store.rollouts(tenant, plugin.id).await?.is_empty());
    let history = world.store.history(tenant, "p", None, 5).await?;
    let told: Vec<_> = history.iter().map(|entry| (entry.action, entry.version)).collect();
    let expected = [
        (Action::ShadowEnded, 3),
        (Action::Activated, 3),
        (Action::ShadowStarted, 3),
        (Action::Activated, 2),
        (Action::CanaryEnded, 2),
    ];
    assert_eq!(told, expected);
    Ok(())
}

fn preview(version: u32, against: Option<u32>, hour: i64, counts: (u64, u64, u64)) -> Preview {
    let (runs, new_failures, changed) = counts;
    let counts = proof::Counts { runs, new_failures, changed };
    Preview { version, against, author: "key_1".to_owned(), at: hours(hour), counts }
}

fn hours(hour: i64) -> Timestamp {
    Timestamp(hour * 3_600_000_000)
}

pub async fn a_version_needs_the_preview_that_its_plugin_asks_for(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    let policy = ReleasePolicy { require_preview: Some(RequirePreview { min_runs: 10, ..RequirePreview::default() }) };
    world.store.set_release_policy(tenant, "p", &policy, &by()).await?;
    world.store.set_release_policy(tenant, "p", &policy, &by()).await?;
    world.restart().await;
    let (plugin, _) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    assert_eq!(plugin.policy, policy);
    let now = Act::by("key_2", hours(30));
    let switch = async |world: &World, version: u32| match world
        .store
        .switch_version(tenant, "p", &Switch::to(version, now.clone()))
        .await
    {
        Err(Error::Unproven { version: found, lack, .. }) if found == version => Some(lack),
        other => {
            assert_eq!(other.expect("because it is proven").active, Some(version));
            None
        }
    };
    assert_eq!(switch(world, 2).await, Some(Lack::None));
    // Against another version than the active one, too old, too few, failing: none of these is enough.
    for (preview, lack) in [
        (preview(2, None, 30, (10, 0, 0)), Lack::None),
        (preview(2, Some(3), 30, (10, 0, 0)), Lack::None),
        (preview(3, Some(1), 30, (10, 0, 0)), Lack::None),
        (preview(2, Some(1), 5, (10, 0, 0)), Lack::Old { allowed: 24 }),
        (preview(2, Some(1), 29, (9, 0, 0)), Lack::Runs { found: 9, needed: 10 }),
        (preview(2, Some(1), 29, (10, 1, 0)), Lack::NewFailures { found: 1, allowed: 0 }),
    ] {
        world.store.add_preview(tenant, "p", &preview).await?;
        assert_eq!(switch(world, 2).await, Some(lack), "{preview:?}");
    }
    let canary = async |world: &World| world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{\"a\":1}", &now).await;
    assert!(matches!(canary(world).await, Err(Error::Unproven { .. })), "a canary is for real");
    world.store.start_rollout(tenant, "p", Kind::Shadow, 2, "{}", &now).await?;
    // The last one counts.
    let enough = preview(2, Some(1), 29, (10, 0, 10));
    world.store.add_preview(tenant, "p", &enough).await?;
    canary(world).await?;
    // What it began with is enough to promote it, however long it took.
    let late = Act::by("key_2", hours(300));
    let promotion = Ending { promote: true, act: late.clone(), ..ending(None) };
    assert!(world.store.end_rollout(tenant, "p", Kind::Canary, &promotion).await?.is_some());
    let history = world.store.history(tenant, "p", None, 9).await?;
    let proven = |action: Action| {
        let entry = history.iter().find(|entry| entry.action == action).expect("because it was done");
        let detail: serde_json::Value = serde_json::from_str(&entry.detail).expect("because it is JSON");
        serde_json::from_value::<Preview>(detail["preview"].clone()).ok()
    };
    assert_eq!((proven(Action::Activated), proven(Action::CanaryStarted)), (Some(enough.clone()), Some(enough)));
    assert_eq!(proven(Action::ShadowStarted), None);
    assert_eq!(history.iter().filter(|entry| entry.action == Action::PolicyChanged).count(), 1);
    // The way back is free; another version is not.
    assert_eq!(world.store.switch_version(tenant, "p", &Switch::back(late.clone())).await?.active, Some(1));
    let named = Switch { back: true, ..Switch::to(3, late.clone()) };
    assert!(matches!(world.store.switch_version(tenant, "p", &named).await, Err(Error::Unproven { .. })));
    let previews = world.store.previews(tenant, plugin.id).await?;
    let seen: Vec<_> = previews.iter().map(|preview| (preview.version, preview.against)).collect();
    assert_eq!(seen, [(3, Some(1)), (2, None), (2, Some(3)), (2, Some(1))]);
    // What is asked becomes more by anybody, and less only by those who may agree.
    let less = ReleasePolicy::default();
    let refused = world.store.set_release_policy(tenant, "p", &less, &late).await;
    assert!(matches!(refused, Err(Error::Weaker { .. })), "{refused:?}");
    world.store.set_release_policy(tenant, "p", &less, &late.clone().consenting(true)).await?;
    assert_eq!(switch(world, 3).await, None);
    let other = world.tenant("b").await?;
    assert!(world.store.previews(other, plugin.id).await?.is_empty());
    let foreign = world.store.add_preview(other, "p", &preview(2, Some(1), 1, (1, 0, 0))).await;
    assert!(matches!(foreign, Err(Error::NotFound { .. })));
    let foreign = world.store.set_release_policy(other, "p", &policy, &by()).await;
    assert!(matches!(foreign, Err(Error::NotFound { .. })));
    Ok(())
}

pub async fn what_the_operator_asks_counts_beside_what_the_plugin_asks(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    let asks =
        |min_runs| ReleasePolicy { require_preview: Some(RequirePreview { min_runs, ..RequirePreview::default() }) };
    let before = world.store.snapshot(tenant).await?.tenant;
    world.store.set_asks(tenant, &asks(10)).await?;
    world.restart().await;
    let after = world.store.snapshot(tenant).await?.tenant;
    assert_eq!((before.asks, after.asks), (ReleasePolicy::default(), asks(10)));
    assert!(after.settings > before.settings);
    let now = Act::by("key_2", hours(30)).consenting(true);
    let lacking = |refused: Option<Error>| match refused {
        Some(Error::Unproven { lack, .. }) => lack,
        other => panic!("it is refused otherwise: {other:?}"),
    };
    let switch =
        async |world: &World, act: &Act| world.store.switch_version(tenant, "p", &Switch::to(2, act.clone())).await;
    assert_eq!(lacking(switch(world, &now).await.err()), Lack::None, "whoever may agree is bound, too");
    world.store.add_preview(tenant, "p", &preview(2, Some(1), 29, (9, 0, 0))).await?;
    // The plugin asks for less, and that changes nothing.
    world.store.set_release_policy(tenant, "p", &asks(1), &now).await?;
    assert_eq!(lacking(switch(world, &now).await.err()), Lack::Runs { found: 9, needed: 10 });
    world.store.add_preview(tenant, "p", &preview(2, Some(1), 29, (10, 0, 0))).await?;
    // The host may ask for more of all.
    let strict = now.clone().asking(asks(20));
    assert_eq!(lacking(switch(world, &strict).await.err()), Lack::Runs { found: 10, needed: 20 });
    let canary =
        async |world: &World, act: &Act| world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{}", act).await;
    assert_eq!(lacking(canary(world, &strict).await.err()), Lack::Runs { found: 10, needed: 20 });
    canary(world, &now).await?;
    let promotion = |act: &Act| Ending { promote: true, act: act.clone(), ..ending(None) };
    let refused = world.store.end_rollout(tenant, "p", Kind::Canary, &promotion(&strict)).await;
    assert_eq!(lacking(refused.err()), Lack::Runs { found: 10, needed: 20 });
    world.store.end_rollout(tenant, "p", Kind::Canary, &promotion(&now)).await?.expect("because it is under way");
    // The way back is free.
    assert_eq!(world.store.switch_version(tenant, "p", &Switch::back(strict)).await?.active, Some(1));
    // Others are asked for nothing.
    let other = world.tenant("b").await?;
    for digest in ["1", "2"] {
        world.store.add_version(other, "p", &version(digest), at(1)).await?;
    }
    assert_eq!(world.store.switch_version(other, "p", &to(2)).await?.active, Some(2));
    Ok(())
}

pub async fn retired_versions_are_bounded(world: &mut World) -> Result<()> {
    let (tenant, other) = (world.tenant("a").await?, world.tenant("b").await?);
    for digest in ["1", "2", "3", "4", "5", "6", "7"] {
        world.store.add_version(tenant, "p", &version(digest), at(1)).await?;
    }
    // Others have some of these components, too.
    world.store.add_version(other, "p", &version("2"), at(1)).await?;
    world.store.add_version(tenant, "q", &version("3"), at(1)).await?;
    for number in [1, 5, 6] {
        world.store.switch_version(tenant, "p", &to(number)).await?;
    }
    world.store.add_preview(tenant, "p", &preview(1, Some(5), 1, (1, 0, 0))).await?;
    world.store.add_preview(tenant, "p", &preview(6, Some(5), 1, (1, 0, 0))).await?;
    let event = world.append(vec![world.event(tenant, "e")]).await?.remove(0);
    let waits = Unfinished {
        pins: BTreeMap::from([("p".to_owned(), 2), ("q".to_owned(), 3)]),
        ..unfinished(&event, "rule", Waiting::Retry(at(5)))
    };
    world.change(tenant, vec![UnfinishedChange::Put(waits)]).await?;
    let retire = async |world: &World, number: u32, kept: u32| {
        world.store.retire(tenant, "p", number, kept, &by()).await?;
        let heads = world.store.versions(tenant, "p", None, 9).await?;
        Ok::<_, Error>(heads.into_iter().map(|head| head.number).collect::<Vec<_>>())
    };
    let has = async |world: &World, whose: TenantId, digest: &str| {
        Ok::<_, Error>(world.store.component(whose, &format!("sha256:{digest}")).await?.is_some())
    };
    assert_eq!(retire(world, 5, 1).await?, [7, 6, 5, 4, 3, 2, 1], "so many are kept");
    assert_eq!(
        retire(world, 2, 1).await?,
        [7, 6, 5, 4, 3, 1],
        "what was active before stays, what a run began with goes"
    );
    assert_eq!(retire(world, 1, 1).await?, [7, 6, 5, 4, 3]);
    assert!(!has(world, tenant, "1").await?, "its component is nobody's");
    assert_eq!(retire(world, 3, 1).await?, [7, 6, 5, 4]);
    assert!(has(world, tenant, "3").await?, "another plugin has its component");
    world.change(tenant, vec![end(&event, "rule")]).await?;
    assert_eq!(retire(world, 7, 1).await?, [7, 6, 5, 4], "not the newest, from which the next one's number follows");
    assert_eq!((has(world, tenant, "2").await?, has(world, other, "2").await?), (false, true));
    world.restart().await;
    // What is not there any more is told apart from what never was.
    let gone = |refused: Option<Error>| match refused {
        Some(Error::LetGo { plugin, version }) => (plugin, version),
        other => panic!("it is refused otherwise: {other:?}"),
    };
    assert_eq!(gone(world.store.switch_version(tenant, "p", &to(1)).await.err()), ("p".to_owned(), 1));
    assert_eq!(gone(world.store.approve(tenant, "p", 3, &by()).await.err()), ("p".to_owned(), 3));
    assert_eq!(gone(start(world, tenant, Kind::Shadow, 2).await.err()), ("p".to_owned(), 2));
    for number in [0, 8] {
        let never = world.store.switch_version(tenant, "p", &to(number)).await;
        assert!(matches!(never, Err(Error::NotFound { .. })), "{number}: {never:?}");
    }
    assert!(world.store.version(tenant, "p", 1).await?.is_none());
    let history = world.store.history(tenant, "p", None, 99).await?;
    let retired: Vec<_> = history.iter().filter(|entry| entry.action == Action::Retired).collect();
    assert_eq!(retired.iter().map(|entry| entry.version).collect::<Vec<_>>(), [7, 3, 1, 2, 5], "the history stays");
    let plugin = world.store.plugin(tenant, "p").await?.expect("because it was added").0.id;
    let previews = world.store.previews(tenant, plugin).await?;
    assert_eq!(previews.iter().map(|preview| preview.version).collect::<Vec<_>>(), [6]);
    // An upload lets go as well. What comes back is a new version.
    let room = Room { retired: 1, ..Room::default() };
    for (digest, left) in [("1", &[8, 7, 6, 5, 4][..]), ("9", &[9, 8, 6, 5, 4])] {
        world.store.add_version(tenant, "p", &NewVersion { room, ..version(digest) }, at(9)).await?;
        let heads = world.store.versions(tenant, "p", None, 9).await?;
        assert_eq!(heads.into_iter().map(|head| head.number).collect::<Vec<_>>(), left);
    }
    assert!(has(world, tenant, "1").await?);
    // Nothing holds what was active long ago.
    world.store.switch_version(tenant, "p", &to(8)).await?;
    assert_eq!(retire(world, 4, 0).await?, [9, 8, 6]);
    Ok(())
}

pub async fn runs_remember_the_versions_that_they_began_with(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
    let pins = BTreeMap::from([("p".to_owned(), 2), ("q".to_owned(), 1)]);
    let run = |event: &Logged, pins: &BTreeMap<String, u32>| {
        let waiting = Waiting::Retry(at(5));
        UnfinishedChange::Put(Unfinished { pins: pins.clone(), ..unfinished(event, "rule", waiting) })
    };
    let none = BTreeMap::new();
    world.change(tenant, vec![run(&events[0], &pins), run(&events[1], &none)]).await?;
    world.restart().await;
    let pinned = |due: &[crate::work::Due]| due.iter().map(|due| due.run.pins.clone()).collect::<Vec<_>>();
    assert_eq!(pinned(&world.batch(tenant, at(6)).await?.due), [pins, none.clone()]);
    world.change(tenant, vec![run(&events[0], &none)]).await?;
    assert_eq!(pinned(&world.batch(tenant, at(6)).await?.due), [none.clone(), none], "what is put last counts");
    Ok(())
}

pub async fn what_plugins_are_allowed_is_kept(world: &mut World) -> Result<()> {
    let (tenant, other) = (world.tenant("a").await?, world.tenant("b").await?);
    let before = world.store.snapshot(tenant).await?.tenant;
    assert_eq!(before.policy, TenantPolicy::default());
    let policy: TenantPolicy =
        serde_json::from_str(r#"{"grants":{"emit":["a.*"],"schedule":false}}"#).expect("because it is one");
    world.store.set_policy(tenant, &policy).await?;
    world.restart().await;
    let after = world.store.snapshot(tenant).await?.tenant;
    assert_eq!((after.policy, after.settings > before.settings), (policy, true));
    assert_eq!(world.store.snapshot(other).await?.tenant.policy, TenantPolicy::default());
    Ok(())
}

pub async fn decisions_are_the_tenants_own(world: &mut World) -> Result<()> {
    let tenant = three(world).await?;
    let other = world.tenant("b").await?;
    world.store.switch_version(tenant, "p", &to(1)).await?;
    let canary = world.store.start_rollout(tenant, "p", Kind::Canary, 2, "{}", &by()).await?;
    assert!(matches!(world.store.history(other, "p", None, 9).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.approve(other, "p", 1, &by()).await, Err(Error::NotFound { .. })));
    assert!(world.store.version(other, "p", 1).await?.is_none());
    assert!(world.store.rollouts(other, canary.plugin).await?.is_empty());
    let tally = Tally::default();
    assert_eq!(world.store.count_rollout(other, canary.plugin, Kind::Canary, canary.number, &tally).await?, None);
    let started = world.store.start_rollout(other, "p", Kind::Shadow, 2, "{}", &by()).await;
    assert!(matches!(started, Err(Error::NotFound { .. })));
    let ended = world.store.end_rollout(other, "p", Kind::Canary, &ending(None)).await;
    assert!(matches!(ended, Err(Error::NotFound { .. })));
    assert!(world.store.snapshot(other).await?.rollouts.is_empty());
    Ok(())
}
