//! Who calls: keys are looked up, compared and remembered here, and nowhere else.
//!
//! ```text
//! text ──parse──▶ id, secret ──store (or memory)──▶ row ──compare──▶ Identity | Refusal
//! ```
//!
//! A key is stored as HMAC-SHA256 of its secret under a pepper that is not in the database. Comparing takes the same time
//! whatever is wrong, and an unknown id does the same work as a known one. What was found is remembered for a second; a
//! revocation or a suspension forgets it at once, and the other nodes hear of it over the bus.
//!
//! A right secret is never refused for another's wrong guesses: with 256 random bits guessing is hopeless, so locking a
//! key would only give a way to lock its owner out. Wrong secrets are counted per id, and answered 429 after ten a minute.
//!
//! Reading order: [`text`], [`scope`], [`Keyring`].

pub mod scope;
pub mod text;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::id::TenantId;
use bulkhead_flow::bus::Bus;
use bulkhead_flow::bus::Signal;
use bulkhead_store::Store;
use bulkhead_store::catalogue::Key;
use bulkhead_store::catalogue::Tenant;
use bulkhead_store::catalogue::TenantState;
use hmac::Hmac;
use hmac::KeyInit as _;
use hmac::Mac as _;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::auth::text::Kind;

/// How long what was found, or not found, is believed to be so: if nothing is heard of it, another node's revocation counts
/// this much later.
const FOUND_FOR: Duration = Duration::from_millis(900);
/// Keys remembered: far more than are in use at a time, and a bound for guesses of ids.
const REMEMBERED_MAX: u64 = 10_000;
/// Wrong secrets of one id within a minute before the answer says to stop.
const FAILURES_MAX: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Who calls, proven.
#[derive(Debug, Clone)]
pub enum Identity {
    /// With a tenant's key.
    Tenant {
        /// The tenant as it was a moment ago.
        tenant: Box<Tenant>,
        /// The key's id.
        key: String,
        /// What it may do.
        scopes: Vec<String>,
    },
    /// With an operator's key.
    Operator {
        /// The key's id.
        key: String,
    },
}

/// Why somebody is not let in.
#[derive(Debug)]
pub enum Refusal {
    /// No key, or not in the form `Bearer <key>`.
    Missing,
    /// Mistyped, unknown, revoked, or its secret is wrong: they are not told apart.
    Invalid,
    /// Too many wrong secrets for this id; again after this time.
    TooManyFailures(Duration),
    /// The key is right, but its tenant is suspended.
    Suspended,
    /// Nobody can be let in now.
    Unavailable(bulkhead_store::Error),
}

/// What is known of an id.
#[derive(Debug)]
struct Known {
    row: Option<(Key, Option<Tenant>)>,
    until: Instant,
}

/// All keys. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    pepper: SecretString,
    /// The operator's key that is set from outside, as a hash.
    outside: Option<[u8; 32]>,
    known: moka::sync::Cache<String, Arc<Known>>,
    /// How often something was forgotten: what was read before that must not be remembered after it.
    forgotten: AtomicU64,
    failures: moka::sync::Cache<String, Arc<AtomicU32>>,
    bus: Bus,
}

impl Keyring {
    /// The keys of `store`, hashed under `pepper`; and the operator's key if it is set from outside.
    pub fn new(store: Store, pepper: &[u8; 32], outside: Option<&SecretString>, bus: Bus) -> Self {
        let pepper = SecretString::from(hex(pepper));
        let outside = outside.map(|key| hash(&pepper, key.expose_secret()));
        let known = moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(FOUND_FOR).build();
        let failures = moka::sync::Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(FAILURE_WINDOW).build();
        Self { inner: Arc::new(Inner { store, pepper, outside, known, forgotten: AtomicU64::new(0), failures, bus }) }
    }

