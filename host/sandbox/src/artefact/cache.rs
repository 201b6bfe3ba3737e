//! Artefacts in files.
//!
//! A file is: magic, key, length, machine code, MAC. The key is a hash of the component's digest, the engine's version
//! and settings, and the machine's kind of processor, so an artefact of another engine is simply not found. The MAC
//! is keyed BLAKE3 over everything before it: a file that was damaged, cut, swapped or written by somebody else is
//! deleted and counted, and the component is compiled anew.
//!
//! A file is written beside its place, flushed and renamed into it, and never changed afterwards.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use wasmtime::Engine;

use super::Verified;
use super::compile::ARTEFACT_MAX;
use crate::error::Error;

const MAGIC: &[u8; 8] = b"BHKART01";
const HEADER: usize = MAGIC.len() + 32 + 8;
const MAC: usize = 32;
const EXTENSION: &str = "artefact";
const UNFINISHED: &str = "unfinished";
/// When room is made, one part of so many is left free.
const ROOM: u64 = 16;

/// The directory of artefacts.
pub(crate) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    mac_key: [u8; 32],
    engine: [u8; 32],
    rejected: AtomicU64,
    unfinished: AtomicU64,
    /// Bytes in the directory, at least as many as there are: what was removed for another reason than room still counts
    /// until the directory is looked through.
    total: Mutex<u64>,
}

impl Cache {
    /// Opens the directory, makes it if it is not there, and clears what a crash left unfinished.
    pub(crate) fn open(dir: &Path, bytes_max: u64, node_key: &[u8; 32], engine: &Engine) -> Result<Self, Error> {
        let cannot = |source: io::Error| Error::cache(dir, source);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        // Looked through once: it may have thousands of files.
        let mut total = 0;
        for entry in fs::read_dir(dir).map_err(cannot)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == UNFINISHED) {
                // Whoever wrote it is gone, or will find its rename failing and go without.
                let _ = fs::remove_file(entry.path());
            } else if let Some(file) = Kept::of(&entry) {
                total += file.bytes;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            bytes_max,
            mac_key: blake3::derive_key("bulkhead sandbox 2026 artefact cache MAC", node_key),
            engine: fingerprint(engine),
            rejected: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            total: Mutex::new(total),
        })
    }

    /// Files that were not believed, since the start.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// The artefact of the component with this digest, if there is one that this node wrote.
    pub(crate) fn get(&self, digest: &str) -> Option<Verified> {
        let key = self.key(digest);
        let path = self.path(&key);
        let (file, bytes) = match read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.reject(&path, &error.to_string()),
        };
        let Some(range) = self.verify(&key, &bytes) else {
            return self.reject(&path, "it is damaged, or not of this node");
        };
        // The oldest go first when room is needed; this one was of use.
        let _ = file.set_modified(SystemTime::now());
        Some(Verified { bytes, range })
    }

    /// Keeps an artefact. Failing to is no failure of the caller: the component is compiled again next time.
    pub(crate) fn put(&self, digest: &str, artefact: &Verified) {
        let key = self.key(digest);
        match self.write(&key, artefact.bytes()) {
            Ok(bytes) => {
                if let Err(error) = self.make_room(bytes) {
                    tracing::warn!(%error, "the artefact cache cannot be cleared");
                }
            }
            Err(error) => tracing::warn!(%digest, %error, "the artefact cannot be kept"),
        }
    }

    /// Removes the artefact of a component: what it holds does not load.
    pub(crate) fn remove(&self, digest: &str) {
        let path = self.path(&self.key(digest));
        let _: Option<()> = self.reject(&path, "it does not load");
    }

    fn key(&self, digest: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.engine);
        hasher.update(digest.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("{}.{EXTENSION}", blake3::Hash::from_bytes(*key).to_hex()))
    }

    fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.mac_key, bytes)
    }

    /// Where the machine code is, if every byte is as this node wrote it for this key.
    fn verify(&self, key: &[u8; 32], bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        let (before, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
        // `blake3::Hash` compares in constant time.
        if self.mac(before) != blake3::Hash::from_bytes(mac.try_into().ok()?) {
            return None;
        }
        let header = before.get(..HEADER)?;
        let length = u64::from_le_bytes(header[HEADER - 8..].try_into().ok()?);
        let fits = header.starts_with(MAGIC)
            && header[MAGIC.len()..MAGIC.len() + 32] == *key
            && usize::try_from(length).is_ok_and(|length| before.len() - HEADER == length);
        fits.then_some(HEADER..before.len())
    }

    fn reject<T>(&self, path: &Path, why: &str) -> Option<T> {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(path = %path.display(), why, "an artefact is thrown away and made anew");
        let _ = fs::remove_file(path);
        None
    }

    /// Says how long the file became.
    fn write(&self, key: &[u8; 32], code: &[u8]) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(HEADER + code.len() + MAC);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&(code.len() as u64).to_le_bytes());
        bytes.extend_from_slice(code);
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(mac.as_bytes());
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let beside = self.dir.join(format!("{}-{number}.{UNFINISHED}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                // By the clock that `get` sets it by, too; the file system's own is some milliseconds behind.
                file.set_modified(SystemTime::now())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, self.path(key)))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written.map(|()| bytes.len() as u64)
    }

    /// Counts what was added. If that is too much, deletes the artefacts that were of no use for longest, and a few more
    /// than it must: with thousands of files, looking through all of them for each that is added would be most of the work.
    fn make_room(&self, added: u64) -> io::Result<()> {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        *total += added;
        if *total <= self.bytes_max {
            return Ok(());
        }
        let mut files = files(&self.dir)?;
        files.sort();
        *total = files.iter().map(|file| file.bytes).sum();
        let wanted = self.bytes_max - self.bytes_max / ROOM;
        let least = if *total > self.bytes_max { wanted } else { self.bytes_max };
        for file in files {
            // The last one may be larger than what would be left free of others.
            if *total <= least.max(file.bytes.min(self.bytes_max)) {
                break;
            }
            fs::remove_file(&file.path)?;
            *total -= file.bytes;
        }
        Ok(())
    }
}

