//! What a node is called.

use uuid::Uuid;

/// The longest name that a node has.
const LENGTH_MAX: usize = 64;

/// A name among those that share a store: what the operator calls the node, or the machine's name, and something new at
/// every start, so that a process never passes for the one before it.
pub fn name(given: Option<&str>) -> String {
    let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let given = given.map_or_else(machine, str::to_owned);
    let plain = given.trim().chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter));
    let plain: String = plain.take(LENGTH_MAX).collect();
    let plain = if plain.is_empty() { "node" } else { &plain };
    let start = Uuid::new_v4().simple().to_string();
    format!("{plain}-{}", &start[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_another_name_at_every_start() {
        let (one, other) = (name(Some("a")), name(Some("a")));
        assert!(one.starts_with("a-") && one != other, "{one} {other}");
        assert!(name(Some("ä/\n")).starts_with("node-"));
        assert!(name(None).len() > 9);
    }
}
