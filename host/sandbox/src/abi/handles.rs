//! What a guest holds handles to within one call.
//!
//! Numbers are given once in the life of an instance: a handle that a guest keeps from an earlier call leads nowhere,
//! instead of to something that another call put there.

use std::collections::BTreeMap;

use crate::capability::Stop;
use crate::limits::HANDLES;

/// Things of one kind, by number.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: u32,
    things: BTreeMap<u32, T>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: 1, things: BTreeMap::new() }
    }
}

impl<T> Handles<T> {
    /// Keeps a thing; its number.
    pub(crate) fn add(&mut self, thing: T) -> Result<u32, Stop> {
        if self.things.len() >= HANDLES {
            return Err(Stop::Handles(HANDLES));
        }
        let number = self.next;
        self.next = number.checked_add(1).ok_or(Stop::Handles(HANDLES))?;
        self.things.insert(number, thing);
        Ok(number)
    }

    /// The thing with this number.
    pub(crate) fn get(&mut self, number: u32) -> wasmtime::Result<&mut T> {
        self.things.get_mut(&number).ok_or_else(stale)
    }

    /// Takes it out. None if it is gone: handles outlive calls, things do not.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        self.things.remove(&number)
    }

    /// Takes it out, for whoever needs it.
    pub(crate) fn take(&mut self, number: u32) -> wasmtime::Result<T> {
        self.things.remove(&number).ok_or_else(stale)
    }

    /// The call is over.
    pub(crate) fn clear(&mut self) {
        self.things.clear();
    }
}

fn stale() -> wasmtime::Error {
    wasmtime::Error::msg("it used a handle that it was given in an earlier call")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_bounded() {
        let mut handles = Handles::default();
        let first = handles.add('a').expect("because there is room");
        handles.clear();
        let second = handles.add('b').expect("because there is room");
        assert_ne!(first, second);
        assert!(handles.get(first).is_err() && handles.remove(first).is_none());
        assert_eq!(handles.get(second).ok().copied(), Some('b'));
        assert_eq!(handles.take(second).ok(), Some('b'));
        assert!(handles.take(second).is_err());
        for _ in 0..HANDLES {
            assert!(handles.add('c').is_ok());
        }
        assert!(matches!(handles.add('d'), Err(Stop::Handles(_))));
    }
}
