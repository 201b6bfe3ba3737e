//! Where lanes go when the two stores do not have as many shards.
//!
//! A lane (a tenant's part of a shard) has one cursor for all its events, so a lane moves as a whole: events of two lanes
//! in one would need two cursors. A lane is named by how far it lies behind its tenant's home, because that is what
//! [`Shard::of`] makes of an event's key whatever the number of shards; so the events to come go where the ones before
//! them are.

use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

/// How many shards there are here and there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    pub(super) from: u16,
    pub(super) to: u16,
}

impl Lanes {
    /// The tenant's home there.
    pub(super) fn home(self, tenant: TenantId) -> Shard {
        Shard::of(tenant, "", self.to, 1)
    }

    /// Where a tenant's part of a shard goes; none if it lies further behind the home than there are shards there.
    pub(super) fn place(self, tenant: TenantId, shard: i64) -> Option<Shard> {
        let (from, to) = (i64::from(self.from), i64::from(self.to));
        if !(0..from).contains(&shard) {
            return None;
        }
        let behind = (shard - i64::from(Shard::of(tenant, "", self.from, 1).0)).rem_euclid(from);
        let place = (i64::from(self.home(tenant).0) + behind).rem_euclid(to);
        if behind < to { u16::try_from(place).ok().map(Shard) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_event_is_where_its_key_leads() {
        let lanes = Lanes { from: 16, to: 48 };
        for (tenant, spread) in (1..200).flat_map(|tenant| [1, 4, 16].map(|spread| (TenantId(tenant), spread))) {
            for key in ["", "a", "order-17", "é"] {
                let shard = Shard::of(tenant, key, lanes.from, spread);
                assert_eq!(lanes.place(tenant, i64::from(shard.0)), Some(Shard::of(tenant, key, lanes.to, spread)));
            }
        }
    }

    #[test]
    fn no_two_lanes_become_one() {
        for (from, to) in [(16, 48), (48, 16), (7, 5), (16, 16), (1, 48)] {
            let lanes = Lanes { from, to };
            let places: Vec<_> = (0..i64::from(from)).filter_map(|shard| lanes.place(TenantId(3), shard)).collect();
            assert_eq!(places.len(), usize::from(from.min(to)));
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len());
            assert!(places.iter().all(|shard| shard.0 < to));
        }
        let same = Lanes { from: 16, to: 16 };
        assert!((0..16).all(|shard| same.place(TenantId(9), shard).map(|place| i64::from(place.0)) == Some(shard)));
        assert_eq!(same.place(TenantId(9), 16), None);
        assert_eq!(same.place(TenantId(9), -1), None);
    }
}
