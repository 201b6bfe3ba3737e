//! Redis: a server of one's own, with the faults that suites inflict on it.
//!
//! It listens on 127.0.0.1 alone and asks for no password, as nothing of worth is in it.

use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::port;
use crate::programs;
use crate::server::Server;
use crate::server::connect;

/// A port may be taken between our look and the server's; then another one is tried.
const ATTEMPTS: u32 = 3;

/// A server that loads a log first answers once it has done so.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What a server keeps over its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendOnly {
    /// Nothing.
    #[default]
    None,
    /// What was written until at most about a second before a power cut; all of it if only the process dies.
    EverySecond,
    /// Everything.
    Always,
}

/// How a server is to be.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// What it keeps over its end.
    pub append_only: AppendOnly,
}

/// A running server. Dropping it ends it and removes its folder; so does the end of this process.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    program: PathBuf,
    options: RedisOptions,
    port: u16,
}

impl Redis {
    /// Starts a server with a temporary folder on a free port; returns when it answers.
    ///
    /// # Errors
    ///
    /// If Redis is not installed (the error names the package), or does not start (with the end of its log).
    pub fn start(options: RedisOptions) -> Result<Self> {
        let program = programs::redis()?;
        let mut redis = Self { server: Server::prepare("redis", "TERM", None)?, program, options, port: port::free()? };
        for _ in 1..ATTEMPTS {
            if redis.start_again().is_ok() {
                return Ok(redis);
            }
            redis.port = port::free()?;
        }
        redis.start_again()?;
        Ok(redis)
    }

    /// The port on 127.0.0.1. It stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients reach the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// What the server has logged since the first start.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// The process id of the server.
    ///
    /// # Errors
    ///
    /// If the server is not running.
    pub fn pid(&self) -> Result<u32> {
        self.server.pid()
    }

    /// A crash: SIGKILL. Returns when the server is gone.
    ///
    /// # Errors
    ///
    /// If it outlives that.
    pub fn kill(&self) -> Result<()> {
        self.server.kill()
    }

    /// Ends the server in order.
    ///
    /// # Errors
    ///
    /// If it is not running or does not end.
    pub fn stop(&self) -> Result<()> {
        self.server.end("TERM").map(drop)
    }

    /// Starts the server again after it was killed or stopped: same folder, same port.
    ///
    /// # Errors
    ///
    /// If it is running already, or does not start (with the end of its log).
    pub fn start_again(&self) -> Result<()> {
        let (append_only, sync) = match self.options.append_only {
            AppendOnly::None => ("no", "no"),
            AppendOnly::EverySecond => ("yes", "everysec"),
            AppendOnly::Always => ("yes", "always"),
        };
        let mut command = self.server.command(&self.program)?;
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]).args([
            "--save",
            "",
            "--appendonly",
            append_only,
            "--appendfsync",
            sync,
        ]);
        self.server.start(command, || request(self.port, "PING").is_ok())
    }

    /// Takes away all that is in the server, as an operator's slip would.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub fn flush_all(&self) -> Result<()> {
        request(self.port, "FLUSHALL")
    }
}

/// A command without arguments that is answered by a status.
fn request(port: u16, command: &str) -> Result<()> {
    let mut stream = connect(port).context("Redis accepts no connection")?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "{command}\r\n")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).context("Redis did not answer")?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"+") {
        bail!("Redis says: {}", String::from_utf8_lossy(&answer).trim_end());
    }
    Ok(())
}
