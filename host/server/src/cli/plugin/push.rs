//! Upload: finds the component, its manifest and its signature, and sends them.

use std::io::IsTerminal as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_sandbox::Exports;
use clap::Args;
use indicatif::ProgressBar;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::input;
use crate::cli::paint::clean;
use crate::cli::plugin::local;
use crate::cli::plugin::subscribe;
use crate::cli::plugin::words;
use crate::cli::screen;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;
use crate::manifest::Manifest;
use crate::needs;
use crate::toml_text;

/// How long an upload takes before something is said about it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is uploaded.
#[derive(Debug, Args)]
pub struct Push {
    /// A component (`.wasm`), JavaScript (`.js`), or a folder with a `plugin.toml` whose `[build] artifact` is a component
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Its manifest [default: a .toml of the same name beside it, else, for a component, plugin.toml in its folder]
    #[arg(short, long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Its signature [default: a .sig of the same name beside the component, if it is there]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// The plugin's name [default: the manifest's, else the file's]
    #[arg(long)]
    name: Option<String>,
    /// Let new runs use it at once
    #[arg(short, long)]
    activate: bool,
    /// Make rules of the manifest's [[subscribe]], where there are none of that name
    #[arg(long)]
    with_rules: bool,
    #[command(flatten)]
    format: Format,
}

/// A component with its manifest, read and ready to go.
#[derive(Debug)]
pub struct Component {
    /// The plugin's name.
    pub name: String,
    /// The component; or JavaScript, of which the host makes one.
    pub wasm: Vec<u8>,
    /// Whether it is JavaScript.
    pub is_source: bool,
    /// The manifest, and where it was read from; without one the plugin gets no grants.
    pub manifest: Option<(PathBuf, String)>,
    /// The signature beside it.
    pub signature: Option<String>,
    /// Where the component was read from.
    pub file: PathBuf,
}

impl Push {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let mut component = Component::read(&self.path, self.manifest.as_deref(), self.name.as_deref()).await?;
        if let Some(file) = &self.signature {
            component.signature = Some(input::text(file).await?);
        }
        let uploaded = patiently(PATIENCE, upload(client, &component, self.activate)).await;
        let answer = uploaded.map_err(|error| self.signing(error))?;
        let active = at(&answer, "/state") == "active";
        // It is stored, but not what was asked for: a script has to see that.
        let outcome = if self.activate && !active { Err(Error::Told) } else { Ok(()) };
        if self.format.output == Output::Json {
            screen::json(&answer)?;
            self.rules(client, &component).await?;
            return outcome;
        }
        let name = &component.name;
        let version = at(&answer, "/version");
        screen::line(&format!("plugin {name}: version {version} is {}", at(&answer, "/state")))?;
        words::lines("digest", &[at(&answer, "/digest")])?;
        words::lines("size", &[size(&answer)])?;
        words::lines("world", &[at(&answer, "/world")])?;
        words::lines("does", &abilities(&answer, &component))?;
        words::lines("imports", &needs::packages(&texts(&answer, "/imports")))?;
        words::list("made with", &texts(&answer, "/made_with"))?;
        words::lines("grants", &[grants(answer.get("grants").unwrap_or(&Value::Null))])?;
        for warning in value::items(&answer, "/warnings") {
            screen::note(&format!("warning: {}", clean(&value::text(warning))))?;
        }
        self.rules(client, &component).await?;
        if let Some(note) = next(&answer, name).filter(|_| !(self.activate && active)) {
            screen::note(&note)?;
        }
        outcome
    }

    /// A refusal for the signature names the command that makes a good one of what was pushed.
    fn signing(&self, error: Error) -> Error {
        let Error::Refused(mut problem) = error else { return error };
        if matches!(problem.code(), "signature-missing" | "signature-invalid") {
            let mut command = format!("bulkhead plugin sign {} --with FILE", self.path.display());
            if let Some(manifest) = &self.manifest {
                command += &format!(" --manifest {}", manifest.display());
            }
            if let Some(name) = &self.name {
                command += &format!(" --name {name}");
            }
            problem.hint = Some(format!("sign it with a key that the host trusts, and push it again: {command}"));
        }
        Error::Refused(problem)
    }

    /// The rules that the manifest asks for: made if that is wanted, else mentioned.
    async fn rules(&self, client: &Client, component: &Component) -> Result<()> {
        let Some(manifest) = component.read_manifest().filter(|manifest| !manifest.subscribe.is_empty()) else {
            let none = "no rules are made: its manifest has no [[subscribe]]";
            return if self.with_rules { screen::note(none) } else { Ok(()) };
        };
        if self.with_rules {
            return subscribe::make_rules(client, &manifest, &component.name).await;
        }
        // A key that may not read rules is told what a new plugin is told.
        if subscribe::missing(client, &manifest, &component.name).await.is_ok_and(|missing| missing.is_empty()) {
            return screen::note("its manifest names events: the rules are there already");
        }
        screen::note("its manifest names events: --with-rules makes the rules that bring them to it")
    }
}

