//! A tenant that has something of everything.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::Delivery;
use bulkhead_domain::effect::Level;
use bulkhead_domain::effect::LogLine;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::event::Lineage;
use bulkhead_domain::event::Logged;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_domain::policy::proof::Counts;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_store::Result;
use bulkhead_store::catalogue::Key;
use bulkhead_store::catalogue::Keys as _;
use bulkhead_store::catalogue::NewVersion;
use bulkhead_store::catalogue::Plugins as _;
use bulkhead_store::catalogue::Settings as _;
use bulkhead_store::log::Log as _;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::recordings::NewRecording;
use bulkhead_store::recordings::Recorded;
use bulkhead_store::recordings::Recorder;
use bulkhead_store::releases::Act;
use bulkhead_store::releases::Kind;
use bulkhead_store::releases::Releases as _;
use bulkhead_store::releases::Switch;
use bulkhead_store::work::Commit;
use bulkhead_store::work::Committed;
use bulkhead_store::work::NewDelivery;
use bulkhead_store::work::RunRecord;
use bulkhead_store::work::RunState;
use bulkhead_store::work::StateRead;
use bulkhead_store::work::TimerChange;
use bulkhead_store::work::Unfinished;
use bulkhead_store::work::UnfinishedChange;
use bulkhead_store::work::UsageDelta;
use bulkhead_store::work::Waiting;
use bulkhead_store::work::Work as _;
use bytes::Bytes;

use super::ALL;
use super::NOW;
use super::commit_of;
use super::event;
use super::home;

/// Gives a tenant a row in every table that has tenants' rows, by the ports alone. Every text that a tenant can choose
/// contains `word`.
pub async fn furnish(store: &Postgres, tenant: TenantId, fence: Fence, word: &str) -> Result<()> {
    let key = Key {
        id: format!("key-{}-{word}", tenant.0),
        tenant: Some(tenant),
        hash: word.as_bytes().to_vec(),
        scopes: vec![word.to_owned()],
        note: word.to_owned(),
        created: NOW,
        revoked: None,
    };
    store.host_add_key(&key).await?;
    let version = NewVersion {
        room: bulkhead_store::catalogue::Room::default(),
        digest: format!("sha256:{word}"),
        wasm: Bytes::copy_from_slice(word.as_bytes()),
        manifest: word.to_owned(),
        inspection: word.to_owned(),
        grants: serde_json::json!({"secrets": [word]}).to_string(),
        author: word.to_owned(),
        approves: false,
        signature: None,
    };
    store.add_version(tenant, word, &version, NOW).await?;
    store.set_config(tenant, word, word).await?;
    let act = Act::by(word, NOW).consenting(true);
    let plugin = store.switch_version(tenant, word, &Switch::to(1, act.clone())).await?.id;
    let candidate = NewVersion { digest: format!("sha256:{word} 2"), signature: Some(word.to_owned()), ..version };
    store.add_version(tenant, word, &candidate, NOW).await?;
    store.approve(tenant, word, 2, &act).await?;
    store.start_rollout(tenant, word, Kind::Canary, 2, word, &act).await?;
    let preview = Preview { version: 2, against: Some(1), author: word.to_owned(), at: NOW, counts: Counts::default() };
    store.add_preview(tenant, word, &preview).await?;
    store.put_rules(tenant, store.rules(tenant).await?.number, word, word, word, NOW).await?;
    store.pause_rule(tenant, word, true).await?;
    store.put_sink(tenant, word, word, NOW).await?;
    store.put_secret(tenant, word, 1, word.as_bytes(), NOW).await?;
    for id in ["first", "second"] {
        let mut new = event(tenant, &format!("{id} {word}"));
        new.event.source = format!("/{word}");
        new.event.kind = word.to_owned();
        new.event.subject = Some(word.to_owned());
        new.event.key = Some(word.to_owned());
        new.event.attributes = vec![(word.to_owned(), word.to_owned())];
        new.event.data = Bytes::copy_from_slice(word.as_bytes());
        store.host_append(vec![new]).await?;
    }
    let batch = store.read_batch(tenant, home(tenant), NOW, ALL).await?;
    let mut commit = commit_of(tenant, fence, &batch);
    effects(&mut commit, &batch.events[0], plugin, word);
    let committed = store.commit(commit).await?;
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    Ok(())
}

/// Fills a commit with one of every effect, caused by an event and in the name of a plugin.
pub fn effects(commit: &mut Commit, cause: &Logged, plugin: PluginId, word: &str) {
    let tenant = commit.tenant;
    let lineage = Lineage { hops: 1, budget: 10 };
    commit.reads = vec![StateRead::Keys {
        plugin,
        prefix: format!("{word} of none"),
        after: Some(word.to_owned()),
        limit: 10,
        keys: Vec::new(),
    }];
    let value = Some(Bytes::copy_from_slice(word.as_bytes()));
    commit.writes = vec![StateWrite { plugin, key: word.to_owned(), value, expires: Some(NOW) }];
    commit.emits = vec![event(tenant, &format!("emitted {word}"))];
    commit.deliveries = vec![NewDelivery {
        delivery: Delivery {
            id: format!("delivery {word}"),
            sink: word.to_owned(),
            content_type: word.to_owned(),
            body: Bytes::copy_from_slice(word.as_bytes()),
            attributes: vec![(word.to_owned(), word.to_owned())],
        },
        position: cause.position,
        rule: word.to_owned(),
        key: Some(word.to_owned()),
        created: NOW,
    }];
    commit.timers = vec![TimerChange::Set {
        plugin,
        name: Some(word.to_owned()),
        due: Timestamp(NOW.0 + 1),
        event: event(tenant, &format!("timer {word}")),
    }];
    commit.runs = vec![RunRecord {
        position: cause.position,
        event: cause.event.event_key(),
        rule: word.to_owned(),
        rule_set: 1,
        plugin: Some((word.to_owned(), 1)),
        state: RunState::Parked,
        attempt: 1,
        code: word.to_owned(),
        reason: word.to_owned(),
        fuel: 1,
        duration: Duration::from_micros(1),
        ended: NOW,
        effects: 1,
        logs: vec![LogLine {
            level: Level::Info,
            message: word.to_owned(),
            fields: vec![(word.to_owned(), word.to_owned())],
        }],
    }];
    commit.unfinished = vec![UnfinishedChange::Put(Unfinished {
        position: cause.position,
        event: cause.event.event_key(),
        rule: word.to_owned(),
        key: Some(word.to_owned()),
        waiting: Waiting::Parked,
        attempts: 1,
        code: word.to_owned(),
        reason: word.to_owned(),
        plugin: Some(word.to_owned()),
        lineage,
        rule_set: 1,
        since: NOW,
        updated: NOW,
        pins: BTreeMap::from([(word.to_owned(), 1)]),
    })];
    commit.recordings = Recorded {
        new: vec![NewRecording {
            of: Recorder {
                position: cause.position,
                event: cause.event.event_key(),
                rule: word.to_owned(),
                attempt: 1,
                step: 0,
                item: 0,
                plugin: word.to_owned(),
                version: 1,
                code: word.to_owned(),
                recorded: NOW,
            },
            body: Bytes::copy_from_slice(word.as_bytes()),
        }],
        count_max: 10,
        bytes_max: 1 << 20,
    };
    commit.usage = vec![UsageDelta {
        plugin: word.to_owned(),
        rule: word.to_owned(),
        attempts: 1,
        units: BTreeMap::from([(word.to_owned(), 1.5)]),
        ..UsageDelta::default()
    }];
}
