//! Postgres: a server of one's own, with the faults that suites inflict on it.
//!
//! It listens on 127.0.0.1 alone and trusts every local user, as nothing of worth is in it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::database::Database;
use crate::database::sql;
use crate::port;
use crate::programs;
use crate::server::Server;
use crate::server::connect;

/// A port may be taken between our look and the server's; then another one is tried.
const ATTEMPTS: u32 = 3;

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Does not wait for the disk: for suites that ask for many commits and never cut the power. What a client was told
    /// is committed still survives a killed server.
    pub fast: bool,
    /// Postgres' setting of that name, with unit.
    pub shared_buffers: String,
    /// Where its folder is made; none is where temporary folders are.
    pub parent: Option<PathBuf>,
}

impl Default for PostgresOptions {
    /// Durable as a server in production, with the memory that Postgres takes if nobody says otherwise.
    fn default() -> Self {
        Self { fast: false, shared_buffers: "128MB".to_owned(), parent: None }
    }
}

/// A running server. Dropping it ends it and removes its folder; so does the end of this process.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    programs: PathBuf,
    options: PostgresOptions,
    port: u16,
}

impl Postgres {
    /// Makes a cluster in a temporary folder and starts it on a free port; returns when it answers.
    ///
    /// # Errors
    ///
    /// If Postgres is not installed (the error names the package), or does not start (with the end of its log).
    pub fn start(options: PostgresOptions) -> Result<Self> {
        let programs = programs::postgres()?;
        let server = Server::prepare("postgres", "QUIT", options.parent.as_deref())?;
        let made = server
            .command(&programs.join("initdb"))?
            .args(["--pgdata=data", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            // The cluster may be lost with the machine; what is committed to it later is another matter.
            .arg("--no-sync")
            .status()
            .context("`initdb` could not be started")?;
        if !made.success() {
            bail!("`initdb` ended with {made}; the end of its log:\n{}", server.log_tail());
        }
        let mut postgres = Self { server, programs, options, port: port::free()? };
        for _ in 1..ATTEMPTS {
            if postgres.start_again().is_ok() {
                return Ok(postgres);
            }
            postgres.port = port::free()?;
        }
        postgres.start_again()?;
        Ok(postgres)
    }

    /// The port on 127.0.0.1. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the superuser reaches the server.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// What the server has logged since the first start.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// Makes an empty database.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn database(&self) -> Result<Database> {
        Database::create(&self.admin_url())
    }

    /// The process id of the postmaster, the parent of all other processes.
    ///
    /// # Errors
    ///
    /// If the server is not running.
    pub fn pid(&self) -> Result<u32> {
        self.server.pid()
    }

    /// A crash: SIGKILL for the postmaster and all its children. Returns when none is left.
    ///
    /// # Errors
    ///
    /// If a process outlives it.
    pub fn kill(&self) -> Result<()> {
        self.server.kill()
    }

    /// Ends the server at once, without a checkpoint: the next start recovers. Clients see their connections end.
    ///
    /// # Errors
    ///
    /// If the server is not running or does not end.
    pub fn stop_immediate(&self) -> Result<()> {
        self.server.end("QUIT").map(drop)
    }

    /// An orderly restart that does not wait for clients, as an administrator's: their transactions are rolled back.
    ///
    /// # Errors
    ///
    /// If the server is not running, does not end, or does not start.
    pub fn restart_fast(&self) -> Result<()> {
        self.server.end("INT")?;
        self.start_again()
    }

    /// Starts the server again after it was killed or stopped: same folder, same port.
    ///
    /// # Errors
    ///
    /// If it is running already, or does not start (with the end of its log).
    pub fn start_again(&self) -> Result<()> {
        let mut command = self.server.command(&self.programs.join("postgres"))?;
        without_surroundings(&mut command);
        command.args(["-D", "data", "-p", &self.port.to_string()]);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let url = self.admin_url();
        // A connection is cheap to try; a client process is not.
        self.server.start(command, || connect(self.port).is_some() && sql(&url, "SELECT 1;").is_ok())
    }

    fn settings(&self) -> Vec<(&'static str, &str)> {
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1"),
            // Nobody needs the socket, and its path could be too long for the system in a deep folder.
            ("unix_socket_directories", ""),
            ("max_connections", "200"),
            ("shared_buffers", &self.options.shared_buffers),
            ("log_line_prefix", "%m [%p] %d "),
        ];
        if self.options.fast {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        settings
    }
}

/// Takes away what a person's environment says about their own Postgres.
pub(crate) fn without_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
}

/// How long a client waits for a server that does not answer.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
