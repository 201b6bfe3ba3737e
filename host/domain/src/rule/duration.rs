//! Durations as people write them: `250ms`, `1s`, `1h30m`.

use std::time::Duration;

/// Units and their milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration: whole numbers, each with its unit (`ms`, `s`, `m`, `h`, `d`).
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0_u64;
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_lowercase()).len();
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        rest = &rest[letters..];
        millis = millis.checked_add(number.checked_mul(*unit)?)?;
    }
    Some(Duration::from_millis(millis))
}

/// Writes a duration as [`parse`] reads it. Parts of a millisecond are left out.
#[must_use]
pub fn write(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, length) in UNITS {
        if millis >= length {
            text.push_str(&format!("{}{unit}", millis / length));
            millis %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let check = |text: &str, millis: u64, written: &str| {
            let duration = parse(text).unwrap_or_else(|| panic!("{text} is a duration"));
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(write(duration), written, "{text}");
        };
        check("250ms", 250, "250ms");
        check("1s", 1_000, "1s");
        check("90s", 90_000, "1m30s");
        check("1h30m", 5_400_000, "1h30m");
        check("2d", 172_800_000, "2d");
        check("0s", 0, "0s");
        for wrong in ["", "1", "s", "1 s", "1.5s", "-1s", "1S", "1w", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
