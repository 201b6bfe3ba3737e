//! Usage: summed in the transaction of what it counts.

use std::collections::BTreeMap;

use super::world::World;
use super::world::at;
use crate::Result;
use crate::usage::UsageLine;
use crate::work::UsageDelta;

const DAY: i64 = 86_400;

fn delta(plugin: &str, rule: &str) -> UsageDelta {
    UsageDelta {
        plugin: plugin.into(),
        rule: rule.into(),
        attempts: 3,
        done: 2,
        failed: 1,
        fuel: 1 << 40,
        micros: 500,
        emitted: 4,
        deliveries: 5,
        units: BTreeMap::from([("tokens".to_owned(), 1.5)]),
    }
}

pub async fn usage_is_summed_by_day_plugin_and_rule(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for (seconds, usage) in [
        (0, vec![delta("p", "r"), delta("p", "r"), delta("", "r")]),
        (1, vec![delta("p", "r")]),
        (DAY, vec![delta("p", "r")]),
    ] {
        let mut commit = world.commit(tenant).await?;
        (commit.now, commit.usage) = (at(seconds), usage);
        world.done(commit).await?;
    }
    let line = |day, plugin: &str, times: u64| UsageLine {
        day,
        plugin: plugin.into(),
        rule: "r".into(),
        events: 0,
        attempts: 3 * times,
        done: 2 * times,
        failed: times,
        fuel: times << 40,
        micros: 500 * times,
        emitted: 4 * times,
        deliveries: 5 * times,
        units: BTreeMap::from([("tokens".to_owned(), 1.5 * times as f64)]),
    };
    let (day, next) = (at(0).day(), at(DAY).day());
    let expected = [line(day, "", 1), line(day, "p", 3), line(next, "p", 1)];
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        assert_eq!(world.store.usage(tenant, day, next).await?, expected, "restarted: {restarted}");
    }
    assert_eq!(world.store.usage(tenant, next, next).await?, expected[2..]);
    assert_eq!(world.store.usage(tenant, next + 1, next + 9).await?, []);
    // What is no number must not take a commit down.
    let mut commit = world.commit(tenant).await?;
    let units =
        BTreeMap::from([("a".to_owned(), f64::NAN), ("b".to_owned(), f64::MAX), ("c".to_owned(), f64::INFINITY)]);
    commit.usage = vec![UsageDelta { rule: "odd".into(), units, ..UsageDelta::default() }];
    world.done(commit).await?;
    Ok(())
}

pub async fn duplicates_are_not_counted(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut tomorrow = world.event(tenant, "3");
    tomorrow.recorded = at(DAY);
    world.append(vec![world.event(tenant, "1"), world.event(tenant, "2"), tomorrow]).await?;
    world.store.host_append(vec![world.event(tenant, "1"), world.event(tenant, "4")]).await?;
    let mut commit = world.commit(tenant).await?;
    commit.emits = vec![world.event(tenant, "emitted")];
    world.done(commit).await?;
    let lines = world.store.usage(tenant, at(0).day(), at(DAY).day()).await?;
    let shown: Vec<_> = lines.iter().map(|line| (line.day, &*line.plugin, &*line.rule, line.events)).collect();
    assert_eq!(shown, [(at(0).day(), "", "", 3), (at(DAY).day(), "", "", 1)]);
    Ok(())
}

/// Whatever tidying makes of the rows in between.
pub async fn accepted_events_are_each_tenants_own_count(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let day = at(0).day();
    for (round, of_a, of_b) in [(1, 1, 2), (2, 2, 4), (3, 3, 6)] {
        let event = |tenant, number| world.event(tenant, &format!("{round}-{number}"));
        world.append(vec![event(a, 1), event(b, 1), event(b, 2)]).await?;
        for tidied in [false, true, true] {
            if tidied {
                world.store.host_tidy().await?;
            }
            for (tenant, expected) in [(a, of_a), (b, of_b)] {
                let lines = world.store.usage(tenant, day, day).await?;
                let counts: Vec<_> = lines.iter().map(|line| line.events).collect();
                assert_eq!(counts, [expected], "round {round}, tidied: {tidied}");
            }
        }
    }
    Ok(())
}
