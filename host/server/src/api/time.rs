//! Times in queries and answers: RFC 3339, and days.

use bulkhead_domain::clock::Timestamp;

use crate::api::code::Code;
use crate::api::extract::shown;
use crate::api::problem::Problem;
use crate::api::problem::Result;

pub use bulkhead_flow::inbox::codec::rfc3339;

/// Reads a time of the query parameter `name`.
pub fn parse(name: &str, text: &str) -> Result<Timestamp> {
    // In a query a bare `+` is a blank.
    let read = text.parse::<jiff::Timestamp>().or_else(|_| text.replace(' ', "+").parse());
    read.map(|time| Timestamp(time.as_microsecond())).map_err(|_| {
        let detail = format!("`{name}` is `{}`, which is no time", shown(text));
        Problem::new(Code::QueryInvalid, detail).hint("write it like 2026-01-31T12:00:00Z")
    })
}

/// Reads a day of the query parameter `name`, as days since the epoch.
pub fn parse_day(name: &str, text: &str) -> Result<i64> {
    let wrong = || {
        let detail = format!("`{name}` is `{}`, which is no day", shown(text));
        Problem::new(Code::QueryInvalid, detail).hint("write it like 2026-01-31")
    };
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(Timestamp(midnight.timestamp().as_microsecond()).day())
}

/// A day as people write it.
pub fn day(day: i64) -> String {
    rfc3339(Timestamp(day.saturating_mul(86_400_000_000))).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_days_read_back() {
        let expected = parse("since", "2026-01-31T12:00:00Z").expect("because it is a time");
        for same in ["2026-01-31T13:00:00+01:00", "2026-01-31T13:00:00 01:00", "2026-01-31T12:00:00.000Z"] {
            assert_eq!(parse("since", same).expect(same), expected);
        }
        for text in ["1970-01-01", "2026-01-31", "1969-12-31", "2000-02-29"] {
            assert_eq!(day(parse_day("from", text).expect(text)), text);
        }
        assert_eq!(parse_day("from", "1970-01-02").expect("because it is a day"), 1);
        for wrong in ["", "yesterday", "2026-02-30", "2026-1-1x"] {
            assert_eq!(parse("since", wrong).expect_err(wrong).code, Code::QueryInvalid);
            assert_eq!(parse_day("from", wrong).expect_err(wrong).code, Code::QueryInvalid);
        }
    }
}
