//! A host process of one's own, and a client for it.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::Command;

/// The operator's key of every host that the suites start.
pub const OPERATOR_KEY: &str = "bho_tests_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a host is started with, beside its folder.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where everything is kept; none is an SQLite database in its folder.
    pub store: Option<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further variables.
    pub environment: Vec<(String, String)>,
}

/// A running `bulkhead serve`. Dropping it kills the process.
pub struct Host {
    child: Child,
    /// `http://127.0.0.1:…`
    pub url: String,
    folder: PathBuf,
    settings: Settings,
    /// All clients share its connections: a connection each would be what is measured of an idle tenant.
    http: reqwest::Client,
}

impl Host {
    /// Starts a host whose store, keys and caches are in `folder`. Returns when it listens.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[]).await
    }

    /// The same, with further arguments.
    pub async fn start_with(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::start_as(folder, Settings { arguments, ..Settings::default() }).await
    }

    /// The same, with other settings.
    pub async fn start_as(folder: &Path, settings: Settings) -> Result<Self> {
        let (child, url) = spawn(folder, &settings).await?;
        // The tests speak plain HTTP to loopback; the provider is only there because the client wants one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { child, url, folder: folder.to_owned(), settings, http })
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends the process a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().context("the host is gone already")?;
        let status = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
        if !status.success() {
            bail!("no signal could be sent");
        }
        Ok(())
    }

    /// Ends the process as a power cut would, without a word.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.start_kill().context("the host is gone already")?;
        self.child.wait().await?;
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        Ok(ended.context("the host goes on")??)
    }

    /// Asks the process to end and gives its exit code.
    pub async fn terminate(&mut self) -> Result<Option<i32>> {
        self.signal("TERM")?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        Ok(ended.context("the host did not end within a minute of SIGTERM")??.code())
    }

    /// Starts it again on the same folder, on a new port.
    pub async fn restart(&mut self) -> Result<()> {
        (self.child, self.url) = spawn(&self.folder, &self.settings).await?;
        Ok(())
    }

    /// A client with this key.
    #[must_use]
    pub fn client(&self, key: &str) -> Client {
        Client { http: self.http.clone(), url: self.url.clone(), key: key.to_owned(), patience: PATIENCE }
    }

    /// A client for the operator.
    #[must_use]
    pub fn operator(&self) -> Client {
        self.client(OPERATOR_KEY)
    }

    /// The folder of its store, keys and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("host.log"))?)
    }

    /// A new tenant, and a client with a key for everything in it.
    pub async fn tenant(&self, name: &str) -> Result<Client> {
        self.operator().expect(201, Method::POST, "/admin/v1/tenants", Some(json!({"name": name}))).await?;
        Ok(self.key(name, &["*"]).await?.0)
    }

    /// A client with a new key of a tenant that has these scopes, and the key's id.
    pub async fn key(&self, tenant: &str, scopes: &[&str]) -> Result<(Client, String)> {
        let path = format!("/admin/v1/tenants/{tenant}/keys");
        let key = self.operator().expect(201, Method::POST, &path, Some(json!({"scopes": scopes}))).await?;
        let client = self.client(key["key"].as_str().context("the answer has no key")?);
        Ok((client, key["id"].as_str().context("the answer has no id")?.to_owned()))
    }

    /// The value of a metric without labels; 0 if there is none yet.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.operator().request(Method::GET, "/metrics").send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?.unwrap_or_default())
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let pid = self.pid().context("the host is gone")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib * 1024)
    }
}

