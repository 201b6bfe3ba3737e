//! The outbox: due, settled, one after another per key, and what a person decides.

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::at;
use super::world::delivery;
use crate::Result;
use crate::catalogue::TenantState;
use crate::deliveries::DeliveryQuery;
use crate::deliveries::DeliveryState;
use crate::deliveries::DeliveryView;
use crate::deliveries::DueDelivery;
use crate::deliveries::Settled;
use crate::deliveries::Settlement;
use crate::work::NewDelivery;

fn settlement(tenant: TenantId, id: &str, settled: Settled, attempts: u32) -> Settlement {
    let failed = settled != Settled::Delivered;
    Settlement {
        tenant,
        id: id.to_owned(),
        settled,
        attempts,
        code: if failed { "sink:status".to_owned() } else { String::new() },
        reason: if failed { "503".to_owned() } else { String::new() },
        at: at(1),
    }
}

async fn settle(world: &World, tenant: TenantId, id: &str, settled: Settled) -> Result<()> {
    world.store.host_settle(vec![settlement(tenant, id, settled, 1)]).await
}

/// The ids that are due.
async fn due(world: &World, now: Timestamp) -> Result<Vec<String>> {
    let (due, _) = world.store.host_due_deliveries(now, 100, &world.shards(), &[], &[]).await?;
    Ok(due.into_iter().map(|due| due.delivery.id).collect())
}

fn all() -> DeliveryQuery {
    DeliveryQuery { limit: 100, ..DeliveryQuery::default() }
}

async fn view(world: &World, tenant: TenantId, id: &str) -> Result<DeliveryView> {
    let views = world.store.deliveries(tenant, &all()).await?;
    Ok(views.into_iter().find(|view| view.delivery.id == id).expect("because the delivery was made"))
}

/// A tenant with one event, and a commit of deliveries: (id, sink, key).
async fn deliver(world: &World, name: &str, deliveries: &[(&str, &str, Option<&str>)]) -> Result<(TenantId, Logged)> {
    let tenant = world.tenant(name).await?;
    let event = world.append(vec![world.event(tenant, "1")]).await?.remove(0);
    let deliveries = deliveries.iter().map(|(id, sink, key)| delivery(&event, id, sink, *key)).collect();
    add(world, tenant, deliveries).await?;
    Ok((tenant, event))
}

async fn add(world: &World, tenant: TenantId, deliveries: Vec<NewDelivery>) -> Result<()> {
    let mut commit = world.commit(tenant).await?;
    commit.deliveries = deliveries;
    world.done(commit).await?;
    Ok(())
}

pub async fn a_delivery_is_due_until_it_arrived(world: &mut World) -> Result<()> {
    let (tenant, event) = deliver(world, "a", &[("d", "sink", Some("k"))]).await?;
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        let (due, next) = world.store.host_due_deliveries(at(0), 10, &world.shards(), &[], &[]).await?;
        assert_eq!((due.len(), next), (1, None), "restarted: {restarted}");
        let made = delivery(&event, "d", "sink", Some("k"));
        assert_eq!((due[0].tenant, &due[0].delivery), (tenant, &made.delivery));
        assert_eq!((due[0].position, &*due[0].rule, due[0].key.as_deref()), (event.position, "rule", Some("k")));
        assert_eq!((due[0].attempts, due[0].created), (0, at(0)));
    }
    assert_eq!(world.store.host_delivery_depths().await?, [(tenant, "sink".to_owned(), 1, 0)]);
    settle(world, tenant, "d", Settled::Delivered).await?;
    assert_eq!(due(world, at(1_000)).await?, [""; 0]);
    let view = view(world, tenant, "d").await?;
    assert_eq!((view.state, view.attempts, view.updated), (DeliveryState::Delivered, 1, at(1)));
    assert_eq!((&*view.event_id, view.position), ("1", event.position));
    assert_eq!(world.store.host_delivery_depths().await?, []);
    Ok(())
}

pub async fn a_retry_is_due_at_its_time(world: &mut World) -> Result<()> {
    let (tenant, _) = deliver(world, "a", &[("d", "sink", None), ("e", "sink", None)]).await?;
    settle(world, tenant, "e", Settled::Delivered).await?;
    settle(world, tenant, "d", Settled::Retry(at(30))).await?;
    let (due, next) = world.store.host_due_deliveries(at(29), 10, &world.shards(), &[], &[]).await?;
    assert_eq!((due.len(), next), (0, Some(at(30))));
    let (due, next) = world.store.host_due_deliveries(at(30), 10, &world.shards(), &[], &[]).await?;
    assert_eq!((due.len(), due[0].attempts, next), (1, 1, None));
    let view = view(world, tenant, "d").await?;
    assert_eq!((view.state, view.due), (DeliveryState::Pending, at(30)));
    assert_eq!((&*view.code, &*view.reason), ("sink:status", "503"));
    Ok(())
}

