//! What waits to be made again, tenant by tenant: each has a short line of its own, and they are served in turn, so that
//! one that fills its line, or whose runs take long, holds nobody up for more than a turn.

use std::collections::HashMap;
use std::collections::VecDeque;

use bulkhead_domain::id::TenantId;

/// Runs of one tenant that wait.
pub(super) const OF_TENANT_MAX: usize = 8;
/// Runs that wait, over all tenants.
pub(super) const OF_ALL_MAX: usize = 64;

/// The lines.
pub(super) struct Queue<T> {
    lines: HashMap<TenantId, VecDeque<T>>,
    /// Tenants with a line, the next first.
    turns: VecDeque<TenantId>,
    waiting: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), waiting: 0 }
    }
}

impl<T> Queue<T> {
    /// Puts one at the end of its tenant's line. Gives back what there is no room for: this one, or the last one of the
    /// longest line if that is longer.
    pub(super) fn push(&mut self, tenant: TenantId, one: T) -> Option<T> {
        let length = self.lines.get(&tenant).map_or(0, VecDeque::len);
        let longest = self.lines.iter().max_by_key(|(_, line)| line.len()).map(|(of, line)| (*of, line.len()));
        let left_out = match longest {
            _ if length >= OF_TENANT_MAX => return Some(one),
            Some((of, most)) if self.waiting >= OF_ALL_MAX => {
                if most <= length + 1 {
                    return Some(one);
                }
                // Its line keeps at least one, so its turn stays.
                self.lines.get_mut(&of).and_then(VecDeque::pop_back)
            }
            _ => None,
        };
        if left_out.is_none() {
            self.waiting += 1;
        }
        if length == 0 {
            self.turns.push_back(tenant);
        }
        self.lines.entry(tenant).or_default().push_back(one);
        left_out
    }

    /// The first one of the tenant whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let tenant = self.turns.pop_front()?;
        let line = self.lines.get_mut(&tenant)?;
        let one = line.pop_front()?;
        self.waiting -= 1;
        if line.is_empty() {
            self.lines.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns_and_the_longest_line_makes_room() {
        let mut queue = Queue::default();
        for number in 0..20 {
            let left_out = queue.push(TenantId(1), (1, number));
            assert_eq!(left_out, (number >= 8).then_some((1, number)), "a line has an end");
        }
        assert_eq!(queue.push(TenantId(2), (2, 0)), None);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some((1, 0)), Some((2, 0)), Some((1, 1))]);
        // Six of the first wait; others fill the room.
        for tenant in 3..=9 {
            for number in 0..8 {
                queue.push(TenantId(tenant), (tenant, number));
            }
        }
        assert_eq!(queue.push(TenantId(1), (1, 99)), None);
        assert_eq!(queue.push(TenantId(1), (1, 100)), None, "sixty-four wait");
        let left_out = queue.push(TenantId(10), (10, 0)).expect("because there is no room");
        assert!(left_out.0 != 10 && left_out.0 != 2, "who has least is let in: {left_out:?}");
        let mut seen = Vec::new();
        while let Some((tenant, number)) = queue.pop() {
            seen.push((tenant, number));
        }
        assert_eq!(seen.len(), OF_ALL_MAX);
        let place = seen.iter().position(|one| *one == (10, 0)).expect("because it was let in");
        assert!(place < 9, "its turn comes after one of each: {place}");
    }
}
