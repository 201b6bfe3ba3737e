//! Plugins and their versions.

use bytes::Bytes;

use super::world::World;
use super::world::at;
use crate::Error;
use crate::Result;
use crate::catalogue::NewVersion;
use crate::catalogue::Plugin;
use crate::catalogue::Room;
use crate::catalogue::Storage;
use crate::catalogue::Version;
use crate::releases::Act;
use crate::releases::Switch;

/// More retired versions than any case has, unless it says otherwise.
pub(super) const KEPT: u32 = 100;

/// Whoever decides here.
pub(super) fn by() -> Act {
    Act::by("key_1", at(1))
}

/// To a version.
pub(super) fn to(version: u32) -> Switch {
    Switch::to(version, by())
}

/// To the version before.
pub(super) fn back() -> Switch {
    Switch::back(by())
}

pub(super) fn version(digest: &str) -> NewVersion {
    NewVersion {
        room: Room::default(),
        digest: format!("sha256:{digest}"),
        wasm: Bytes::from(format!("wasm of {digest}")),
        manifest: "{\"name\":\"p\"}".into(),
        inspection: "{\"imports\":[]}".into(),
        grants: "{\"schedule\":false}".into(),
        author: "key_1".into(),
        approves: false,
        signature: None,
    }
}

async fn active(world: &World, tenant: bulkhead_domain::id::TenantId) -> Result<(Option<u32>, Option<u32>)> {
    let (plugin, _) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    Ok((plugin.active, plugin.previous))
}

pub async fn a_version_is_added_once(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let (first, new) = world.store.add_version(tenant, "p", &version("1"), at(1)).await?;
    assert_eq!((first.number, new, first.created, first.retired), (1, true, at(1), false));
    let (again, new) = world.store.add_version(tenant, "p", &version("1"), at(2)).await?;
    assert_eq!((again.number, new, again.created), (1, false, at(1)));
    let (second, _) = world.store.add_version(tenant, "p", &version("2"), at(3)).await?;
    let mut manifest = version("1");
    manifest.manifest = "{\"name\":\"p\",\"more\":1}".into();
    let (third, new) = world.store.add_version(tenant, "p", &manifest, at(4)).await?;
    assert_eq!((second.number, third.number, new), (2, 3, true), "another manifest is another version");
    world.store.add_version(tenant, "q", &version("1"), at(5)).await?;
    world.restart().await;
    let (plugin, active_one) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    assert!(active_one.is_none());
    let Plugin { name, active, previous, paused, config, created, .. } = plugin;
    assert_eq!((&*name, active, previous, paused, &*config, created), ("p", None, None, false, "{}", at(1)));
    let expected = version("2");
    let (_, second) = world.store.version(tenant, "p", 2).await?.expect("because it was added");
    assert_eq!(
        [&second.digest, &second.inspection, &second.grants, &second.author],
        [&expected.digest, &expected.inspection, &expected.grants, &expected.author]
    );
    let (_, third) = world.store.version(tenant, "p", 3).await?.expect("because it was added");
    assert_eq!(third.manifest, manifest.manifest);
    let all = world.store.plugins(tenant).await?;
    assert_eq!(all.iter().map(|(plugin, _)| &*plugin.name).collect::<Vec<_>>(), ["p", "q"]);
    assert!(world.store.plugin(tenant, "no").await?.is_none());
    Ok(())
}

pub async fn versions_are_activated_and_rolled_back(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for digest in ["1", "2", "3"] {
        world.store.add_version(tenant, "p", &version(digest), at(1)).await?;
    }
    assert!(
        matches!(world.store.switch_version(tenant, "p", &back()).await, Err(Error::Conflict { .. })),
        "there is none before"
    );
    assert_eq!(world.store.switch_version(tenant, "p", &to(1)).await?.active, Some(1));
    assert!(matches!(world.store.switch_version(tenant, "p", &back()).await, Err(Error::Conflict { .. })));
    let plugin = world.store.switch_version(tenant, "p", &to(3)).await?;
    assert_eq!((plugin.active, plugin.previous), (Some(3), Some(1)));
    world.store.switch_version(tenant, "p", &to(3)).await?;
    assert_eq!(active(world, tenant).await?, (Some(3), Some(1)), "the same again changes nothing");
    let plugin = world.store.switch_version(tenant, "p", &back()).await?;
    assert_eq!((plugin.active, plugin.previous), (Some(1), Some(3)));
    assert_eq!(active(world, tenant).await?, (Some(1), Some(3)));
    let later = Switch::to(3, Act::by("key_1", at(7)));
    assert_eq!(world.store.switch_version(tenant, "p", &later).await?.activated, Some(at(7)));
    let (listed, head) = world.store.plugins(tenant).await?.remove(0);
    assert_eq!((listed.active, listed.activated), (Some(3), Some(at(7))), "when it became so, the last time");
    assert_eq!(head.map(|head| (head.number, head.size)), Some((3, version("3").wasm.len() as u64)));
    for (name, number) in [("p", 9), ("no", 1)] {
        assert!(
            matches!(world.store.switch_version(tenant, name, &to(number)).await, Err(Error::NotFound { .. })),
            "{name}"
        );
    }
    assert!(matches!(world.store.switch_version(tenant, "no", &back()).await, Err(Error::NotFound { .. })));
    Ok(())
}

