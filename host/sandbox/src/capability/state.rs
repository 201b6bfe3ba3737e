//! The plugin's state: reads go through to what is committed, writes stay in an overlay until the run commits.
//!
//! Reads see the call's own writes and deletions. At the end the overlay is one write for each key, whatever the
//! guest did to it in between.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::limits::Limits;
use bytes::Bytes;

use super::Fault;
use super::Refusal;
use super::Stop;
use crate::port::Held;
use crate::port::StateReader;

/// Keys in one page.
const PAGE_MAX: usize = 1_000;

/// The state as one call sees it.
pub(crate) struct State {
    plugin: PluginId,
    now: Timestamp,
    reader: Arc<dyn StateReader>,
    overlay: BTreeMap<String, Option<Held>>,
    writes: usize,
    bytes: usize,
}

/// Keys in order, and from where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub keys: Vec<String>,
    pub next: Option<String>,
}

impl State {
    pub(crate) fn new(plugin: PluginId, now: Timestamp, reader: Arc<dyn StateReader>) -> Self {
        Self { plugin, now, reader, overlay: BTreeMap::new(), writes: 0, bytes: 0 }
    }

    /// The value under a key.
    pub(crate) fn get(&self, limits: &Limits, key: &str) -> Result<Option<Bytes>, Fault> {
        check_key(limits, key)?;
        Ok(self.held(key)?.map(|held| held.value))
    }

    /// Puts a value under a key.
    pub(crate) fn set(
        &mut self,
        limits: &Limits,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<(), Fault> {
        check_key(limits, &key)?;
        if value.len() > limits.state_value {
            let text = format!("the value has {} bytes; a value may have {}", value.len(), limits.state_value);
            return Err(Refusal::Limit(text).into());
        }
        let expires = match ttl_ms {
            Some(0) => return Err(Refusal::Invalid("a time to live of 0 ms; delete the key instead".into()).into()),
            Some(ttl) => Some(self.now.after(Duration::from_millis(ttl))),
            None => None,
        };
        self.charge(limits, key.len() + value.len())?;
        self.overlay.insert(key, Some(Held { value: value.into(), expires }));
        Ok(())
    }

    /// Removes a key, if it is there.
    pub(crate) fn delete(&mut self, limits: &Limits, key: String) -> Result<(), Fault> {
        check_key(limits, &key)?;
        self.charge(limits, key.len())?;
        self.overlay.insert(key, None);
        Ok(())
    }

    /// Adds to a number, which is kept as decimal text; the sum. A key that is not there counts as 0; one that
    /// expires goes on to expire when it would have.
    pub(crate) fn increment(&mut self, limits: &Limits, key: String, by: i64) -> Result<i64, Fault> {
        check_key(limits, &key)?;
        let (number, expires) = match self.held(&key)? {
            None => (0, None),
            Some(held) => (parse_number(&key, &held.value)?, held.expires),
        };
        let sum = number
            .checked_add(by)
            .ok_or_else(|| Refusal::Invalid(format!("the sum of {number} and {by} is not a 64-bit number")))?;
        let text = sum.to_string();
        self.charge(limits, key.len() + text.len())?;
        self.overlay.insert(key, Some(Held { value: text.into(), expires }));
        Ok(sum)
    }

    /// Keys with a prefix, from after a cursor. A limit of 0 is the largest page.
    pub(crate) fn keys(&self, limits: &Limits, prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, Fault> {
        for text in [prefix, after.unwrap_or_default()] {
            check_text(limits, text)?;
        }
        let limit = match usize::try_from(limit).unwrap_or(PAGE_MAX) {
            0 => PAGE_MAX,
            asked => asked.min(PAGE_MAX),
        };
        let from = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let own: Vec<(&String, bool)> = self
            .overlay
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, held)| (key, held.is_some()))
            .collect();
        // One more than the page tells whether there is a next one; as many more as may be hidden here.
        let wanted = limit + 1 + own.len();
        let committed = self.reader.keys(self.plugin, prefix, after, wanted).map_err(Stop::State)?;
        let mut keys: Vec<String> =
            committed.into_iter().take(wanted).filter(|key| !self.overlay.contains_key(key)).collect();
        keys.extend(own.into_iter().filter(|(_, there)| *there).map(|(key, _)| key.clone()));
        keys.sort_unstable();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = if more { keys.last().cloned() } else { None };
        Ok(Page { keys, next })
    }

    /// One write for each key that was written, by key.
    pub(crate) fn into_writes(self) -> impl Iterator<Item = StateWrite> {
        let plugin = self.plugin;
        self.overlay.into_iter().map(move |(key, held)| match held {
            None => StateWrite { plugin, key, value: None, expires: None },
            Some(held) => StateWrite { plugin, key, value: Some(held.value), expires: held.expires },
        })
    }

    fn held(&self, key: &str) -> Result<Option<Held>, Stop> {
        match self.overlay.get(key) {
            Some(own) => Ok(own.clone()),
            None => self.reader.get(self.plugin, key).map_err(Stop::State),
        }
    }

    fn charge(&mut self, limits: &Limits, bytes: usize) -> Result<(), Refusal> {
        if self.writes >= limits.state_writes {
            return Err(Refusal::Limit(format!("one run may write to its state {} times", limits.state_writes)));
        }
        if self.bytes + bytes > limits.state_bytes {
            return Err(Refusal::Limit(format!("one run may write {} bytes to its state", limits.state_bytes)));
        }
        self.writes += 1;
        self.bytes += bytes;
        Ok(())
    }
}

fn check_key(limits: &Limits, key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Invalid("the key is empty".into()));
    }
    check_text(limits, key)
}

fn check_text(limits: &Limits, key: &str) -> Result<(), Refusal> {
    if key.len() > limits.state_key {
        let text = format!("the key has {} bytes; a key may have {}", key.len(), limits.state_key);
        return Err(Refusal::Limit(text));
    }
    if key.contains('\0') {
        return Err(Refusal::Invalid("the key has a NUL in it".into()));
    }
    Ok(())
}

fn parse_number(key: &str, value: &[u8]) -> Result<i64, Refusal> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::Invalid(format!("the value under `{}` is not a number as text", key.escape_debug())))
}

#[cfg(test)]
mod tests;
