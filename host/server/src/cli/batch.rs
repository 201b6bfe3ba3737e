//! Batches: cuts NDJSON into requests so that several can be on their way without mixing up the order within a key.
//!
//! Every line goes to one of a few lanes, chosen by its ordering key (`partitionkey`, else its subject). A lane has one
//! request on its way at a time, so the events of one key arrive in the order of the file, while different keys do not
//! wait for each other. Lines without a key follow each other round the lanes.

use std::hash::Hash as _;
use std::hash::Hasher as _;

use serde::Deserialize;

/// Lines of one request: large enough that the request costs little, small enough that a refusal costs little.
pub const LINES_MAX: usize = 500;

/// Bytes of one request, well below what a host takes.
pub const BYTES_MAX: usize = 1 << 20;

/// The longest line that is read at all; a host takes less.
pub const LINE_MAX: usize = 16 << 20;

/// One request's worth of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The lines, each with its end.
    pub body: Vec<u8>,
    /// The number of each line in the input, from 1.
    pub lines: Vec<u64>,
}

impl Batch {
    /// Adds a line.
    pub fn push(&mut self, number: u64, line: &[u8]) {
        self.body.extend_from_slice(line);
        self.body.push(b'\n');
        self.lines.push(number);
    }

    /// True if a line of this length would make it too large.
    pub fn is_full_for(&self, length: usize) -> bool {
        !self.lines.is_empty() && (self.lines.len() >= LINES_MAX || self.body.len() + length + 1 > BYTES_MAX)
    }

    /// Two batches of half as many lines.
    pub fn halves(&self) -> (Self, Self) {
        let middle = self.lines.len() / 2;
        let mut halves = (Self::default(), Self::default());
        let lines = self.body.split(|byte| *byte == b'\n');
        for (index, (line, number)) in lines.zip(&self.lines).enumerate() {
            let half = if index < middle { &mut halves.0 } else { &mut halves.1 };
            half.push(*number, line);
        }
        halves
    }
}

/// Deals lines out to lanes.
#[derive(Debug)]
pub struct Dealer {
    lanes: Vec<Batch>,
    next: usize,
}

/// What decides about the order.
#[derive(Deserialize)]
struct Ordering {
    partitionkey: Option<serde_json::Value>,
    subject: Option<serde_json::Value>,
}

impl Dealer {
    /// For so many lanes, at least one.
    pub fn new(lanes: usize) -> Self {
        Self { lanes: vec![Batch::default(); lanes.max(1)], next: 0 }
    }

    /// Takes a line; gives back a lane and its batch when that is full.
    pub fn deal(&mut self, number: u64, line: &[u8]) -> Option<(usize, Batch)> {
        let lane = self.lane(line);
        let batch = &mut self.lanes[lane];
        let full = batch.is_full_for(line.len()).then(|| std::mem::take(batch));
        batch.push(number, line);
        full.map(|full| (lane, full))
    }

    /// What is left.
    pub fn rest(&mut self) -> Vec<(usize, Batch)> {
        let lanes = self.lanes.iter_mut().map(std::mem::take).enumerate();
        lanes.filter(|(_, batch)| !batch.lines.is_empty()).collect()
    }

    fn lane(&mut self, line: &[u8]) -> usize {
        if self.lanes.len() == 1 {
            return 0;
        }
        let ordering = serde_json::from_slice::<Ordering>(line).ok();
        let key = ordering.and_then(|it| it.partitionkey.or(it.subject)).filter(|key| !key.is_null());
        match key {
            Some(key) => {
                let mut hasher = std::hash::DefaultHasher::new();
                key.to_string().hash(&mut hasher);
                (hasher.finish() % self.lanes.len() as u64) as usize
            }
            None => {
                // Whole batches in turn, not single lines: neighbours stay together.
                if self.lanes[self.next].is_full_for(line.len()) {
                    self.next = (self.next + 1) % self.lanes.len();
                }
                self.next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_its_lane_and_nothing_is_left_out() {
        let mut dealer = Dealer::new(4);
        let mut lane_of = std::collections::HashMap::new();
        let mut seen = Vec::new();
        let mut take = |lane: usize, batch: Batch| {
            assert!(batch.lines.len() <= LINES_MAX && batch.body.len() <= BYTES_MAX);
            for (line, number) in batch.body.split(|it| *it == b'\n').zip(&batch.lines) {
                let event: serde_json::Value = serde_json::from_slice(line).expect("because it went in whole");
                if let Some(key) = event.get("partitionkey").or(event.get("subject")) {
                    let (home, last) = lane_of.entry(key.to_string()).or_insert((lane, 0));
                    assert!(*home == lane && *last < *number, "{key}");
                    *last = *number;
                }
                seen.push(*number);
            }
        };
        for number in 1..=5_000_u64 {
            let line = match number % 3 {
                0 => format!(r#"{{"partitionkey":"k{}","subject":"s"}}"#, number % 50),
                1 => format!(r#"{{"subject":"s{}"}}"#, number % 7),
                _ => r#"{"id":"x"}"#.to_owned(),
            };
            if let Some((lane, batch)) = dealer.deal(number, line.as_bytes()) {
                take(lane, batch);
            }
        }
        for (lane, batch) in dealer.rest() {
            take(lane, batch);
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=5_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_large_line_travels_alone_and_a_batch_can_be_halved() {
        let mut dealer = Dealer::new(1);
        let large = vec![b'1'; BYTES_MAX + 5];
        assert_eq!(dealer.deal(1, b"{}"), None);
        assert_eq!(dealer.deal(2, &large).expect("because it does not fit behind the first").1.lines, [1]);
        assert_eq!(dealer.deal(3, b"{}").expect("because nothing fits behind the large one").1.lines, [2]);
        let mut batch = Batch::default();
        for number in 1..=3 {
            batch.push(number, b"{}");
        }
        let (one, other) = batch.halves();
        assert_eq!((one.lines, one.body), (vec![1], b"{}\n".to_vec()));
        assert_eq!((other.lines, other.body), (vec![2, 3], b"{}\n{}\n".to_vec()));
    }
}