pub async fn deliveries_of_a_key_go_one_after_another(world: &mut World) -> Result<()> {
    let first = [("k1", "s", Some("k")), ("k2", "s", Some("k")), ("free1", "s", None), ("free2", "s", None)];
    let (tenant, event) = deliver(world, "a", &first).await?;
    let more = vec![delivery(&event, "k3", "s", Some("k")), delivery(&event, "other", "t", Some("k"))];
    add(world, tenant, more).await?;
    let mut now = due(world, at(0)).await?;
    now.sort_unstable();
    assert_eq!(now, ["free1", "free2", "k1", "other"], "a key is a sink's own");
    settle(world, tenant, "k1", Settled::Retry(at(50))).await?;
    for id in ["free1", "free2", "other"] {
        settle(world, tenant, id, Settled::Delivered).await?;
    }
    assert_eq!(due(world, at(49)).await?, [""; 0], "the others wait while the first is tried again");
    assert_eq!(due(world, at(50)).await?, ["k1"]);
    settle(world, tenant, "k1", Settled::Delivered).await?;
    assert_eq!(due(world, at(50)).await?, ["k2"]);
    settle(world, tenant, "k2", Settled::Delivered).await?;
    assert_eq!(due(world, at(50)).await?, ["k3"]);
    settle(world, tenant, "k3", Settled::Delivered).await?;
    add(world, tenant, vec![delivery(&event, "k4", "s", Some("k"))]).await?;
    assert_eq!(due(world, at(50)).await?, ["k4"]);
    Ok(())
}

pub async fn a_parked_delivery_holds_its_key_until_a_person_decides(world: &mut World) -> Result<()> {
    let (tenant, _) = deliver(world, "a", &[("1", "s", Some("k")), ("2", "s", Some("k")), ("3", "s", None)]).await?;
    settle(world, tenant, "1", Settled::Parked).await?;
    settle(world, tenant, "3", Settled::Parked).await?;
    assert_eq!(due(world, at(100)).await?, [""; 0]);
    assert_eq!(world.store.host_delivery_depths().await?, [(tenant, "s".to_owned(), 1, 2)]);
    assert_eq!(world.store.redeliver(tenant, None, Some("2"), at(5)).await?, 0, "it is not parked");
    assert_eq!(world.store.redeliver(tenant, Some("other"), None, at(5)).await?, 0);
    assert_eq!(world.store.redeliver(tenant, None, Some("1"), at(5)).await?, 1);
    let (now, _) = world.store.host_due_deliveries(at(5), 10, &world.shards(), &[], &[]).await?;
    assert_eq!((now.len(), &*now[0].delivery.id, now[0].attempts), (1, "1", 0), "attempts are counted anew");
    settle(world, tenant, "1", Settled::Parked).await?;
    assert_eq!(world.store.drop_deliveries(tenant, Some("s"), None, at(6)).await?, 2);
    assert_eq!(due(world, at(6)).await?, ["2"], "what was dropped holds nobody");
    assert_eq!(view(world, tenant, "1").await?.state, DeliveryState::Dropped);
    assert_eq!(world.store.redeliver(tenant, None, None, at(7)).await?, 0, "dropped is dropped");
    Ok(())
}

pub async fn named_sinks_and_deliveries_are_left_out(world: &mut World) -> Result<()> {
    let mut made = Vec::new();
    for number in 0..50 {
        made.push((format!("slow{number}"), "slow"));
    }
    for number in 0..50 {
        made.push((format!("fast{number}"), "fast"));
    }
    let made: Vec<_> = made.iter().map(|(id, sink)| (&**id, *sink, None)).collect();
    let (tenant, _) = deliver(world, "a", &made).await?;
    let without = [(tenant, "slow".to_owned())];
    let (due, _) = world.store.host_due_deliveries(at(0), 20, &world.shards(), &without, &[]).await?;
    assert_eq!(due.len(), 20, "a sink that is left out does not hide others");
    assert!(due.iter().all(|due| due.delivery.sink == "fast"));
    let in_flight: Vec<_> = due.iter().map(|due| (tenant, due.delivery.id.clone())).collect();
    let (rest, _) = world.store.host_due_deliveries(at(0), 100, &world.shards(), &without, &in_flight).await?;
    assert_eq!(rest.len(), 30);
    assert!(rest.iter().all(|rest| due.iter().all(|due| due.delivery.id != rest.delivery.id)));
    let (few, _) = world.store.host_due_deliveries(at(0), 3, &world.shards(), &[], &[]).await?;
    assert_eq!(few.len(), 3);
    Ok(())
}

