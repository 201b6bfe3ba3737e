//! What of a plugin's calls is recorded: as its manifest asks, below what the operator allows.

use serde::Deserialize;
use serde::Serialize;

use crate::id::RunId;
use crate::id::hash64;

/// What a manifest asks for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecorderRequest {
    /// Nothing is recorded, not even failures.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Which part of successful runs is recorded, from 0 to 1; none is the operator's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// JSON pointers to what is taken out of the event's data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
}

impl RecorderRequest {
    /// Whether a run is one of those whose success is recorded. The same on every attempt and every node.
    #[must_use]
    pub fn samples(&self, run: RunId, ceiling: f64) -> bool {
        let part = self.sample.map_or(ceiling, |sample| sample.min(ceiling));
        let mut name = [0; 20];
        name[..16].copy_from_slice(&run.event.0);
        name[16..].copy_from_slice(&run.rule.to_be_bytes());
        // 32 bits divide as finely as anybody will ask for, and are a floating-point number exactly.
        let place = f64::from(u32::try_from(hash64(&name) >> 32).unwrap_or(u32::MAX));
        !self.off && place < part * (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EventKey;

    #[test]
    fn a_part_of_the_runs_is_sampled_and_always_the_same() {
        let run = |at: u32| RunId::of(EventKey::of("/s", &at.to_string()), "rule");
        let sampled = |request: &RecorderRequest, ceiling| -> Vec<u32> {
            (0..10_000).filter(|at| request.samples(run(*at), ceiling)).collect()
        };
        let request = |sample| RecorderRequest { sample: Some(sample), ..RecorderRequest::default() };
        let tenth = sampled(&request(0.1), 1.0);
        assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(sampled(&request(1.0), 0.1), tenth, "the operator's part is the most");
        assert_eq!(sampled(&RecorderRequest::default(), 0.1), tenth, "and what counts if nothing is asked for");
        assert_eq!(sampled(&request(1.0), 1.0).len(), 10_000);
        assert_eq!(sampled(&request(0.0), 1.0).len(), 0);
        let off = RecorderRequest { off: true, ..request(1.0) };
        assert_eq!(sampled(&off, 1.0).len(), 0);
    }
}
