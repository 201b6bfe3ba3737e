//! Which shards are this node's. The keeper says so; dispatch and delivery work on no others.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use bulkhead_domain::id::Fence;
use bulkhead_domain::id::Shard;

/// The shards that this node holds, each with the fence that its commits show.
pub type Fences = ArcSwap<HashMap<Shard, Fence>>;
