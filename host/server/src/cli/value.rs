//! Values as people read them.

use serde_json::Value;

/// Text without quotes, lists without brackets, everything else as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The text at a JSON pointer; empty if there is none.
pub fn at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).map(text).unwrap_or_default()
}

/// The number at a JSON pointer; 0 if there is none.
pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The items of the list at a JSON pointer; none if there is no list.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `2026-01-31T12:00:00.123Z` as `2026-01-31 12:00:00`.
pub fn time(value: &Value) -> String {
    let full = text(value);
    match full.split_once('T') {
        Some((day, rest)) if day.len() == 10 => {
            let clock: String = rest.chars().take_while(|it| it.is_ascii_digit() || *it == ':').collect();
            format!("{day} {clock}")
        }
        _ => full,
    }
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Microseconds in a unit that leaves two to four digits.
pub fn micros(micros: u64) -> String {
    scaled(micros, &[(60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")], "µs")
}

/// Bytes in a binary unit.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")], "B")
}

/// Fuel, in thousands and millions: the last digits say nothing to people.
pub fn fuel(fuel: u64) -> String {
    scaled(fuel, &[(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")], "")
}

fn scaled(number: u64, units: &[(u64, &str)], smallest: &str) -> String {
    for (size, unit) in units {
        if number >= *size {
            let tenths = (u128::from(number) * 10 / u128::from(*size)) as u64;
            return format!("{}.{} {unit}", count(tenths / 10), tenths % 10);
        }
    }
    format!("{number} {smallest}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_read_well() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), expected);
        }
        for (number, expected) in [
            (7, "7 µs"),
            (1_250, "1.2 ms"),
            (2_000_000, "2.0 s"),
            (90_000_000, "1.5 min"),
            (u64::MAX, "307,445,734,561.8 min"),
        ] {
            assert_eq!(micros(number), expected);
        }
        assert_eq!(
            (bytes(0), bytes(1536), fuel(12), fuel(2_500)),
            ("0 B".into(), "1.5 KiB".into(), "12".into(), "2.5 k".into())
        );
    }

    #[test]
    fn times_lose_what_nobody_reads() {
        assert_eq!(time(&json!("2026-01-31T12:00:01.123456Z")), "2026-01-31 12:00:01");
        assert_eq!(time(&json!("soon")), "soon");
        assert_eq!(time(&json!(17)), "17");
    }
}
