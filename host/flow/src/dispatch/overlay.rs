//! State as a batch sees it: the run's own writes over the batch's over what is committed.
//!
//! ```text
//!  get ─▶ run layer ─▶ batch layer ─▶ base (what this batch read before) ─▶ cache ─▶ store
//! ```
//!
//! What comes from below the batch layer is remembered with its version; the commit proves that it still holds. So the
//! cache may be stale without harm: a stale read fails the commit, which empties the cache of it, and the batch runs again.
//!
//! A run that is made again without being applied (a shadow's, a preview's) has its base filled with what is known of the
//! state that it saw.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::effect::StateWrite;
use bulkhead_domain::id::PluginId;
use bulkhead_domain::id::TenantId;
use bulkhead_sandbox::Held;
use bulkhead_sandbox::StateError;
use bulkhead_sandbox::StateReader;
use bulkhead_store::Store;
use bulkhead_store::state::Versioned;
use bulkhead_store::work::StateRead;

/// Committed values of all tenants, bounded by bytes. Holds absences too.
pub type Cache = moka::sync::Cache<(TenantId, PluginId, String), Option<Versioned>>;

/// A cache of at most `bytes`.
#[must_use]
pub fn cache(bytes: u64) -> Cache {
    moka::sync::Cache::builder()
        .max_capacity(bytes)
        .weigher(|key: &(TenantId, PluginId, String), value: &Option<Versioned>| {
            let value = value.as_ref().map_or(0, |held| held.value.len());
            // The fixed part is what an entry was seen to cost beside its bytes.
            u32::try_from(key.2.len() + value + 160).unwrap_or(u32::MAX)
        })
        .time_to_idle(Duration::from_secs(600))
        .build()
}

/// How long a guest waits for one read of its state.
const READ_DEADLINE: Duration = Duration::from_secs(2);

type Key = (PluginId, String);

/// Which listing: whose, its prefix, from after which key, and of how many keys.
type Listing = (PluginId, String, Option<String>, usize);

/// What is known of the state that a run saw.
#[derive(Default)]
pub struct Known {
    /// Values, and that there was none.
    pub values: HashMap<Key, Option<Versioned>>,
    /// Listings as they were answered.
    pub listings: HashMap<Listing, Vec<String>>,
}

impl Known {
    /// Nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.listings.is_empty()
    }
}

#[derive(Default)]
struct Layers {
    run: HashMap<Key, StateWrite>,
    batch: HashMap<Key, StateWrite>,
    base: HashMap<Key, Option<Versioned>>,
    listings: Vec<StateRead>,
    /// How listings were answered when the run was made first.
    known: HashMap<Listing, Vec<String>>,
    /// Something was read from below the base.
    read_now: bool,
}

/// The state of one tenant during one batch.
pub struct Overlay {
    tenant: TenantId,
    now: Timestamp,
    store: Store,
    cache: Cache,
    runtime: tokio::runtime::Handle,
    layers: Mutex<Layers>,
}

impl Overlay {
    /// Nothing read, nothing written. `runtime` is where the store's calls run while a guest's thread waits for them.
    #[must_use]
    pub fn new(tenant: TenantId, now: Timestamp, store: Store, cache: Cache, runtime: tokio::runtime::Handle) -> Self {
        Self { tenant, now, store, cache, runtime, layers: Mutex::default() }
    }

    /// The same, where this much is known of the state that the run saw.
    #[must_use]
    pub fn knowing(self, known: Known) -> Self {
        {
            let mut layers = self.lock();
            layers.base.extend(known.values);
            layers.known.extend(known.listings);
        }
        self
    }

