//! Comparison: how one version of a plugin did on an event, beside another on the same event.
//!
//! What both wanted to happen is compared by its content; ids of effects are left out, because they count effects and
//! would make one more effect at the beginning look like a change of all of them.

use serde_json::Value;
use serde_json::json;

use crate::effect::Effect;
use crate::effect::StateWrite;
use crate::event::Draft;
use crate::policy::verdict::Outcome;

/// Characters of one effect that a difference shows.
const SHOWN_MAX: usize = 400;
/// Differences that a comparison names; of more it gives the number.
const DIFFERENCES_MAX: usize = 20;

/// How a run ended with one version.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// How.
    pub outcome: &'a Outcome,
    /// What it wanted to happen, in order, state apart.
    pub effects: &'a [Effect],
    /// What it wrote to its state.
    pub writes: &'a [StateWrite],
}

/// What the newer version means for the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The same as before.
    Same,
    /// It wants something else to happen.
    Changed,
    /// It wants less to happen, and nothing new.
    FewerEffects,
    /// It fails, and the older one did not.
    NewFailure,
    /// It succeeds, and the older one failed.
    Mended,
}

/// One thing in which they differ.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// What the older one did and the newer one does not, as JSON text, cut; none if it is new.
    pub before: Option<String>,
    /// What the newer one does and the older one did not.
    pub after: Option<String>,
}

/// Two versions on one event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Comparison {
    /// In one word.
    pub kind: Kind,
    /// In detail; at most 20.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    pub more: usize,
}

/// Compares what the newer version did with what the older one did.
#[must_use]
pub fn compare(older: Ended<'_>, newer: Ended<'_>) -> Comparison {
    let kind = match (older.outcome, newer.outcome) {
        (Outcome::Done, Outcome::Done) => return done(older, newer),
        (Outcome::Done, _) => Kind::NewFailure,
        (_, Outcome::Done) => Kind::Mended,
        (older, newer) if ending(older) == ending(newer) => {
            return Comparison { kind: Kind::Same, differences: Vec::new(), more: 0 };
        }
        _ => Kind::Changed,
    };
    let said = |outcome| Some(shown(&ending(outcome)));
    let difference = Difference { before: said(older.outcome), after: said(newer.outcome) };
    Comparison { kind, differences: vec![difference], more: 0 }
}

fn done(older: Ended<'_>, newer: Ended<'_>) -> Comparison {
    let (before, after) = (wanted(older), wanted(newer));
    if before == after {
        return Comparison { kind: Kind::Same, differences: Vec::new(), more: 0 };
    }
    let (gone, new) = (without(&before, &after), without(&after, &before));
    let kind = if new.is_empty() && !gone.is_empty() { Kind::FewerEffects } else { Kind::Changed };
    let total = gone.len().max(new.len());
    let at = |list: &[&Value], at: usize| list.get(at).map(|value| shown(value));
    let mut differences: Vec<Difference> = (0..total.min(DIFFERENCES_MAX))
        .map(|place| Difference { before: at(&gone, place), after: at(&new, place) })
        .collect();
    if total == 0 {
        // The same effects in another order.
        let order = |list: &[Value]| Some(shown(&Value::Array(list.to_vec())));
        differences.push(Difference { before: order(&before), after: order(&after) });
    }
    Comparison { kind, differences, more: total.saturating_sub(DIFFERENCES_MAX) }
}

/// What is in `list` and not in `other`, each as often as it is there more often.
fn without<'a>(list: &'a [Value], other: &[Value]) -> Vec<&'a Value> {
    let mut other: Vec<Option<&Value>> = other.iter().map(Some).collect();
    let is_left = |value: &&Value| match other.iter().position(|one| *one == Some(*value)) {
        Some(at) => {
            other[at] = None;
            false
        }
        None => true,
    };
    list.iter().filter(is_left).collect()
}

/// Everything that a run wanted, effects in their order, state by key.
fn wanted(ended: Ended<'_>) -> Vec<Value> {
    let mut writes: Vec<&StateWrite> = ended.writes.iter().collect();
    writes.sort_by(|one, other| (one.plugin, &one.key).cmp(&(other.plugin, &other.key)));
    ended.effects.iter().map(effect).chain(writes.into_iter().map(write)).collect()
}

fn ending(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Done => json!("done"),
        Outcome::Failed(failure) => json!({ "failed": failure.code, "reason": failure.reason }),
        Outcome::Rejected(failure) => json!({ "rejected": failure.code, "reason": failure.reason }),
    }
}

fn effect(effect: &Effect) -> Value {
    match effect {
        Effect::State(one) => write(one),
        Effect::Emit { draft: event, .. } => json!({ "emit": draft(event) }),
        Effect::Deliver(delivery) => json!({ "deliver": {
            "sink": delivery.sink,
            "content_type": delivery.content_type,
            "body": body(&delivery.body),
            "attributes": delivery.attributes,
        }}),
        Effect::Schedule { name, due, draft: event, .. } => {
            json!({ "schedule": { "name": name, "due_us": due.0, "event": draft(event) } })
        }
        Effect::Cancel { timer, .. } => json!({ "cancel": timer }),
    }
}