pub async fn a_paused_tenant_delivers_nothing(world: &mut World) -> Result<()> {
    let (tenant, _) = deliver(world, "a", &[("a", "s", None)]).await?;
    let (other, _) = deliver(world, "b", &[("b", "s", None)]).await?;
    for state in [TenantState::Paused, TenantState::Suspended] {
        world.store.set_tenant_state(tenant, state).await?;
        assert_eq!(due(world, at(0)).await?, ["b"]);
    }
    world.store.set_tenant_state(tenant, TenantState::Active).await?;
    settle(world, other, "b", Settled::Delivered).await?;
    assert_eq!(due(world, at(0)).await?, ["a"]);
    Ok(())
}

pub async fn a_flood_leaves_every_other_its_share(world: &mut World) -> Result<()> {
    let flood: Vec<_> = (0..300).map(|number| format!("flood{number}")).collect();
    let flood: Vec<_> = flood.iter().map(|id| (&**id, "s", None)).collect();
    let (noisy, _) = deliver(world, "noisy", &flood).await?;
    let (few, _) = deliver(world, "few", &[("1", "s", None), ("2", "t", None)]).await?;
    let (one, _) = deliver(world, "one", &[("1", "s", Some("k")), ("2", "s", Some("k"))]).await?;
    let (due, _) = world.store.host_due_deliveries(at(0), 10, &world.shards(), &[], &[]).await?;
    let count = |tenant| due.iter().filter(|due| due.tenant == tenant).count();
    assert_eq!((count(few), count(one)), (2, 1), "however much is before theirs");
    assert!(count(noisy) >= 5, "{} of 10, where others want 3", count(noisy));
    let place = |one: &DueDelivery| (one.created, one.position);
    assert!(due.is_sorted_by_key(place), "what was made first comes first");
    let in_flight: Vec<_> = due.iter().map(|due| (due.tenant, due.delivery.id.clone())).collect();
    let (due, _) = world.store.host_due_deliveries(at(0), 1_000, &world.shards(), &[], &in_flight).await?;
    assert_eq!(due.len(), 303 - in_flight.len(), "one may have everything if nobody else has anything");
    Ok(())
}

pub async fn every_sink_has_its_turn(world: &mut World) -> Result<()> {
    let mut expected = Vec::new();
    for tenant in 0..8 {
        let sinks: Vec<_> = (0..5).map(|sink| (format!("{tenant}-{sink}"), format!("sink{sink}"))).collect();
        let made: Vec<_> = sinks.iter().map(|(id, sink)| (&**id, &**sink, None)).collect();
        deliver(world, &format!("tenant{tenant}"), &made).await?;
        expected.extend(sinks.into_iter().map(|(id, _)| id));
    }
    expected.sort_unstable();
    for round in 0..2 {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let (due, _) = world.store.host_due_deliveries(at(0), 10, &world.shards(), &[], &[]).await?;
            seen.extend(due.into_iter().map(|due| due.delivery.id));
        }
        seen.sort_unstable();
        assert_eq!(seen, expected, "round {round}: also if nothing becomes of those that were taken first");
    }
    Ok(())
}

pub async fn a_node_sends_what_is_at_home_with_it(world: &mut World) -> Result<()> {
    let (a, _) = deliver(world, "a", &[("a", "s", None)]).await?;
    let mut away = deliver(world, "b", &[("b", "s", None)]).await?.0;
    for number in 0..100 {
        if world.home(away) != world.home(a) {
            break;
        }
        away = deliver(world, &format!("b{number}"), &[("b", "s", None)]).await?.0;
    }
    assert_ne!(world.home(away), world.home(a));
    settle(world, away, "b", Settled::Retry(at(30))).await?;
    let looked = world.store.host_due_deliveries(at(0), 10, &[world.home(away)], &[], &[]).await?;
    assert_eq!((looked.0.len(), looked.1), (0, Some(at(30))));
    let (due, next) = world.store.host_due_deliveries(at(30), 10, &[world.home(away)], &[], &[]).await?;
    assert_eq!((due.len(), due[0].tenant, next), (1, away, None));
    let (due, next) = world.store.host_due_deliveries(at(30), 10, &[], &[], &[]).await?;
    assert_eq!((due.len(), next), (0, None), "a node without shards sends nothing");
    Ok(())
}

