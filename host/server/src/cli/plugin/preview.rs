//! `bulkhead plugin preview`: what a version would have done with the last events, before anybody lets it.

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::paint::clean;
use crate::cli::screen;
use crate::cli::screen::Output;
use crate::cli::value;
use crate::cli::value::at;
use crate::cli::value::items;
use crate::cli::value::number;

/// The groups of a report, worst first, with what they mean.
const GROUPS: &[(&str, &str)] = &[
    ("new_failure", "fail, and did not before"),
    ("fewer_effects", "do less than before"),
    ("changed", "do something else than before"),
    ("mended", "succeed, and failed before"),
    ("same", "do the same as before"),
];

const EXAMPLES: &str = "Examples:
  bulkhead plugin preview fraud-score                # the newest version beside the active one
  bulkhead plugin preview fraud-score 4 --last 1000
  bulkhead plugin preview fraud-score 4 --strict && bulkhead plugin activate fraud-score 4";

/// What to preview.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Preview {
    /// The plugin
    name: String,
    /// The version to try; the newest if it is left out
    version: Option<u32>,
    /// The version to compare it with; the active one if it is left out
    #[arg(long, value_name = "VERSION")]
    against: Option<u32>,
    /// How many events to try it on: the newest that reach the plugin, at most 1,000
    #[arg(long, default_value_t = 100, value_name = "EVENTS")]
    last: u32,
    /// Only events recorded at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events recorded before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Fail if any run fails that did not before
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: screen::Format,
}

impl Preview {
    /// Does it.
    pub async fn run(self, client: &Client) -> Result<()> {
        let path = ["v1", "plugins", &self.name];
        let plugin = client.get(&path, &[]).await?;
        let version = self.version(&plugin)?;
        let mut body = json!({ "version": version, "last": self.last });
        for (field, value) in [
            ("against", self.against.map(Value::from)),
            ("since", self.since.map(Value::from)),
            ("until", self.until.map(Value::from)),
        ] {
            if let Some(value) = value {
                body[field] = value;
            }
        }
        let report = client.post(&[&path[..], &["preview"]].concat(), &body).await?;
        match self.format.output {
            Output::Json => screen::json(&report)?,
            Output::Table => screen::line(text(&self.name, &report, Paint::stdout()).trim_end())?,
        }
        match number(&report, "/groups/new_failure/count") {
            failures if failures > 0 && self.strict => Err(Error::failed(format!("{failures} runs fail anew"))),
            _ => Ok(()),
        }
    }

    /// The version to try. With itself none is compared: that would say that all is the same.
    fn version(&self, plugin: &Value) -> Result<u32> {
        let of = |version: &Value| version.as_u64().and_then(|number| u32::try_from(number).ok());
        let newest = items(plugin, "/versions").first().and_then(|version| of(&version["version"]));
        let version = self.version.or(newest);
        let version = version.ok_or_else(|| Error::failed(format!("plugin {} has no version", self.name)))?;
        if self.against.or_else(|| of(&plugin["active"])) != Some(version) {
            return Ok(version);
        }
        let usable = |other: &&Value| !matches!(at(other, "/state").as_str(), "active" | "retired");
        let other =
            items(plugin, "/versions").iter().filter(|other| of(&other["version"]) != Some(version)).find(usable);
        let hint = match other {
            Some(other) => {
                format!("name another version: bulkhead plugin preview {} {}", self.name, at(other, "/version"))
            }
            None => "push the version to try first: bulkhead plugin push".to_owned(),
        };
        let what = if self.against.is_some() { "what it is to be compared with" } else { "the active one" };
        Err(Error::hinted(format!("version {version} of {} is {what}: all would be the same", self.name), hint))
    }
}

/// The report as people read it.
fn text(name: &str, report: &Value, paint: Paint) -> String {
    let version = number(report, "/version");
    let beside = match report["against"].as_u64() {
        Some(against) => format!("version {version} beside version {against}"),
        None => format!("version {version}, without one to compare it with"),
    };
    let count = |pointer: &str| value::count(number(report, pointer));
    let (runs, events) = (number(report, "/runs"), number(report, "/events"));
    let mut text = format!("{name}: {beside}, {} runs over {} events\n", count("/runs"), count("/events"));
    if events == 0 {
        let looked_at = count("/looked_at");
        text += &format!("no event of the last {looked_at} reaches the plugin by the rules as they are now\n");
        return text;
    }
    for (group, means) in GROUPS {
        let found = number(report, &format!("/groups/{group}/count"));
        if found == 0 {
            continue;
        }
        let line = format!("{:>7}  {means}", value::count(found));
        text += &match *group {
            "new_failure" => paint.red(&line),
            "same" => paint.green(&line),
            _ => paint.yellow(&line),
        };
        text.push('\n');
        for sample in items(report, &format!("/groups/{group}/samples")) {
            text += &sampled(sample, paint);
        }
    }
    if runs > 0 {
        let pair = |pointer: &str, show: fn(u64) -> String| {
            let at = |side: u8| number(report, &format!("{pointer}/{side}"));
            format!("{} -> {}{}", show(at(0)), show(at(1)), change(at(0), at(1)))
        };
        text += &format!("fuel    p50 {}, p99 {}\n", pair("/fuel/p50", value::fuel), pair("/fuel/p99", value::fuel));
        text += &format!(
            "time    p50 {}, p99 {}\n",
            pair("/micros/p50", value::micros),
            pair("/micros/p99", value::micros)
        );
    }
    if runs > 0 {
        let of = |which: &str| count(&format!("/state/{which}"));
        text += &format!(
            "state   {} runs with what they saw then, {} partly, {} with what is there now\n",
            of("recorded"),
            of("partly"),
            of("now")
        );
    }
    if number(report, "/left_out") > 0 {
        text += &format!("{} events were left out: the time was up\n", count("/left_out"));
    }
    text + "nothing was applied\n"
}

