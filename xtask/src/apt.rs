//! apt: Debian's packages, for what a run needs and this machine lacks.

use std::process::Command;

use anyhow::Context;
use anyhow::Result;

use crate::process;
use crate::progress::Step;

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

/// A command with root's rights, by `sudo` if we do not have them.
pub fn as_root(program: &str) -> Result<Command> {
    if process::read(Command::new("id").arg("-u"))? == "0" {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}
