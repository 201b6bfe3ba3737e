//! `bulkhead doctor`: what is missing or unwell, and what mends it.

use std::path::Path;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;

/// Clocks that differ by more make times in stories confusing.
const CLOCK_SKEW_MAX: i64 = 5;

/// Look for what is missing or unwell, and say what mends it
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the host that the flags, the environment or the profile name, with the key that is there.
Ends with exit code 1 if anything is wrong."
)]
pub struct Doctor {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Odd,
    Wrong,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Odd => "warning",
            Self::Wrong => "error",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Clone)]
struct Finding {
    what: &'static str,
    state: State,
    said: String,
    mend: Option<String>,
}

impl Finding {
    fn well(what: &'static str, said: impl Into<String>) -> Self {
        Self { what, state: State::Well, said: said.into(), mend: None }
    }

    fn new(what: &'static str, state: State, said: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, state, said: said.into(), mend: Some(mend.into()) }
    }
}

impl Doctor {
    /// Does it.
    pub async fn run(self) -> Result<()> {
        let mut findings = vec![folder()];
        match self.connection.anyone() {
            Ok(client) => host(&client, &mut findings).await,
            Err(error) => {
                findings.push(Finding::new("profile", State::Wrong, error.to_string(), "mend or remove the file"))
            }
        }
        self.print(&findings)?;
        if findings.iter().any(|it| it.state == State::Wrong) { Err(Error::Told) } else { Ok(()) }
    }

    fn print(&self, findings: &[Finding]) -> Result<()> {
        if self.format.output == Output::Json {
            let items = findings
                .iter()
                .map(|it| json!({"what": it.what, "state": it.state.name(), "said": it.said, "mend": it.mend}));
            return screen::json(&Value::Array(items.collect()));
        }
        let paint = Paint::stdout();
        for it in findings {
            let mark = match it.state {
                State::Well => paint.green("ok     "),
                State::Odd => paint.yellow("warning"),
                State::Wrong => paint.red("error  "),
            };
            screen::line(&format!("{mark}  {:8} {}", it.what, clean(&it.said)))?;
            if let Some(mend) = &it.mend {
                screen::line(&format!("                  {} {mend}", paint.cyan("hint:")))?;
            }
        }
        Ok(())
    }
}

/// The folder that `dev` would use.
fn folder() -> Finding {
    let here = std::env::current_dir().unwrap_or_default();
    let folder = here.join(crate::cli::profile::FOLDER);
    let at = if folder.is_dir() { folder } else { here };
    match is_writable(&at) {
        Ok(()) => Finding::well("folder", format!("{} can be written", at.display())),
        Err(cause) => Finding::new(
            "folder",
            State::Odd,
            format!("{} cannot be written: {cause}", at.display()),
            "`bulkhead dev` needs a folder of its own; start it elsewhere",
        ),
    }
}

fn is_writable(folder: &Path) -> std::io::Result<()> {
    let trial = folder.join(format!(".bulkhead-doctor-{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&trial)?;
    std::fs::remove_file(&trial)
}

/// The host, from the outside in.
async fn host(client: &Client, findings: &mut Vec<Finding>) {
    let ready = match client.request(reqwest::Method::GET, &["readyz"], &[]) {
        Ok(request) => client.send(request.timeout(std::time::Duration::from_secs(10))).await,
        Err(error) => Err(error),
    };
    let response = match ready {
        Ok(response) => response,
        Err(error) => {
            let hint = "start one with `bulkhead dev`, or say where it is with --url or BULKHEAD_URL";
            findings.push(Finding::new("host", State::Wrong, error.to_string(), hint));
            return;
        }
    };
    findings.extend(clock(&response));
    if response.status().is_success() {
        findings.push(Finding::well("host", format!("{} is ready", client.url())));
    } else {
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        let said = format!("{} is not ready ({status}): {}", client.url(), body.trim());
        findings.push(Finding::new(
            "host",
            State::Wrong,
            said,
            "its log says more; is its store reachable, its disk full?",
        ));
    }
    tenant(client, findings).await;
}

fn clock(response: &reqwest::Response) -> Option<Finding> {
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let there = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let apart = (jiff::Timestamp::now().as_second() - there.as_second()).abs();
    Some(if apart > CLOCK_SKEW_MAX {
        let said = format!("this machine's clock and the host's are {apart} s apart");
        Finding::new("clock", State::Odd, said, "let both follow a time server")
    } else {
        Finding::well("clock", "agrees with the host's")
    })
}

/// What the key lets us see.
async fn tenant(client: &Client, findings: &mut Vec<Finding>) {
    let plugins = match client.list(&["v1", "plugins"], &[], 1_000).await {
        Ok(plugins) => plugins,
        Err(Error::Refused(problem)) if problem.status == 401 => {
            let hint =
                "give a tenant's key with --key or BULKHEAD_KEY; an operator makes one: `bulkhead key create TENANT`";
            findings.push(Finding::new("key", State::Wrong, "no key, or one that the host does not take", hint));
            return;
        }
        Err(Error::Refused(problem)) if problem.status == 403 => {
            findings.push(Finding::well("key", "is an operator's, or may not read; the tenant was not looked at"));
            return;
        }
        Err(error) => {
            findings.push(Finding::new("key", State::Wrong, error.to_string(), "see the host's log"));
            return;
        }
    };
    findings.push(Finding::well("key", "is taken"));
    let idle = plugins.iter().filter(|it| at(it, "/active").is_empty());
    let idle: Vec<String> = idle.map(|it| at(it, "/name")).collect();
    if let Some(first) = idle.first() {
        let said = format!("no active version: {}", idle.join(", "));
        let plugin = client.get(&["v1", "plugins", first], &[("limit", "1")]).await.unwrap_or_default();
        findings.push(Finding::new("plugins", State::Odd, said, activation(first, &plugin)));
    }
    let parked = client.list(&["v1", "parked"], &[], 1_000).await.map_or(0, |items| items.len());
    if parked > 0 {
        let said = format!("{} runs wait for a person", value::count(parked as u64));
        findings.push(Finding::new("parked", State::Odd, said, "bulkhead parked list"));
    }
    let stuck = client.list(&["v1", "deliveries"], &[("state", "parked")], 1_000).await.map_or(0, |items| items.len());
    if stuck > 0 {
        let said = format!("{} deliveries wait for a person", value::count(stuck as u64));
        findings.push(Finding::new("sinks", State::Odd, said, "bulkhead delivery list --state parked"));
    }
}

/// The command that brings a plugin nearer to an active version.
fn activation(name: &str, plugin: &Value) -> String {
    let (version, state) = (at(plugin, "/versions/0/version"), at(plugin, "/versions/0/state"));
    match state.as_str() {
        "needs-consent" => format!("bulkhead plugin approve {name} {version}"),
        "ready" => format!("bulkhead plugin activate {name} {version}"),
        _ => format!("bulkhead plugin show {name}"),
    }
}
