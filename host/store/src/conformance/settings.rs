//! Rules, sinks, secrets, and the version of all settings.

use bulkhead_domain::id::TenantId;

use super::plugins::KEPT;
use super::plugins::back;
use super::plugins::by;
use super::plugins::to;
use super::plugins::version;
use super::world::World;
use super::world::at;
use crate::Error;
use crate::Result;
use crate::catalogue::TenantState;

pub async fn rule_sets_are_numbered_and_kept(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let empty = world.store.rules(tenant).await?;
    assert_eq!((empty.number, &*empty.rules), (0, "[]"));
    for number in 1..=4 {
        let rules = format!("[{number}]");
        let put = world.store.put_rules(tenant, number - 1, &rules, "key_1", "why", at(number)).await?;
        assert_eq!((put.number, put.rules), (number, rules));
    }
    let current = world.store.rules(tenant).await?;
    assert_eq!((current.number, &*current.author, &*current.note, current.created), (4, "key_1", "why", at(4)));
    let old = world.store.rule_set(tenant, 2).await?.expect("because rule sets are kept");
    assert_eq!((old.number, &*old.rules), (2, "[2]"));
    // Restoring an old one is a new number with its text.
    let restored = world.store.put_rules(tenant, 4, &old.rules, "key_1", "restores 2", at(5)).await?;
    assert_eq!((restored.number, world.store.rules(tenant).await?.rules), (5, old.rules));
    let numbers = |sets: Vec<crate::catalogue::RuleSetRow>| sets.iter().map(|set| set.number).collect::<Vec<_>>();
    assert_eq!(numbers(world.store.rule_sets(tenant, None, 2).await?), [5, 4]);
    assert_eq!(numbers(world.store.rule_sets(tenant, Some(4), 10).await?), [3, 2, 1]);
    assert!(world.store.rule_set(tenant, 9).await?.is_none());
    let nobody = world.store.rules(TenantId(tenant.0 + 1_000)).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}

pub async fn an_edit_of_an_old_rule_set_is_refused(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.store.put_rules(tenant, 0, "[1]", "", "", at(1)).await?;
    for expected in [0, 2, -1] {
        let put = world.store.put_rules(tenant, expected, "[2]", "", "", at(2)).await;
        assert!(matches!(put, Err(Error::Conflict { .. })), "expected {expected}");
    }
    assert_eq!(world.store.rules(tenant).await?.rules, "[1]");
    assert_eq!(world.store.rule_sets(tenant, None, 10).await?.len(), 1);
    let nobody = world.store.put_rules(TenantId(tenant.0 + 1_000), 0, "[]", "", "", at(1)).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}

