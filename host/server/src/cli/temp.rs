//! A folder for as long as the process runs.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::error::Error;
use crate::cli::error::Result;

/// Gone with everything in it when it is dropped.
#[derive(Debug)]
pub struct TempFolder {
    path: PathBuf,
}

impl TempFolder {
    /// A new one, for its owner alone.
    pub fn new(purpose: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("bulkhead-{purpose}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|cause| Error::file(&path, "made", &cause))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if let Err(cause) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %cause, "a temporary folder stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_owner() {
        let folder = TempFolder::new("test").expect("because the system has a folder for such things");
        let path = folder.path().to_owned();
        std::fs::write(path.join("x"), "y").expect("because it is ours");
        drop(folder);
        assert!(!path.exists());
    }
}
