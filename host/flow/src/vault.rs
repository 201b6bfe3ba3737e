//! Seals tenants' secrets at rest, and opens them for those who may use them.
//!
//! XChaCha20-Poly1305 under a data key per tenant, which is derived from the host's key-encryption key ([`Kek`]). Tenant,
//! name and version are bound to the ciphertext: a row that is copied to another tenant, another name or an older version
//! does not open. Nothing here is stored; the store keeps only what [`Vault::seal`] gives.
//!
//! ```text
//! sealed = format (1) ‖ key's fingerprint (4) ‖ nonce (24) ‖ ciphertext and tag
//! ```
//!
//! The key-encryption key lives in a file beside the database, never in it: a copy of the database alone opens nothing.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use chacha20poly1305::AeadInPlace;
use chacha20poly1305::KeyInit;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::OsRng;
use chacha20poly1305::aead::rand_core::RngCore;
use secrecy::ExposeSecret;
use secrecy::SecretBox;
use secrecy::SecretString;
use secrecy::zeroize::Zeroize;

/// How what is sealed today is laid out.
const FORMAT: u8 = 1;
const FINGERPRINT_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + FINGERPRINT_BYTES + NONCE_BYTES;
/// Keeps keys derived here apart from any other use of the same bytes.
const DATA_KEY_CONTEXT: &str = "bulkhead 2026 vault data key";
const FINGERPRINT_CONTEXT: &str = "bulkhead 2026 vault key fingerprint";
/// No secret is longer: tokens and signing keys are short, and every snapshot of a tenant carries them all.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// The key-encryption key: 32 random bytes.
pub struct Kek(SecretBox<[u8; 32]>);

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file cannot be read or made.
    #[error("cannot {action} the key file {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write the file.
    #[error("the key file {} has mode {mode:04o}: others can read or change it; make it 0400 (chmod 0400)", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not a regular file of 32 bytes.
    #[error("the key file {} does not hold exactly 32 bytes", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
    },
}

impl Kek {
    /// From bytes that the caller already has.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Reads the key from its file; makes the file, with mode 0400 and a random key, if it is not there.
    ///
    /// Who makes it makes it whole or not at all: the bytes are on disk under another name before the file gets its own,
    /// and an existing file is never replaced, so two processes that start at once end with the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, KekError> {
        match Self::load(path) {
            Err(KekError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let failed = |action| move |source| KekError::Io { action, path: path.to_owned(), source };
        let mut suffix = [0; 8];
        OsRng.fill_bytes(&mut suffix);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:016x}", u64::from_le_bytes(suffix)));
        let new = PathBuf::from(name);
        write_key(&new).map_err(failed("make"))?;
        let linked = std::fs::hard_link(&new, path);
        std::fs::remove_file(&new).map_err(failed("tidy up after making"))?;
        match linked {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make")(source)),
            _ => {}
        }
        sync_folder(path).map_err(failed("make"))?;
        Self::load(path)
    }

    fn load(path: &Path) -> Result<Self, KekError> {
        let failed = |source| KekError::Io { action: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mode = about.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KekError::Open { path: path.to_owned(), mode });
        }
        if !about.is_file() || about.len() != 32 {
            return Err(KekError::Shape { path: path.to_owned() });
        }
        let mut bytes = SecretBox::new(Box::new([0; 32]));
        file.read_exact(secrecy::ExposeSecretMut::expose_secret_mut(&mut bytes)).map_err(failed)?;
        Ok(Self(bytes))
    }

    /// What tells this key from others, and nothing of the key itself.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        let hash = blake3::derive_key(FINGERPRINT_CONTEXT, self.0.expose_secret());
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&hash[..FINGERPRINT_BYTES]);
        fingerprint
    }

    fn cipher(&self, tenant: &str) -> XChaCha20Poly1305 {
        let mut hasher = blake3::Hasher::new_derive_key(DATA_KEY_CONTEXT);
        hasher.update(self.0.expose_secret());
        hasher.update(tenant.as_bytes());
        let mut key: [u8; 32] = *hasher.finalize().as_bytes();
        let cipher = XChaCha20Poly1305::new((&key).into());
        key.zeroize();
        cipher
    }
}

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kek([redacted])")
    }
}