    /// Makes a key and adds it. What comes back is its only copy.
    pub async fn create(
        &self,
        tenant: Option<TenantId>,
        scopes: Vec<String>,
        note: String,
        now: Timestamp,
    ) -> bulkhead_store::Result<(Key, SecretString)> {
        let kind = if tenant.is_some() { Kind::Tenant } else { Kind::Operator };
        let (id, text) = text::create(kind);
        let secret = text::secret_of(&text).expect("because a new key reads back");
        let hash = hash(&self.inner.pepper, secret.expose_secret()).to_vec();
        let key = Key { id, tenant, hash, scopes, note, created: now, revoked: None };
        self.inner.store.host_add_key(&key).await?;
        self.forget(&key.id);
        Ok((key, text))
    }

    /// Says who shows this `Authorization` header.
    pub async fn identify(&self, authorization: Option<&str>) -> Result<Identity, Refusal> {
        let header = authorization.ok_or(Refusal::Missing)?;
        let (scheme, text) = header.trim().split_once(' ').ok_or(Refusal::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Missing);
        }
        let text = text.trim();
        if text.len() > text::LENGTH_MAX {
            return Err(Refusal::Invalid);
        }
        if let Some(outside) = self.inner.outside
            && bool::from(hash(&self.inner.pepper, text).ct_eq(&outside))
        {
            return Ok(Identity::Operator { key: "environment".to_owned() });
        }
        let Some(shown) = text::parse(text) else { return Err(Refusal::Invalid) };
        let known = self.look_up(&shown.id).await.map_err(Refusal::Unavailable)?;
        let presented = hash(&self.inner.pepper, shown.secret.expose_secret());
        // An unknown id is compared, too, with something that nothing is equal to.
        let stored = known.row.as_ref().map_or(&[0; 32][..], |(key, _)| key.hash.as_slice());
        let right = bool::from(presented.as_slice().ct_eq(stored));
        match &known.row {
            Some((key, tenant)) if right && key.revoked.is_none() => match (tenant, shown.kind) {
                (Some(tenant), Kind::Tenant) if tenant.state == TenantState::Suspended => Err(Refusal::Suspended),
                (Some(tenant), Kind::Tenant) => Ok(Identity::Tenant {
                    tenant: Box::new(tenant.clone()),
                    key: key.id.clone(),
                    scopes: key.scopes.clone(),
                }),
                (None, Kind::Operator) => Ok(Identity::Operator { key: key.id.clone() }),
                _ => Err(self.failed(&shown.id)),
            },
            _ => Err(self.failed(&shown.id)),
        }
    }

    /// Forgets what is remembered of a key: it was revoked.
    pub fn forget(&self, id: &str) {
        self.inner.forgotten.fetch_add(1, Ordering::SeqCst);
        self.inner.known.invalidate(id);
        self.inner.bus.publish(Signal::Keys);
    }

    /// Forgets all keys: a tenant's state changed, and its keys are not known by tenant.
    pub fn forget_all(&self) {
        self.heard();
        self.inner.bus.publish(Signal::Keys);
    }

    /// Another node says that keys, or a tenant's state, changed.
    pub fn heard(&self) {
        self.inner.forgotten.fetch_add(1, Ordering::SeqCst);
        self.inner.known.invalidate_all();
    }

    async fn look_up(&self, id: &str) -> bulkhead_store::Result<Arc<Known>> {
        if let Some(known) = self.inner.known.get(id)
            && known.until > Instant::now()
        {
            return Ok(known);
        }
        let forgotten = self.inner.forgotten.load(Ordering::SeqCst);
        let row = self.inner.store.host_key(id).await?;
        let known = Arc::new(Known { row, until: Instant::now() + FOUND_FOR });
        self.inner.known.insert(id.to_owned(), Arc::clone(&known));
        if self.inner.forgotten.load(Ordering::SeqCst) != forgotten {
            self.inner.known.invalidate(id);
        }
        Ok(known)
    }

    fn failed(&self, id: &str) -> Refusal {
        metrics::counter!("bulkhead_auth_failures_total").increment(1);
        let count = self.inner.failures.get_with_by_ref(id, Arc::default);
        if count.fetch_add(1, Ordering::Relaxed) >= FAILURES_MAX {
            Refusal::TooManyFailures(FAILURE_WINDOW)
        } else {
            Refusal::Invalid
        }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

fn hash(pepper: &SecretString, secret: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.expose_secret().as_bytes())
        .expect("because HMAC takes keys of every length");
    mac.update(secret.as_bytes());
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