fn write(write: &StateWrite) -> Value {
    match &write.value {
        Some(value) => {
            let expires = write.expires.map(|expires| expires.0);
            json!({ "set": { "key": write.key, "value": body(value), "expires_us": expires } })
        }
        None => json!({ "delete": write.key }),
    }
}

fn draft(draft: &Draft) -> Value {
    json!({
        "type": draft.kind,
        "subject": draft.subject,
        "key": draft.key,
        "content_type": draft.content_type,
        "data": body(&draft.data),
        "attributes": draft.attributes,
    })
}

/// JSON as it is, so that spaces and the order of fields make no difference; else text; else its hash.
fn body(bytes: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "bytes": bytes.len(), "blake3": blake3::hash(bytes).to_hex().as_str() }),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::PluginId;
    use crate::policy::verdict::Failure;

    fn emit(id: &str, kind: &str, data: &str) -> Effect {
        let draft = Draft { kind: kind.into(), data: Bytes::copy_from_slice(data.as_bytes()), ..Draft::default() };
        Effect::Emit { id: id.into(), draft }
    }

    fn done(effects: &[Effect]) -> Ended<'_> {
        Ended { outcome: &Outcome::Done, effects, writes: &[] }
    }

    #[test]
    fn ids_spaces_and_the_order_of_fields_make_no_difference() {
        let older = [emit("eff_1", "a", r#"{"x":1,"y":2}"#)];
        let newer = [emit("eff_9", "a", r#"{ "y": 2, "x": 1 }"#)];
        assert_eq!(compare(done(&older), done(&newer)).kind, Kind::Same);
    }

    #[test]
    fn one_effect_less_is_fewer_and_another_one_is_a_change() {
        let two = [emit("1", "a", "1"), emit("2", "b", "2")];
        let fewer = compare(done(&two), done(&two[1..]));
        assert_eq!((fewer.kind, fewer.differences.len()), (Kind::FewerEffects, 1));
        assert!(fewer.differences[0].before.as_deref().is_some_and(|text| text.contains("\"type\":\"a\"")));
        assert_eq!(fewer.differences[0].after, None);
        let more = compare(done(&two[1..]), done(&two));
        assert_eq!(more.kind, Kind::Changed);
        let swapped = [two[1].clone(), two[0].clone()];
        let order = compare(done(&two), done(&swapped));
        assert_eq!((order.kind, order.differences.len()), (Kind::Changed, 1));
        // Twice is not once.
        let twice = [two[0].clone(), two[0].clone()];
        assert_eq!(compare(done(&twice), done(&two[..1])).kind, Kind::FewerEffects);
    }

    #[test]
    fn failures_are_compared_by_what_they_say() {
        let failed = |code: &str| Outcome::Failed(Failure::new(code, "why"));
        let (one, other) = (failed("trap:unreachable"), failed("limit:fuel"));
        let ended = |outcome| Ended { outcome, effects: &[], writes: &[] };
        assert_eq!(compare(ended(&one), ended(&one)).kind, Kind::Same);
        assert_eq!(compare(ended(&one), ended(&other)).kind, Kind::Changed);
        assert_eq!(compare(ended(&one), ended(&Outcome::Done)).kind, Kind::Mended);
        let new = compare(ended(&Outcome::Done), ended(&other));
        assert_eq!(new.kind, Kind::NewFailure);
        assert!(new.differences[0].after.as_deref().is_some_and(|text| text.contains("limit:fuel")));
    }

    #[test]
    fn state_is_compared_by_key_whatever_the_order_of_writes() {
        let write = |key: &str, value: &str| StateWrite {
            plugin: PluginId(1),
            key: key.into(),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            expires: None,
        };
        let ended = |writes| Ended { outcome: &Outcome::Done, effects: &[], writes };
        let (one, other) = ([write("a", "1"), write("b", "2")], [write("b", "2"), write("a", "1")]);
        assert_eq!(compare(ended(&one), ended(&other)).kind, Kind::Same);
        assert_eq!(compare(ended(&one), ended(&other[..1])).kind, Kind::FewerEffects);
    }

    #[test]
    fn long_and_many_differences_are_cut() {
        let many: Vec<Effect> = (0..30).map(|at| emit("x", "a", &format!("\"{at}{}\"", "é".repeat(600)))).collect();
        let found = compare(done(&many), done(&[]));
        assert_eq!((found.differences.len(), found.more), (20, 10));
        assert!(found.differences.iter().all(|one| one.before.as_ref().is_some_and(|text| text.chars().count() < 410)));
    }
}
