//! Disk: one so small that a test can fill it. A file system in memory, mounted by root or with `sudo`.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use tempfile::TempDir;

/// A mounted disk. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts one with so much room.
    ///
    /// # Errors
    ///
    /// If we may not mount anything.
    pub fn mount(megabytes: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bulkhead-disk-").tempdir()?;
        let size = format!("size={megabytes}m,mode=0755");
        as_root(&["mount", "-t", "tmpfs", "-o", &size, "bulkhead-tests"], folder.path())
            .context("a small disk could not be mounted: tests of a full one need root or sudo")?;
        // Servers run as accounts of their own.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    ///
    /// If it cannot be written for another reason.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        for size in [1 << 20, 4 << 10] {
            let piece = vec![0_u8; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    ///
    /// If the disk was not filled.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until they close it.
        drop(as_root(&["umount", "--lazy"], self.folder.path()));
    }
}

fn as_root(words: &[&str], path: &Path) -> Result<()> {
    let id = Command::new("id").arg("-u").output().context("`id` could not be started")?;
    let sudo: &[&str] = if id.stdout.trim_ascii() == b"0" { &[] } else { &["sudo", "--non-interactive"] };
    let words: Vec<&str> = sudo.iter().chain(words).copied().collect();
    let output = Command::new(words[0]).args(&words[1..]).arg(path).output()?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
