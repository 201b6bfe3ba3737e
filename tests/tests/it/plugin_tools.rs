//! A plugin developer's tools: from nothing to a first event, fixtures, and the watch.

use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use bulkhead_tests::eventually;
use bulkhead_tests::guest;
use bulkhead_tests::host::Host;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tokio::process::Command;

use crate::tour;

/// A first build compiles the bindings' macros; on a busy machine that takes its time.
const BUILD: Duration = Duration::from_secs(900);

/// The binary, in a folder.
fn bulkhead(folder: &Path) -> Result<Command> {
    let mut command = Command::new(bulkhead_tests::binary()?);
    ready(&mut command, folder);
    Ok(command)
}

/// A command in a folder, without what the suite's own environment says about hosts and compilers.
fn ready<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours = ["BULKHEAD_URL", "BULKHEAD_KEY", "BULKHEAD_OPERATOR_KEY"].contains(&name.as_ref());
        if is_ours || name.starts_with("CARGO_") && name != "CARGO_HOME" {
            command.env_remove(name.as_ref());
        }
    }
    command
}

async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let output = bulkhead(folder)?.args(arguments).envs(environment.iter().copied()).output();
    tokio::time::timeout(BUILD, output).await.with_context(|| format!("{arguments:?} did not end"))?.map_err(Into::into)
}

/// What it prints, if it ends well.
async fn well(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    let output = run(folder, arguments, environment).await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{arguments:?} ended with {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}

fn examples() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests lie inside the repository")?;
    Ok(root.join("example-plugins"))
}

/// A plugin's folder without a compiler: its build copies a component that is there.
fn copying(folder: &Path, name: &str, wasm: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder.join("src"))?;
    std::fs::create_dir_all(folder.join("tests"))?;
    std::fs::write(folder.join("src/plugin.wasm"), wasm)?;
    let (_, manifest) = bulkhead_tests::plugin(name)?;
    let build =
        "[build]\ncommand = \"cp src/plugin.wasm built.wasm\"\nartifact = \"built.wasm\"\nwatch = [\"src/**\"]\n";
    let manifest = manifest.split("[build]").next().unwrap_or_default().to_owned() + build;
    std::fs::write(folder.join("plugin.toml"), manifest)?;
    Ok(())
}

/// Runs the fixtures of those examples that `is_wanted` picks by their folders; at least so many, each with two or more.
async fn pass_their_fixtures(at_least: usize, is_wanted: impl Fn(&Path) -> bool) -> Result<()> {
    let mut plugins = 0;
    for entry in std::fs::read_dir(examples()?)? {
        let folder = entry?.path();
        if !folder.join("plugin.toml").is_file() || !is_wanted(&folder) {
            continue;
        }
        plugins += 1;
        let name = folder.file_name().and_then(std::ffi::OsStr::to_str).context("an example without a name")?;
        let place = tempfile::tempdir()?;
        let (wasm, _) = bulkhead_tests::plugin(name)?;
        copying(place.path(), name, &wasm)?;
        std::fs::rename(place.path().join("src/plugin.wasm"), place.path().join("built.wasm"))?;
        let fixtures = std::fs::read_dir(folder.join("tests")).with_context(|| format!("{name} has no fixtures"))?;
        for fixture in fixtures {
            let fixture = fixture?;
            std::fs::copy(fixture.path(), place.path().join("tests").join(fixture.file_name()))?;
        }
        let text = well(place.path(), &["plugin", "test", "--output", "json"], &[]).await.context(name.to_owned())?;
        let report: Value = serde_json::from_str(&text)?;
        let cases = report["cases"].as_array().context("no cases")?;
        ensure!(cases.len() >= 2, "{name}: {} fixtures", cases.len());
        for case in cases {
            for figure in ["fuel", "memory", "time_us"] {
                let (used, limit) = (&case["used"][figure]["used"], &case["used"][figure]["limit"]);
                ensure!(used.as_u64() > Some(0) && limit.as_u64() > Some(0), "{name}: {case}");
            }
        }
    }
    ensure!(plugins >= at_least, "{plugins} examples");
    Ok(())
}

