//! What the watched folder looks like.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::manifest::is_plain_name;

/// Plugins looked at, over all tenants: a bound for a folder that somebody filled by mistake.
const PLUGINS_MAX: usize = 10_000;

/// The state of a plugin's files: as long as it is the same, nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    wasm: File,
    manifest: Option<File>,
    signature: Option<File>,
}

/// The state of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl File {
    /// Of what is known of a file.
    pub fn of(about: &Metadata) -> Self {
        Self {
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// The component's.
    pub fn wasm(&self) -> &File {
        &self.wasm
    }

    /// The manifest's, if there is one.
    pub fn manifest(&self) -> Option<&File> {
        self.manifest.as_ref()
    }

    /// The signature's, if there is one.
    pub fn signature(&self) -> Option<&File> {
        self.signature.as_ref()
    }
}

/// Everything in the folder.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the names of tenant's folder and plugin.
    pub plugins: BTreeMap<(String, String), Stamp>,
    /// What is passed over, and why.
    pub odd: Vec<String>,
}

/// Looks.
pub fn scan(folder: &Path) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for entry in sorted(folder)? {
        let Some(tenant) = name(&entry, &mut seen) else { continue };
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            seen.odd.push(format!("`{tenant}` is a link: links are passed over"));
        } else if kind.is_dir() {
            plugins(&entry, &tenant, &mut seen)?;
        } else if tenant.ends_with(".wasm") {
            seen.odd.push(format!("`{tenant}` is in no tenant's folder: move it to TENANT/{tenant}"));
        }
    }
    Ok(seen)
}

fn plugins(folder: &DirEntry, tenant: &str, seen: &mut Seen) -> io::Result<()> {
    let mut entries = match sorted(&folder.path()) {
        Ok(entries) => entries,
        // It was there a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            seen.odd.push(format!("the folder `{tenant}` cannot be read: {error}"));
            return Ok(());
        }
    };
    entries.retain(|entry| entry.file_name().to_string_lossy().ends_with(".wasm"));
    for entry in entries {
        let Some(file) = name(&entry, seen) else { continue };
        let Some(plugin) = file.strip_suffix(".wasm") else { continue };
        if !is_plain_name(plugin) {
            seen.odd.push(format!(
                "`{tenant}/{file}` is passed over: a plugin's name has small letters, digits and dashes"
            ));
            continue;
        }
        let Ok(about) = entry.path().symlink_metadata() else { continue };
        if !about.is_file() {
            seen.odd.push(format!("`{tenant}/{file}` is no regular file: links and other things are passed over"));
            continue;
        }
        let beside = |ending| entry.path().with_extension(ending).symlink_metadata().ok();
        let (manifest, signature) = (beside("toml"), beside("sig"));
        let is_odd = |about: &Option<Metadata>| about.as_ref().is_some_and(|about| !about.is_file());
        if let Some(ending) = is_odd(&manifest).then_some("toml").or(is_odd(&signature).then_some("sig")) {
            seen.odd.push(format!("`{tenant}/{plugin}.{ending}` is no regular file: the plugin is passed over"));
            continue;
        }
        if seen.plugins.len() >= PLUGINS_MAX {
            seen.odd.push(format!("more than {PLUGINS_MAX} plugins: the others are passed over"));
            return Ok(());
        }
        let [manifest, signature] = [manifest, signature].map(|about| about.as_ref().map(File::of));
        let stamp = Stamp { wasm: File::of(&about), manifest, signature };
        seen.plugins.insert((tenant.to_owned(), plugin.to_owned()), stamp);
    }
    Ok(())
}

fn sorted(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries: Vec<DirEntry> = std::fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The entry's name, unless it is hidden or no text.
fn name(entry: &DirEntry, seen: &mut Seen) -> Option<String> {
    match entry.file_name().into_string() {
        Ok(name) if name.starts_with('.') => None,
        Ok(name) => Some(name),
        Err(name) => {
            seen.odd.push(format!("`{}` is passed over: its name is no text", name.to_string_lossy()));
            None
        }
    }
}
