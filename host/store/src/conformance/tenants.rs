//! Tenants, their switches, and keys.

use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::quota::QUOTA_MAX;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::policy::quota::Rate;

use super::world::World;
use super::world::at;
use crate::Error;
use crate::Result;
use crate::catalogue::Key;
use crate::catalogue::TenantState;

pub(super) fn key(id: &str, tenant: Option<TenantId>, seconds: i64) -> Key {
    Key {
        id: id.to_owned(),
        tenant,
        hash: vec![1, 2, 3],
        scopes: vec!["publish".into(), "read".into()],
        note: "a note".into(),
        created: at(seconds),
        revoked: None,
    }
}

pub async fn tenants_are_found_by_name_and_uid(world: &mut World) -> Result<()> {
    assert!(world.store.operator_tenants().await?.is_empty());
    let (b, a) = (world.tenant("b").await?, world.tenant("a").await?);
    world.restart().await;
    let all = world.store.operator_tenants().await?;
    assert_eq!(all.iter().map(|tenant| (tenant.id, &*tenant.name)).collect::<Vec<_>>(), [(a, "a"), (b, "b")]);
    for name in ["a", "ten_a"] {
        let found = world.store.operator_tenant(name).await?.expect("because it was made");
        assert_eq!((found.id, &*found.uid, found.state, found.created), (a, "ten_a", TenantState::Active, at(0)));
    }
    assert!(world.store.operator_tenant("c").await?.is_none());
    assert!(world.store.tenant(TenantId(a.0 + 1_000)).await?.is_none());
    Ok(())
}

pub async fn a_taken_name_is_a_conflict(world: &mut World) -> Result<()> {
    world.tenant("a").await?;
    let tasks: Vec<_> = (0..10)
        .map(|number| {
            let store = world.store.clone();
            tokio::spawn(async move { store.operator_create_tenant(&format!("ten_{number}"), "new", at(0)).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.expect("because it does not panic") {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, Error::Conflict { what: "tenant", .. }), "{error}"),
        }
    }
    assert_eq!(made, 1);
    assert!(matches!(world.tenant("a").await, Err(Error::Conflict { .. })));
    assert_eq!(world.store.operator_tenants().await?.len(), 2);
    Ok(())
}

pub async fn the_switches_are_kept(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    assert!(!world.store.operator_paused().await?);
    world.store.operator_set_paused(true).await?;
    world.store.operator_set_paused(true).await?;
    world.store.set_tenant_state(tenant, TenantState::Suspended).await?;
    world.restart().await;
    assert!(world.store.operator_paused().await?);
    let found = world.store.tenant(tenant).await?.expect("because it was made");
    assert_eq!(found.state, TenantState::Suspended);
    world.store.operator_set_paused(false).await?;
    assert!(!world.store.operator_paused().await?);
    let nobody = world.store.set_tenant_state(TenantId(tenant.0 + 1_000), TenantState::Paused).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}

pub async fn a_tenant_does_not_undo_its_suspension(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let before = world.store.tenant(tenant).await?.expect("because it was made");
    assert!(world.store.turn_tenant(tenant, TenantState::Paused).await?);
    let paused = world.store.tenant(tenant).await?.expect("because it was made");
    assert_eq!(paused.state, TenantState::Paused);
    assert!(paused.settings > before.settings, "dispatch sees it at its next batch");
    assert!(world.store.turn_tenant(tenant, TenantState::Active).await?);
    world.store.set_tenant_state(tenant, TenantState::Suspended).await?;
    for state in [TenantState::Active, TenantState::Paused] {
        assert!(!world.store.turn_tenant(tenant, state).await?);
        assert_eq!(world.store.snapshot(tenant).await?.tenant.state, TenantState::Suspended);
    }
    assert!(!world.store.turn_tenant(TenantId(tenant.0 + 1_000), TenantState::Paused).await?);
    Ok(())
}

pub async fn quotas_are_kept_and_the_tenants_own(world: &mut World) -> Result<()> {
    let (a, b) = (world.tenant("a").await?, world.tenant("b").await?);
    let quotas = Quotas {
        events_per_second: Some(Rate { rate: 100, burst: Some(QUOTA_MAX) }),
        concurrency: Some(u16::MAX),
        fuel_per_minute: Some(QUOTA_MAX),
        ..Quotas::default()
    };
    let before = world.store.tenant(a).await?.expect("because it was made");
    assert_eq!(before.quotas, Quotas::default());
    world.store.set_quotas(a, &quotas).await?;
    world.restart().await;
    let after = world.store.tenant(a).await?.expect("because it was made");
    assert_eq!(after.quotas, quotas);
    assert!(after.settings > before.settings, "dispatch sees them at its next batch");
    assert_eq!(world.store.snapshot(a).await?.tenant.quotas, quotas);
    world.store.host_add_key(&key("k", Some(a), 1)).await?;
    let (_, of_key) = world.store.host_key("k").await?.expect("because it was added");
    assert_eq!(of_key.map(|tenant| tenant.quotas), Some(quotas));
    let other = world.store.tenant(b).await?.expect("because it was made");
    assert_eq!(other.quotas, Quotas::default());
    world.store.set_quotas(a, &Quotas::default()).await?;
    let all = world.store.operator_tenants().await?;
    assert!(all.iter().all(|tenant| tenant.quotas == Quotas::default()), "they can be taken back");
    let nobody = world.store.set_quotas(TenantId(a.0 + 1_000), &quotas).await;
    assert!(matches!(nobody, Err(Error::NotFound { what: "tenant", .. })));
    Ok(())
}

pub async fn keys_are_added_found_and_revoked(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    for key in [key("k1", Some(tenant), 1), key("k2", Some(tenant), 2), key("op", None, 3)] {
        world.store.host_add_key(&key).await?;
    }
    let (found, of) = world.store.host_key("k1").await?.expect("because it was added");
    assert_eq!((&*found.id, &found.hash, found.scopes.len()), ("k1", &vec![1, 2, 3], 2));
    assert_eq!((found.tenant, of.map(|tenant| tenant.id)), (Some(tenant), Some(tenant)));
    let (found, of) = world.store.host_key("op").await?.expect("because it was added");
    assert!(found.tenant.is_none() && of.is_none());
    assert!(world.store.host_key("no").await?.is_none());
    let ids = |keys: Vec<Key>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(world.store.operator_keys(Some(tenant)).await?), ["k2", "k1"], "newest first");
    assert_eq!(ids(world.store.operator_keys(None).await?), ["op"]);
    world.store.operator_revoke_key(Some(tenant), "k1", at(10)).await?;
    world.store.operator_revoke_key(Some(tenant), "k1", at(20)).await?;
    let (found, _) = world.store.host_key("k1").await?.expect("because a revoked key is kept");
    assert_eq!(found.revoked, Some(at(10)), "the first time counts");
    for (of, id) in [(Some(tenant), "no"), (Some(tenant), "op"), (None, "k2")] {
        let revoked = world.store.operator_revoke_key(of, id, at(10)).await;
        assert!(matches!(revoked, Err(Error::NotFound { what: "key", .. })), "{id}");
    }
    assert!(matches!(world.store.host_add_key(&key("k1", None, 5)).await, Err(Error::Conflict { .. })));
    let nobody = key("k3", Some(TenantId(tenant.0 + 1_000)), 5);
    assert!(matches!(world.store.host_add_key(&nobody).await, Err(Error::NotFound { .. })));
    Ok(())
}
