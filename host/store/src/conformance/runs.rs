//! Runs as people see them.

use std::collections::HashSet;

use bulkhead_domain::effect::Level;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::at;
use super::world::put;
use super::world::record;
use super::world::unfinished;
use crate::Result;
use crate::work::ParkedFilter;
use crate::work::RunQuery;
use crate::work::RunRecord;
use crate::work::RunState;
use crate::work::RunView;
use crate::work::UnfinishedChange;
use crate::work::Waiting;

async fn ended(world: &World, tenant: TenantId, runs: Vec<RunRecord>) -> Result<()> {
    let mut commit = world.commit(tenant).await?;
    commit.runs = runs;
    world.done(commit).await?;
    Ok(())
}

fn all() -> RunQuery {
    RunQuery { limit: 100, ..RunQuery::default() }
}

/// Event and rule of each.
fn names(views: &[RunView]) -> Vec<String> {
    views
        .iter()
        .map(|view| {
            let of_record = view.record.as_ref().map(|record| &record.rule);
            let rule = of_record.or(view.unfinished.as_ref().map(|run| &run.rule));
            format!("{}-{}", view.event_id, rule.map_or("", |rule| rule))
        })
        .collect()
}

async fn three(world: &World, tenant: TenantId) -> Result<Vec<Logged>> {
    world.append(["1", "2", "3"].map(|id| world.event(tenant, id)).to_vec()).await
}

pub async fn the_last_attempt_stands_for_the_run(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = three(world, tenant).await?;
    ended(world, tenant, vec![record(&events[0], "rule", RunState::Retrying, 1)]).await?;
    let second = record(&events[0], "rule", RunState::Parked, 2);
    let mut commit = world.commit(tenant).await?;
    commit.runs = vec![second.clone()];
    let waits = unfinished(&events[0], "rule", Waiting::Parked);
    commit.unfinished = vec![UnfinishedChange::Put(waits.clone()), put(&events[1], "rule", Waiting::Held)];
    world.done(commit).await?;
    let views = world.store.runs(tenant, &all()).await?;
    assert_eq!(names(&views), ["2-rule", "1-rule"], "newest event first, also what has not begun");
    assert_eq!((&views[1].record, &views[1].unfinished), (&Some(second), &Some(waits)));
    assert_eq!(views[0].record, None);
    assert!(views[0].unfinished.as_ref().is_some_and(|run| run.waiting == Waiting::Held));
    // A redrive counts attempts anew; the newest is still the last.
    let third = record(&events[0], "rule", RunState::Done, 1);
    let mut commit = world.commit(tenant).await?;
    commit.runs = vec![third.clone()];
    commit.unfinished = vec![super::world::end(&events[0], "rule")];
    world.done(commit).await?;
    let views = world.store.runs(tenant, &RunQuery { position: Some(events[0].position), ..all() }).await?;
    assert_eq!(views.len(), 1);
    assert_eq!((&views[0].record, &views[0].unfinished), (&Some(third), &None));
    Ok(())
}

pub async fn attempts_are_oldest_first_with_logs(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = three(world, tenant).await?;
    let mut first = record(&events[0], "rule", RunState::Retrying, 1);
    first.logs = vec![
        LogLine { level: Level::Warn, message: "one \"two\"\n".into(), fields: vec![("a".into(), "ü".into())] },
        LogLine { level: Level::Info, message: String::new(), fields: vec![] },
    ];
    let mut second = record(&events[0], "rule", RunState::Done, 2);
    second.plugin = None;
    second.fuel = u64::from(u32::MAX) + 5;
    ended(world, tenant, vec![first.clone()]).await?;
    let other = record(&events[0], "other", RunState::Done, 1);
    ended(world, tenant, vec![second.clone(), other.clone()]).await?;
    let run = |rule| RunId::of(events[0].event.event_key(), rule);
    assert_eq!(world.store.attempts(tenant, run("rule")).await?, [first, second]);
    assert_eq!(world.store.attempts(tenant, run("other")).await?, [other]);
    assert_eq!(world.store.attempts(tenant, run("no")).await?, []);
    Ok(())
}

