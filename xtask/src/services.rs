//! `cargo xtask services`, and the servers of `cargo xtask test`: one Postgres and one Redis for all suites.
//!
//! They listen on free ports of 127.0.0.1, keep what they have in temporary folders, and end with us, however we end.

use std::process::Command;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use bulkhead_services::Postgres;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;
use bulkhead_services::programs;
use bulkhead_services::shared;

use crate::apt;
use crate::process;

const POSTGRES_PACKAGE: &str = "postgresql";
const REDIS_PACKAGE: &str = "redis-server";

/// Debian's `postgresql` makes a server of its own and starts it, unless this file is there and forbids it.
const NO_MAIN_CLUSTER: &str = "\
file=/etc/postgresql-common/createcluster.conf
[ -e $file ] && exit
mkdir -p ${file%/*} && cat >$file <<END
# Written before Debian's postgresql was installed for the tests of Bulkhead, which start servers of their own.
create_main_cluster = false
END";

/// Installs both if they are not there.
pub fn install() -> Result<()> {
    install_missing(&[POSTGRES_PACKAGE, REDIS_PACKAGE])
}

/// Starts both and stays until it is interrupted.
pub fn run() -> Result<ExitCode> {
    install()?;
    let postgres = Postgres::start(shared::postgres_options())?;
    let redis = Redis::start(RedisOptions::default())?;
    println!("export {}={}", shared::POSTGRES_VARIABLE, postgres.admin_url());
    println!("export {}={}", shared::REDIS_VARIABLE, redis.url());
    eprintln!("Both run until Ctrl-C; what is in them goes with them. Set these where you run `cargo test`.");
    loop {
        thread::park();
    }
}

/// What suites find in their environment: the servers that the caller's environment names, or else ours, which are
/// started now if they are not running yet.
pub fn environment() -> Result<[(&'static str, String); 2]> {
    let unnamed = |variable: &str| std::env::var_os(variable).is_none_or(|value| value.is_empty());
    let mut packages = Vec::new();
    for (variable, package) in [(shared::POSTGRES_VARIABLE, POSTGRES_PACKAGE), (shared::REDIS_VARIABLE, REDIS_PACKAGE)]
    {
        if unnamed(variable) {
            packages.push(package);
        }
    }
    install_missing(&packages)?;
    Ok([
        (shared::POSTGRES_VARIABLE, shared::postgres()?.admin_url().to_owned()),
        (shared::REDIS_VARIABLE, shared::redis()?.url().to_owned()),
    ])
}

/// What the system suite runs beside the host: clients in another language, and a clock that jumps.
const CLIENTS: [&str; 4] = ["python3", "python3-redis", "python3-psycopg", "libfaketime"];

/// Installs what the system suite needs beside servers.
pub fn install_clients() -> Result<()> {
    let is_missing = |package: &str| {
        let mut ask = Command::new("dpkg-query");
        let status = process::read(ask.args(["--show", "--showformat=${db:Status-Status}", package]));
        status.map_or(true, |status| status != "installed")
    };
    if !apt::is_here() {
        bail!("the system suite needs {}, and this is no Debian machine with apt", CLIENTS.join(", "));
    }
    let missing: Vec<&str> = CLIENTS.into_iter().filter(|package| is_missing(package)).collect();
    if missing.is_empty() { Ok(()) } else { apt::install(&missing) }
}

/// Installs those of the packages whose programs are not there.
fn install_missing(packages: &[&'static str]) -> Result<()> {
    let is_missing = |package: &str| match package {
        POSTGRES_PACKAGE => programs::postgres().is_err(),
        _ => programs::redis().is_err(),
    };
    let missing: Vec<&str> = packages.iter().copied().filter(|package| is_missing(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" and ");
    if !apt::is_here() {
        bail!("tests need the programs of {names}, and this is no Debian machine with apt: install them by its means");
    }
    eprintln!("tests need {names}: once for this machine, less than 100 MB to download");
    if missing.contains(&POSTGRES_PACKAGE) {
        process::read(apt::as_root("sh")?.args(["-c", NO_MAIN_CLUSTER]))
            .context("Debian's postgresql could not be told to start no server of its own")?;
    }
    apt::install(&missing).with_context(|| format!("{names} could not be installed; do it as root, then try again"))
}