    /// Whether anything was read as it is now.
    pub fn has_read_now(&self) -> bool {
        self.lock().read_now
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invocation of the present run wrote this.
    pub fn write(&self, write: StateWrite) {
        self.lock().run.insert((write.plugin, write.key.clone()), write);
    }

    /// The present run is done: its writes become the batch's.
    pub fn keep_run(&self) {
        let mut layers = self.lock();
        let run = std::mem::take(&mut layers.run);
        layers.batch.extend(run);
    }

    /// The present run failed: its writes never were.
    pub fn discard_run(&self) {
        self.lock().run.clear();
    }

    /// What the present run wrote, if nothing is to come of it.
    pub fn take_run(&self) -> Vec<StateWrite> {
        std::mem::take(&mut self.lock().run).into_values().collect()
    }

    /// State as the present run found it, as far as the batch knows it.
    pub fn found(&self) -> Vec<((PluginId, String), Option<Versioned>)> {
        let layers = self.lock();
        let mut found: HashMap<Key, Option<Versioned>> =
            layers.base.iter().map(|(at, held)| (at.clone(), held.clone())).collect();
        for (at, write) in &layers.batch {
            let held = write.value.clone().map(|value| Versioned { value, version: 0, expires: write.expires });
            found.insert(at.clone(), held);
        }
        found.into_iter().collect()
    }

    /// What the present run has written so far.
    pub fn written(&self) -> Vec<StateWrite> {
        self.lock().run.values().cloned().collect()
    }

    /// What the batch read and wrote. Leaves nothing.
    pub fn take(&self) -> (Vec<StateRead>, Vec<StateWrite>) {
        let layers = std::mem::take(&mut *self.lock());
        let mut reads = layers.listings;
        reads.extend(layers.base.into_iter().map(|((plugin, key), held)| StateRead::Key {
            plugin,
            key,
            version: held.map_or(0, |held| held.version),
        }));
        (reads, layers.batch.into_values().collect())
    }

    fn fetch<T: Send + 'static>(
        &self,
        read: impl Future<Output = bulkhead_store::Result<T>> + Send,
    ) -> Result<T, StateError> {
        // Guests run on threads of their own, outside the runtime, so blocking here blocks nobody else.
        self.runtime.block_on(async {
            match tokio::time::timeout(READ_DEADLINE, read).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(StateError(error.to_string())),
                Err(_) => Err(StateError(format!("the store did not answer within {READ_DEADLINE:?}"))),
            }
        })
    }

    fn base(&self, plugin: PluginId, key: &str) -> Result<Option<Versioned>, StateError> {
        let at = (plugin, key.to_owned());
        if let Some(held) = self.lock().base.get(&at) {
            return Ok(held.clone());
        }
        let cached = (self.tenant, plugin, key.to_owned());
        let held = match self.cache.get(&cached) {
            Some(held) => held,
            None => {
                let held = self.fetch(self.store.state(self.tenant, plugin, key))?;
                self.cache.insert(cached, held.clone());
                held
            }
        };
        let mut layers = self.lock();
        layers.base.insert(at, held.clone());
        layers.read_now = true;
        Ok(held)
    }

    /// A page of keys as it was answered when the run was made first, else as they are now.
    fn page(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, usize), StateError> {
        let asked = (plugin, prefix.to_owned(), after.map(str::to_owned), limit);
        if let Some(keys) = self.lock().known.get(&asked) {
            return Ok((keys.clone(), limit));
        }
        let page = u32::try_from(limit).unwrap_or(u32::MAX).clamp(1, 1_000);
        let keys = self.fetch(self.store.state_keys(self.tenant, plugin, prefix, after, page))?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let mut layers = self.lock();
        layers.listings.push(StateRead::Keys { plugin, prefix, after, limit: page, keys: keys.clone() });
        layers.read_now = true;
        Ok((keys, page as usize))
    }
}

impl StateReader for Overlay {
    fn get(&self, plugin: PluginId, key: &str) -> Result<Option<Held>, StateError> {
        let at = (plugin, key.to_owned());
        let written = {
            let layers = self.lock();
            layers.run.get(&at).or_else(|| layers.batch.get(&at)).cloned()
        };
        let held = match written {
            Some(write) => write.value.map(|value| Held { value, expires: write.expires }),
            None => self.base(plugin, key)?.map(|held| Held { value: held.value, expires: held.expires }),
        };
        Ok(held.filter(|held| held.expires.is_none_or(|expires| expires > self.now)))
    }

    fn version(&self, plugin: PluginId, key: &str) -> Option<i64> {
        let at = (plugin, key.to_owned());
        let layers = self.lock();
        let is_written = layers.run.contains_key(&at) || layers.batch.contains_key(&at);
        let held = layers.base.get(&at).filter(|_| !is_written)?.as_ref()?;
        Some(held.version)
    }

    fn keys(
        &self,
        plugin: PluginId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StateError> {
        let written: BTreeMap<String, bool> = {
            let layers = self.lock();
            let fits = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
            let of = |layer: &HashMap<Key, StateWrite>| -> Vec<(String, bool)> {
                let writes = layer.iter().filter(|((owner, key), _)| *owner == plugin && fits(key));
                writes.map(|((_, key), write)| (key.clone(), write.value.is_some())).collect()
            };
            of(&layers.batch).into_iter().chain(of(&layers.run)).collect()
        };
        let (mut found, mut cursor) = (BTreeSet::new(), after.map(str::to_owned));
        loop {
            let (keys, page) = self.page(plugin, prefix, cursor.as_deref(), limit)?;
            let whole = keys.len() < page;
            cursor = keys.last().cloned();
            found.extend(keys.into_iter().filter(|key| written.get(key) != Some(&false)));
            // Keys that the batch deleted may have thinned the page out.
            if whole || found.len() >= limit {
                // Beyond what was read, the batch's own new keys must wait for the next page.
                let beyond = if whole { None } else { cursor };
                let new = written
                    .into_iter()
                    .filter(|(key, there)| *there && beyond.as_ref().is_none_or(|beyond| key <= beyond));
                found.extend(new.map(|(key, _)| key));
                return Ok(found.into_iter().take(limit).collect());
            }
        }
    }
}
