//! Shelf: a folder in the user's cache for things that are made once and used for ever.
//!
//! ```text
//! <cache>/bulkhead/<name>/
//!   lock                  held while one run looks or makes; others wait
//!   .unfinished-<pid>/    being made; removed by the next run if its owner was killed
//!   <thing>/              a whole one: it appears by a rename
//! ```

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;

const UNFINISHED: &str = ".unfinished-";

/// A shelf that is ours until it is dropped.
pub struct Shelf {
    folder: PathBuf,
    _lock: File,
}

impl Shelf {
    /// Opens the shelf of this name; waits for a run that is at work on it. `what` says what lies there, for people.
    pub fn open(name: &str, what: &str) -> Result<Self> {
        let folder = cache_folder()?.join("bulkhead").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let lock = lock(&folder, what)?;
        sweep(&folder);
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A place to make something in, which counts for nothing until it is kept.
    pub fn room(&self) -> Result<PathBuf> {
        let room = self.folder.join(format!("{UNFINISHED}{}", std::process::id()));
        fs::create_dir_all(&room).with_context(|| format!("{} cannot be made", room.display()))?;
        Ok(room)
    }

    /// Puts what was made in the room in its place, instead of anything that is there.
    pub fn keep(&self, room: &Path, name: &str) -> Result<PathBuf> {
        let place = self.folder.join(name);
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        fs::rename(room, &place).with_context(|| format!("{} cannot be made", place.display()))?;
        Ok(place)
    }
}

fn cache_folder() -> Result<PathBuf> {
    // The standard says that a relative XDG_CACHE_HOME is to be ignored.
    let set = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(folder) = set {
        return Ok(folder);
    }
    let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    Ok(PathBuf::from(home).join(".cache"))
}

/// Keeps two runs apart. The system frees it when the process ends, however it ends.
fn lock(folder: &Path, what: &str) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("another run is preparing {what}; waiting for it");
            file.lock().with_context(|| format!("the lock of {what} could not be taken"))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("the lock of {what} could not be taken"));
        }
    }
    Ok(file)
}

/// Removes what killed runs left; we hold the lock, so no run is at work in there. A tool that outlived its run may still
/// write for a moment, so what cannot be removed now is left to the next sweep: nothing depends on it.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