pub async fn runs_are_found_by_query(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = three(world, tenant).await?;
    let of = |event: usize, rule: &str, state, plugin: &str| {
        let mut run = record(&events[event], rule, state, 1);
        run.plugin = Some((plugin.to_owned(), 1));
        run
    };
    let first = vec![
        of(0, "a", RunState::Retrying, "p"),
        of(0, "b", RunState::Done, "q"),
        of(1, "a", RunState::Parked, "p"),
        of(2, "a", RunState::Dropped, "q"),
    ];
    ended(world, tenant, first).await?;
    ended(world, tenant, vec![of(0, "a", RunState::Done, "p")]).await?;
    for (query, expected) in [
        (all(), &["3-a", "2-a", "1-b", "1-a"][..]),
        (RunQuery { rule: Some("a".into()), ..all() }, &["3-a", "2-a", "1-a"]),
        (RunQuery { plugin: Some("q".into()), ..all() }, &["3-a", "1-b"]),
        (RunQuery { state: Some(RunState::Done), ..all() }, &["1-b", "1-a"]),
        (RunQuery { state: Some(RunState::Retrying), ..all() }, &[]),
        (RunQuery { state: Some(RunState::Parked), ..all() }, &["2-a"]),
        (RunQuery { position: Some(events[0].position), ..all() }, &["1-b", "1-a"]),
        (RunQuery { before: Some(events[1].position), ..all() }, &["1-b", "1-a"]),
        (RunQuery { limit: 2, ..all() }, &["3-a", "2-a"]),
    ] {
        assert_eq!(names(&world.store.runs(tenant, &query).await?), expected, "{query:?}");
    }
    Ok(())
}

pub async fn a_page_never_splits_an_event(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = three(world, tenant).await?;
    let rules = ["a", "b", "c", "d", "e"];
    let counts = [2, 5, 2];
    let mut runs = Vec::new();
    let mut changes = Vec::new();
    for (event, count) in events.iter().zip(counts) {
        for rule in &rules[..count] {
            runs.push(record(event, rule, RunState::Parked, 1));
            changes.push(put(event, rule, Waiting::Parked));
        }
    }
    let mut commit = world.commit(tenant).await?;
    (commit.runs, commit.unfinished) = (runs, changes);
    world.done(commit).await?;
    for limit in 1..10 {
        for parked in [false, true] {
            let (mut before, mut seen) = (None, Vec::new());
            loop {
                let page = match parked {
                    true => world.store.parked(tenant, &ParkedFilter::default(), before, limit).await?,
                    false => world.store.runs(tenant, &RunQuery { before, limit, ..RunQuery::default() }).await?,
                };
                let Some(last) = page.last() else { break };
                before = last.record.as_ref().map(|record| record.position);
                seen.extend(names(&page));
            }
            let different: HashSet<_> = seen.iter().collect();
            assert_eq!((seen.len(), different.len()), (9, 9), "limit {limit}, parked: {parked}: {seen:?}");
        }
    }
    Ok(())
}

pub async fn parked_runs_are_listed_by_filter(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = three(world, tenant).await?;
    let mut commit = world.commit(tenant).await?;
    let parked = record(&events[0], "a", RunState::Parked, 3);
    commit.runs = vec![parked.clone()];
    commit.unfinished = vec![
        put(&events[0], "a", Waiting::Parked),
        put(&events[1], "a", Waiting::Retry(at(1))),
        put(&events[1], "b", Waiting::Parked),
        put(&events[2], "a", Waiting::Held),
    ];
    world.done(commit).await?;
    let views = world.store.parked(tenant, &ParkedFilter::default(), None, 10).await?;
    assert_eq!(names(&views), ["2-b", "1-a"], "newest first, parked ones only");
    assert_eq!((&views[0].record, &views[1].record), (&None, &Some(parked)));
    let filter = ParkedFilter { rule: Some("a".into()), ..ParkedFilter::default() };
    assert_eq!(names(&world.store.parked(tenant, &filter, None, 10).await?), ["1-a"]);
    let runs = vec![RunId::of(events[1].event.event_key(), "b"), RunId::of(events[1].event.event_key(), "a")];
    let filter = ParkedFilter { runs, ..ParkedFilter::default() };
    assert_eq!(names(&world.store.parked(tenant, &filter, None, 10).await?), ["2-b"]);
    let page = world.store.parked(tenant, &ParkedFilter::default(), Some(events[1].position), 10).await?;
    assert_eq!(names(&page), ["1-a"]);
    Ok(())
}
