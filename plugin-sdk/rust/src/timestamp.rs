//! Timestamp: a point in time as the host gives it.

use std::error::Error;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC. Written and parsed as RFC 3339, serialised as the number.
///
/// ```
/// use bulkhead_plugin::Timestamp;
///
/// let time: Timestamp = "2024-02-29T13:34:56.789+01:00".parse()?;
/// assert_eq!(time.millis(), 1_709_210_096_789);
/// assert_eq!(time.to_string(), "2024-02-29T12:34:56.789Z");
/// # Ok::<(), bulkhead_plugin::Failure>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A point in time by its milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The time between two points; zero if the second is the later one.
impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// A text is no RFC 3339 time at or after the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTimestamp(String);

impl FromStr for Timestamp {
    type Err = NoTimestamp;

    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        parse(text).map(Self).ok_or_else(|| NoTimestamp(text.to_owned()))
    }
}

impl fmt::Display for NoTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no time such as 2026-01-05T09:00:00Z", self.0)
    }
}

impl Error for NoTimestamp {}

/// `2024-02-29T13:34:56`, then perhaps `.789…`, then `Z` or `+01:00`.
fn parse(text: &str) -> Option<u64> {
    let field = |at: usize, length: usize| -> Option<i64> {
        let digits = text.get(at..at + length)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    let separated = |&(at, allowed): &(usize, &str)| text.get(at..=at).is_some_and(|this| allowed.contains(this));
    let in_range = |value: i64, min: i64, max: i64| (min..=max).contains(&value).then_some(value);
    if !separators.iter().all(separated) {
        return None;
    }
    let (year, month) = (field(0, 4)?, in_range(field(5, 2)?, 1, 12)?);
    let day = in_range(field(8, 2)?, 1, days_in(year, month))?;
    let hour = in_range(field(11, 2)?, 0, 23)?;
    // 60 is a leap second, which the epoch does not count.
    let (minute, second) = (in_range(field(14, 2)?, 0, 59)?, in_range(field(17, 2)?, 0, 60)?);

    let rest = text.get(19..)?;
    let (millis, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let end = rest.find(|this: char| !this.is_ascii_digit())?;
            // What is finer than a millisecond is cut off.
            let digits = format!("{:0<3}", rest.get(..end.min(3)).filter(|digits| !digits.is_empty())?);
            (digits.parse().ok()?, &rest[end..])
        }
    };
    let offset_minutes = match (zone, zone.get(..1), zone.get(3..4)) {
        ("Z" | "z", ..) => 0,
        (_, Some(sign @ ("+" | "-")), Some(":")) if zone.len() == 6 => {
            let at = text.len() - zone.len();
            let minutes = in_range(field(at + 1, 2)?, 0, 23)? * 60 + in_range(field(at + 4, 2)?, 0, 59)?;
            if sign == "+" { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    u64::try_from((minutes * 60 + second) * 1_000 + millis).ok()
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The inverse of `civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// The date of a day since the epoch, by counting in years that begin in March: a leap day is then the last of
/// its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // Days from 0000-03-01 to the epoch.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(millis: u64, expected: &str) {
        assert_eq!(Timestamp(millis).to_string(), expected);
    }

    #[test]
    fn dates_around_leap_days_and_ends_of_years() {
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(951_868_800_000, "2000-03-01T00:00:00.000Z");
        check(1_735_689_599_999, "2024-12-31T23:59:59.999Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_written_is_parsed() {
        for days in (0..80_000).step_by(13) {
            let time = Timestamp(days * 86_400_000 + 45_296_789);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn other_forms_of_the_same_time_are_parsed() {
        let expected = Ok(Timestamp(951_868_799_100));
        for text in ["2000-02-29T23:59:59.1Z", "2000-02-29t23:59:59.100999z", "2000-03-01 01:29:59.1+01:30"] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "",
            "now",
            "2001-02-29T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00+1:00",
            "2000-01-01T00:00:00+0100",
            "1969-12-31T23:59:59Z",
            "2000-01-01T00:00:00+é0:00",
            "+000-01-01T00:00:00Z",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTimestamp(text.to_owned())));
        }
    }

    #[test]
    fn a_span_is_never_negative() {
        let (early, late) = (Timestamp(1_000), Timestamp(3_500));
        assert_eq!(late - early, Duration::from_millis(2_500));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(early + Duration::from_millis(2_500), late);
    }
}