pub async fn only_what_may_go_has_a_next_time(world: &mut World) -> Result<()> {
    let (paused, _) = deliver(world, "paused", &[("1", "s", None)]).await?;
    let (tenant, _) = deliver(world, "a", &[("1", "out", None), ("2", "s", None), ("3", "s", None)]).await?;
    for (whose, id, due) in [(paused, "1", 5), (tenant, "1", 6), (tenant, "2", 8)] {
        settle(world, whose, id, Settled::Retry(at(due))).await?;
    }
    world.store.set_tenant_state(paused, TenantState::Paused).await?;
    let without = [(tenant, "out".to_owned())];
    let (due, next) = world.store.host_due_deliveries(at(0), 10, &world.shards(), &without, &[]).await?;
    assert_eq!((due.len(), &*due[0].delivery.id, next), (1, "3", Some(at(8))));
    let (_, next) = world.store.host_due_deliveries(at(0), 10, &world.shards(), &[], &[]).await?;
    assert_eq!(next, Some(at(6)));
    Ok(())
}

pub async fn a_deleted_sink_parks_what_is_pending(world: &mut World) -> Result<()> {
    let (tenant, _) = deliver(world, "a", &[("1", "s", None), ("2", "s", Some("k")), ("3", "t", None)]).await?;
    assert!(!world.store.delete_sink(tenant, "s", at(2)).await?, "there is no such sink");
    world.store.put_sink(tenant, "s", "{}", at(1)).await?;
    assert!(world.store.delete_sink(tenant, "s", at(2)).await?);
    assert_eq!(due(world, at(10)).await?, ["3"]);
    for id in ["1", "2"] {
        let view = view(world, tenant, id).await?;
        assert_eq!((view.state, view.updated), (DeliveryState::Parked, at(2)));
        assert!(!view.code.is_empty() && !view.reason.is_empty(), "it is said why");
    }
    assert_eq!(world.store.redeliver(tenant, Some("s"), None, at(3)).await?, 2, "nothing is lost");
    Ok(())
}

pub async fn a_line_goes_on_where_it_stands_whatever_ended_in_its_middle(world: &mut World) -> Result<()> {
    let line = [("1", "s", Some("k")), ("2", "s", Some("k")), ("3", "s", Some("k")), ("4", "s", Some("k"))];
    let (tenant, event) = deliver(world, "a", &line).await?;
    let more = |id: &str| vec![delivery(&event, id, "s", Some("k"))];
    settle(world, tenant, "1", Settled::Delivered).await?;
    world.store.put_sink(tenant, "s", "{}", at(1)).await?;
    world.store.delete_sink(tenant, "s", at(2)).await?;
    // A person drops the last and one in the middle; the first of those that are left still holds the line.
    for id in ["4", "3"] {
        assert_eq!(world.store.drop_deliveries(tenant, None, Some(id), at(3)).await?, 1);
    }
    add(world, tenant, more("5")).await?;
    assert_eq!(due(world, at(10)).await?, [""; 0], "the second is parked");
    // It was on its way when its sink was deleted, and has arrived.
    settle(world, tenant, "2", Settled::Delivered).await?;
    assert_eq!(due(world, at(10)).await?, ["5"]);
    add(world, tenant, more("6")).await?;
    settle(world, tenant, "5", Settled::Parked).await?;
    assert_eq!(world.store.drop_deliveries(tenant, None, Some("5"), at(11)).await?, 1);
    assert_eq!(due(world, at(20)).await?, ["6"]);
    add(world, tenant, more("7")).await?;
    settle(world, tenant, "5", Settled::Delivered).await?;
    assert_eq!(due(world, at(20)).await?, ["6"], "what arrives late moves nothing");
    settle(world, tenant, "6", Settled::Retry(at(30))).await?;
    assert_eq!(due(world, at(29)).await?, [""; 0]);
    settle(world, tenant, "6", Settled::Delivered).await?;
    assert_eq!(due(world, at(30)).await?, ["7"]);
    settle(world, tenant, "7", Settled::Delivered).await?;
    // Of those that a deleted sink parked, a later one is asked for before an earlier one.
    add(world, tenant, [more("8"), more("9"), more("10")].concat()).await?;
    world.store.put_sink(tenant, "s", "{}", at(40)).await?;
    world.store.delete_sink(tenant, "s", at(41)).await?;
    assert_eq!(world.store.redeliver(tenant, None, Some("9"), at(42)).await?, 1);
    assert_eq!(due(world, at(50)).await?, [""; 0], "it waits for the one before");
    assert_eq!(world.store.redeliver(tenant, None, Some("8"), at(51)).await?, 1);
    assert_eq!(due(world, at(60)).await?, ["8"]);
    settle(world, tenant, "8", Settled::Delivered).await?;
    assert_eq!(due(world, at(60)).await?, ["9"]);
    settle(world, tenant, "9", Settled::Delivered).await?;
    assert_eq!(due(world, at(60)).await?, [""; 0], "the last is parked");
    assert_eq!(world.store.drop_deliveries(tenant, None, Some("10"), at(61)).await?, 1);
    add(world, tenant, more("11")).await?;
    assert_eq!(due(world, at(70)).await?, ["11"]);
    Ok(())
}

