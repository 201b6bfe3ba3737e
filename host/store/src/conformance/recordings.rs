//! Recordings of calls.

use bulkhead_domain::event::Logged;
use bulkhead_domain::id::RunId;
use bulkhead_domain::id::TenantId;
use bytes::Bytes;

use super::world::World;
use super::world::at;
use crate::Result;
use crate::recordings::Head;
use crate::recordings::NewRecording;
use crate::recordings::Recorded;
use crate::recordings::Recorder;
use crate::work::Committed;

fn recording(event: &Logged, rule: &str, attempt: u32, body: &[u8]) -> NewRecording {
    let of = Recorder {
        position: event.position,
        event: event.event.event_key(),
        rule: rule.to_owned(),
        attempt,
        step: 1,
        item: 2,
        plugin: "plugin".to_owned(),
        version: 3,
        code: "trap:unreachable".to_owned(),
        recorded: at(i64::from(attempt)),
    };
    NewRecording { of, body: Bytes::copy_from_slice(body) }
}

async fn add(world: &World, tenant: TenantId, new: Vec<NewRecording>, count_max: u32, bytes_max: u64) -> Result<()> {
    let mut commit = world.commit(tenant).await?;
    commit.recordings = Recorded { new, count_max, bytes_max };
    world.done(commit).await?;
    Ok(())
}

/// The attempts that the recordings are of.
fn attempts(heads: &[Head]) -> Vec<u32> {
    heads.iter().map(|head| head.of.attempt).collect()
}

pub async fn recordings_read_back_newest_first(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append(vec![world.event(tenant, "1"), world.event(tenant, "2")]).await?;
    let body = b"{\"a\":1}\x00\xff";
    let mut other = recording(&events[1], "rule", 4, b"other");
    other.of.plugin = "second".to_owned();
    let new = vec![
        recording(&events[0], "rule", 1, body),
        recording(&events[0], "else", 2, b""),
        recording(&events[0], "rule", 3, b"last"),
        other,
    ];
    add(world, tenant, new.clone(), 100, 1 << 20).await?;
    world.restart().await;
    let run = |rule| RunId::of(events[0].event.event_key(), rule);
    let heads = world.store.recordings_of(tenant, run("rule")).await?;
    assert_eq!(attempts(&heads), [3, 1]);
    assert_eq!((&heads[1].of, heads[1].size), (&new[0].of, body.len() as u64));
    assert_eq!(heads[1].run(), run("rule"));
    assert_eq!(world.store.recording(tenant, heads[1].number).await?.as_deref(), Some(&body[..]));
    let all = world.store.recordings(tenant, "plugin", None, 10).await?;
    assert_eq!(attempts(&all), [3, 2, 1]);
    assert_eq!(attempts(&world.store.recordings(tenant, "plugin", Some(all[0].number), 1).await?), [2]);
    assert_eq!(attempts(&world.store.recordings(tenant, "second", None, 10).await?), [4]);
    assert_eq!(world.store.recording(tenant, all[0].number + 1_000).await?, None);
    Ok(())
}

pub async fn the_oldest_go_beyond_a_bound(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append(vec![world.event(tenant, "1")]).await?;
    for attempt in 1..=4 {
        add(world, tenant, vec![recording(&events[0], "rule", attempt, &[7; 100])], 3, 1 << 20).await?;
    }
    let kept = async |world: &World| Ok(attempts(&world.store.recordings(tenant, "plugin", None, 10).await?));
    assert_eq!(kept(world).await?, [4, 3, 2], "by their number");
    let mut done = recording(&events[0], "rule", 9, &[7; 200]);
    done.of.code = String::new();
    add(world, tenant, vec![done.clone(), done], 3, 250).await?;
    assert_eq!(kept(world).await?, [9, 4, 3], "successes do not push failures out");
    add(world, tenant, vec![recording(&events[0], "rule", 5, &[7; 150])], 3, 250).await?;
    assert_eq!(kept(world).await?, [5, 9, 4], "and by their bytes");
    add(world, tenant, Vec::new(), 0, 0).await?;
    assert_eq!(kept(world).await?, [5, 9, 4], "a commit without any looks at none");
    add(world, tenant, vec![recording(&events[0], "rule", 6, &[7; 300])], 3, 250).await?;
    assert_eq!(kept(world).await?, [9], "one that is larger than all may be is not kept");
    Ok(())
}

pub async fn recordings_go_with_the_commit_and_by_age(world: &mut World) -> Result<()> {
    let tenant = world.tenant("a").await?;
    let events = world.append(vec![world.event(tenant, "1")]).await?;
    let mut stale = world.commit(tenant).await?;
    stale.fence.0 += 1;
    let new = (1..=3).map(|attempt| recording(&events[0], "rule", attempt, b"x")).collect();
    stale.recordings = Recorded { new, count_max: 10, bytes_max: 1_000 };
    let mut valid = stale.clone();
    valid.fence.0 -= 1;
    assert_eq!(world.store.commit(stale).await?, Committed::Fenced);
    assert_eq!(world.store.recordings(tenant, "plugin", None, 10).await?, []);
    world.done(valid).await?;
    assert_eq!(world.store.host_expire_recordings(at(3), 1).await?, 1);
    assert_eq!(attempts(&world.store.recordings(tenant, "plugin", None, 10).await?), [3, 2]);
    assert_eq!(world.store.host_expire_recordings(at(3), 10).await?, 1);
    assert_eq!(world.store.host_expire_recordings(at(3), 10).await?, 0);
    assert_eq!(attempts(&world.store.recordings(tenant, "plugin", None, 10).await?), [3]);
    Ok(())
}

pub async fn recordings_are_the_tenants_own(world: &mut World) -> Result<()> {
    let (one, other) = (world.tenant("a").await?, world.tenant("b").await?);
    for tenant in [one, other] {
        let events = world.append(vec![world.event(tenant, "1")]).await?;
        add(world, tenant, vec![recording(&events[0], "rule", 1, tenant.0.to_string().as_bytes())], 1, 1_000).await?;
    }
    let run = RunId::of(world.event(one, "1").event.event_key(), "rule");
    let (ours, theirs) = (world.store.recordings_of(one, run).await?, world.store.recordings_of(other, run).await?);
    assert_eq!((ours.len(), theirs.len()), (1, 1), "one's bound is not the other's");
    let body = |tenant: TenantId| Some(Bytes::from(tenant.0.to_string()));
    assert_eq!(world.store.recording(one, ours[0].number).await?, body(one));
    assert_eq!(world.store.recording(other, ours[0].number).await?, None);
    assert_eq!(world.store.recordings(one, "plugin", None, 10).await?, ours);
    Ok(())
}