fn write_key(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    let mut key = [0; 32];
    OsRng.fill_bytes(&mut key);
    let written = file.write_all(&key).and_then(|()| file.sync_all());
    key.zeroize();
    written
}

/// Makes the file's name durable, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Why a secret was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It is longer than [`SECRET_BYTES_MAX`].
    #[error("a secret may have at most {SECRET_BYTES_MAX} bytes")]
    TooLong,
    /// What is stored was not made by [`Vault::seal`].
    #[error("what is stored is not a sealed secret")]
    Shape,
    /// It was sealed under a key that this vault does not have.
    #[error("the secret is sealed under another key-encryption key")]
    OtherKey,
    /// It was altered, or it belongs to another tenant, name or version.
    #[error("the sealed secret is damaged or belongs elsewhere")]
    Damaged,
}

/// Seals and opens.
#[derive(Debug)]
pub struct Vault {
    kek: Kek,
    previous: Vec<Kek>,
}

impl Vault {
    /// Seals and opens under `kek`.
    #[must_use]
    pub fn new(kek: Kek) -> Self {
        Self { kek, previous: Vec::new() }
    }

    /// Also opens what was sealed under an older key, while secrets are sealed anew.
    #[must_use]
    pub fn also_open(mut self, older: Kek) -> Self {
        self.previous.push(older);
        self
    }

    /// Seals the text of a secret for the place where it will be stored.
    pub fn seal(&self, tenant: &str, name: &str, version: u32, secret: &SecretString) -> Result<Vec<u8>, VaultError> {
        let text = secret.expose_secret().as_bytes();
        if text.len() > SECRET_BYTES_MAX {
            return Err(VaultError::TooLong);
        }
        let mut nonce = XNonce::default();
        OsRng.fill_bytes(&mut nonce);
        let mut sealed = Vec::with_capacity(HEAD_BYTES + text.len() + 16);
        sealed.push(FORMAT);
        sealed.extend(self.kek.fingerprint());
        sealed.extend(nonce);
        sealed.extend(text);
        let bound = bound(tenant, name, version);
        let tag = self.kek.cipher(tenant).encrypt_in_place_detached(&nonce, &bound, &mut sealed[HEAD_BYTES..]);
        sealed.extend(tag.expect("because the text is far shorter than what the cipher can take"));
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] gave for the same tenant, name and version.
    pub fn open(&self, tenant: &str, name: &str, version: u32, sealed: &[u8]) -> Result<SecretString, VaultError> {
        let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(VaultError::Shape)?;
        let (text, tag) = rest.split_last_chunk::<16>().ok_or(VaultError::Shape)?;
        if head[0] != FORMAT || text.len() > SECRET_BYTES_MAX {
            return Err(VaultError::Shape);
        }
        let (fingerprint, nonce) = head[1..].split_at(FINGERPRINT_BYTES);
        let mut keys = std::iter::once(&self.kek).chain(&self.previous);
        let kek = keys.find(|kek| kek.fingerprint() == fingerprint).ok_or(VaultError::OtherKey)?;
        let mut text = text.to_vec();
        let bound = bound(tenant, name, version);
        let opened =
            kek.cipher(tenant).decrypt_in_place_detached(XNonce::from_slice(nonce), &bound, &mut text, tag.into());
        let secret = match (opened, std::str::from_utf8(&text)) {
            (Ok(()), Ok(text)) => Ok(SecretString::from(text)),
            _ => Err(VaultError::Damaged),
        };
        text.zeroize();
        secret
    }
}