pub async fn a_retired_version_is_not_activated(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for digest in ["1", "2"] {
        world.store.add_version(tenant, "p", &version(digest), at(1)).await?;
    }
    world.store.switch_version(tenant, "p", &to(1)).await?;
    world.store.switch_version(tenant, "p", &to(2)).await?;
    assert!(
        matches!(world.store.retire(tenant, "p", 2, KEPT, &by()).await, Err(Error::Conflict { .. })),
        "it is active"
    );
    world.store.retire(tenant, "p", 1, KEPT, &by()).await?;
    assert!(matches!(world.store.switch_version(tenant, "p", &to(1)).await, Err(Error::Conflict { .. })));
    assert!(matches!(world.store.switch_version(tenant, "p", &back()).await, Err(Error::Conflict { .. })));
    assert!(matches!(world.store.retire(tenant, "p", 7, KEPT, &by()).await, Err(Error::NotFound { .. })));
    let versions = world.store.versions(tenant, "p", None, 9).await?;
    assert_eq!(versions.iter().map(|version| version.retired).collect::<Vec<_>>(), [false, true]);
    let (plugin, active) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    assert_eq!((plugin.active, active.map(|version| version.number)), (Some(2), Some(2)));
    Ok(())
}

pub async fn versions_are_listed_in_pages(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    for digest in ["1", "2", "3", "4", "5"] {
        world.store.add_version(a, "p", &version(digest), at(1)).await?;
        world.store.add_version(a, "other", &version(digest), at(1)).await?;
        world.store.add_version(b, "p", &version(digest), at(1)).await?;
    }
    let page = async |before| {
        let page = world.store.versions(a, "p", before, 2).await?;
        Ok::<_, Error>(page.into_iter().map(|head| head.number).collect::<Vec<_>>())
    };
    assert_eq!(page(None).await?, [5, 4], "newest first");
    assert_eq!(page(Some(4)).await?, [3, 2]);
    assert_eq!(page(Some(2)).await?, [1]);
    assert_eq!(page(Some(1)).await?, [0; 0]);
    assert!(world.store.versions(a, "no", None, 2).await?.is_empty());
    let head = world.store.versions(b, "p", Some(3), 1).await?.remove(0);
    let expected = version("2");
    assert_eq!((head.size, head.created, head.retired), (expected.wasm.len() as u64, at(1), false));
    assert_eq!([&head.digest, &head.grants, &head.author], [&expected.digest, &expected.grants, &expected.author]);
    Ok(())
}

pub async fn plugins_and_versions_have_their_room(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let room = Room { plugins: 2, versions: 2, ..Room::default() };
    let version = |digest: &str| NewVersion { room, ..version(digest) };
    for name in ["p", "q"] {
        for digest in ["1", "2"] {
            world.store.add_version(a, name, &version(digest), at(1)).await?;
        }
    }
    let full = |added: Result<_>, says: &str| match added {
        Err(Error::Conflict { detail, .. }) => assert!(detail.contains(says), "{detail}"),
        other => panic!("{:?}", other.map(|_: (Version, bool)| ())),
    };
    full(world.store.add_version(a, "p", &version("3"), at(2)).await, "2 versions that are not retired");
    full(world.store.add_version(a, "r", &version("1"), at(2)).await, "2 plugins");
    assert_eq!(world.store.plugins(a).await?.len(), 2, "nothing was added");
    assert!(!world.store.add_version(a, "p", &version("1"), at(2)).await?.1, "what is there already is no further one");
    world.store.add_version(b, "p", &version("3"), at(2)).await?;
    world.store.retire(a, "p", 1, KEPT, &by()).await?;
    assert!(world.store.add_version(a, "p", &version("3"), at(3)).await?.1);
    full(world.store.add_version(a, "p", &version("4"), at(3)).await, "plugin retire p VERSION");
    Ok(())
}

