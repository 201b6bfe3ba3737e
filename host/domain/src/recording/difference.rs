//! Two ends of a call beside each other: as it was recorded, and as it is now.

use serde::Serialize;

use crate::effect::Effect;
use crate::effect::LogLine;
use crate::event::Draft;
use crate::policy::verdict::Outcome;
use crate::recording::Ended;

/// What a re-execution did otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    /// It ended otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Change<Outcome>>,
    /// Effects that differ, by place. Writes to state are effects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Change<Effect>>,
    /// Events passed on that differ, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drafts: Vec<Change<Draft>>,
    /// Lines of the log that differ, by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Change<LogLine>>,
    /// Units that were counted otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Change<(String, f64)>>,
    /// It used more or less fuel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<Change<u64>>,
    /// What it read now and had not read when it was recorded; it was told that nothing is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<String>,
}

/// Something that is not what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change<T> {
    /// Its place in its list, from 0.
    pub at: usize,
    /// As it was recorded; none if it is new.
    pub before: Option<T>,
    /// As it is now; none if it is gone.
    pub after: Option<T>,
}

impl Difference {
    /// Compares all but the fuel, which two instances of which one served others before use differently.
    #[must_use]
    pub fn of_results(before: &Ended, after: &Ended) -> Self {
        Self {
            outcome: (before.outcome != after.outcome).then(|| Change {
                at: 0,
                before: Some(before.outcome.clone()),
                after: Some(after.outcome.clone()),
            }),
            effects: changes(&before.effects, &after.effects, PartialEq::eq),
            drafts: changes(&before.drafts, &after.drafts, PartialEq::eq),
            logs: changes(&before.logs, &after.logs, PartialEq::eq),
            usage: changes(&units(before), &units(after), |a, b| a.0 == b.0 && is_near(a.1, b.1)),
            fuel: None,
            unrecorded: Vec::new(),
        }
    }

    /// Compares all.
    #[must_use]
    pub fn of(before: &Ended, after: &Ended) -> Self {
        let fuel =
            (before.fuel != after.fuel).then_some(Change { at: 0, before: Some(before.fuel), after: Some(after.fuel) });
        Self { fuel, ..Self::of_results(before, after) }
    }

    /// Nothing is different.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn units(ended: &Ended) -> Vec<(String, f64)> {
    ended.usage.iter().map(|(unit, amount)| (unit.clone(), *amount)).collect()
}

/// Equal but for what a number may lose on its way through a text.
fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() <= a.abs() * 4.0 * f64::EPSILON
}

fn changes<T: Clone>(before: &[T], after: &[T], same: impl Fn(&T, &T) -> bool) -> Vec<Change<T>> {
    (0..before.len().max(after.len()))
        .filter_map(|at| match (before.get(at), after.get(at)) {
            (Some(a), Some(b)) if same(a, b) => None,
            (before, after) => Some(Change { at, before: before.cloned(), after: after.cloned() }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::effect::StateWrite;
    use crate::id::PluginId;
    use crate::policy::verdict::Failure;

    fn ended() -> Ended {
        let write = |key: &str, value: &str| {
            let value = Some(value.to_owned().into());
            Effect::State(StateWrite { plugin: PluginId(0), key: key.to_owned(), value, expires: None })
        };
        Ended {
            outcome: Outcome::Done,
            drafts: Vec::new(),
            effects: vec![write("a", "1"), write("b", "2")],
            logs: Vec::new(),
            logs_dropped: 0,
            usage: BTreeMap::from([("tokens".to_owned(), 0.1)]),
            fuel: 10,
            memory: 0,
        }
    }

    #[test]
    fn only_what_differs_is_named() {
        assert!(Difference::of(&ended(), &ended()).is_none());
        let mut other = ended();
        other.fuel = 11;
        assert_eq!(Difference::of(&ended(), &other).fuel, Some(Change { at: 0, before: Some(10), after: Some(11) }));
        assert!(Difference::of_results(&ended(), &other).is_none(), "the fuel is left out");
        other.outcome = Outcome::Rejected(Failure::new("plugin:reject", "no"));
        other.effects.remove(0);
        other.usage.insert("tokens".to_owned(), 0.2);
        let difference = Difference::of(&ended(), &other);
        assert!(difference.outcome.is_some() && difference.usage.len() == 1);
        let places: Vec<_> = difference.effects.iter().map(|change| (change.at, change.after.is_some())).collect();
        assert_eq!(places, [(0, true), (1, false)]);
    }
}
