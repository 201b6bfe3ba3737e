//! Rows as both databases have them: the one form that is sent, hashed and compared.

use std::fmt;

/// A column of a row. Both databases give the same for the same fact, whatever types they keep it in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    /// Also what is true or false, as 1 or 0.
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut put = |tag: u8, bytes: &[u8]| {
            hasher.update(&[tag]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Null => put(0, &[]),
            Self::Int(number) => put(1, &number.to_le_bytes()),
            Self::Real(number) => put(2, &number.to_bits().to_le_bytes()),
            Self::Text(text) => put(3, text.as_bytes()),
            Self::Blob(bytes) => put(4, bytes),
        }
    }

    /// What it takes on its way, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Int(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("none"),
            Self::Int(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            // Quoted and escaped: what is wrong with a text may be what cannot be seen.
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Blob(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// How many rows there are, and what is in them, in whatever order they come: the sum of the rows' hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: u64,
    sum: [u128; 2],
}

impl Tally {
    pub(super) fn add(&mut self, row: &[Value]) {
        let mut hasher = blake3::Hasher::new();
        for value in row {
            value.hash(&mut hasher);
        }
        let hash = hasher.finalize();
        let (low, high) = hash.as_bytes().split_at(16);
        for (sum, half) in self.sum.iter_mut().zip([low, high]) {
            // Two equal rows would cancel each other in an exclusive or; in a sum they do not.
            *sum = sum.wrapping_add(u128::from_le_bytes(half.try_into().expect("because a half is 16 bytes long")));
        }
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(rows: &[&[Value]]) -> Tally {
        let mut tally = Tally::default();
        rows.iter().for_each(|row| tally.add(row));
        tally
    }

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        let text = |text: &str| Value::Text(text.to_owned());
        let (a, b) = ([text("a"), text("bc")], [Value::Int(1), Value::Null]);
        assert_eq!(tally(&[&a, &b]), tally(&[&b, &a]));
        assert_ne!(tally(&[&a]), tally(&[&[text("ab"), text("c")]]));
        assert_ne!(tally(&[&a, &a]), tally(&[&b, &b]));
        assert_ne!(tally(&[&a, &a]).sum, tally(&[]).sum);
        assert_ne!(tally(&[&[text("")]]), tally(&[&[Value::Null]]));
        assert_ne!(tally(&[&[text("a")]]), tally(&[&[Value::Blob(b"a".to_vec())]]));
    }
}
