//! Secrets of this node in files that nobody but its owner can read: made at the first start, read at every other.

use std::fs::OpenOptions;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use anyhow::bail;
use rand::TryRngCore as _;

/// Reads 32 bytes from a file; makes the file with random ones (mode 0400) if it is not there.
pub fn load_or_create(path: &Path) -> anyhow::Result<[u8; 32]> {
    for _ in 0..2 {
        match load(path) {
            Ok(secret) => return Ok(secret),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
        match create(path) {
            // Another process may have been faster; then its secret counts.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("the secret file {} cannot be made", path.display()));
            }
            _ => {}
        }
    }
    load(path)
}

/// Makes a file with 32 random bytes (mode 0400); one that is there is an error, and stays.
pub fn create_new(path: &Path) -> anyhow::Result<[u8; 32]> {
    create(path).with_context(|| format!("the secret file {} cannot be made", path.display()))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Reads 32 bytes from a file that nobody but its owner can read or change.
pub fn load(path: &Path) -> anyhow::Result<[u8; 32]> {
    let shown = path.display();
    let mut file = OpenOptions::new().read(true).open(path).with_context(|| format!("{shown} cannot be read"))?;
    let about = file.metadata().with_context(|| format!("{shown} cannot be read"))?;
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("others can read or change the secret file {shown} (mode {mode:04o}): chmod 0400 {shown}");
    }
    let mut secret = [0; 32];
    if !about.is_file() || about.len() != 32 {
        bail!("the secret file {shown} does not hold exactly 32 bytes: put the right one back, from a backup");
    }
    file.read_exact(&mut secret).with_context(|| format!("{shown} cannot be read"))?;
    Ok(secret)
}

/// The bytes are on disk under another name before the file gets its own, and an existing file is never replaced.
fn create(path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
    let new = path.with_extension(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&new)
        .and_then(|mut file| file.write_all(&secret).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::hard_link(&new, path));
    let removed = std::fs::remove_file(&new);
    written?;
    removed?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all()?,
        _ => {}
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_stays_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let path = folder.path().join("pepper");
        let first = load_or_create(&path).expect("because the folder is writable");
        assert_eq!(load_or_create(&path).expect("because it is there"), first);
        assert_ne!(first, [0; 32]);
        assert_eq!(std::fs::metadata(&path).expect("because it is there").mode() & 0o777, 0o400);
        assert_eq!(std::fs::read_dir(folder.path()).expect("because it is there").count(), 1, "nothing is left over");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("because it is ours");
        let error = load_or_create(&path).expect_err("because others can read it");
        assert!(error.to_string().contains("chmod 0400"), "{error}");
        std::fs::remove_file(&path).expect("because it is ours");
        std::fs::write(&path, "short").expect("because it is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).expect("because it is ours");
        assert!(load_or_create(&path).is_err());
    }
}