/// What is bound to the ciphertext: each part with its length in front, so that no two places are written the same.
fn bound(tenant: &str, name: &str, version: u32) -> Vec<u8> {
    let mut bound = Vec::with_capacity(tenant.len() + name.len() + 20);
    for part in [tenant, name] {
        bound.extend((part.len() as u64).to_le_bytes());
        bound.extend(part.as_bytes());
    }
    bound.extend(version.to_le_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::new(Kek::new([byte; 32]))
    }

    fn sealed() -> Vec<u8> {
        vault(7).seal("ten_a", "crm", 3, &SecretString::from("whsec_hush")).expect("because it is short")
    }

    #[test]
    fn a_secret_opens_only_where_it_was_sealed() {
        let sealed = sealed();
        let open = |vault: &Vault, tenant, name, version| {
            vault.open(tenant, name, version, &sealed).map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(open(&vault(7), "ten_a", "crm", 3).as_deref(), Ok("whsec_hush"));
        assert_eq!(open(&vault(7), "ten_b", "crm", 3), Err(VaultError::Damaged));
        assert_eq!(open(&vault(7), "ten_a", "erp", 3), Err(VaultError::Damaged));
        assert_eq!(open(&vault(7), "ten_a", "crm", 2), Err(VaultError::Damaged));
        assert_eq!(open(&vault(7), "ten_ac", "rm", 3), Err(VaultError::Damaged));
        assert_eq!(open(&vault(8), "ten_a", "crm", 3), Err(VaultError::OtherKey));
        assert_eq!(open(&vault(8).also_open(Kek::new([7; 32])), "ten_a", "crm", 3).as_deref(), Ok("whsec_hush"));
    }

    #[test]
    fn every_altered_bit_and_every_truncation_is_refused() {
        let sealed = sealed();
        for at in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[at / 8] ^= 1 << (at % 8);
            assert!(vault(7).open("ten_a", "crm", 3, &altered).is_err(), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert!(vault(7).open("ten_a", "crm", 3, &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_the_same_and_is_not_in_there() {
        let (one, two) = (sealed(), sealed());
        assert_ne!(one, two);
        assert!(!one.windows(4).any(|window| window == b"hush"));
        let long = SecretString::from("x".repeat(SECRET_BYTES_MAX + 1));
        assert_eq!(vault(7).seal("ten_a", "crm", 1, &long), Err(VaultError::TooLong));
        let empty = vault(7).seal("ten_a", "crm", 1, &SecretString::from("")).expect("because it is short");
        assert_eq!(vault(7).open("ten_a", "crm", 1, &empty).expect("because it is whole").expose_secret(), "");
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = vault(7).open("ten_a", "crm", 3, &sealed()).expect("because it is whole");
        let shown = format!("{secret:?} {:?} {:?}", vault(7), Kek::new([65; 32]));
        assert!(!shown.contains("hush") && !shown.contains("65") && !shown.contains("AAAA"), "{shown}");
    }

    #[test]
    fn a_key_file_is_made_once_and_must_be_its_owners_alone() {
        let folder = tempfile::tempdir().expect("because there is room for a folder");
        let path = folder.path().join("kek");
        let first = Kek::load_or_create(&path).expect("because the folder is writable");
        let again = Kek::load_or_create(&path).expect("because the file is there");
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_ne!(first.0.expose_secret(), &[0; 32]);
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("because it is ours");
        };
        assert_eq!(std::fs::metadata(&path).expect("because it is there").mode() & 0o7777, 0o400);
        assert_eq!(std::fs::read_dir(folder.path()).expect("because it is there").count(), 1, "nothing is left over");
        for open in [0o440, 0o404, 0o644, 0o420] {
            mode(open);
            assert!(matches!(Kek::load_or_create(&path), Err(KekError::Open { mode, .. }) if mode == open));
        }
        mode(0o600);
        std::fs::write(&path, b"short").expect("because its owner may write now");
        assert!(matches!(Kek::load_or_create(&path), Err(KekError::Shape { .. })));
        let nowhere = folder.path().join("no").join("kek");
        assert!(matches!(Kek::load_or_create(&nowhere), Err(KekError::Io { .. })));
    }

    #[test]
    fn processes_that_start_at_once_get_the_same_key() {
        let folder = tempfile::tempdir().expect("because there is room for a folder");
        let path = folder.path().join("kek");
        let start = || Kek::load_or_create(&path).map(|kek| kek.fingerprint()).ok();
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("because it does not panic")).collect()
        });
        assert!(all[0].is_some());
        assert!(all.iter().all(|fingerprint| *fingerprint == all[0]), "{all:?}");
    }
}
