//! Profile files: where the host is and which keys to use, so that commands need no flags.
//!
//! `.bulkhead/profile.toml` in the working folder or above it is written by `bulkhead dev` and counts first;
//! `~/.config/bulkhead/profile.toml` is the user's own. A key in a profile goes only to that profile's address, and a
//! project's profile may only name a host on this machine: a foreign checkout must not be able to collect keys.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::cli::client::is_loopback;
use crate::cli::client::parse_url;
use crate::cli::error::Error;
use crate::cli::error::Result;

/// The folder that `bulkhead dev` keeps its things in.
pub const FOLDER: &str = ".bulkhead";

/// Where a host is and which keys it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// The host's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A tenant's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// An operator's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_key: Option<String>,
}

impl Profile {
    /// The profile that counts here; an empty one if there is none.
    pub fn find() -> Result<Self> {
        if let Ok(folder) = std::env::current_dir() {
            for folder in folder.ancestors() {
                if let Some(profile) = Self::read(&folder.join(FOLDER).join("profile.toml"))? {
                    return profile.for_project(&folder.join(FOLDER));
                }
            }
        }
        match own_path() {
            Some(path) => Ok(Self::read(&path)?.unwrap_or_default()),
            None => Ok(Self::default()),
        }
    }

    /// Reads a file; none if it is not there.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map(Some)
                .map_err(|cause| Error::failed(format!("{} is no profile: {cause}", path.display()))),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::file(path, "read", &cause)),
        }
    }

    /// Writes it, readable by the user alone.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|cause| Error::failed(format!("no profile: {cause}")))?;
        let text = format!("# Written by `bulkhead dev`. Holds keys: not for version control.\n{text}");
        // Written beside and renamed, so that a reader never sees half of it.
        let beside = path.with_extension("toml.new");
        write_private(&beside, &text).map_err(|cause| Error::file(&beside, "written", &cause))?;
        std::fs::rename(&beside, path).map_err(|cause| Error::file(path, "written", &cause))
    }

    /// Holds a project's profile to its bounds.
    fn for_project(self, folder: &Path) -> Result<Self> {
        match &self.url {
            Some(url) if !is_loopback(&parse_url(url)?) => Err(Error::hinted(
                format!("{}/profile.toml names {url}, which is not on this machine", folder.display()),
                "a project's profile may only name a local host; put others into ~/.config/bulkhead/profile.toml",
            )),
            _ => Ok(self),
        }
    }
}

/// `$XDG_CONFIG_HOME/bulkhead/profile.toml`, else below `~/.config`.
fn own_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("bulkhead").join("profile.toml"))
}

/// Writes a file that its owner alone can read.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_written_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let path = folder.path().join("profile.toml");
        let profile =
            Profile { url: Some("http://127.0.0.1:8080".into()), key: Some("bhk_x".into()), operator_key: None };
        profile.write(&path).expect("because the folder is there");
        assert_eq!(Profile::read(&path).expect("because it was written"), Some(profile));
        let mode = std::fs::metadata(&path).expect("because it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_projects_profile_names_no_foreign_host() {
        let profile = |url: &str| Profile { url: Some(url.into()), ..Profile::default() };
        assert!(profile("http://127.0.0.1:9").for_project(Path::new(".")).is_ok());
        assert!(profile("http://collector.example").for_project(Path::new(".")).is_err());
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        assert!(toml::from_str::<Profile>("ulr = \"x\"").is_err());
    }
}
