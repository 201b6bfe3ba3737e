//! Which shards are this node's. The keeper says so; dispatch and delivery work on no others.

use std::collections::HashMap;
use std::ops::Deref;
use std::time::Instant;

use arc_swap::ArcSwap;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;

/// What this node holds now.
pub type Fences = ArcSwap<Held>;

/// The shards that this node holds, each with the fence that its commits show.
#[derive(Debug, Default)]
pub struct Held {
    fences: HashMap<Shard, Fence>,
    until: Option<Instant>,
}

impl Held {
    /// Shards whose leases last until then if they are not renewed.
    #[must_use]
    pub fn until(fences: HashMap<Shard, Fence>, until: Instant) -> Self {
        Self { fences, until: Some(until) }
    }

    /// Whether the leases have run out: then another node may hold the shards, and this one was not told. A commit need
    /// not ask, it is fenced; what goes out of the host is not.
    #[must_use]
    pub fn has_run_out(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl From<HashMap<Shard, Fence>> for Held {
    /// Shards that nobody takes away.
    fn from(fences: HashMap<Shard, Fence>) -> Self {
        Self { fences, until: None }
    }
}

impl Deref for Held {
    type Target = HashMap<Shard, Fence>;

    fn deref(&self) -> &Self::Target {
        &self.fences
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn leases_run_out_and_what_nobody_takes_away_does_not() {
        let (fences, now) = (HashMap::from([(Shard(1), Fence(2))]), Instant::now());
        assert!(Held::until(fences.clone(), now).has_run_out());
        assert!(!Held::until(fences.clone(), now + Duration::from_secs(60)).has_run_out());
        let held = Held::from(fences);
        assert!(!held.has_run_out() && held.get(&Shard(1)) == Some(&Fence(2)));
    }
}