/// What to do with the version next, if anything.
fn next(answer: &Value, name: &str) -> Option<String> {
    let version = at(answer, "/version");
    match at(answer, "/state").as_str() {
        "active" => {
            Some(format!("version {version} is active already: these bytes with this manifest were there before"))
        }
        "needs-consent" => Some(format!("next: bulkhead plugin approve {name} {version}")),
        "retired" => Some(format!(
            "version {version}, the same bytes with the same manifest, is retired: it is not used any more"
        )),
        _ => {
            let warnings = answer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
            let asks = warnings.iter().any(|warning| warning.to_string().contains("bulkhead plugin preview"));
            let verb = if asks { "preview" } else { "activate" };
            Some(format!("next: bulkhead plugin {verb} {name} {version}"))
        }
    }
}

/// What takes long says what it does, to people.
async fn patiently<T>(patience: Duration, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(patience, &mut work).await {
        return done;
    }
    let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
    if let Some(bar) = &bar {
        bar.set_message("the host checks and compiles it");
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    let done = work.await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

/// What the host found that it does, in plain words.
fn abilities(answer: &Value, component: &Component) -> Vec<String> {
    let exports = texts(answer, "/exports");
    let has = |name: &str| exports.iter().any(|export| export == name);
    let exports = Exports { handler: has("handler"), transformer: has("transformer") };
    let manifest = component.read_manifest().unwrap_or_else(|| Manifest::bare(&component.name));
    needs::abilities(&manifest, exports, &texts(answer, "/imports"))
}

fn texts(answer: &Value, pointer: &str) -> Vec<String> {
    value::items(answer, pointer).iter().map(value::text).collect()
}

/// `102KiB (301KiB of machine code)`
fn size(answer: &Value) -> String {
    let bytes = |name: &str| value::bytes(answer.get(name).and_then(Value::as_u64).unwrap_or_default());
    format!("{} ({} of machine code)", bytes("size"), bytes("artefact_size"))
}

/// `emit orders.*; schedule`, or `none`.
fn grants(grants: &Value) -> String {
    let Some(fields) = grants.as_object() else { return "none".to_owned() };
    let parts = fields.iter().filter_map(|(name, value)| match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(name.clone()),
        Value::Array(items) if items.is_empty() => None,
        value => Some(format!("{name} {}", value::text(value))),
    });
    let text = parts.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "none".to_owned() } else { text }
}

