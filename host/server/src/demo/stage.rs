//! The stage: a host in this process on a store that is forgotten, a receiver for its deliveries, and the tenants with
//! their plugins, settings, sinks and rules. Everything but the start goes through the HTTP API.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use secrecy::SecretString;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::app::App;
use crate::cli::Client;
use crate::cli::Component;
use crate::cli::Error;
use crate::cli::Paint;
use crate::cli::Result;
use crate::cli::TempFolder;
use crate::cli::line;
use crate::cli::new_operator_key;
use crate::cli::upload;
use crate::config::Config;
use crate::config::Flags;
use crate::demo::Options;
use crate::demo::receiver;
use crate::demo::receiver::Arrivals;
use crate::demo::script::SCRIPTS;
use crate::demo::script::Script;
use crate::demo::script::settings;
use crate::demo::stream::Stream;

/// Where people look first.
const LISTEN: &str = "127.0.0.1:8080";

/// A tenant, ready to be fed.
#[derive(Debug)]
pub struct Actor {
    /// What it does.
    pub script: &'static Script,
    /// Its view of the host.
    pub client: Client,
    /// Its key.
    pub key: String,
    /// Its events.
    pub stream: Stream,
}

/// Everything that runs.
pub struct Stage {
    /// The tenants.
    pub actors: Vec<Actor>,
    /// The host's address.
    pub url: String,
    /// The operator's key.
    pub operator_key: String,
    /// What has arrived at the receiver.
    pub arrivals: Arrivals,
    app: App,
    stop: CancellationToken,
    folder: TempFolder,
}

impl Stage {
    /// Starts the host and sets the tenants up.
    pub async fn open(options: &Options) -> Result<Self> {
        // First what may be missing, so that nothing is started in vain.
        let mut parts = Vec::new();
        for script in SCRIPTS {
            let mut plugins = Vec::new();
            for name in script.plugins {
                plugins.push(plugin(&options.plugins, name).await?);
            }
            let stream = Stream::read(&options.data.join(script.stream).join("events.ndjson"))?;
            parts.push((script, plugins, stream));
        }
        let stop = CancellationToken::new();
        let (receiver, arrivals) = receiver::start(stop.clone())
            .await
            .map_err(|cause| Error::failed(format!("the receiver of deliveries cannot listen: {cause}")))?;
        let folder = TempFolder::new("demo")?;
        let listen = match &options.listen {
            Some(listen) => listen.clone(),
            None => free_address().await,
        };
        let operator_key = new_operator_key("demo");
        let config = host_config(listen, folder.path(), &operator_key)?;
        let app = app::start(config).await.map_err(|error| Error::chain(&error))?;
        let url = crate::cli::url(app.address);
        line(&format!("host on {}", Paint::stdout().bold(&url)))?;
        let mut stage = Self { actors: Vec::new(), url, operator_key, arrivals, app, stop, folder };
        for (script, plugins, stream) in parts {
            match stage.set_up(script, &plugins, stream, receiver).await {
                Ok(actor) => stage.actors.push(actor),
                Err(error) => {
                    stage.close().await;
                    return Err(error);
                }
            }
        }
        Ok(stage)
    }

    /// Ends the host and forgets its store.
    pub async fn close(self) {
        self.app.stop().await;
        self.stop.cancel();
        drop(self.folder);
    }

    /// A tenant as an operator and its developers would set it up.
    async fn set_up(
        &self,
        script: &'static Script,
        plugins: &[Component],
        stream: Stream,
        receiver: SocketAddr,
    ) -> Result<Actor> {
        let operator = Client::open(&self.url, Some(SecretString::from(self.operator_key.clone())))?;
        operator.post(&["admin", "v1", "tenants"], &json!({"name": script.tenant})).await?;
        let made = operator.post(&["admin", "v1", "tenants", script.tenant, "keys"], &json!({"scopes": ["*"]})).await?;
        let key = made.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
        let client = Client::open(&self.url, Some(SecretString::from(key.clone())))?;
        let webhook = json!({"kind": "webhook", "url": format!("http://{receiver}/{}", script.tenant)});
        client.put(&["v1", "sinks", script.sink], &webhook).await?;
        for plugin in plugins {
            upload(&client, plugin, true).await?;
            if let Some(settings) = settings(&plugin.name) {
                client.put(&["v1", "plugins", &plugin.name, "config"], &settings).await?;
            }
        }
        let request = client.request(reqwest::Method::PUT, &["v1", "rules"], &[])?;
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/yaml").body(script.rules);
        client.call(request).await?;
        let rules = script.rules.lines().filter(|line| line.starts_with("name: ")).count();
        line(&format!(
            "tenant {}: {} plugins ({}), {rules} rules, 1 sink",
            Paint::stdout().bold(script.tenant),
            plugins.len(),
            script.plugins.join(", ")
        ))?;
        Ok(Actor { script, client, key, stream })
    }
}

/// The defaults, and leave to deliver to this machine. Neither file nor environment count: the demo is the same everywhere.
fn host_config(listen: String, folder: &Path, operator_key: &str) -> Result<Config> {
    let flags = Flags {
        listen: Some(listen),
        store: Some(format!("sqlite:{}", folder.join("bulkhead.db").display())),
        data_dir: Some(folder.join("data")),
        others: [("egress.allow", "127.0.0.1/32"), ("log.level", "warn")]
            .map(|(path, value)| (path.to_owned(), value.to_owned()))
            .to_vec(),
        ..Flags::default()
    };
    let mut config = crate::cli::load(Some(PathBuf::from("/dev/null")), Vec::new(), &flags)?;
    config.operator_key = Some(SecretString::from(operator_key.to_owned()));
    Ok(config)
}

async fn plugin(folder: &Path, name: &str) -> Result<Component> {
    let wasm = folder.join(format!("{name}.wasm"));
    if !wasm.is_file() {
        return Err(Error::hinted(
            format!("the example plugin {} is not there", wasm.display()),
            "`cargo xtask demo` builds the example plugins and starts the demo; --plugins names their folder",
        ));
    }
    Component::read(&wasm, None, Some(name)).await
}

/// The well-known port if nobody has it, else any.
async fn free_address() -> String {
    match TcpListener::bind(LISTEN).await {
        Ok(_) => LISTEN.to_owned(),
        Err(_) => "127.0.0.1:0".to_owned(),
    }
}
