//! The guest's randomness: a stream of bytes from the attempt's seed, the same on every re-execution.

use bulkhead_domain::effect::EffectSeed;

/// Bytes in one request.
pub(crate) const REQUEST_MAX: u64 = 64 << 10;

/// The streams of one call.
pub(crate) struct Random {
    seed: EffectSeed,
    attempt: u32,
    purpose: Purpose,
    stream: Option<blake3::OutputReader>,
}

/// Making an instance draws from another stream than the call: whether an instance was at hand must not change what
/// the call sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Instance,
    Call,
}

impl Random {
    pub(crate) fn new(seed: EffectSeed, attempt: u32) -> Self {
        Self { seed, attempt, purpose: Purpose::Call, stream: None }
    }

    /// Begins the stream for `purpose` from its start.
    pub(crate) fn begin(&mut self, purpose: Purpose) {
        self.purpose = purpose;
        self.stream = None;
    }

    /// The next bytes of the stream.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        let stream = self.stream.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new_keyed(&self.seed.random(self.attempt));
            hasher.update(match self.purpose {
                Purpose::Instance => b"instance",
                Purpose::Call => b"call",
            });
            hasher.finalize_xof()
        });
        stream.fill(bytes);
    }

    /// The next eight bytes as a number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_domain::id::EventKey;

    use super::*;

    fn seed(step: usize) -> EffectSeed {
        EffectSeed::new(&[7; 32], "ten_a", EventKey::of("/a", "1"), "rule", step, 0)
    }

    #[test]
    fn a_re_execution_draws_the_same_and_nothing_else_does() {
        let draw = |seed: EffectSeed, attempt: u32, purpose: Purpose| {
            let mut random = Random::new(seed, attempt);
            random.begin(purpose);
            [random.number(), random.number()]
        };
        let first = draw(seed(1), 1, Purpose::Call);
        assert_eq!(first, draw(seed(1), 1, Purpose::Call));
        assert_ne!(first[0], first[1]);
        for other in
            [draw(seed(2), 1, Purpose::Call), draw(seed(1), 2, Purpose::Call), draw(seed(1), 1, Purpose::Instance)]
        {
            assert_ne!(first, other);
        }
    }
}