impl Component {
    /// Reads a component from a file or folder.
    pub async fn read(path: &Path, manifest: Option<&Path>, name: Option<&str>) -> Result<Self> {
        let (wasm, manifest) = if path.is_dir() {
            let manifest = manifest.map_or_else(|| path.join("plugin.toml"), Path::to_path_buf);
            let text = input::text(&manifest).await?;
            let Some(artifact) = field(&text, &manifest, "build", "artifact")? else {
                return Err(Error::hinted(
                    format!("{} does not say where the component is", manifest.display()),
                    "add `artifact = \"…\"` to its [build], or push the .wasm file itself",
                ));
            };
            (path.join(artifact), Some((manifest, text)))
        } else {
            let found = match manifest {
                Some(manifest) => Some(manifest.to_path_buf()),
                None => beside(path, is_source(path)),
            };
            match found {
                Some(manifest) => {
                    let text = input::text(&manifest).await?;
                    (path.to_path_buf(), Some((manifest, text)))
                }
                None => (path.to_path_buf(), None),
            }
        };
        let named = match &manifest {
            Some((path, text)) => field(text, path, "plugin", "name")?,
            None => None,
        };
        let stem = wasm.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let name = name.map(str::to_owned).or(named).unwrap_or(stem);
        let is_source = is_source(&wasm);
        let signature = wasm.with_extension("sig");
        let signature = if signature.is_file() { Some(input::text(&signature).await?) } else { None };
        Ok(Self { name, wasm: input::bytes(&wasm).await?, is_source, manifest, signature, file: wasm })
    }

    /// The manifest of a component that the host has taken: it reads.
    fn read_manifest(&self) -> Option<Manifest> {
        let (_, text) = self.manifest.as_ref()?;
        Manifest::parse(text).ok()
    }

    fn manifest_text(&self) -> Option<&str> {
        self.manifest.as_ref().map(|(_, text)| text.as_str())
    }
}

/// The manifest of a file that is sent. A source has one of its own name or none: in the folder of another plugin, that
/// one's `plugin.toml` would make it a version of the other, with the other's grants.
pub fn beside(file: &Path, is_source: bool) -> Option<PathBuf> {
    let own = file.with_extension("toml");
    let folders = (!is_source).then(|| file.with_file_name("plugin.toml"));
    [Some(own), folders].into_iter().flatten().find(|path| path.is_file())
}

pub fn is_source(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "js" || ending == "mjs")
}

/// One text of a manifest. The rest is the host's to check.
fn field(text: &str, path: &Path, table: &str, name: &str) -> Result<Option<String>> {
    let manifest: toml::Table = local::parsed(path, toml_text::read(text).map_err(|fault| vec![fault]))?;
    let value = manifest.get(table).and_then(|table| table.get(name)).and_then(toml::Value::as_str);
    Ok(value.map(str::to_owned))
}

/// Sends it.
pub async fn upload(client: &Client, component: &Component, activate: bool) -> Result<Value> {
    let query: &[(&str, &str)] = if activate { &[("activate", "true")] } else { &[] };
    if component.is_source {
        let Ok(source) = std::str::from_utf8(&component.wasm) else {
            return Err(Error::failed("the source is not UTF-8 text".to_owned()));
        };
        let mut body = serde_json::json!({ "source": source, "manifest": component.manifest_text() });
        if let Some(signature) = &component.signature {
            body["signature"] = signature.as_str().into();
        }
        let request = client.request(Method::POST, &["v1", "plugins", &component.name, "source"], query)?;
        return client.call(request.json(&body)).await.map_err(|error| placed(error, component));
    }
    let request = client.request(Method::PUT, &["v1", "plugins", &component.name], query)?;
    let boundary = format!("bulkhead-{}", uuid::Uuid::new_v4().simple());
    let body = multipart(&boundary, &component.wasm, component.manifest_text(), component.signature.as_deref());
    let request = request.header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}")).body(body);
    client.call(request).await.map_err(|error| placed(error, component))
}

/// A mistake in the manifest or in a source has its place in the file that was sent.
fn placed(error: Error, component: &Component) -> Error {
    let Error::Refused(mut problem) = error else { return error };
    problem.file = match (problem.code(), &component.manifest) {
        ("manifest-invalid", Some((file, _))) => Some(local::shown(file)),
        ("plugin-refused", _) if component.is_source => Some(component.file.display().to_string()),
        _ => None,
    };
    Error::Refused(problem)
}

