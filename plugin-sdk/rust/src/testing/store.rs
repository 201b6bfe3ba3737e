//! State in memory, with expiry.

use std::collections::BTreeMap;

use crate::refusal::Refusal;
use crate::timestamp::Timestamp;

/// One plugin's keys and values.
#[derive(Debug, Clone, Default)]
pub struct Store(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    value: Vec<u8>,
    expires: Option<Timestamp>,
}

impl Entry {
    fn is_alive(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Store {
    pub fn get(&self, key: &str, now: Timestamp) -> Option<Vec<u8>> {
        self.0.get(key).filter(|entry| entry.is_alive(now)).map(|entry| entry.value.clone())
    }

    pub fn set(&mut self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) {
        self.0.insert(key.to_owned(), Entry { value, expires });
    }

    pub fn delete(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Keeps the expiry of a number that is there.
    pub fn increment(&mut self, key: &str, by: i64, now: Timestamp) -> Result<i64, Refusal> {
        let old = self.0.get(key).filter(|entry| entry.is_alive(now));
        let number = match old {
            None => 0,
            Some(entry) => serde_json::from_slice::<i64>(&entry.value)
                .map_err(|_| Refusal::Invalid(format!("the value of `{key}` is no whole number")))?,
        };
        let sum = number.checked_add(by).ok_or_else(|| Refusal::Invalid(format!("`{key}` would overflow")))?;
        let expires = old.and_then(|entry| entry.expires);
        self.set(key, sum.to_string().into_bytes(), expires);
        Ok(sum)
    }

    pub fn keys(&self, prefix: &str, after: Option<&str>, now: Timestamp) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, entry)| entry.is_alive(now) && key.starts_with(prefix))
            .map(|(key, _)| key.clone())
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .collect()
    }
}
