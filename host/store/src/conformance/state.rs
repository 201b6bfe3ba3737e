//! Plugins' keys and values.

use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use super::world::World;
use super::world::at;
use super::world::write;
use crate::Result;
use crate::Store;
use crate::work::Commit;
use crate::work::Committed;
use crate::work::StateRead;

const PLUGIN: PluginId = PluginId(1);

async fn version(world: &World, tenant: TenantId, key: &str) -> Result<Option<i64>> {
    Ok(world.store.state(tenant, PLUGIN, key).await?.map(|state| state.version))
}

pub async fn versions_only_grow(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    assert_eq!(version(world, tenant, "k").await?, None);
    let first = world.write(tenant, PLUGIN, &[("k", Some("1")), ("l", Some("1"))]).await?;
    assert!(first > 0);
    assert_eq!(version(world, tenant, "k").await?, Some(first));
    assert_eq!(version(world, tenant, "l").await?, Some(first), "one commit, one version");
    let second = world.write(tenant, PLUGIN, &[("k", Some("1"))]).await?;
    assert!(second > first, "also with the same value");
    world.write(tenant, PLUGIN, &[("k", None)]).await?;
    assert_eq!(version(world, tenant, "k").await?, None);
    world.restart().await;
    let third = world.write(tenant, PLUGIN, &[("k", Some(""))]).await?;
    assert!(third > second, "also over deletion and restart");
    let state = world.store.state(tenant, PLUGIN, "k").await?.expect("because it was written");
    assert_eq!(state.value, Bytes::new(), "an empty value is a value");
    assert_eq!(world.store.state(tenant, PluginId(2), "k").await?, None, "another plugin has its own");
    Ok(())
}

pub async fn keys_are_listed_in_order(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let keys = ["a", "a/", "a/1", "a/10", "a/2", "a/é", "a0", "b", "é", "\u{10ffff}x"];
    world.write(tenant, PLUGIN, &keys.map(|key| (key, Some("1")))).await?;
    world.write(tenant, PluginId(2), &[("a/other", Some("1"))]).await?;
    for (prefix, after, limit, expected) in [
        ("", None, 100, &keys[..]),
        ("a/", None, 100, &["a/", "a/1", "a/10", "a/2", "a/é"][..]),
        ("a/", None, 2, &["a/", "a/1"]),
        ("a/", Some("a/1"), 2, &["a/10", "a/2"]),
        ("a/", Some("a/11"), 2, &["a/2", "a/é"]),
        ("a/", Some(""), 2, &["a/", "a/1"]),
        ("a/", Some("b"), 2, &[]),
        ("\u{10ffff}", None, 2, &["\u{10ffff}x"]),
        ("c", None, 100, &[]),
        ("a", None, 0, &[]),
    ] {
        let listed = world.store.state_keys(tenant, PLUGIN, prefix, after, limit).await?;
        assert_eq!(listed, expected, "{prefix:?} after {after:?}");
    }
    Ok(())
}

pub async fn expired_values_go(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut commit = world.commit(tenant).await?;
    for (key, expires) in [("1", Some(at(10))), ("2", Some(at(20))), ("3", Some(at(30))), ("never", None)] {
        let mut write = write(PLUGIN, key, Some("value"));
        write.expires = expires;
        commit.writes.push(write);
    }
    let version = world.done(commit).await?;
    let state = world.store.state(tenant, PLUGIN, "1").await?.expect("because it was written");
    assert_eq!((state.expires, state.version), (Some(at(10)), version));
    assert_eq!(world.store.host_expire_state(at(9), 100).await?, 0);
    assert_eq!(world.store.host_expire_state(at(25), 1).await?, 1, "at most as many as asked for, first ones first");
    assert_eq!(world.store.state(tenant, PLUGIN, "1").await?, None);
    assert_eq!(world.store.host_expire_state(at(25), 100).await?, 1);
    assert_eq!(world.store.state_keys(tenant, PLUGIN, "", None, 100).await?, ["3", "never"]);
    // Who read it before it went has to read again.
    let mut commit = world.commit(tenant).await?;
    commit.reads = vec![StateRead::Key { plugin: PLUGIN, key: "1".into(), version }];
    assert_eq!(world.store.commit(commit).await?, Committed::Conflict);
    // A write without an end takes the end away.
    world.write(tenant, PLUGIN, &[("3", Some("again"))]).await?;
    assert_eq!(world.store.host_expire_state(at(1_000), 100).await?, 0);
    Ok(())
}

