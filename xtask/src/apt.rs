//! apt: Debian's packages, for what a run needs and this machine lacks.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;

use crate::process;
use crate::progress::Step;

/// Package lists that are older are fetched anew where the version counts.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

/// Whether this machine has apt at all.
pub fn is_here() -> bool {
    Command::new("apt-get").arg("--version").output().is_ok()
}

/// Fetches the lists of packages anew.
pub fn update() -> Result<()> {
    let step = Step::begin("updating apt's package lists");
    process::read(as_root("apt-get")?.arg("update"))
        .context("apt's package lists are missing or old and could not be updated")?;
    step.done();
    Ok(())
}

/// The same if they are older than a day: an image's may name a version that is years old and still there to be had.
/// Who has no root's rights without a question goes on with what the lists say.
pub fn freshen() {
    let updated = fs::metadata("/var/lib/apt/lists/partial").and_then(|lists| lists.modified());
    let fresh = updated.is_ok_and(|updated| updated.elapsed().is_ok_and(|age| age < LISTS_MAX_AGE));
    let silent = || is_root() || process::read(Command::new("sudo").args(["-n", "true"])).is_ok();
    if !fresh
        && silent()
        && let Err(error) = update()
    {
        eprintln!("  {error:#}; going on with what they say");
    }
}

/// Installs packages system-wide, without questions; a configuration that is there stays as it is.
pub fn install(packages: &[&str]) -> Result<()> {
    let fetch = || -> Result<()> {
        let step = Step::begin(format!("installing {} from Debian", packages.join(" and ")));
        let mut command = as_root("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "UCF_FORCE_CONFFOLD=1", "apt-get", "install"]);
        // Another run may be at it.
        command.args(["--yes", "--no-install-recommends", "--option", "DPkg::Lock::Timeout=300"]);
        process::read(command.args(packages))?;
        step.done();
        Ok(())
    };
    fetch().or_else(|first| {
        // The usual cause: there are no lists yet, or they name a version that the mirror has replaced.
        eprintln!("  {first:#}");
        update()?;
        fetch()
    })
}

fn is_root() -> bool {
    process::read(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// A command with root's rights, by `sudo` if we do not have them.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}