fn multipart(boundary: &str, wasm: &[u8], manifest: Option<&str>, signature: Option<&str>) -> Vec<u8> {
    let parts = [
        ("manifest", "plugin.toml", "application/toml", manifest.map(str::as_bytes)),
        ("signature", "plugin.sig", "application/json", signature.map(str::as_bytes)),
        ("component", "plugin.wasm", "application/wasm", Some(wasm)),
    ];
    let mut body = Vec::with_capacity(wasm.len() + 4096);
    for (name, file, kind, bytes) in parts {
        let Some(bytes) = bytes else { continue };
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: {kind}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::Paint;

    #[tokio::test]
    async fn a_component_is_found_with_its_manifest() {
        let folder = tempfile::tempdir().expect("because a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("because the folder is there");
        write("fraud_score.wasm", "\0asm");
        let bare = Component::read(&at("fraud_score.wasm"), None, None).await.expect("because it is there");
        assert_eq!((bare.name.as_str(), bare.manifest), ("fraud-score", None));
        write("plugin.toml", "[plugin]\nname = \"other\"\n[build]\nartifact = \"fraud_score.wasm\"");
        let whole = Component::read(folder.path(), None, None).await.expect("because the artefact is there");
        assert_eq!((whole.name.as_str(), whole.wasm.as_slice()), ("other", &b"\0asm"[..]));
        write("fraud_score.toml", "[plugin]\nname = \"nearer\"");
        let near = Component::read(&at("fraud_score.wasm"), None, None).await.expect("because it is there");
        assert_eq!(near.name, "nearer");
        let named = Component::read(&at("fraud_score.wasm"), None, Some("mine")).await.expect("because it is there");
        assert_eq!(named.name, "mine");
        assert!(!named.is_source);
        assert_eq!(named.signature, None);
        write("fraud_score.sig", "{}");
        let signed = Component::read(folder.path(), None, None).await.expect("because the artefact is there");
        assert_eq!((signed.signature.as_deref(), signed.file), (Some("{}"), at("fraud_score.wasm")));
        write("greet.js", "function handle() {}");
        let source = Component::read(&at("greet.js"), None, Some("greet")).await.expect("because it is there");
        assert!(source.is_source);
        write("plugin.toml", "[plugin]\nname = \"other\"");
        assert!(Component::read(folder.path(), None, None).await.is_err());
    }

    #[tokio::test]
    async fn a_source_has_a_manifest_of_its_own_name_or_none() {
        let folder = tempfile::tempdir().expect("because there is a temporary folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("because the folder is there");
        };
        write("plugin.toml", "[plugin]\nname = \"guard\"\n[grants]\nsecrets = [\"token\"]\n");
        write("tenth.js", "export function handle() {}");
        let source = folder.path().join("tenth.js");
        let alone = Component::read(&source, None, None).await.expect("because it is there");
        assert_eq!((alone.name.as_str(), alone.manifest), ("tenth", None));
        write("tenth.toml", "[plugin]\nname = \"every-tenth\"\n");
        let with = Component::read(&source, None, None).await.expect("because it is there");
        assert_eq!(with.name, "every-tenth");
        assert!(with.manifest.is_some_and(|(_, text)| !text.contains("token")));
    }

    #[test]
    fn what_comes_next_follows_from_what_it_is() {
        let said = |state: &str| {
            let answer = serde_json::json!({"version": 1, "state": state});
            next(&answer, "greet").expect("because something is said")
        };
        assert!(said("active").starts_with("version 1 is active already"));
        assert_eq!(said("ready"), "next: bulkhead plugin activate greet 1");
        assert_eq!(said("needs-consent"), "next: bulkhead plugin approve greet 1");
        assert!(said("retired").contains("retired"));
    }

    #[test]
    fn a_mistake_in_a_source_is_shown_once_at_its_place_in_the_file() {
        let body = serde_json::json!({
            "type": "/docs/errors/plugin-refused", "status": 422, "code": "plugin-refused",
            "detail": "unexpected token", "errors": [{"line": 2, "column": 15, "message": "unexpected token"}],
        });
        let problem = serde_json::from_value(body).expect("because it is a problem document");
        let error = placed(Error::Refused(Box::new(problem)), &sent("greet.js"));
        let shown = error.render(Paint::plain());
        assert_eq!(shown, "error: unexpected token [plugin-refused]\n  --> greet.js:2:15\n");
        assert_eq!(error.to_string(), "the host refused: unexpected token");
    }

    fn sent(file: &str) -> Component {
        let file = PathBuf::from(file);
        Component {
            name: "greet".to_owned(),
            wasm: Vec::new(),
            is_source: is_source(&file),
            manifest: Some((PathBuf::from("./plugins/plugin.toml"), String::new())),
            signature: None,
            file,
        }
    }

    #[test]
    fn a_fault_of_the_manifest_is_shown_at_its_place_in_the_file() {
        let body = serde_json::json!({
            "type": "/docs/errors/manifest-invalid", "status": 422, "code": "manifest-invalid", "detail": "it is wrong",
            "errors": [{"line": 3, "column": 1, "path": "grants", "message": "so not", "excerpt": "3 | [x]\n  | ^"}],
        });
        let problem = serde_json::from_value(body).expect("because it is a problem document");
        let shown = placed(Error::Refused(Box::new(problem)), &sent("greet.wasm")).render(Paint::plain());
        assert!(shown.contains("\n  --> plugins/plugin.toml:3:1  grants\n      3 | [x]\n"), "{shown}");
        let fault = field("[plugin]\nname =", Path::new("./p.toml"), "plugin", "name");
        let shown = fault.expect_err("because that is no TOML").render(Paint::plain());
        assert!(shown.contains("\n  --> p.toml:2:") && shown.contains("\n      2 | name ="), "{shown}");
    }

    #[test]
    fn who_lacks_a_signature_is_told_the_command() {
        #[derive(Debug, clap::Parser)]
        struct Cli {
            #[command(flatten)]
            push: Push,
        }
        let words = ["push", "plugins/fraud", "--name", "fraud-score"];
        let push = <Cli as clap::Parser>::try_parse_from(words).expect("because the flags are right").push;
        let refused = |code: &str| {
            let body = serde_json::json!({"status": 422, "code": code, "title": "No", "hint": "sign PATH"});
            let problem = serde_json::from_value(body).expect("because it is a problem document");
            push.signing(Error::Refused(Box::new(problem))).render(Paint::plain())
        };
        let command = "bulkhead plugin sign plugins/fraud --with FILE --name fraud-score";
        assert!(refused("signature-missing").contains(command), "{}", refused("signature-missing"));
        assert!(refused("conflict").contains("hint: sign PATH"));
    }

    #[tokio::test]
    async fn what_takes_long_ends_as_what_does_not() {
        assert_eq!(patiently(PATIENCE, async { 1 }).await, 1);
        let (done, ends) = tokio::sync::oneshot::channel();
        let work = patiently(Duration::ZERO, ends);
        tokio::spawn(async move { done.send(2) });
        assert_eq!(work.await, Ok(2));
    }

    #[test]
    fn a_folder_is_pushed_from_inside() {
        let command = Push::augment_args(clap::Command::new("push"));
        let found = command.try_get_matches_from(["push"]).expect("because the path has a default");
        assert_eq!(found.get_one::<PathBuf>("path"), Some(&PathBuf::from(".")));
    }

    #[test]
    fn a_multipart_body_has_the_parts_that_are_there() {
        let body = multipart("b", b"\0asm", Some("[plugin]"), None);
        let text = String::from_utf8(body).expect("because these bytes are text");
        assert_eq!(text.matches("--b\r\n").count(), 2);
        assert!(text.contains(
            "name=\"component\"; filename=\"plugin.wasm\"\r\nContent-Type: application/wasm\r\n\r\n\0asm\r\n"
        ));
        assert!(text.ends_with("\r\n--b--\r\n"));
    }

    #[test]
    fn grants_read_well() {
        let text = grants(&serde_json::json!({"emit": ["a.*", "b"], "http": [], "schedule": true, "x": false}));
        assert_eq!(text, "emit a.*, b; schedule");
        assert_eq!(grants(&serde_json::json!({})), "none");
    }
}
