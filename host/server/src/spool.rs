//! Components on their way in: what comes over the network is kept in a file until it is its turn, not in memory.
//!
//! ```text
//! pieces ─▶ Arriving (file, digest so far) ─▶ Arrived (file, digest) ─▶ read once, when it is inspected
//! ```
//!
//! A file has no name: the kernel takes its room back when it is closed, whichever way that comes about: the upload is
//! done, refused or given up, a handler panicked, or the process was killed. Where a file system knows no nameless files
//! (NFS), a killed process may leave one behind; [`Spool::open`] clears those.
//!
//! The store keeps a component as one blob, so it is read whole once, for the inspection and the store together. How many
//! are in memory at a time is the [installer](crate::install)'s to bound.

use std::fs;
use std::io;
use std::io::Read as _;
use std::io::Seek as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;

use bulkhead_sandbox::inspect;
use bulkhead_sandbox::inspect::Digester;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

/// Bytes of a piece that are on their way to the disk.
const PIECE_MAX: usize = 256 << 10;

/// The folder that components arrive in.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the folder, made for its owner alone if it is not there, and clears what was left in it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "what an upload left behind cannot be removed");
            }
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Room for one component.
    pub async fn start(&self) -> io::Result<Arriving> {
        let folder = self.folder.clone();
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder)).await??;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(PIECE_MAX);
        Ok(Arriving { file, digest: Digester::default(), size: 0 })
    }
}

/// A component that comes in piece by piece.
#[derive(Debug)]
pub struct Arriving {
    file: tokio::fs::File,
    digest: Digester,
    size: usize,
}

impl Arriving {
    /// Bytes that came so far.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Takes the next piece.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.digest.update(piece);
        self.size += piece.len();
        self.file.write_all(piece).await
    }

    /// It is all there.
    pub async fn finish(mut self) -> io::Result<Arrived> {
        self.file.flush().await?;
        Ok(Arrived { file: self.file.into_std().await, digest: self.digest.finish(), size: self.size })
    }
}

/// A component that came whole.
#[derive(Debug)]
pub struct Arrived {
    file: fs::File,
    digest: String,
    size: usize,
}

impl Arrived {
    /// Its bytes, if they are still those that came. Blocks.
    fn read(mut self) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(self.size);
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        if inspect::digest(&bytes) != self.digest {
            return Err(io::Error::other("an upload does not read back as it came: the disk is damaged"));
        }
        Ok(bytes.into())
    }
}

/// A component that is uploaded, wherever it is.
#[derive(Debug)]
pub enum Content {
    /// In memory: small, or already read.
    Memory(Bytes),
    /// In a file.
    File(Arrived),
}

impl Content {
    /// Its bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(arrived) => arrived.size,
        }
    }

    /// Reads it into memory, if it is not there already; its file is gone then. Blocks.
    pub fn read(self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::File(arrived) => arrived.read(),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn arrived(spool: &Spool) -> Arrived {
        let mut arriving = spool.start().await.expect("because there is room");
        for piece in ["one ", "two ", "three"] {
            arriving.write(piece.as_bytes()).await.expect("because there is room");
        }
        arriving.finish().await.expect("because there is room")
    }

    #[tokio::test]
    async fn what_came_in_pieces_reads_back_whole_and_has_no_name() {
        let folder = tempfile::tempdir().expect("because there is room");
        let spool = Spool::open(&folder.path().join("uploads")).expect("because it can be made");
        let content = Content::File(arrived(&spool).await);
        assert_eq!(fs::read_dir(&spool.folder).expect("because it is there").count(), 0);
        assert_eq!(content.size(), 13);
        assert_eq!(content.read().expect("because nothing changed it"), "one two three");
    }

    #[tokio::test]
    async fn what_was_changed_on_the_disk_is_noticed() {
        let folder = tempfile::tempdir().expect("because there is room");
        let spool = Spool::open(folder.path()).expect("because it is there");
        let mut arrived = arrived(&spool).await;
        arrived.file.rewind().and_then(|()| arrived.file.write_all(b"X")).expect("because it is ours");
        assert!(Content::File(arrived).read().expect_err("because it is another").to_string().contains("damaged"));
    }

    #[test]
    fn what_a_killed_process_left_is_cleared() {
        let folder = tempfile::tempdir().expect("because there is room");
        fs::write(folder.path().join(".nfs0001"), "half").expect("because there is room");
        Spool::open(folder.path()).expect("because it is there");
        assert_eq!(fs::read_dir(folder.path()).expect("because it is there").count(), 0);
    }
}
