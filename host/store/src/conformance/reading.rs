//! Reading events: by query, by name, and as they come.

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Position;
use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use super::world::World;
use super::world::at;
use crate::Result;
use crate::log::EventQuery;
use crate::log::TAIL_BYTES;

fn ids(events: &[Logged]) -> Vec<&str> {
    events.iter().map(|event| event.event.id.as_str()).collect()
}

fn all() -> EventQuery {
    EventQuery { ascending: true, limit: 1_000, ..EventQuery::default() }
}

/// Ten events over several shards: every second of another type, every third about something, recorded a second apart.
async fn ten(world: &World, tenant: TenantId) -> Result<Vec<Logged>> {
    let events = (0..10).map(|number: i64| {
        let mut new = world.event(tenant, &number.to_string());
        new.shard = Shard::of(tenant, &new.event.id, world.store.host_shards(), 4);
        new.recorded = at(number);
        if number % 2 == 0 {
            new.event.kind = "test.even".into();
        }
        if number % 3 == 0 {
            new.event.subject = Some("third".into());
            new.event.key = Some("key".into());
        }
        new
    });
    let logged = world.append(events.collect()).await?;
    assert!(logged.iter().any(|event| event.shard != logged[0].shard), "more than one shard is in use");
    Ok(logged)
}

pub async fn queries_choose(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    ten(world, tenant).await?;
    let cases = [
        (all(), "0123456789"),
        (EventQuery { ascending: false, ..all() }, "9876543210"),
        (EventQuery { kind: Some("test.even".into()), ..all() }, "02468"),
        (EventQuery { subject: Some("third".into()), ..all() }, "0369"),
        (EventQuery { key: Some("key".into()), kind: Some("test.even".into()), ..all() }, "06"),
        (EventQuery { key: Some("no".into()), ..all() }, ""),
        (EventQuery { since: Some(at(3)), until: Some(at(6)), ..all() }, "345"),
        (EventQuery { since: Some(at(8)), ascending: false, ..all() }, "98"),
        (EventQuery { limit: 3, ..all() }, "012"),
        (EventQuery { limit: 3, ascending: false, ..all() }, "987"),
        (EventQuery { limit: 0, ..all() }, ""),
    ];
    for (query, expected) in cases {
        let found = world.store.events(tenant, &query).await?;
        assert_eq!(ids(&found).concat(), expected, "{query:?}");
    }
    Ok(())
}

pub async fn queries_page_in_both_directions(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let logged = ten(world, tenant).await?;
    for ascending in [true, false] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let query = EventQuery { ascending, after, limit: 3, ..EventQuery::default() };
            let page = world.store.events(tenant, &query).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.position);
            seen.extend(page);
        }
        if !ascending {
            seen.reverse();
        }
        assert_eq!(seen, logged, "ascending: {ascending}");
    }
    Ok(())
}

pub async fn a_correlation_gathers_what_followed(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut second = world.event(tenant, "second");
    second.event.correlation = "first".into();
    second.event.causation = Some("first".into());
    let mut third = world.event(tenant, "third");
    third.event.correlation = "first".into();
    third.event.causation = Some("second".into());
    // Its id is the correlation, but it says itself that it belongs to something else.
    let mut namesake = world.event(tenant, "first");
    namesake.event.source = "/other".into();
    namesake.event.correlation = "elsewhere".into();
    let alone = world.event(tenant, "alone");
    world.append(vec![world.event(tenant, "first"), alone, namesake, second, third]).await?;
    let query =
        |ascending, limit| EventQuery { correlation: Some("first".into()), ascending, limit, ..EventQuery::default() };
    let found = world.store.events(tenant, &query(true, 10)).await?;
    assert_eq!(ids(&found), ["first", "second", "third"]);
    let found = world.store.events(tenant, &query(false, 2)).await?;
    assert_eq!(ids(&found), ["third", "second"]);
    let rest = EventQuery { after: Some(found[1].position), ..query(false, 2) };
    assert_eq!(ids(&world.store.events(tenant, &rest).await?), ["first"]);
    Ok(())
}

pub async fn an_id_finds_one_event_per_source(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let mut other = world.event(tenant, "1");
    other.event.source = "/other".into();
    let logged = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2"), other]).await?;
    let found = world.store.events_by_id(tenant, "1").await?;
    assert_eq!(found, [logged[2].clone(), logged[0].clone()], "newest first");
    assert_eq!(world.store.events_by_id(tenant, "3").await?, []);
    let key = logged[2].event.event_key();
    assert_eq!(world.store.event_by_key(tenant, key).await?.as_ref(), Some(&logged[2]));
    let unknown = world.event(tenant, "3").event.event_key();
    assert_eq!(world.store.event_by_key(tenant, unknown).await?, None);
    Ok(())
}

pub async fn the_tail_is_in_order_over_all_shards(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    assert_eq!(world.store.head(tenant).await?, Position::ZERO);
    assert_eq!(world.store.tail(tenant, Position::ZERO, None, 10).await?.events, []);
    let logged = ten(world, tenant).await?;
    let head = world.store.head(tenant).await?;
    assert_eq!(head, logged[9].position);
    let first = world.store.tail(tenant, Position::ZERO, None, 4).await?.events;
    let rest = world.store.tail(tenant, first[3].position, None, 100).await?.events;
    assert_eq!([first, rest].concat(), logged);
    assert_eq!(world.store.tail(tenant, head, None, 10).await?.events, []);
    let more = world.append(vec![world.event(tenant, "more")]).await?;
    assert_eq!(world.store.tail(tenant, head, None, 10).await?.events, more);
    world.restart().await;
    assert_eq!(world.store.tail(tenant, head, None, 10).await?.events, more);
    assert_eq!(world.store.head(tenant).await?, more[0].position);
    Ok(())
}

pub async fn the_tail_leaves_other_types_out(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let none = world.store.tail(tenant, Position(7), Some("test.even"), 4).await?;
    assert_eq!((none.events, none.reached, none.more), (vec![], Position(7), false));
    let logged = ten(world, tenant).await?;
    let tail = world.store.tail(tenant, Position::ZERO, Some("test.even"), 5).await?;
    assert_eq!(ids(&tail.events).concat(), "024");
    assert_eq!((tail.reached, tail.more), (logged[4].position, true), "as far as was looked");
    let rest = world.store.tail(tenant, tail.reached, Some("test.even"), 100).await?;
    assert_eq!(ids(&rest.events).concat(), "68");
    assert_eq!((rest.reached, rest.more), (logged[9].position, false), "what is left out is passed, too");
    let no = world.store.tail(tenant, Position::ZERO, Some("test"), 9).await?;
    assert_eq!((no.events, no.reached, no.more), (vec![], logged[8].position, true));
    Ok(())
}

pub async fn the_tail_is_bounded_in_bytes(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let sizes = [TAIL_BYTES + 1, TAIL_BYTES / 2, TAIL_BYTES / 2, 1, 0, TAIL_BYTES * 2];
    let events = sizes.iter().enumerate().map(|(number, size)| {
        let mut new = world.event(tenant, &number.to_string());
        new.event.data = vec![b'1'; *size].into();
        new
    });
    let logged = world.append(events.collect()).await?;
    let mut after = Position::ZERO;
    for (expected, more) in [("0", true), ("12", true), ("34", true), ("5", false)] {
        let tail = world.store.tail(tenant, after, None, 100).await?;
        assert_eq!((ids(&tail.events).concat().as_str(), tail.more), (expected, more));
        after = tail.reached;
    }
    assert_eq!(after, logged[5].position);
    Ok(())
}
