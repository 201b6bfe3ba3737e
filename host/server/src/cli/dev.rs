//! `bulkhead dev`: a host of one's own on this machine, with a tenant and a profile that all other commands find.
//!
//! Everything is in `.bulkhead/`: the store, the caches, the operator's key, and the profile. The folder is for its
//! owner alone and ignored by version control.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::json;

use crate::app;
use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::host;
use crate::cli::paint::Paint;
use crate::cli::profile;
use crate::cli::profile::FOLDER;
use crate::cli::profile::Profile;
use crate::cli::screen;
use crate::cli::stop::stopped;
use crate::cli::temp::TempFolder;
use crate::config::Flags;

/// The tenant's name.
const TENANT: &str = "dev";

const EXAMPLES: &str = "Examples:
  bulkhead dev
  bulkhead dev --ephemeral                 # begins empty and forgets everything at the end
  bulkhead dev --plugins-dir plugins       # plugins/dev/NAME.wasm becomes a new version whenever it changes

In the same folder, in another terminal:
  bulkhead plugin push . --activate
  bulkhead rule apply rules/
  bulkhead event tail";

/// A host of one's own, with one tenant; kept in .bulkhead/
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Dev {
    /// Where to listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Begin empty and forget everything at the end
    #[arg(long)]
    ephemeral: bool,
    /// Upload plugins from DIR/dev/NAME.wasm (with NAME.toml beside it) whenever they change
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
}

impl Dev {
    /// Does it, until it is interrupted.
    pub async fn run(self) -> Result<()> {
        let folder = PathBuf::from(FOLDER);
        make(&folder)?;
        let temporary = if self.ephemeral { Some(TempFolder::new("dev")?) } else { None };
        let kept = temporary.as_ref().map_or(folder.as_path(), TempFolder::path);
        let flags = Flags {
            listen: self.listen.clone(),
            store: Some(format!("sqlite:{}", kept.join("bulkhead.db").display())),
            data_dir: Some(kept.join("data")),
            plugins_dir: self.plugins_dir.clone(),
            ..Flags::default()
        };
        let environment = host::environment();
        let read = host::file(&environment);
        let mut config = host::load(None, environment, &flags)?;
        let operator = match &config.operator_key {
            Some(key) => key.expose_secret().to_owned(),
            None => operator_key(&kept.join("operator-key"))?,
        };
        config.operator_key = Some(SecretString::from(operator.clone()));
        let app = app::start(config).await.map_err(|error| Error::chain(&error))?;
        let url = host::url(app.address);
        let outcome = match set_up(&url, operator, &folder).await {
            Ok(profile) => self.stay(&url, &profile, read.as_deref()).await,
            Err(error) => Err(error),
        };
        app.stop().await;
        drop(temporary);
        outcome
    }

    /// Says what there is, and waits for the end.
    async fn stay(&self, url: &str, profile: &Profile, read: Option<&Path>) -> Result<()> {
        let paint = Paint::stdout();
        screen::line(&format!("listening on {}", paint.bold(url)))?;
        screen::line(&format!("  tenant   {TENANT}"))?;
        screen::line(&format!("  key      {}", profile.key.as_deref().unwrap_or_default()))?;
        screen::line(&format!("  profile  {FOLDER}/profile.toml (commands in this folder use it)"))?;
        if let Some(read) = read {
            screen::line(&format!("  config   {}", read.display()))?;
        }
        screen::line(&format!("  docs     {url}/docs"))?;
        if let Some(plugins) = &self.plugins_dir {
            screen::line(&format!("  plugins  {}/{TENANT}/*.wasm are uploaded as they change", plugins.display()))?;
        }
        let kept = if self.ephemeral { "all is forgotten then" } else { "all is kept in .bulkhead/" };
        screen::line(&paint.dim(&format!("  Ctrl-C ends it; {kept}")))?;
        stopped().await;
        Ok(())
    }
}

/// The key of the last time, or a new one.
fn operator_key(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let key = host::new_operator_key("dev");
            profile::write_private(path, &key).map_err(|cause| Error::file(path, "written", &cause))?;
            Ok(key)
        }
        Err(cause) => Err(Error::file(path, "read", &cause)),
    }
}

/// The tenant, its key, and the profile with both.
async fn set_up(url: &str, operator: String, folder: &Path) -> Result<Profile> {
    let key = key(url, &operator, folder).await?;
    let profile = Profile { url: Some(url.to_owned()), key: Some(key), operator_key: Some(operator) };
    profile.write(&folder.join("profile.toml"))?;
    Ok(profile)
}

/// The folder, for its owner alone and not for version control.
fn make(folder: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| Error::file(folder, "made", &cause))?;
    let ignore = folder.join(".gitignore");
    if ignore.exists() {
        return Ok(());
    }
    std::fs::write(&ignore, "*\n").map_err(|cause| Error::file(&ignore, "written", &cause))
}

/// The key of the profile if the host still takes it, else a new one; and the tenant, if it is not there.
async fn key(url: &str, operator: &str, folder: &Path) -> Result<String> {
    let operator = Client::open(url, Some(SecretString::from(operator.to_owned())))?;
    match operator.post(&["admin", "v1", "tenants"], &json!({"name": TENANT})).await {
        Ok(_) => {}
        Err(Error::Refused(problem)) if problem.status == 409 => {}
        Err(error) => return Err(error),
    }
    if let Some(key) = Profile::read(&folder.join("profile.toml"))?.and_then(|profile| profile.key) {
        let client = Client::open(url, Some(SecretString::from(key.clone())))?;
        if client.get(&["v1", "plugins"], &[("limit", "1")]).await.is_ok() {
            return Ok(key);
        }
    }
    let body = json!({"scopes": ["*"], "note": "bulkhead dev"});
    let made = operator.post(&["admin", "v1", "tenants", TENANT, "keys"], &body).await?;
    let key = made.get("key").and_then(Value::as_str);
    key.map(str::to_owned).ok_or_else(|| Error::failed("the host made no key"))
}