fn is_python(folder: &Path) -> bool {
    folder.join("app.py").is_file()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_passes_its_fixtures() -> Result<()> {
    pass_their_fixtures(12, |folder| !is_python(folder)).await
}

/// With the suite that has the tools for them.
mod toolchains {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_example_in_python_passes_its_fixtures() -> Result<()> {
        pass_their_fixtures(2, is_python).await
    }
}

/// The languages that the README's commands are for; the first one is what they say.
const LANGUAGES: &str = "-t ts        # or rust, js, python";

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_first_event_in_rust() -> Result<()> {
    first_event("rust").await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_first_event_in_typescript() -> Result<()> {
    first_event("ts").await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_first_event_in_javascript() -> Result<()> {
    first_event("js").await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_first_event_in_python() -> Result<()> {
    first_event("python").await
}

/// What a newcomer types, command after command as the README has them; prints how long each took.
async fn first_event(language: &str) -> Result<()> {
    let blocks = tour::blocks("A plugin of your own")?;
    let [commands] = blocks.as_slice() else { bail!("the README has other commands by now: {blocks:?}") };
    ensure!(commands.contains(LANGUAGES), "the README has other languages by now\n{commands}");
    let place = tempfile::tempdir()?;
    let host = Host::start(place.path()).await?;
    let (url, key) = (host.url.clone(), tenant_key(&host).await?);
    let environment = [("BULKHEAD_URL", url.as_str()), ("BULKHEAD_KEY", key.as_str())];
    let mut folder = place.path().to_path_buf();
    let mut said = Vec::new();
    let mut steps = Vec::new();
    for command in commands.replace("-t ts", &format!("-t {language}")).lines() {
        let command = command.split_once("  #").map_or(command, |(command, _)| command).trim();
        if let Some(name) = command.strip_prefix("cd ") {
            folder.push(name);
            continue;
        }
        let began = Instant::now();
        let out = if command.starts_with("bulkhead event show") {
            // The run may still be on its way.
            eventually("the flag", Duration::from_secs(30), async || {
                let out = typed(&folder, command, &environment).await?;
                Ok(out.contains("event orders.flagged").then_some(out))
            })
            .await?
        } else {
            typed(&folder, command, &environment).await?
        };
        let what = command.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
        steps.push(format!("{what} {:.2} s", began.elapsed().as_secs_f64()));
        said.push(out);
    }
    println!("from nothing to a first event, {language}: {}", steps.join(", "));

    let [made, built, tested, pushed, .., shown] = said.as_slice() else { bail!("the README has too few commands") };
    let next: Vec<&str> = made.lines().filter(|line| line.starts_with("  ")).map(str::trim).collect();
    ensure!(next == ["cd first", "bulkhead plugin build", "bulkhead plugin test"], "{made}");
    for part in ["handler-plugin of bulkhead:plugin@0.1.0", "emits orders.flagged", "reads and writes its state"] {
        ensure!(built.contains(part), "{part}\n{built}");
    }
    ensure!(tested.contains("2 passed, 0 failed"), "{tested}");
    ensure!(pushed.contains("version 1 is active"), "{pushed}");
    ensure!(shown.contains("rule first  done  first v1"), "{shown}");
    Ok(())
}

/// What a line of a shell prints, if it ends well.
async fn typed(folder: &Path, line: &str, environment: &[(&str, &str)]) -> Result<String> {
    let words = line.strip_prefix("bulkhead ").with_context(|| format!("`{line}` is no command of ours"))?;
    let mut shell = Command::new("bash");
    // The words after a script are its own: the first is what stands for `bulkhead`.
    shell.args(["-c", &format!("\"$0\" {words}")]).arg(bulkhead_tests::binary()?);
    let output = ready(&mut shell, folder).envs(environment.iter().copied()).output();
    let output = tokio::time::timeout(BUILD, output).await.with_context(|| format!("`{line}` did not end"))??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}` ended with {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_takes_nobodys_place() -> Result<()> {
    let place = tempfile::tempdir()?;
    let new = ["plugin", "new", "first-flag", "-t", "rust"];
    well(place.path(), &new, &[]).await?;
    std::fs::write(place.path().join("first-flag/src/lib.rs"), "// mine")?;
    ensure!(run(place.path(), &new, &[]).await?.status.code() == Some(1));
    ensure!(std::fs::read_to_string(place.path().join("first-flag/src/lib.rs"))? == "// mine");
    // Without a terminal nobody is asked for the language, unless --yes says that Rust will do.
    ensure!(run(place.path(), &["plugin", "new", "other"], &[]).await?.status.code() == Some(2));
    well(place.path(), &["plugin", "new", "other", "--yes"], &[]).await?;
    ensure!(run(place.path(), &["plugin", "new", "No_Name", "--yes"], &[]).await?.status.code() == Some(2));
    Ok(())
}

async fn tenant_key(host: &Host) -> Result<String> {
    host.operator().expect(201, Method::POST, "/admin/v1/tenants", Some(json!({"name": "acme"}))).await?;
    let body = json!({"scopes": ["*"]});
    let key = host.operator().expect(201, Method::POST, "/admin/v1/tenants/acme/keys", Some(body)).await?;
    Ok(key["key"].as_str().context("the answer has no key")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixture_fails_with_a_difference_and_is_written_anew() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (wasm, _) = bulkhead_tests::plugin("usage-meter")?;
    copying(place.path(), "usage-meter", &wasm)?;
    well(place.path(), &["plugin", "build"], &[]).await?;
    let file = place.path().join("tests/an-order.json");
    let data = json!({"customer": {"id": "c"}, "total": 5});
    let fixture = json!({"event": {"type": "a", "data": data}, "expect": {"state": {"orders:c": 2}}});
    std::fs::write(&file, fixture.to_string())?;

    let failed = run(place.path(), &["plugin", "test", "--junit", "report.xml"], &[]).await?;
    let text = String::from_utf8_lossy(&failed.stdout);
    ensure!(failed.status.code() == Some(1), "{}", failed.status);
    for part in
        ["- ", "\"orders:c\": 2", "+ ", "\"orders:c\": 1", "\"cents:c\": 500", "0 passed, 1 failed", "fuel", "memory"]
    {
        ensure!(text.contains(part), "{part}\n{text}");
    }
    let junit = std::fs::read_to_string(place.path().join("report.xml"))?;
    ensure!(junit.contains("failures=\"1\"") && junit.contains("an-order"), "{junit}");

    well(place.path(), &["plugin", "test", "--update"], &[]).await?;
    well(place.path(), &["plugin", "test"], &[]).await?;
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    ensure!(written["expect"]["state"] == json!({"cents:c": 500, "orders:c": 1}), "{written}");

    // A filter that fits nothing is a mistake, not a success.
    ensure!(run(place.path(), &["plugin", "test", ".", "nothing"], &[]).await?.status.code() == Some(1));
    // What is misspelt is told where it stands.
    std::fs::write(&file, "{\"event\": {\"type\": \"a\"},\n \"confg\": {}}")?;
    let wrong = run(place.path(), &["plugin", "test"], &[]).await?;
    let text = String::from_utf8_lossy(&wrong.stdout);
    ensure!(wrong.status.code() == Some(1), "{}", wrong.status);
    for part in ["an-order.json:2:2", "did you mean `config`?", "^"] {
        ensure!(text.contains(part), "{part}\n{text}");
    }
    // One event, once.
    std::fs::write(place.path().join("event.json"), json!({"type": "a", "data": data}).to_string())?;
    let ran = well(place.path(), &["plugin", "run", ".", "--event", "event.json", "-o", "json"], &[]).await?;
    let ran: Value = serde_json::from_str(&ran)?;
    ensure!(ran["happened"]["usage"]["orders"] == json!(1.0), "{ran}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_says_what_is_wrong_in_plain_words() -> Result<()> {
    let place = tempfile::tempdir()?;
    copying(place.path(), "notify", b"\0asm\x01\0\0\0")?;
    let said = async || -> Result<String> {
        let output = run(place.path(), &["plugin", "build"], &[]).await?;
        ensure!(output.status.code() == Some(1), "{}", output.status);
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let core = said().await?;
    ensure!(core.contains("core module") && core.contains("hint:"), "{core}");
    let manifest = std::fs::read_to_string(place.path().join("plugin.toml"))?;
    let change = |from: &str, to: &str| std::fs::write(place.path().join("plugin.toml"), manifest.replace(from, to));
    change("cp src/plugin.wasm built.wasm", "no-such-program")?;
    ensure!(said().await?.contains("`no-such-program` is not installed here"));
    change("cp src/plugin.wasm built.wasm", "true")?;
    std::fs::remove_file(place.path().join("built.wasm"))?;
    ensure!(said().await?.contains("built.wasm is not there"));
    change("artifact =", "artefact =")?;
    let misspelt = said().await?;
    for part in ["plugin.toml:", "did you mean `artifact`?", "^"] {
        ensure!(misspelt.contains(part), "{part}\n{misspelt}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_replaces_what_runs_only_by_what_works() -> Result<()> {
    let place = tempfile::tempdir()?;
    let host = Host::start(place.path()).await?;
    let key = tenant_key(&host).await?;
    let tenant = host.client(&key);
    let folder = place.path().join("meter");
    let (wasm, _) = bulkhead_tests::plugin("usage-meter")?;
    copying(&folder, "usage-meter", &wasm)?;
    let data = json!({"customer": {"id": "c"}, "total": 5});
    let expect = json!({"state": {"orders:c": 1, "cents:c": 500}});
    let fixture = |expect: &Value| json!({"event": {"type": "a", "data": data}, "expect": expect}).to_string();
    std::fs::write(folder.join("tests/an-order.json"), fixture(&expect))?;

    let log = std::fs::File::create(place.path().join("watch.log"))?;
    let mut watch = bulkhead(&folder)?;
    watch.args(["plugin", "watch"]).env("BULKHEAD_URL", &host.url).env("BULKHEAD_KEY", &key);
    let mut watch = watch.stdout(log.try_clone()?).stderr(log).spawn()?;
    let said = || std::fs::read_to_string(place.path().join("watch.log")).unwrap_or_default();
    let active = async |version: u64| {
        let what = format!("version {version} to be active");
        let check = async || {
            let plugin = tenant.get("/v1/plugins/usage-meter").await?;
            Ok((plugin["active"].as_u64() == Some(version)).then_some(()))
        };
        eventually(&what, Duration::from_secs(60), check).await.with_context(said)
    };
    let rounds = || said().matches("waiting for a change").count();
    let round = async |after: usize| {
        let check = async || Ok((rounds() > after).then_some(()));
        eventually("a round to end", Duration::from_secs(60), check).await.with_context(said)
    };
    active(1).await?;
    round(0).await?;

    // A component that cannot run, then one that fails its fixture: what runs stays.
    let before = rounds();
    std::fs::write(folder.join("src/plugin.wasm"), b"\0asm\x01\0\0\0")?;
    round(before).await?;
    ensure!(said().contains("core module") && said().contains("what ran before stays as it is"), "{}", said());
    let before = rounds();
    std::fs::write(folder.join("tests/an-order.json"), fixture(&json!({})))?;
    std::fs::write(folder.join("src/plugin.wasm"), guest::marked(&wasm, 1))?;
    round(before).await?;
    ensure!(said().contains("0 passed, 1 failed"), "{}", said());
    active(1).await?;

    // Both are well again.
    std::fs::write(folder.join("tests/an-order.json"), fixture(&expect))?;
    std::fs::write(folder.join("src/plugin.wasm"), guest::marked(&wasm, 2))?;
    active(2).await?;

    let pid = watch.id().context("the watch has ended")?;
    std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
    let status = tokio::time::timeout(Duration::from_secs(30), watch.wait()).await.context("it did not end")??;
    if !status.success() {
        bail!("{status}: {}", said());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schemas_are_published() -> Result<()> {
    let place = tempfile::tempdir()?;
    let host = Host::start(place.path()).await?;
    let nobody = host.client("");
    for (path, arguments) in [
        ("/schema/plugin.json", &["plugin", "schema"][..]),
        ("/schema/fixture.json", &["plugin", "schema", "--fixture"]),
    ] {
        let served = nobody.get(path).await?;
        let printed: Value = serde_json::from_str(&well(place.path(), arguments, &[]).await?)?;
        ensure!(served == printed && served["properties"].is_object(), "{path}: {served}");
    }
    Ok(())
}