/// An artefact's file; the one that was of no use for longest is the least.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Kept {
    /// None if it is no artefact.
    fn of(entry: &fs::DirEntry) -> Option<Self> {
        let path = entry.path();
        let metadata = entry.metadata().ok().filter(|_| path.extension().is_some_and(|found| found == EXTENSION))?;
        Some(Self { used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), bytes: metadata.len(), path })
    }
}

/// All artefacts in the directory.
fn files(dir: &Path) -> io::Result<Vec<Kept>> {
    Ok(fs::read_dir(dir)?.flatten().filter_map(|entry| Kept::of(&entry)).collect())
}

/// Reads a regular file that is not larger than an artefact can be. Never through a symbolic link.
fn read(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if !metadata.is_file() || length > HEADER + ARTEFACT_MAX + MAC {
        return Err(io::Error::other("it is no artefact"));
    }
    let mut bytes = Vec::with_capacity(length);
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

/// Version and settings of the engine, and the kind of processor.
fn fingerprint(engine: &Engine) -> [u8; 32] {
    /// Collects what would otherwise become 64 bits.
    struct Collector(blake3::Hasher);
    impl Hasher for Collector {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut collector = Collector(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut collector);
    collector.0.update(crate::engine::VERSION.as_bytes());
    collector.0.update(std::env::consts::ARCH.as_bytes());
    collector.0.update(std::env::consts::OS.as_bytes());
    *collector.0.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    fn artefact(length: usize) -> Verified {
        Verified { bytes: vec![7; length], range: 0..length }
    }

    #[test]
    fn the_oldest_go_when_room_is_needed_and_the_newest_stays() {
        let dir = tempfile::tempdir().expect("because there is a temporary folder");
        let engine = engine::open_compiler().expect("because its settings are right");
        let bytes_max = 16_384;
        let open = || Cache::open(dir.path(), bytes_max, &[1; 32], &engine).expect("because the folder is there");
        let cache = open();
        let on_disk = || files(dir.path()).expect("because it is there").iter().map(|file| file.bytes).sum::<u64>();
        for number in 0..100 {
            cache.put(&number.to_string(), &artefact(1_000));
            assert!(on_disk() <= bytes_max, "after {number}");
            assert!(cache.get(&number.to_string()).is_some(), "{number} is the newest");
            assert_eq!(*cache.total.lock().expect("because nobody panics"), on_disk());
        }
        assert!(cache.get("0").is_none());
        assert!(on_disk() > bytes_max / 2, "no more goes than must");
        // What another start left counts.
        let again = open();
        again.put("large", &artefact(16_000));
        assert!(again.get("large").is_some() && on_disk() <= bytes_max);
        again.put("too large", &artefact(20_000));
        assert!(again.get("too large").is_none() && on_disk() <= bytes_max);
    }

    #[test]
    fn an_open_clears_what_is_unfinished_and_counts_what_is_an_artefact() {
        let dir = tempfile::tempdir().expect("because there is a temporary folder");
        let engine = engine::open_compiler().expect("because its settings are right");
        for (name, length) in [("1-0.unfinished", 700), ("a.artefact", 1_000), ("b.artefact", 20), ("notes.txt", 300)] {
            fs::write(dir.path().join(name), vec![0; length]).expect("because the folder is there");
        }
        let cache = Cache::open(dir.path(), 16_384, &[1; 32], &engine).expect("because the folder is there");
        assert_eq!(*cache.total.lock().expect("because nobody panics"), 1_020);
        assert!(!dir.path().join("1-0.unfinished").exists());
        assert!(dir.path().join("notes.txt").exists(), "what is not the cache's is left alone");
    }
}