/// New keys, old ones, and keys that come again, in one commit and over several.
pub async fn a_key_that_went_comes_again(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.write(tenant, PLUGIN, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]).await?;
    for round in ["2", "3", "4"] {
        world.write(tenant, PLUGIN, &[("a", None), ("b", Some(round)), ("none", None)]).await?;
        assert_eq!(world.store.state_keys(tenant, PLUGIN, "", None, 100).await?, ["b", "c"]);
        let new = format!("new in {round}");
        let last = world.write(tenant, PLUGIN, &[(&new, Some(round)), ("a", Some(round)), ("c", None)]).await?;
        let state = world.store.state(tenant, PLUGIN, "a").await?.expect("because it came again");
        assert_eq!((&state.value[..], state.version), (round.as_bytes(), last));
        assert_eq!(world.store.state(tenant, PLUGIN, "c").await?, None);
        world.write(tenant, PLUGIN, &[("c", Some(round)), (&new, None)]).await?;
        let state = world.store.state(tenant, PLUGIN, "b").await?.expect("because it was written");
        assert_eq!(state.value, round);
        assert_eq!(world.store.state_keys(tenant, PLUGIN, "", None, 100).await?, ["a", "b", "c"]);
        assert_eq!(world.store.state_bytes(tenant).await?, 6);
    }
    // What has gone by its time comes again as well, under the same key of another plugin's as before.
    world.write(tenant, PluginId(2), &[("a", Some("other"))]).await?;
    let mut commit = world.commit(tenant).await?;
    commit.writes = vec![StateWrite { expires: Some(at(10)), ..write(PLUGIN, "a", Some("short")) }];
    world.done(commit).await?;
    assert_eq!(world.store.host_expire_state(at(10), 100).await?, 1);
    assert_eq!(version(world, tenant, "a").await?, None);
    let last = world.write(tenant, PLUGIN, &[("a", Some("again"))]).await?;
    assert_eq!(version(world, tenant, "a").await?, Some(last));
    let other = world.store.state(tenant, PluginId(2), "a").await?.expect("because it was written");
    assert_eq!(other.value, "other");
    Ok(())
}

pub async fn increments_at_once_are_all_counted(world: &mut World) -> Result<()> {
    const EACH: u32 = 15;
    let tenant = world.tenant("a").await?;
    let mut tasks = Vec::new();
    for shard in (0..world.store.host_shards()).map(Shard) {
        let mut commit = world.commit_of(tenant, Position::ZERO, Position::ZERO);
        (commit.shard, commit.fence) = (shard, world.fence(shard));
        let store = world.store.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                while !increment(&store, commit.clone()).await? {}
            }
            Ok::<_, crate::Error>(())
        }));
    }
    let expected = tasks.len() as u32 * EACH;
    for task in tasks {
        task.await.expect("because a commit does not panic")?;
    }
    let state = world.store.state(tenant, PLUGIN, "count").await?.expect("because it was written");
    assert_eq!(state.value, expected.to_string());
    Ok(())
}

pub async fn bytes_are_counted_per_tenant(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    assert_eq!(world.store.state_bytes(a).await?, 0);
    world.write(a, PLUGIN, &[("k", Some("123")), ("é", Some("")), ("gone", Some("x"))]).await?;
    world.write(a, PluginId(2), &[("k", Some("12345"))]).await?;
    world.write(a, PLUGIN, &[("gone", None)]).await?;
    assert_eq!(world.store.state_bytes(a).await?, 4 + 2 + 6);
    assert_eq!(world.store.state_bytes(b).await?, 0);
    Ok(())
}

/// Reads, adds one, writes; false if somebody else was faster.
async fn increment(store: &Store, mut commit: Commit) -> Result<bool> {
    let before = store.state(commit.tenant, PLUGIN, "count").await?;
    let (value, version) = before.map_or((0, 0), |before| {
        let value: u32 = String::from_utf8_lossy(&before.value).parse().expect("because a number was written");
        (value, before.version)
    });
    commit.reads = vec![StateRead::Key { plugin: PLUGIN, key: "count".into(), version }];
    commit.writes = vec![write(PLUGIN, "count", Some(&(value + 1).to_string()))];
    match store.commit(commit).await? {
        Committed::Done { .. } => Ok(true),
        Committed::Conflict => Ok(false),
        Committed::Fenced => panic!("the fence is right"),
    }
}
