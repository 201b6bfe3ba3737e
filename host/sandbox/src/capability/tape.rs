//! What one call read, kept in memory until it is known whether anybody wants a recording of it.
//!
//! Sits between the guest's state and its reader, so nothing that is read can miss it. Values are shared with where they
//! came from, not copied; beyond its bound it keeps nothing more and says so.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::recording;
use bulkhead_domain::recording::Read;

use crate::port::Held;
use crate::port::Reads;
use crate::port::StateError;
use crate::port::StateReader;

/// The reads of one call.
pub(crate) struct Tape {
    reader: Arc<dyn StateReader>,
    room: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    reads: Reads,
    bytes: usize,
}

impl Tape {
    /// Nothing is read yet; `room` is how many bytes are kept.
    pub(crate) fn new(reader: Arc<dyn StateReader>, room: usize) -> Self {
        Self { reader, room, kept: Mutex::default() }
    }

    /// Something was read.
    pub(crate) fn keep(&self, read: Read) {
        let mut kept = self.lock();
        let bytes = kept.bytes + read.size();
        if kept.reads.cut || bytes > self.room {
            // One read that is missing spoils what follows, so nothing of it is kept.
            kept.reads.cut = true;
            return;
        }
        kept.bytes = bytes;
        kept.reads.list.push(read);
    }

    /// What was read. Leaves nothing.
    pub(crate) fn take(&self) -> Reads {
        std::mem::take(&mut *self.lock()).reads
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateReader for Tape {
    fn get(&self, plugin: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        let held = self.reader.get(plugin, key)?;
        let of = |held: &Held| recording::Held { value: held.value.clone(), expires: held.expires, version: None };
        self.keep(Read::State { key: key.to_owned(), held: held.as_ref().map(of) });
        Ok(held)
    }

    fn keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StateError> {
        let keys = self.reader.keys(plugin, prefix, after, limit)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.keep(Read::Keys { prefix, after, limit, keys: keys.clone() });
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Everything is there.
    struct Full;

    impl StateReader for Full {
        fn get(&self, _: PluginId, _: &str) -> Result<Option<Held>, StateError> {
            Ok(Some(Held { value: Bytes::from_static(&[7; 1_000]), expires: None }))
        }

        fn keys(&self, _: PluginId, _: &str, _: Option<&str>, _: usize) -> Result<Vec<String>, StateError> {
            Ok(vec!["a".into()])
        }
    }

    #[test]
    fn reads_are_kept_in_order_up_to_the_bound() {
        let tape = Tape::new(Arc::new(Full), 2_000);
        assert!(tape.keys(PluginId(1), "p", None, 5).is_ok_and(|keys| keys.len() == 1));
        assert!(tape.get(PluginId(1), "one").is_ok_and(|held| held.is_some()));
        assert!(tape.get(PluginId(1), "two").is_ok_and(|held| held.is_some()), "the guest notices nothing");
        tape.keep(Read::Secret { name: "small".into() });
        let Reads { list, cut } = tape.take();
        assert!(cut, "after the one that was too much nothing is kept, however small");
        assert!(matches!(&list[..], [Read::Keys { .. }, Read::State { key, .. }] if key == "one"), "{list:?}");
        assert_eq!(tape.take(), Reads::default());
    }
}
