//! Whether a stream still has the past that it had when it was last looked at.
//!
//! Redis may come back without its last writes, or somebody may flush it; entries that were not read are then gone, and
//! nobody else would notice. An id that went back, a count that went back, or a group that is missing betrays it.

use std::sync::Mutex;
use std::sync::PoisonError;

use crate::source::redis::stream::EntryId;
use crate::source::redis::stream::Look;

/// What is remembered of a stream, as long as the process lives.
#[derive(Debug, Default)]
pub(super) struct Past {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The group was there, and nothing was said of its end.
    group: bool,
    last: Option<EntryId>,
    added: Option<u64>,
}

impl Past {
    /// The group is there; `made` if it had to be made. Says whether that means that the stream was set back.
    pub fn group(&self, made: bool) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = made && seen.group;
        if made {
            // Whatever the stream is like now, it is another one.
            *seen = Seen::default();
        }
        seen.group = true;
        lost
    }

    /// The stream looks like this. Says whether it was set back; the same loss is told once, here or by [`Past::group`].
    pub fn look(&self, look: &Look) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = Some(look.last) < seen.last || look.added.is_some_and(|added| Some(added) < seen.added);
        if lost {
            seen.group = false;
        }
        (seen.last, seen.added) = (Some(look.last), look.added);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(millis: u64, added: u64) -> Look {
        let last = EntryId { millis, sequence: 0 };
        Look { last, added: Some(added), unread: 0, pending: 0, oldest: None }
    }

    #[test]
    fn a_stream_that_grows_has_lost_nothing() {
        let past = Past::default();
        assert!(!past.group(true), "the first group ever");
        for step in 0..3 {
            assert!(!past.look(&look(step, step)));
            assert!(!past.group(false));
        }
    }

    #[test]
    fn a_loss_is_told_once_by_whoever_sees_it_first() {
        let past = Past::default();
        past.group(true);
        assert!(!past.look(&look(10, 10)));
        assert!(past.look(&look(11, 1)), "fewer entries, although newer");
        assert!(!past.group(true), "the same loss");
        assert!(!past.look(&look(12, 2)));
        assert!(past.group(true), "another one");
        assert!(!past.look(&look(1, 1)), "the same loss");
        assert!(past.look(&look(0, 1)), "an older id");
    }
}
