//! The `file` sink: each delivery is a line of a file on the host, under a folder of the tenant's own.
//!
//! A line is the delivery as a JSON document. Lines that wait while others are being written go into the file together,
//! with one fsync for all; a delivery counts as arrived after it. A line that a crash or a full disk cut short never takes
//! the next one with it.
//!
//! A file may be renamed away at any time (rotation): each batch opens it anew. One host writes to a folder.

use std::collections::HashMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bulkhead_domain::policy::verdict::Failure;
use bulkhead_store::deliveries::DueDelivery;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::sink::Attempt;
use crate::sink::document::document;
use crate::sink::spec;
use crate::sink::spec::SpecError;

/// Enough to share an fsync.
pub(super) const CONCURRENCY: usize = 32;
const PATH_BYTES_MAX: usize = 200;
const PATH_DEPTH_MAX: usize = 4;

/// A checked `file` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSink {
    /// Relative to the tenant's folder; plain names only.
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    path: String,
}

pub(super) fn parse(fields: Map<String, Value>) -> Result<FileSink, SpecError> {
    let Raw { path } = spec::raw(fields)?;
    let depth = path.split('/').count();
    if path.len() > PATH_BYTES_MAX || depth > PATH_DEPTH_MAX || !path.split('/').all(is_plain) {
        let message = format!(
            "`{}` is no path of at most {PATH_DEPTH_MAX} plain names (letters, digits, `.`, `-`, `_`, none first but \
             letters and digits), as in `orders/big.ndjson`",
            path.escape_debug()
        );
        return Err(SpecError::new("path", message));
    }
    Ok(FileSink { path })
}

/// A name that leads nowhere but into the folder it is looked up in.
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

impl FileSink {
    pub(super) async fn deliver(&self, files: Option<&Files>, tenant: &str, due: &DueDelivery) -> Attempt {
        let Some(files) = files else {
            return Attempt::refused("sink:disabled", "this host has no file sinks");
        };
        match files.append(tenant, &self.path, line(due)).await {
            Ok(()) => Attempt::done("written"),
            Err(failure) => Attempt::failed(failure),
        }
    }
}

fn line(due: &DueDelivery) -> Vec<u8> {
    let mut line = document(due);
    line.push(b'\n');
    line
}

type Written = oneshot::Sender<Result<(), Failure>>;

/// Lines on their way into one file.
#[derive(Debug, Default)]
struct Writer {
    waiting: Mutex<Vec<(Vec<u8>, Written)>>,
    /// Held by who writes, to the end of the write even if the caller has gone.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// The host's folder of files, and who is writing to which.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    file_bytes_max: u64,
    writers: Mutex<HashMap<PathBuf, Arc<Writer>>>,
}

impl Files {
    /// Under `folder` (made if it is not there), no file larger than `file_bytes_max`: whoever reads them rotates them.
    pub fn open(folder: &Path, file_bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.canonicalize()?, file_bytes_max, writers: Mutex::default() })
    }

    async fn append(&self, tenant: &str, path: &str, line: Vec<u8>) -> Result<(), Failure> {
        if !is_plain(tenant) {
            return Err(Failure::new("file:io", "the tenant's id is no folder's name"));
        }
        let parts: Vec<_> = std::iter::once(tenant).chain(path.split('/')).map(str::to_owned).collect();
        let key: PathBuf = parts.iter().collect();
        let writer = Arc::clone(lock(&self.writers).entry(key.clone()).or_default());
        let (written, result) = oneshot::channel();
        lock(&writer.waiting).push((line, written));
        let turn = Arc::clone(&writer.writing).lock_owned().await;
        let batch = std::mem::take(&mut *lock(&writer.waiting));
        if !batch.is_empty() {
            let (folder, limit) = (self.folder.clone(), self.file_bytes_max);
            let write = move || {
                let _turn = turn;
                let lines: Vec<_> = batch.iter().map(|(line, _)| line.as_slice()).collect();
                let done = write(&folder, &parts, &lines.concat(), limit);
                for (_, written) in batch {
                    // Who no longer waits will try again, and find its line twice under the same id.
                    let _ = written.send(done.clone());
                }
            };
            // The result comes over the channel; a panic closes that.
            let _ = tokio::task::spawn_blocking(write).await;
        }
        self.forget(&key, &writer);
        result.await.unwrap_or_else(|_| Err(Failure::new("file:io", "the write did not end")))
    }

    /// Forgets a writer that nobody else holds.
    fn forget(&self, key: &Path, writer: &Arc<Writer>) {
        let mut writers = lock(&self.writers);
        if Arc::strong_count(writer) == 2 && lock(&writer.waiting).is_empty() {
            writers.remove(key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(folder: &Path, parts: &[String], bytes: &[u8], limit: u64) -> Result<(), Failure> {
    let io = |error: io::Error| {
        let kind = error.kind();
        tracing::error!(%error, file = parts.join("/"), "cannot write to a file sink");
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Failure::new("file:full", "no space is left on the host")
            }
            _ => Failure::new("file:io", format!("the host cannot write the file ({kind})")),
        }
    };
    let path = safe_path(folder, parts).map_err(io)?;
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
    let before = file.metadata().map_err(io)?.len();
    if before + bytes.len() as u64 > limit {
        return Err(Failure::new("file:full", format!("the file has its full size of {limit} bytes")));
    }
    let write = |file: &mut File| {
        if before > 0 && last_byte(file)? != b'\n' {
            file.write_all(b"\n")?;
        }
        file.write_all(bytes)?;
        file.sync_all()
    };
    write(&mut file).map_err(|error| {
        // Half a line would be in the way of the next one; if this fails too, the check above mends it.
        let _ = file.set_len(before);
        io(error)
    })
}

/// Makes the folders; none of them, nor the file, may be a link that leads elsewhere.
fn safe_path(folder: &Path, parts: &[String]) -> io::Result<PathBuf> {
    let mut path = folder.to_owned();
    for (at, part) in parts.iter().enumerate() {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(about) if about.is_symlink() => return Err(io::Error::other("a link stands in the path")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && at + 1 < parts.len() => {
                std::fs::create_dir(&path).or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}