async fn spawn(folder: &Path, settings: &Settings) -> Result<(Child, String)> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("host.log"))?;
    let embedded = || format!("sqlite:{}", folder.join("bulkhead.db").display());
    let mut command = Command::new(crate::binary()?);
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0"])
        // Not an argument: a store's address may hold a password.
        .env("BULKHEAD_STORE", settings.store.clone().unwrap_or_else(embedded))
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(&settings.arguments)
        .envs(settings.environment.iter().map(|(name, value)| (name, value)))
        .env("BULKHEAD_OPERATOR_KEY", OPERATOR_KEY)
        .env("BULKHEAD_EGRESS_ALLOW", "127.0.0.0/8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    let mut child = command.spawn().context("the host could not be started")?;
    let stdout = child.stdout.take().context("the host has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let first = first.context("the host said nothing for a minute")??;
    let Some(url) = first.as_deref().and_then(|line| line.strip_prefix("listening on ")) else {
        let log = std::fs::read_to_string(folder.join("host.log")).unwrap_or_default();
        bail!("the host's first line is {first:?}; its log ends:\n{}", tail(&log));
    };
    let url = url.to_owned();
    // Somebody must read on, or the host would block on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, url))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Talks to a host with one key.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    patience: Duration,
}

impl Client {
    /// The same key at a host that has moved.
    #[must_use]
    pub fn at(&self, host: &Host) -> Self {
        Self { url: host.url.clone(), ..self.clone() }
    }

    /// The same key at the host with this address.
    #[must_use]
    pub fn to(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same, giving a request up after this long.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same host with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// `127.0.0.1:…`
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key).timeout(self.patience)
    }

    /// A request without a key.
    pub fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Sends JSON, gives the status and the answer (null if it is not JSON).
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// The same, and the status must be this.
    pub async fn expect(&self, status: u16, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (seen, answer) = self.send(method.clone(), path, body).await?;
        if seen != status {
            bail!("{method} {path}: {seen} instead of {status}: {answer}");
        }
        Ok(answer)
    }

    /// The same, and the status must be one of success.
    pub async fn expect_any(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.send(method.clone(), path, body).await?;
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status}: {answer}");
        }
        Ok(answer)
    }

    /// GET, and it must be there.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.expect(200, Method::GET, path, None).await
    }

    /// All items of a list, over all its pages.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next: Option<String> = None;
        let (separator, limit) = if path.contains('?') { ('&', "limit=1000") } else { ('?', "limit=1000") };
        loop {
            let after = next.map(|next| format!("&after={next}")).unwrap_or_default();
            let page = self.get(&format!("{path}{separator}{limit}{after}")).await?;
            items.extend(page["items"].as_array().with_context(|| format!("{path}: no items in {page}"))?.clone());
            match page["next"].as_str() {
                Some(cursor) => next = Some(cursor.to_owned()),
                None => return Ok(items),
            }
        }
    }

    /// The runs of an event.
    pub async fn runs(&self, event: &str) -> Result<Vec<Value>> {
        self.list(&format!("/v1/runs?event={event}")).await
    }

    /// Waits until the run of this event under this rule stands so; gives it.
    pub async fn run_in(&self, event: &str, rule: &str, state: &str) -> Result<Value> {
        crate::eventually(&format!("{event} to be {state} under {rule}"), Duration::from_secs(30), async || {
            let runs = self.runs(event).await?;
            match runs.iter().find(|run| run["rule"] == rule) {
                Some(run) if run["state"] == state => Ok(Some(run.clone())),
                _ => bail!("its runs are {runs:?}"),
            }
        })
        .await
    }

    /// Adds or replaces a sink.
    pub async fn sink(&self, name: &str, spec: Value) -> Result<()> {
        let (status, answer) = self.send(Method::PUT, &format!("/v1/sinks/{name}"), Some(spec)).await?;
        if !matches!(status, 200 | 201 | 204) {
            bail!("sink {name}: {status}: {answer}");
        }
        Ok(())
    }

    /// Replaces a plugin's settings.
    pub async fn configure(&self, plugin: &str, settings: Value) -> Result<()> {
        let (status, answer) = self.send(Method::PUT, &format!("/v1/plugins/{plugin}/config"), Some(settings)).await?;
        if !matches!(status, 200 | 204) {
            bail!("settings of {plugin}: {status}: {answer}");
        }
        Ok(())
    }

    /// A number in a plugin's state; 0 if there is none.
    pub async fn number(&self, plugin: &str, key: &str) -> Result<u64> {
        match self.state(plugin, key).await? {
            None => Ok(0),
            Some(bytes) => Ok(String::from_utf8(bytes)?.trim().parse()?),
        }
    }

    /// Publishes a batch of CloudEvents; gives the receipt.
    pub async fn publish(&self, events: &[Value]) -> Result<Value> {
        let request = self.request(Method::POST, "/v1/events");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let answer = request.body(serde_json::to_vec(events)?).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        if status != 202 {
            bail!("publish: {status}: {body}");
        }
        Ok(body)
    }

    /// Publishes one CloudEvent; gives the answer as it came.
    pub async fn offer(&self, event: &Value) -> Result<reqwest::Response> {
        let request = self.request(Method::POST, "/v1/events").header("content-type", "application/cloudevents+json");
        Ok(request.body(serde_json::to_vec(event)?).send().await?)
    }

    /// Uploads an example plugin and makes it active.
    pub async fn push(&self, name: &str) -> Result<Value> {
        let (wasm, manifest) = crate::plugin(name)?;
        self.push_as(name, wasm, Some(manifest)).await
    }

    /// Uploads a component under a name and makes it active.
    pub async fn push_as(&self, name: &str, wasm: Vec<u8>, manifest: Option<String>) -> Result<Value> {
        self.upload(&format!("/v1/plugins/{name}?activate=true"), wasm, manifest).await
    }

    /// Uploads a component under a name; the active version stays what it is.
    pub async fn store_as(&self, name: &str, wasm: Vec<u8>, manifest: Option<String>) -> Result<Value> {
        self.upload(&format!("/v1/plugins/{name}"), wasm, manifest).await
    }

    async fn upload(&self, path: &str, wasm: Vec<u8>, manifest: Option<String>) -> Result<Value> {
        let request = self.request(Method::PUT, path);
        let request = match manifest {
            None => request.header("content-type", "application/wasm").body(wasm),
            Some(manifest) => {
                let boundary = "bulkhead-tests-boundary";
                let mut body = Vec::new();
                for (part, media, content) in [
                    ("component", "application/wasm", wasm.as_slice()),
                    ("manifest", "application/toml", manifest.as_bytes()),
                ] {
                    body.extend(
                        format!(
                            "--{boundary}\r\ncontent-disposition: form-data; name=\"{part}\"; filename=\"{part}\"\r\n\
                             content-type: {media}\r\n\r\n"
                        )
                        .into_bytes(),
                    );
                    body.extend_from_slice(content);
                    body.extend_from_slice(b"\r\n");
                }
                body.extend(format!("--{boundary}--\r\n").into_bytes());
                request.header("content-type", format!("multipart/form-data; boundary={boundary}")).body(body)
            }
        };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        if !matches!(status, 200 | 201) {
            bail!("PUT {path}: {status}: {body}");
        }
        Ok(body)
    }

    /// Adds or replaces a rule.
    pub async fn rule(&self, rule: Value) -> Result<Value> {
        let name = rule["name"].as_str().context("the rule has no name")?.to_owned();
        self.expect(200, Method::PUT, &format!("/v1/rules/{name}"), Some(rule)).await
    }

    /// A value of a plugin's state, or none.
    pub async fn state(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let answer = self.request(Method::GET, &format!("/v1/plugins/{plugin}/state/{key}")).send().await?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.bytes().await?.to_vec())),
            404 => Ok(None),
            other => bail!("state {key}: {other}"),
        }
    }
}

/// An event of a test.
#[must_use]
pub fn event(id: &str, kind: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/tests", "type": kind, "data": data})
}