pub async fn components_have_their_room(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let sized = |digest: &str, bytes: usize, limit: u64, state: u64| NewVersion {
        wasm: Bytes::from(vec![7; bytes]),
        room: Room { storage: Some(Storage { limit, state }), ..Room::default() },
        ..version(digest)
    };
    world.store.add_version(a, "p", &sized("1", 400, 1_000, 0), at(1)).await?;
    world.store.add_version(a, "q", &sized("1", 400, 1_000, 0), at(1)).await?;
    assert_eq!((world.store.component_bytes(a).await?, world.store.component_bytes(b).await?), (400, 0), "once");
    match world.store.add_version(a, "p", &sized("2", 400, 1_000, 201), at(2)).await {
        Err(Error::Crowded { limit: 1_000, state: 201, components: 400, added: 400 }) => {}
        other => panic!("{:?}", other.map(|(version, _)| version.number)),
    }
    assert_eq!(world.store.versions(a, "p", None, 9).await?.len(), 1, "nothing was added");
    world.store.add_version(a, "p", &sized("2", 400, 1_000, 200), at(2)).await?;
    assert!(world.store.add_version(a, "r", &sized("2", 400, 1, 0), at(2)).await?.1, "what is there adds nothing");
    world.restart().await;
    assert_eq!(world.store.component_bytes(a).await?, 800);
    // Of two at once that fit alone, one is taken.
    let (three, four) = (sized("3", 200, 1_100, 100), sized("4", 200, 1_100, 100));
    let adds = [("p", &three), ("q", &four)].map(|(plugin, new)| world.store.add_version(a, plugin, new, at(3)));
    let added = futures_util::future::join_all(adds).await;
    assert_eq!(added.iter().filter(|added| added.is_ok()).count(), 1);
    assert_eq!(world.store.component_bytes(a).await?, 1_000);
    Ok(())
}

pub async fn retired_versions_make_room(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let sized = |digest: &str, bytes: usize| NewVersion {
        wasm: Bytes::from(vec![7; bytes]),
        room: Room { storage: Some(Storage { limit: 1_000, state: 0 }), ..Room::default() },
        ..version(digest)
    };
    for (digest, bytes) in [("1", 400), ("2", 400), ("3", 200)] {
        world.store.add_version(tenant, "p", &sized(digest, bytes), at(1)).await?;
    }
    world.store.switch_version(tenant, "p", &to(3)).await?;
    let crowded = |added: Result<_>| matches!(added.map(|_: (Version, bool)| ()), Err(Error::Crowded { .. }));
    assert!(crowded(world.store.add_version(tenant, "q", &sized("4", 300), at(2)).await));
    for number in [1, 2] {
        world.store.retire(tenant, "p", number, KEPT, &by()).await?;
    }
    assert_eq!(world.store.component_bytes(tenant).await?, 200, "retired ones do not count");
    assert!(world.store.component(tenant, "sha256:1").await?.is_some(), "and are kept as long as there is room");
    assert!(world.store.add_version(tenant, "q", &sized("4", 300), at(2)).await?.1);
    let numbers = async |world: &World| {
        let heads = world.store.versions(tenant, "p", None, 9).await?;
        Ok::<_, Error>(heads.into_iter().map(|head| head.number).collect::<Vec<_>>())
    };
    assert_eq!(numbers(world).await?, [3, 2], "the oldest goes, and no more than have to");
    assert_eq!(world.store.component(tenant, "sha256:1").await?, None);
    assert!(crowded(world.store.add_version(tenant, "q", &sized("5", 600), at(3)).await));
    assert_eq!(numbers(world).await?, [3, 2], "none goes in vain");
    assert_eq!(world.store.component_bytes(tenant).await?, 500);
    Ok(())
}

pub async fn switches_and_config_are_kept(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    world.store.add_version(tenant, "p", &version("1"), at(1)).await?;
    world.store.pause_plugin(tenant, "p", true).await?;
    world.store.set_config(tenant, "p", "{\"limit\":5}").await?;
    world.restart().await;
    let (plugin, _) = world.store.plugin(tenant, "p").await?.expect("because it was added");
    assert_eq!((plugin.paused, &*plugin.config), (true, "{\"limit\":5}"));
    world.store.pause_plugin(tenant, "p", false).await?;
    let (plugin, _) = world.store.plugins(tenant).await?.remove(0);
    assert!(!plugin.paused);
    assert!(matches!(world.store.pause_plugin(tenant, "no", true).await, Err(Error::NotFound { .. })));
    assert!(matches!(world.store.set_config(tenant, "no", "{}").await, Err(Error::NotFound { .. })));
    Ok(())
}

pub async fn components_are_shared_but_not_shown(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let new = version("1");
    world.store.add_version(a, "p", &new, at(1)).await?;
    assert_eq!(world.store.component(a, &new.digest).await?, Some(new.wasm.clone()));
    assert_eq!(world.store.component(b, &new.digest).await?, None, "knowing a digest is not having it");
    world.store.add_version(b, "p", &new, at(1)).await?;
    assert_eq!(world.store.component(b, &new.digest).await?, Some(new.wasm));
    assert_eq!(world.store.component(a, "sha256:no").await?, None);
    // As large as a host takes them.
    let large = NewVersion { wasm: Bytes::from(vec![0xa5; 64 << 20]), ..version("2") };
    world.store.add_version(a, "p", &large, at(2)).await?;
    world.restart().await;
    let kept = world.store.component(a, &large.digest).await?;
    assert!(kept.is_some_and(|kept| kept == large.wasm), "a large component reads back as it was stored");
    Ok(())
}
