//! Server: one server process in a temporary folder, which ends and goes with us.
//!
//! A guardian, a small shell script in a process of its own, reads from a pipe whose other end only we hold. The pipe
//! ends when we drop it and when we die, however that comes about; then the guardian ends the server with all it has
//! forked and removes the folder. A value in a `static`, which is never dropped, is cleaned up in the same way, and so
//! is one of a test that was killed.

use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::account::Account;

const GUARDIAN: &str = include_str!("guardian.sh");

/// A server that is asked to end does so within this time on a machine that is not stuck.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A server that recovers from a crash may take its time; a test machine may be slow.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How much of a log an error shows.
const TAIL_LINES: usize = 20;

#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    account: Account,
    guardian: Child,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// A folder with a guardian, and no server yet. The guardian ends servers with the signal `end`. The folder is in
    /// `parent`, or where temporary ones are.
    pub fn prepare(kind: &str, end: &str, parent: Option<&Path>) -> Result<Self> {
        let account = Account::of(kind)?;
        let temporary = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix(&format!("bulkhead-{kind}-"))
            .tempdir_in(parent.unwrap_or(&temporary))
            .context("a temporary folder could not be made")?;
        account.own(folder.path())?;
        // The guardian compares it with what the system reports.
        let path = fs::canonicalize(folder.path()).context("the temporary folder is gone")?;
        let guardian = guardian(account, &["watch", &text(&path)?, end])
            .stdin(Stdio::piped())
            .spawn()
            .context("`sh` could not be started")?;
        // From here on the guardian removes it.
        drop(folder.keep());
        Ok(Self { folder: path, account, guardian, process: Mutex::new(None) })
    }

    /// What the server writes to its standard streams.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// A command that runs as the server's account and in its folder, with its output in the log.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let log = self.log();
        let file = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = self.account.command(program);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("a log file could not be shared by two streams")?)
            .stderr(file);
        Ok(command)
    }

    /// Starts the server and waits until `answers`. Fails at once if it ends before.
    pub fn start(&self, mut command: Command, answers: impl Fn() -> bool) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            bail!("the server is running already");
        }
        let child = command.spawn().with_context(|| format!("{:?} could not be started", command.get_program()))?;
        let child = process.insert(child);
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = child.try_wait().context("the server cannot be waited for")? {
                *process = None;
                bail!("the server ended with {status} when it was started; the end of its log:\n{}", self.log_tail());
            }
            if answers() {
                return Ok(());
            }
            if Instant::now() >= until {
                drop(process);
                self.kill()?;
                bail!("the server did not answer within {START_LIMIT:?}; the end of its log:\n{}", self.log_tail());
            }
            thread::sleep(LOOK);
        }
    }

    /// The process id of the running server, that of the postmaster for Postgres.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process().as_ref().context("the server is not running")?.id())
    }

    /// Sends a signal and waits until the server has ended.
    pub fn end(&self, signal: &str) -> Result<ExitStatus> {
        let mut process = self.process();
        let child = process.as_mut().context("the server is not running")?;
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", signal, &child.id().to_string()])
            .status()
            .context("`sh` could not be started")?;
        if !sent.success() {
            bail!("SIG{signal} could not be sent to the server");
        }
        let until = Instant::now() + END_LIMIT;
        while Instant::now() < until {
            if let Some(status) = child.try_wait().context("the server cannot be waited for")? {
                *process = None;
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        bail!("the server did not end within {END_LIMIT:?}; the end of its log:\n{}", self.log_tail())
    }

    /// SIGKILL for the server and all that it has forked; returns when none of them is left.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process();
        if let Some(mut child) = process.take() {
            // The parent first, so that it forks nothing more.
            child.kill().context("the server cannot be killed")?;
            child.wait().context("the server cannot be waited for")?;
        }
        let all = guardian(self.account, &["kill", &text(&self.folder)?]).status().context("`sh` cannot be started")?;
        if !all.success() {
            bail!("processes of the server outlive SIGKILL");
        }
        Ok(())
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        // A test that failed while it held the lock must still be able to clean up.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        drop(self.guardian.wait());
        if let Some(mut child) = self.process().take() {
            drop(child.wait());
        }
        // Only there still where the guardian's account may not remove it, and then empty.
        drop(fs::remove_dir(&self.folder));
    }
}

/// Whether somebody accepts connections on a port of the loopback interface.
pub(crate) fn connect(port: u16) -> Option<TcpStream> {
    TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).ok()
}

fn guardian(account: Account, arguments: &[&str]) -> Command {
    let mut command = account.command("sh");
    command.args(["-c", GUARDIAN, "guardian"]).args(arguments);
    // It must hold open neither our folder nor our output: who reads that waits for its end.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