pub async fn one_of_many_edits_at_once_wins(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let tasks: Vec<_> = (0..10)
        .map(|number| {
            let store = world.store.clone();
            tokio::spawn(async move { store.put_rules(tenant, 0, &format!("[{number}]"), "", "", at(1)).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.expect("because it does not panic").ok());
    }
    assert_eq!(won.len(), 1);
    assert_eq!(world.store.rules(tenant).await?.rules, won[0].rules);
    Ok(())
}

pub async fn sinks_are_replaced_and_deleted(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.store.put_sink(tenant, "b", "{\"url\":1}", at(1)).await?;
    world.store.put_sink(tenant, "a", "{}", at(1)).await?;
    world.store.put_sink(tenant, "b", "{\"url\":2}", at(2)).await?;
    let sinks = world.store.sinks(tenant).await?;
    let shown: Vec<_> = sinks.iter().map(|sink| (&*sink.name, &*sink.spec, sink.updated)).collect();
    assert_eq!(shown, [("a", "{}", at(1)), ("b", "{\"url\":2}", at(2))]);
    assert!(world.store.delete_sink(tenant, "a", at(3)).await?);
    assert!(!world.store.delete_sink(tenant, "a", at(3)).await?);
    assert_eq!(world.store.sinks(tenant).await?.len(), 1);
    Ok(())
}

pub async fn secrets_count_their_versions(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let put = |version, sealed: &'static [u8]| {
        let store = world.store.clone();
        async move { store.put_secret(tenant, "s", version, sealed, at(1)).await }
    };
    for wrong in [0, 2] {
        assert!(matches!(put(wrong, b"no").await, Err(Error::Conflict { .. })));
    }
    put(1, b"one").await?;
    assert!(matches!(put(1, b"no").await, Err(Error::Conflict { .. })));
    put(2, b"two").await?;
    let secrets = world.store.secrets(tenant).await?;
    assert_eq!(secrets.len(), 1);
    assert_eq!((&*secrets[0].name, secrets[0].version, &secrets[0].sealed[..]), ("s", 2, &b"two"[..]));
    assert!(world.store.delete_secret(tenant, "s").await?);
    assert!(!world.store.delete_secret(tenant, "s").await?);
    put(1, b"anew").await?;
    Ok(())
}

/// Every change of something that dispatch reads is seen in the next batch's number, and in the snapshot.
pub async fn every_change_raises_the_settings(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let other = world.tenant("b").await?;
    let untouched = world.batch(other, at(0)).await?.settings;
    let mut last = world.batch(tenant, at(0)).await?.settings;
    let store = world.store.clone();
    for change in 0..13 {
        match change {
            0 => _ = store.add_version(tenant, "p", &version("1"), at(1)).await?,
            1 => _ = store.switch_version(tenant, "p", &to(1)).await?,
            2 => {
                _ = (
                    store.add_version(tenant, "p", &version("2"), at(1)).await?,
                    store.switch_version(tenant, "p", &to(2)).await?,
                )
            }
            3 => _ = store.switch_version(tenant, "p", &back()).await?,
            4 => store.retire(tenant, "p", 2, KEPT, &by()).await?,
            5 => store.pause_plugin(tenant, "p", true).await?,
            6 => store.set_config(tenant, "p", "{\"a\":1}").await?,
            7 => _ = store.put_rules(tenant, 0, "[1]", "", "", at(1)).await?,
            8 => store.pause_rule(tenant, "rule", true).await?,
            9 => store.put_sink(tenant, "sink", "{}", at(1)).await?,
            10 => _ = store.delete_sink(tenant, "sink", at(1)).await?,
            11 => store.put_secret(tenant, "secret", 1, b"sealed", at(1)).await?,
            _ => store.set_tenant_state(tenant, TenantState::Paused).await?,
        }
        let now = world.batch(tenant, at(0)).await?.settings;
        assert!(now > last, "change {change}");
        last = now;
    }
    let snapshot = store.snapshot(tenant).await?;
    assert_eq!((snapshot.tenant.settings, snapshot.tenant.state), (last, TenantState::Paused));
    assert_eq!((snapshot.rule_set.number, &snapshot.paused_rules[..]), (1, &["rule".to_owned()][..]));
    let (plugin, active) = &snapshot.plugins[0];
    assert_eq!((plugin.active, plugin.paused, active.as_ref().map(|active| active.number)), (Some(1), true, Some(1)));
    assert_eq!((snapshot.sinks.len(), snapshot.secrets.len()), (0, 1));
    store.pause_rule(tenant, "rule", false).await?;
    assert!(store.delete_secret(tenant, "secret").await?);
    let snapshot = store.snapshot(tenant).await?;
    assert!(snapshot.tenant.settings > last && snapshot.paused_rules.is_empty() && snapshot.secrets.is_empty());
    assert_eq!(world.batch(other, at(0)).await?.settings, untouched, "another tenant's are its own");
    let nobody = store.snapshot(TenantId(tenant.0 + 1_000)).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}

pub async fn the_hosts_own_values_are_set_once(world: &mut World) -> Result<()> {
    assert_eq!(world.store.host_value("effects").await?, None);
    let tasks: Vec<_> = (0..10_u8)
        .map(|number| {
            let store = world.store.clone();
            tokio::spawn(async move { store.host_value_or("effects", &[number]).await })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.expect("because it does not panic")?);
    }
    assert!(seen.iter().all(|value| *value == seen[0]), "everybody sees the one that was first");
    world.restart().await;
    assert_eq!(world.store.host_value("effects").await?.as_ref(), Some(&seen[0]));
    assert_eq!(world.store.host_value_or("other", b"").await?, b"");
    Ok(())
}

pub async fn settings_are_there_after_a_restart(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.store.put_rules(tenant, 0, "[1]", "", "", at(1)).await?;
    world.store.pause_rule(tenant, "rule", true).await?;
    world.store.put_sink(tenant, "sink", "{}", at(1)).await?;
    world.store.put_secret(tenant, "secret", 1, b"sealed", at(1)).await?;
    world.store.add_version(tenant, "p", &version("1"), at(1)).await?;
    let before = world.store.snapshot(tenant).await?;
    world.restart().await;
    let after = world.store.snapshot(tenant).await?;
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert_eq!(world.batch(tenant, at(0)).await?.settings, after.tenant.settings);
    Ok(())
}