fn sampled(sample: &Value, paint: Paint) -> String {
    let state = match at(sample, "/state").as_str() {
        "recorded" => "",
        "partly" => ", with some of its state as it is now",
        _ => ", with its state as it is now",
    };
    let head = format!("event {} by rule {}{state}", at(sample, "/event"), at(sample, "/rule"));
    let mut text = format!("         {}\n", paint.dim(&clean(&head)));
    for difference in items(sample, "/differences") {
        for (sign, side) in [("-", "/before"), ("+", "/after")] {
            let said = at(difference, side);
            if !said.is_empty() {
                text += &format!("           {sign} {}\n", clean(&said));
            }
        }
    }
    if number(sample, "/more") > 0 {
        text += &format!("           and {} more\n", number(sample, "/more"));
    }
    for line in items(sample, "/logs") {
        text += &format!("           log {} {}\n", at(line, "/level"), clean(&at(line, "/message")));
    }
    text
}

/// ` (+12 %)`; nothing if there is nothing to relate it to.
fn change(before: u64, after: u64) -> String {
    if before == 0 || before == after {
        return String::new();
    }
    let percent = (i128::from(after) - i128::from(before)) * 100 / i128::from(before);
    format!(" ({percent:+} %)")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        preview: Preview,
    }

    fn chosen(words: &str, plugin: &Value) -> std::result::Result<u32, String> {
        let words = ["preview", "p"].into_iter().chain(words.split_whitespace());
        let preview = Cli::try_parse_from(words).expect("because the flags are right").preview;
        preview.version(plugin).map_err(|error| error.render(Paint::plain()))
    }

    #[test]
    fn no_version_is_compared_with_itself() {
        let plugin = |active: Value| {
            let version = |number: u32, state: &str| json!({"version": number, "state": state});
            json!({"active": active, "versions": [version(3, "active"), version(2, "retired"), version(1, "ready")]})
        };
        let active = plugin(json!(3));
        for (words, version) in [("1", 1), ("3 --against 1", 3), ("2", 2)] {
            assert_eq!(chosen(words, &active), Ok(version), "{words}");
        }
        for words in ["", "3"] {
            let said = chosen(words, &active).expect_err("because it is the active one");
            let expected = "error: version 3 of p is the active one: all would be the same\n  \
                            hint: name another version: bulkhead plugin preview p 1\n";
            assert_eq!(said, expected);
        }
        let said = chosen("1 --against 1", &active).expect_err("because it is the same");
        assert!(said.contains("is what it is to be compared with"), "{said}");
        let alone = json!({"active": 3, "versions": [{"version": 3, "state": "active"}]});
        assert!(chosen("", &alone).expect_err("because there is no other").contains("bulkhead plugin push"));
        assert_eq!(chosen("", &plugin(Value::Null)), Ok(3), "without an active one there is nothing to compare with");
    }

    #[test]
    fn a_report_reads_worst_first() {
        let report = json!({
            "against": 1, "version": 2, "looked_at": 12, "events": 3, "runs": 3, "left_out": 0,
            "groups": {
                "same": { "count": 2, "samples": [] },
                "new_failure": { "count": 1, "samples": [{
                    "event": "e-1", "rule": "r",
                    "differences": [{ "before": "\"done\"", "after": "{\"failed\":\"trap:unreachable\"}" }],
                    "fuel": [10, 20], "logs": [{ "level": "error", "message": "oh" }],
                }]},
            },
            "fuel": { "p50": [100, 112], "p99": [200, 200] },
            "micros": { "p50": [10, 10], "p99": [20, 10] },
            "state": { "recorded": 2, "partly": 0, "now": 1 },
        });
        let text = text("p", &report, Paint::plain());
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is missing in:\n{text}"));
        assert!(place("fail, and did not before") < place("do the same as before"));
        assert!(place("- \"done\"") < place("+ {\"failed\""));
        assert!(text.contains("(+12 %)") && text.contains("(-50 %)") && text.contains("log error oh"));
        assert!(text.contains("2 runs with what they saw then, 0 partly, 1 with what is there now"), "{text}");
    }

    #[test]
    fn no_event_says_so() {
        let report = json!({ "version": 2, "against": null, "looked_at": 500, "events": 0, "runs": 0 });
        assert!(text("p", &report, Paint::plain()).contains("no event of the last 500 reaches the plugin"));
    }
}
