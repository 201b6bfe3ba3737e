//! `bulkhead plugin show`: a plugin, what it may do, what is tried of it, and its versions.

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::plugin::candidate;
use crate::cli::plugin::words;
use crate::cli::screen;
use crate::cli::screen::Cell;
use crate::cli::screen::Column;
use crate::cli::screen::Format;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;
use crate::cli::value::items;

const VERSIONS: &[Column] = &[
    ("VERSION", "/version", Cell::Count),
    ("STATE", "/state", Cell::State),
    ("DIGEST", "/digest", Cell::Text),
    ("SIZE", "/size", Cell::Bytes),
    ("BY", "/author", Cell::Text),
    ("SIGNED BY", "/signature/key", Cell::Text),
    ("CREATED", "/created", Cell::Time),
    ("ACTIVATED", "/activated", Cell::Time),
];

/// One plugin with its versions, what it may do and what is tried of it
#[derive(Debug, Args)]
pub struct Show {
    /// Its name
    name: String,
    #[command(flatten)]
    format: Format,
}

impl Show {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let mut plugin = whole(client, &self.name).await?;
        if self.format.output == Output::Json {
            return screen::json(&plugin);
        }
        let [versions, candidates, refused] = ["versions", "candidates", "refused"].map(|it| take(&mut plugin, it));
        let rights = self.rights(client, &mut plugin, versions.as_ref()).await?;
        screen::object(&plugin)?;
        let paint = Paint::stdout();
        if let Some(refused) = refused {
            screen::line(&format!("{} {}", paint.yellow("refused:"), said(&refused)))?;
        }
        rights.iter().flat_map(|version| told(version, paint)).try_for_each(|line| screen::line(&line))?;
        let list = |list: Option<Value>| match list {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let candidates: Vec<Value> = list(candidates).into_iter().map(candidate::with_share).collect();
        for (items, columns) in [(candidates, candidate::COLUMNS), (list(versions), VERSIONS)] {
            if !items.is_empty() {
                screen::line("")?;
                screen::list(items, Output::Table, columns, "")?;
            }
        }
        Ok(())
    }

    /// The version whose rights are told, with what it asks for and gets: the active one, else the newest.
    async fn rights(&self, client: &Client, plugin: &mut Value, versions: Option<&Value>) -> Result<Option<Value>> {
        let [requested, effective, cut] = ["requested", "effective", "cut"].map(|field| take(plugin, field));
        let active = plugin.get("active").filter(|number| !number.is_null());
        if let (Some(number), Some(effective)) = (active, effective) {
            let version =
                json!({"version": number, "state": "active", "grants": requested, "effective": effective, "cut": cut});
            return Ok(Some(version));
        }
        let Some(number) = active.or_else(|| versions?.pointer("/0/version")) else { return Ok(None) };
        client.get(&["v1", "plugins", &self.name, "versions", &value::text(number)], &[]).await.map(Some)
    }
}

/// A plugin with all pages of its versions.
async fn whole(client: &Client, name: &str) -> Result<Value> {
    let path = ["v1", "plugins", name];
    let mut plugin = client.get(&path, &[("limit", "100")]).await?;
    while let Some(after) = plugin.get("next").and_then(Value::as_str).map(str::to_owned) {
        let mut page = client.get(&path, &[("limit", "100"), ("after", &after)]).await?;
        plugin["next"] = page["next"].take();
        if let (Some(Value::Array(versions)), Value::Array(more)) =
            (plugin.get_mut("versions"), page["versions"].take())
        {
            versions.extend(more);
        }
    }
    take(&mut plugin, "next");
    Ok(plugin)
}

fn take(from: &mut Value, field: &str) -> Option<Value> {
    from.as_object_mut()?.remove(field)
}

/// Why its file in the watched folder was not taken.
fn said(refused: &Value) -> String {
    let of = |name: &str| clean(&at(refused, &format!("/{name}")));
    let time = refused.get("at").map(value::time).unwrap_or_default();
    format!("{} [{}], {time}; {}", of("detail"), of("code"), of("hint"))
}

/// What a version may do, and what of its wishes a ceiling takes away.
fn told(version: &Value, paint: Paint) -> Vec<String> {
    let (number, state) = (at(version, "/version"), clean(&at(version, "/state")));
    let mut lines = vec![String::new()];
    let may = words::allowed(&Value::Null, version.get("effective").unwrap_or(&Value::Null));
    let verb = if state == "active" { "may" } else { "would be allowed to" };
    lines.push(paint.bold(&format!("version {number} ({state}) {verb}")));
    lines.extend(may.iter().map(|sentence| format!("  {}", clean(sentence))));
    if may.is_empty() {
        lines.push("  do nothing but use its own state, settings and log".to_owned());
    }
    let cut = items(version, "/cut");
    if !cut.is_empty() {
        lines.push(paint.bold("it also asks to"));
    }
    for cut in cut {
        let (grant, by) = (words::grant(&at(cut, "/grant")), at(cut, "/by"));
        let why = paint.yellow(&format!("not granted: the {}'s ceiling", clean(&by)));
        lines.push(format!("  {}  {why}", clean(&grant)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_told_with_what_was_cut() {
        let version = json!({
            "version": 2, "state": "active",
            "grants": {"emit": ["a.*", "b"], "http": ["x.example"], "schedule": true},
            "effective": {"emit": ["b"], "http": [], "schedule": true},
            "cut": [{"grant": "emit a.*", "by": "tenant"}, {"grant": "http x.example", "by": "host"}],
        });
        let expected = [
            "",
            "version 2 (active) may",
            "  emit events of type b",
            "  set timers",
            "it also asks to",
            "  emit events of type a.*  not granted: the tenant's ceiling",
            "  send requests to x.example  not granted: the host's ceiling",
        ];
        assert_eq!(told(&version, Paint::plain()), expected);
    }

    #[test]
    fn a_version_without_grants_says_so() {
        let version = json!({"version": 1, "state": "ready", "grants": {}, "effective": {}});
        let expected =
            ["", "version 1 (ready) would be allowed to", "  do nothing but use its own state, settings and log"];
        assert_eq!(told(&version, Paint::plain()), expected);
    }
}
