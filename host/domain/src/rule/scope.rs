//! The scope: what expressions see of one event.

use std::cell::OnceCell;

use serde_json::Value as Json;

use crate::clock::Timestamp;
use crate::event::Event;
use crate::rule::expression::Value;
use crate::rule::expression::value::Text;

/// One event as expressions see it: `event`, `data`, `attributes`, `tenant`.
///
/// The payload is parsed when an expression first needs it, and once.
#[derive(Debug)]
pub struct Scope<'e> {
    event: &'e Event,
    tenant: &'e str,
    data: OnceCell<Option<Json>>,
    time: OnceCell<String>,
}

/// A field of `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the event's")]
pub enum EventField {
    Id,
    Source,
    Type,
    Subject,
    Time,
    Key,
    Correlation,
    Causation,
}

impl EventField {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Id, Self::Source, Self::Type, Self::Subject, Self::Time, Self::Key, Self::Correlation, Self::Causation];

    /// Its name in expressions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Subject => "subject",
            Self::Time => "time",
            Self::Key => "key",
            Self::Correlation => "correlation",
            Self::Causation => "causation",
        }
    }

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

impl<'e> Scope<'e> {
    /// The scope of `event`, whose payload is `event.data`.
    #[must_use]
    pub fn new(event: &'e Event, tenant: &'e str) -> Self {
        Self { event, tenant, data: OnceCell::new(), time: OnceCell::new() }
    }

    /// The same event with a payload that a step has changed.
    #[must_use]
    pub fn with_data(event: &'e Event, tenant: &'e str, data: Json) -> Self {
        Self { event, tenant, data: OnceCell::from(Some(data)), time: OnceCell::new() }
    }

    /// The same event with only a part of its payload, for expressions that look at no other part.
    pub(in crate::rule) fn focused(event: &'e Event, tenant: &'e str, data: Option<Json>) -> Self {
        Self { event, tenant, data: OnceCell::from(data), time: OnceCell::new() }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &'e str {
        self.tenant
    }

    /// The payload, or none if it is not JSON (by its media type or by its bytes).
    #[must_use]
    pub fn data(&self) -> Option<&Json> {
        self.data
            .get_or_init(|| if self.event.is_json() { serde_json::from_slice(&self.event.data).ok() } else { None })
            .as_ref()
    }

    /// Has the payload been needed yet?
    #[must_use]
    pub fn is_parsed(&self) -> bool {
        self.data.get().is_some()
    }

    /// The payload, taken out.
    #[must_use]
    pub fn into_data(self) -> Option<Json> {
        let _ = self.data();
        self.data.into_inner().flatten()
    }

    /// A field of the event, if it has it.
    #[must_use]
    pub fn field(&self, field: EventField) -> Option<Value<'_>> {
        let text = match field {
            EventField::Id => Some(&self.event.id),
            EventField::Source => Some(&self.event.source),
            EventField::Type => Some(&self.event.kind),
            EventField::Subject => self.event.subject.as_ref(),
            EventField::Time => Some(self.time.get_or_init(|| rfc3339(self.event.time))),
            EventField::Key => self.event.key.as_ref(),
            EventField::Correlation => Some(&self.event.correlation),
            EventField::Causation => self.event.causation.as_ref(),
        };
        text.map(|text| Value::Text(Text::Borrowed(text)))
    }

    /// The field of this name, if there is one and the event has it.
    #[must_use]
    pub fn field_named(&self, name: &str) -> Option<Value<'_>> {
        self.field(EventField::named(name)?)
    }

    /// The fields that the event has.
    pub fn fields(&self) -> impl Iterator<Item = (EventField, Value<'_>)> {
        EventField::ALL.into_iter().filter_map(|field| self.field(field).map(|value| (field, value)))
    }
}

/// `2026-11-20T22:13:05.250Z`: UTC, with as many digits of a second as are needed.
fn rfc3339(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1_000_000);
    let micros = time.0.rem_euclid(1_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second_of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let fraction = match micros {
        0 => String::new(),
        _ if micros % 1_000 == 0 => format!(".{:03}", micros / 1_000),
        _ => format!(".{micros:06}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The date of a day counted from 1970-01-01. Counts in eras of 400 years that start on the first of March, so that
/// the leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let check = |micros: i64, expected: &str| assert_eq!(rfc3339(Timestamp(micros)), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000_000, "2000-02-29T00:00:00Z");
        check(951_868_800_000_000, "2000-03-01T00:00:00Z");
        check(1_795_212_785_250_000, "2026-11-20T22:13:05.250Z");
        check(1_795_212_785_250_001, "2026-11-20T22:13:05.250001Z");
        check(-1, "1969-12-31T23:59:59.999999Z");
        check(4_102_444_799_000_000, "2099-12-31T23:59:59Z");
    }
}
