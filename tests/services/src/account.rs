//! Account: the system user that a server runs as.
//!
//! Postgres refuses to run as root, and a Redis without password ought not to. So where tests run as
//! root, a server runs as the user that its Debian package makes; elsewhere as who we are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::programs::MISSING;

/// Who a server runs as. `None` inside means: as ourselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account(Option<(u32, u32)>);

impl Account {
    /// The account for servers of the package that made the user `name`.
    pub fn of(name: &str) -> Result<Self> {
        if fs::metadata("/proc/self").context("/proc cannot be read")?.uid() != 0 {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
        let ids = users.lines().find_map(|line| ids(line, name));
        Ok(Self(Some(ids.with_context(|| format!("there is no system user `{name}`; {MISSING}"))?)))
    }

    /// A command that will run as this account. Its group is its own, so that a terminal's Ctrl-C is not for it.
    pub fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.process_group(0);
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }

    /// Gives a file or folder to this account.
    pub fn own(self, path: &Path) -> Result<()> {
        if let Some((user, group)) = self.0 {
            chown(path, Some(user), Some(group)).with_context(|| format!("{} cannot be given away", path.display()))?;
        }
        Ok(())
    }
}

/// `postgres:x:101:104:…` to (101, 104), if the line is of that user.
fn ids(line: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next()? != name {
        return None;
    }
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let line = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        assert_eq!(ids(line, "postgres"), Some((101, 104)));
        assert_eq!(ids(line, "post"), None);
    }
}
