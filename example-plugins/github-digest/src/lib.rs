//! Counts webhooks per repository and per kind, and emits a digest after every so many.
//!
//! The counters are the state; the digest is computed from them when it is due, so nothing has to be kept in
//! memory between events. Of the payload, which may be large, only one field is looked at.

use bulkhead_plugin::{Draft, Event, Failure, Timestamp, context, effects, handler, log, state};
use serde::{Deserialize, Serialize};

const TOTAL: &str = "total";
const SINCE: &str = "since";
const REPOSITORY: &str = "repository:";
const KIND: &str = "kind:";

/// How many counters of one sort a digest looks at: a bound on host calls, far above what it lists.
const COUNTERS_MAX: usize = 1_000;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Digest {
    webhooks: i64,
    /// The first webhook after the last digest, and this one.
    since: Timestamp,
    until: Timestamp,
    /// The busiest first.
    repositories: Vec<Count>,
    kinds: Vec<Count>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    name: String,
    count: i64,
}

#[handler]
fn handle(event: Event) -> Result<(), Failure> {
    // Webhooks of an organisation belong to no repository.
    let repository: Option<String> = context::field("/repository/full_name")?;
    let repository = repository.as_deref().unwrap_or("(none)");
    state::increment(&format!("{REPOSITORY}{repository}"), 1)?;
    state::increment(&format!("{KIND}{}", kind(&event.kind)), 1)?;
    let total = state::increment(TOTAL, 1)?;

    let since = match state::get(SINCE)? {
        Some(since) => since,
        None => {
            state::set(SINCE, &event.time)?;
            event.time
        }
    };
    let every: i64 = context::config_or("every", 25)?;
    if every > 0 && total % every == 0 {
        emit(total, since, event.time)?;
        state::delete(SINCE)?;
    }
    Ok(())
}

fn emit(webhooks: i64, since: Timestamp, until: Timestamp) -> Result<(), Failure> {
    let top = context::config_or("top", 5)?;
    let digest = Digest { webhooks, since, until, repositories: busiest(REPOSITORY, top)?, kinds: busiest(KIND, top)? };
    let id = effects::emit(Draft::json("digests.github", &digest)?.with_subject("github"))?;
    log::info!(webhooks, id; "a digest");
    Ok(())
}

/// `issues` in `github.issues.opened`.
fn kind(event: &str) -> &str {
    event.split('.').nth(1).unwrap_or(event)
}

/// The counters under a prefix with the highest counts, names without the prefix.
fn busiest(prefix: &str, top: usize) -> Result<Vec<Count>, Failure> {
    let mut counts = Vec::new();
    for key in state::keys(prefix).take(COUNTERS_MAX) {
        let key = key?;
        let count = state::get(&key)?.unwrap_or(0);
        counts.push(Count { name: key[prefix.len()..].to_owned(), count });
    }
    // Stable: equal counts stay in the order of their names.
    counts.sort_by_key(|this| std::cmp::Reverse(this.count));
    counts.truncate(top);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use bulkhead_plugin::testing::{self, Host};
    use serde_json::json;

    use super::*;

    fn webhook(kind: &str, repository: &str) -> Event {
        testing::event(kind, json!({"action": "opened", "repository": {"full_name": repository}}))
    }

    #[test]
    fn a_digest_follows_every_so_many_webhooks() {
        let mut host = Host::new().with_config("every", 4).with_config("top", 2);
        let webhooks = [
            ("github.issues.opened", "a/b"),
            ("github.issues.closed", "a/c"),
            ("github.push", "a/b"),
            ("github.star.created", "a/d"),
        ];
        let runs: Vec<_> = webhooks.iter().map(|(kind, name)| host.handle(handle, webhook(kind, name))).collect();
        assert!(runs[..3].iter().all(|run| run.success() == &() && run.emitted.is_empty()));
        runs[3].success();
        let digest: Digest = serde_json::from_slice(&runs[3].emitted[0].data).expect("a digest of JSON");
        let counts = |all: &[Count]| all.iter().map(|it| (it.name.clone(), it.count)).collect::<Vec<_>>();
        assert_eq!(counts(&digest.repositories), [("a/b".to_owned(), 2), ("a/c".to_owned(), 1)]);
        assert_eq!(counts(&digest.kinds), [("issues".to_owned(), 2), ("push".to_owned(), 1)]);
        assert_eq!(host.state::<Timestamp>(SINCE), None);
    }

    #[test]
    fn the_sample_stream_makes_three_digests() {
        let mut host = Host::new();
        let stream = include_str!("../../../tests/data/github/events.ndjson").lines().map(testing::event_from_json);
        let runs: Vec<_> = stream.map(|event| host.handle(handle, event)).collect();
        assert!(runs.iter().all(|run| run.success() == &()));
        let digests: Vec<_> = runs.iter().flat_map(|run| &run.emitted).collect();
        assert_eq!(digests.len(), runs.len() / 25);
        let last: Digest = serde_json::from_slice(&digests[2].data).expect("a digest of JSON");
        assert_eq!((last.webhooks, last.repositories[0].name.as_str()), (75, "Codertocat/Hello-World"));
    }

    #[test]
    fn a_webhook_without_a_repository_counts_too() {
        let mut host = Host::new();
        host.handle(handle, testing::event("github.organization.renamed", json!({"action": "renamed"}))).success();
        assert_eq!(host.state::<i64>("repository:(none)"), Some(1));
        assert_eq!(host.state::<i64>("kind:organization"), Some(1));
    }
}
