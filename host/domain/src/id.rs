//! Names of things: small typed numbers inside, opaque texts outside.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// The unit of isolation. The first argument of every store method that touches a tenant's data.
///
/// A small number that the store gives out, so that rows and indexes stay narrow; the outside sees `ten_…`
/// (see [`Prefix::Tenant`]), never this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TenantId(pub i64);

/// A plugin of one tenant. The number is the store's; a plugin keeps it over all its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct PluginId(pub i64);

/// Where an event stands in the log. Grows within a shard; never shown outside as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position(pub i64);

impl Position {
    /// Before the first event.
    pub const ZERO: Self = Self(0);
}

/// A slice of the log, chosen by hash. One node works on a shard at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of `key` in `tenant`: the tenant chooses a home among `shards`, and the key one of the `spread`
    /// shards that follow it. A spread of 1 keeps a whole tenant in one shard, where all its batches follow
    /// each other and its state cannot conflict.
    #[must_use]
    pub fn of(tenant: TenantId, key: &str, shards: u16, spread: u16) -> Self {
        let home = mix(tenant.0.unsigned_abs());
        let offset = match spread {
            0 | 1 => 0,
            _ => hash64(key.as_bytes()) % u64::from(spread),
        };
        let shards = u64::from(shards.max(1));
        Self(u16::try_from((home % shards + offset) % shards).unwrap_or_default())
    }

    /// Every shard that [`Shard::of`] can give for a key of `tenant`.
    pub fn all(tenant: TenantId, shards: u16, spread: u16) -> impl Iterator<Item = Self> {
        let (first, shards) = (u32::from(Self::of(tenant, "", shards, 1).0), u32::from(shards.max(1)));
        (0..u32::from(spread).clamp(1, shards))
            .map(move |offset| Self(u16::try_from((first + offset) % shards).unwrap_or_default()))
    }
}

/// A number that only grows: who commits with a smaller one than the store's has lost the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence(pub i64);

/// Which kind of thing an opaque text id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// `ten_…`
    Tenant,
    /// `key_…`
    Key,
    /// `eff_…`: an effect; deliveries carry it as their `webhook-id`.
    Effect,
}

impl Prefix {
    /// The text before the underscore.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tenant => "ten",
            Self::Key => "key",
            Self::Effect => "eff",
        }
    }

    /// A new id of this kind; version 7, so that they sort by age.
    #[must_use]
    pub fn new_id(self) -> String {
        format!("{}_{}", self.text(), uuid::Uuid::now_v7().simple())
    }
}

/// 128 bits that name an event within a tenant: the first 32 are a hash of the id alone, the others of source and id.
///
/// One index on it serves both duties: finding a duplicate (the whole key) and finding an event when only the id
/// is known (a range over the first 32 bits). 96 bits of BLAKE3 make an accidental collision a matter of
/// 2^48 events of one tenant; a deliberate one harms only the tenant that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub [u8; 16]);

impl EventKey {
    /// The key of the event `id` from `source`.
    #[must_use]
    pub fn of(source: &str, id: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(source.len() as u64).to_le_bytes());
        hasher.update(source.as_bytes());
        hasher.update(id.as_bytes());
        let mut key = [0; 16];
        key[..4].copy_from_slice(&Self::id_prefix(id));
        key[4..].copy_from_slice(&hasher.finalize().as_bytes()[..12]);
        Self(key)
    }

    /// The first four bytes of the key of any event with this id.
    #[must_use]
    pub fn id_prefix(id: &str) -> [u8; 4] {
        let mut prefix = [0; 4];
        prefix.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..4]);
        prefix
    }
}

/// Names one run: one event through one rule. Derived, so it is the same on every attempt and every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// The event.
    pub event: EventKey,
    /// A hash of the rule's name.
    pub rule: u32,
}

impl RunId {
    /// The run of `rule` over the event with this key.
    #[must_use]
    pub fn of(event: EventKey, rule: &str) -> Self {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&blake3::hash(rule.as_bytes()).as_bytes()[..4]);
        Self { event, rule: u32::from_be_bytes(bytes) }
    }

    /// Reads `run_` and 40 hexadecimal digits; anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("run_")?;
        if hex.len() != 40 || !hex.is_ascii() {
            return None;
        }
        let mut bytes = [0; 20];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).ok()?;
        }
        let mut event = [0; 16];
        event.copy_from_slice(&bytes[..16]);
        let mut rule = [0; 4];
        rule.copy_from_slice(&bytes[16..]);
        Some(Self { event: EventKey(event), rule: u32::from_be_bytes(rule) })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run_")?;
        for byte in self.event.0 {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "{:08x}", self.rule)
    }
}

/// 64 bits of BLAKE3.
#[must_use]
pub fn hash64(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(head)
}

/// Spreads consecutive numbers (splitmix64's finaliser), so that tenants made one after another do not all
/// live in neighbouring shards.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_reads_back() {
        let id = RunId::of(EventKey::of("/shop", "1"), "flag");
        assert_eq!(RunId::parse(&id.to_string()), Some(id));
        for bad in ["run_", "run_00", "evt_00", &format!("run_{}", "z".repeat(40)), &format!("run_{}", "é".repeat(20))]
        {
            assert_eq!(RunId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_event_key_tells_sources_apart_and_shares_the_prefix_of_an_id() {
        let (a, b) = (EventKey::of("/a", "1"), EventKey::of("/b", "1"));
        assert_ne!(a, b);
        assert_eq!(a.0[..4], b.0[..4]);
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        assert_ne!(EventKey::of("ab", "c").0[4..], EventKey::of("a", "bc").0[4..]);
    }

    #[test]
    fn a_spread_of_one_keeps_a_tenant_in_one_shard() {
        let home = Shard::of(TenantId(7), "a", 16, 1);
        assert!((0..100).all(|key| Shard::of(TenantId(7), &key.to_string(), 16, 1) == home));
        let spread: std::collections::HashSet<_> =
            (0..100).map(|key| Shard::of(TenantId(7), &key.to_string(), 16, 4)).collect();
        assert_eq!(spread.len(), 4);
        assert_eq!(Shard::all(TenantId(7), 16, 4).collect::<std::collections::HashSet<_>>(), spread);
        assert_eq!(Shard::all(TenantId(7), 16, 1).collect::<Vec<_>>(), [home]);
    }
}
