//! What nodes say to each other, and how it looks on the wire.
//!
//! A message is a version, the sender, and records of one size, so that a node leaves out the kinds that only a newer one
//! knows and understands the rest:
//!
//! ```text
//! version: 1 byte │ node: 8 │ kind: 1, tenant: 8, shard: 2 │ kind: 1, …          little endian; unused fields are zero
//! ```
//!
//! For appended events, the shard's place has the types' bit plus one; zero, as nodes send that know no bits, is any.

use bulkhead_domain::id::Shard;
use bulkhead_domain::id::TenantId;

use crate::bus::pending::WAITING_MAX;

/// That something happened, never what: a signal carries numbers only, and whoever hears it asks the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// There is something to do in a shard of a tenant.
    Work {
        /// Whose.
        tenant: TenantId,
        /// Which.
        shard: Shard,
    },
    /// Events were appended to a tenant's log.
    Events {
        /// Whose.
        tenant: TenantId,
        /// Of types that share one of 64 bits (see [`crate::live::Kinds`]); none: of any.
        bit: Option<u8>,
    },
    /// Rules, plugins, sinks, secrets or switches of a tenant changed.
    Settings {
        /// Whose.
        tenant: TenantId,
    },
    /// There may be deliveries of a tenant that are due.
    Deliveries {
        /// Whose.
        tenant: TenantId,
    },
    /// Keys were revoked, or a tenant was suspended.
    Keys,
    /// The operator's switch over everything was turned.
    Switch,
    /// Any of the others may have been missed, any number of times: look at everything.
    Missed,
}

/// The format's version. Another one is not read: who speaks it is heard again when all nodes do.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const RECORD_BYTES: usize = 11;

/// A message that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Who sent it.
    pub(super) node: u64,
    /// What it says, without what is not known here.
    pub(super) signals: Vec<Signal>,
}

/// Writes a message.
pub(super) fn encode(node: u64, signals: &[Signal]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + signals.len() * RECORD_BYTES);
    bytes.push(VERSION);
    bytes.extend(node.to_le_bytes());
    for signal in signals {
        let (kind, tenant, shard) = match signal {
            Signal::Work { tenant, shard } => (0, tenant.0, shard.0),
            Signal::Events { tenant, bit } => (1, tenant.0, bit.map_or(0, |bit| u16::from(bit) + 1)),
            Signal::Settings { tenant } => (2, tenant.0, 0),
            Signal::Deliveries { tenant } => (3, tenant.0, 0),
            Signal::Keys => (4, 0, 0),
            Signal::Switch => (5, 0, 0),
            Signal::Missed => (6, 0, 0),
        };
        bytes.push(kind);
        bytes.extend(tenant.to_le_bytes());
        bytes.extend(shard.to_le_bytes());
    }
    bytes
}

/// Reads a message; none if it is not one of ours, as one with more signals than a node ever sends is not: whoever can
/// write to the Redis must not fill a node's memory.
pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
    if bytes.len() > HEAD_BYTES + WAITING_MAX * RECORD_BYTES {
        return None;
    }
    let (head, records) = bytes.split_at_checked(HEAD_BYTES)?;
    let ([VERSION], node) = head.split_at(1) else { return None };
    let (records, rest) = records.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let node = u64::from_le_bytes(node.try_into().ok()?);
    Some(Message { node, signals: records.iter().filter_map(record).collect() })
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Option<Signal> {
    let [kind, tenant @ .., shard_low, shard_high] = *bytes;
    let tenant = TenantId(i64::from_le_bytes(tenant));
    let shard = u16::from_le_bytes([shard_low, shard_high]);
    match kind {
        0 => Some(Signal::Work { tenant, shard: Shard(shard) }),
        1 => Some(Signal::Events { tenant, bit: shard.checked_sub(1).and_then(|bit| u8::try_from(bit).ok()) }),
        2 => Some(Signal::Settings { tenant }),
        3 => Some(Signal::Deliveries { tenant }),
        4 => Some(Signal::Keys),
        5 => Some(Signal::Switch),
        6 => Some(Signal::Missed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Signal> {
        let tenant = TenantId(-7_000_000_000);
        let work = Signal::Work { tenant, shard: Shard(0xabcd) };
        let events = [None, Some(0), Some(63)].map(|bit| Signal::Events { tenant, bit });
        let of_tenant = [Signal::Settings { tenant }, Signal::Deliveries { tenant }];
        [vec![work], events.to_vec(), of_tenant.to_vec(), vec![Signal::Keys, Signal::Switch, Signal::Missed]].concat()
    }

    #[test]
    fn every_signal_reads_back() {
        let message = decode(&encode(u64::MAX - 1, &all()));
        assert_eq!(message, Some(Message { node: u64::MAX - 1, signals: all() }));
        assert_eq!(decode(&encode(3, &[])), Some(Message { node: 3, signals: Vec::new() }));
    }

    #[test]
    fn kinds_of_a_newer_node_are_left_out_and_the_rest_is_heard() {
        let mut bytes = encode(1, &all());
        bytes.splice(HEAD_BYTES..HEAD_BYTES, [200; RECORD_BYTES]);
        assert_eq!(decode(&bytes).map(|message| message.signals), Some(all()));
    }

    #[test]
    fn what_is_no_message_is_none() {
        let good = encode(1, &all());
        for length in
            (0..good.len()).filter(|length| *length < HEAD_BYTES || !(length - HEAD_BYTES).is_multiple_of(RECORD_BYTES))
        {
            assert_eq!(decode(&good[..length]), None, "cut to {length} bytes");
        }
        assert_eq!(decode(&[&[VERSION + 1], &good[1..]].concat()), None, "another version");
        assert_eq!(decode(b"{\"tenant\": \"all\"}"), None);
        assert!(decode(&encode(1, &[Signal::Keys; WAITING_MAX])).is_some());
        assert_eq!(decode(&encode(1, &[Signal::Keys; WAITING_MAX + 1])), None, "more than a node sends");
    }
}
