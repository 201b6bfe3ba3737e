//! Which events are wanted, as far as the store cannot say it: type globs and CEL conditions.

use bulkhead_domain::event::Event;
use bulkhead_domain::rule::Condition;
use bulkhead_domain::rule::Scope;
use bulkhead_domain::rule::expression::Budget;
use bulkhead_domain::rule::glob::Glob;

use crate::api::code::Code;
use crate::api::problem::Problem;
use crate::api::problem::Result;

/// Bytes of a condition.
const CONDITION_MAX: usize = 4 << 10;

/// A filter over events.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    kind: Option<Glob>,
    condition: Option<Condition>,
}

impl Filter {
    /// Reads `type` and `where`.
    pub fn parse(kind: Option<&str>, condition: Option<&str>) -> Result<Self> {
        let glob = |text: &str| {
            Glob::parse(text).map_err(|error| Problem::new(Code::QueryInvalid, format!("`type` is no glob: {error}")))
        };
        let condition = condition.map(|text| {
            if text.len() > CONDITION_MAX {
                let detail = format!("`where` has {} bytes; at most {CONDITION_MAX} are taken", text.len());
                return Err(Problem::new(Code::ConditionInvalid, detail));
            }
            Condition::parse(text).map_err(|faults| {
                Problem::new(Code::ConditionInvalid, "`where` is not a condition that can be evaluated").faults(faults)
            })
        });
        Ok(Self { kind: kind.map(glob).transpose()?, condition: condition.transpose()? })
    }

    /// The one type that it asks for, if it is one.
    pub fn exact_kind(&self) -> Option<String> {
        self.kind.as_ref().and_then(Glob::exact)
    }

    /// True if the store's own selection says it all.
    pub fn is_exact(&self) -> bool {
        self.condition.is_none() && self.kind.as_ref().is_none_or(|kind| kind.exact().is_some())
    }

    /// Is this one wanted? Also says how many steps the answer took. A condition that asks for what the event does not
    /// have, or takes too long, does not hold.
    pub fn keeps(&self, event: &Event, tenant: &str) -> (bool, u64) {
        if !self.kind.as_ref().is_none_or(|kind| kind.matches(&event.kind)) {
            return (false, 1);
        }
        let Some(condition) = &self.condition else { return (true, 1) };
        let mut budget = Budget::default();
        let whole = budget.left();
        let truth = condition.evaluate_within(&Scope::new(event, tenant), &mut budget);
        // Parsing the payload is work, too.
        let parsing = event.data.len() as u64 / 32;
        (truth.holds(), whole - budget.left() + parsing)
    }
}

/// Lets others have a turn on the thread after so many steps, some milliseconds.
#[derive(Debug, Default)]
pub struct Fair {
    steps: u64,
}

/// Steps between two breaks.
const TURN_STEPS: u64 = 100_000;

impl Fair {
    /// So many steps were taken.
    pub async fn took(&mut self, steps: u64) {
        self.steps += steps;
        if self.steps > TURN_STEPS {
            self.steps = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::clock::Timestamp;
    use bytes::Bytes;

    use super::*;

    fn event(kind: &str, data: &'static str) -> Event {
        Event {
            id: "1".into(),
            source: "/s".into(),
            kind: kind.into(),
            subject: None,
            time: Timestamp(0),
            key: None,
            correlation: "1".into(),
            causation: None,
            content_type: "application/json".into(),
            data: Bytes::from_static(data.as_bytes()),
            attributes: vec![],
        }
    }

    #[test]
    fn globs_and_conditions_both_count() {
        let filter = Filter::parse(Some("orders.*"), Some("data.total > 5")).expect("because both are right");
        let keeps = |kind: &str, data| filter.keeps(&event(kind, data), "acme").0;
        assert!(keeps("orders.created", r#"{"total":6}"#));
        assert!(!keeps("orders.created", r#"{"total":5}"#));
        assert!(!keeps("orders.created", r#"{}"#));
        assert!(!keeps("orders", r#"{"total":6}"#));
        assert!(!filter.is_exact());
        let exact = Filter::parse(Some("orders.created"), None).expect("because it is right");
        assert_eq!((exact.exact_kind().as_deref(), exact.is_exact()), (Some("orders.created"), true));
        assert!(Filter::default().is_exact());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_code() {
        let code = |kind, condition| Filter::parse(kind, condition).expect_err("because it is wrong").code;
        assert_eq!(code(Some("orders..x"), None), Code::QueryInvalid);
        assert_eq!(code(None, Some("data.total >")), Code::ConditionInvalid);
        assert_eq!(code(None, Some("1 + 1")), Code::ConditionInvalid);
        assert_eq!(code(None, Some(&"!".repeat(CONDITION_MAX + 1))), Code::ConditionInvalid);
    }
}