pub async fn the_same_delivery_is_added_once(world: &mut World) -> Result<()> {
    let (tenant, event) = deliver(world, "a", &[("1", "s", None)]).await?;
    settle(world, tenant, "1", Settled::Delivered).await?;
    add(world, tenant, vec![delivery(&event, "1", "s", None), delivery(&event, "2", "s", None)]).await?;
    assert_eq!(due(world, at(10)).await?, ["2"], "what arrived is not sent again by a replay");
    Ok(())
}

pub async fn a_late_settlement_does_not_undo_a_persons_decision(world: &mut World) -> Result<()> {
    let (tenant, _) = deliver(world, "a", &[("1", "s", None), ("2", "s", None)]).await?;
    for id in ["1", "2"] {
        settle(world, tenant, id, Settled::Parked).await?;
    }
    world.store.drop_deliveries(tenant, None, None, at(1)).await?;
    let late = vec![
        settlement(tenant, "1", Settled::Retry(at(5)), 2),
        settlement(tenant, "2", Settled::Delivered, 2),
        settlement(tenant, "unknown", Settled::Delivered, 1),
    ];
    world.store.host_settle(late).await?;
    assert_eq!(view(world, tenant, "1").await?.state, DeliveryState::Dropped);
    assert_eq!(view(world, tenant, "2").await?.state, DeliveryState::Delivered, "that it arrived is news");
    settle(world, tenant, "2", Settled::Retry(at(5))).await?;
    assert_eq!(view(world, tenant, "2").await?.state, DeliveryState::Delivered);
    assert_eq!(due(world, at(10)).await?, [""; 0]);
    Ok(())
}

pub async fn deliveries_are_found_by_query(world: &mut World) -> Result<()> {
    let (tenant, first) = deliver(world, "a", &[("1", "s", None), ("2", "t", None)]).await?;
    let second = world.append(vec![world.event(tenant, "2")]).await?.remove(0);
    let mut later = [delivery(&second, "3", "s", None), delivery(&second, "4", "s", None)];
    later.iter_mut().for_each(|delivery| delivery.created = at(10));
    add(world, tenant, later.to_vec()).await?;
    settle(world, tenant, "1", Settled::Parked).await?;
    let cases = [
        (all(), "4321"),
        (DeliveryQuery { sink: Some("s".into()), ..all() }, "431"),
        (DeliveryQuery { position: Some(first.position), ..all() }, "21"),
        (DeliveryQuery { state: Some(DeliveryState::Parked), ..all() }, "1"),
        (DeliveryQuery { state: Some(DeliveryState::Pending), sink: Some("s".into()), ..all() }, "43"),
        (DeliveryQuery { limit: 3, ..all() }, "432"),
        (DeliveryQuery { before: Some((at(10), "4".into())), limit: 2, ..all() }, "32"),
        (DeliveryQuery { before: Some((at(0), "2".into())), ..all() }, "1"),
    ];
    for (query, expected) in cases {
        let found = world.store.deliveries(tenant, &query).await?;
        let ids: String = found.iter().map(|view| &*view.delivery.id).collect();
        assert_eq!(ids, expected, "{query:?}");
    }
    Ok(())
}
