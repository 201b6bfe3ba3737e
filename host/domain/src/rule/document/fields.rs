//! The fields of a rule.

use std::time::Duration;

use serde_json::Map as JsonMap;
use serde_json::Value as Json;
use serde_json::json;

use crate::policy::retry::Retry;
use crate::policy::verdict::OnFailure;
use crate::rule::definition::Order;
use crate::rule::definition::Rule;
use crate::rule::definition::is_name;
use crate::rule::document::TYPES_MAX;
use crate::rule::document::node::Content;
use crate::rule::document::node::Node;
use crate::rule::document::node::Scalar;
use crate::rule::document::reader::Fields;
use crate::rule::document::reader::Reader;
use crate::rule::document::steps::ReadStep;
use crate::rule::duration;
use crate::rule::glob::Glob;
use crate::rule::pattern::Pattern;
use crate::rule::pattern::test::Test;
use crate::rule::step::Action;

/// Every field of a rule, in canonical order.
const FIELDS: [&str; 10] =
    ["name", "description", "on", "match", "where", "order", "steps", "retry", "on_failure", "enabled"];
/// The longest description.
const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// The longest glob.
const GLOB_BYTES_MAX: usize = 256;
/// The most attempts: at the longest waits that is a year of trying.
const ATTEMPTS_MAX: u64 = 50;
/// The shortest first wait: less would be a busy loop.
const FIRST_MIN: Duration = Duration::from_millis(10);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A rule, and where those of its parts stand that are checked against other rules.
pub struct ReadRule {
    pub rule: Rule,
    pub name_at: usize,
    /// Where each `emit` stands.
    pub emits_at: Vec<usize>,
}

impl Reader<'_> {
    /// Reads a rule. `name` is what it must be called, if that is known. Nothing if there was a problem.
    pub fn rule(&mut self, node: &Node, name: Option<&str>) -> Option<ReadRule> {
        let before = self.problems();
        let fields = self.fields(node, &FIELDS, "a rule")?;
        let mut document = JsonMap::new();

        let name = self.name(node, &fields, name);
        document.insert("name".to_owned(), json!(name));
        let description = self.optional(&fields, "description", &mut document, Self::description);
        let on = self.on(node, &fields, &mut document);
        let pattern = self.optional(&fields, "match", &mut document, |this, node| {
            this.pattern(node).map(|pattern| (pattern, node.json()))
        });
        let condition = self.optional(&fields, "where", &mut document, |this, node| {
            this.condition(node).map(|condition| (condition.clone(), json!(condition.source())))
        });
        let order = self.optional(&fields, "order", &mut document, |this, node| {
            let order = this.word(node, "`order`", &[("none", Order::None), ("key", Order::Key)])?;
            Some((order, node.json()))
        });
        let steps = self.required_steps(node, &fields, &mut document);
        let retry = self.optional(&fields, "retry", &mut document, Self::retry);
        let on_failure = self.optional(&fields, "on_failure", &mut document, |this, node| {
            let word = this.word(node, "`on_failure`", &[("park", OnFailure::Park), ("drop", OnFailure::Drop)])?;
            Some((word, node.json()))
        });
        let enabled = self.optional(&fields, "enabled", &mut document, |this, node| {
            this.bool(node, "`enabled`").map(|enabled| (enabled, json!(enabled)))
        });
        if self.problems() > before {
            return None;
        }
        if let (Some(pattern), Some(key)) = (&pattern, fields.key("match")) {
            self.warn_of_types(pattern, &on, key.at);
        }
        let emits = steps.iter().filter(|read| matches!(read.step.action, Action::Emit(_)));
        let emits_at = emits.map(|read| read.at).collect();
        let name_at = fields.get("name").map_or(node.at, |name| name.at);
        let rule = Rule {
            name,
            description,
            on,
            pattern,
            condition,
            order: order.unwrap_or_default(),
            steps: steps.into_iter().map(|read| read.step).collect(),
            retry: retry.unwrap_or_default(),
            on_failure: on_failure.unwrap_or_default(),
            enabled: enabled.unwrap_or(true),
            document: Json::Object(document),
        };
        Some(ReadRule { rule, name_at, emits_at })
    }

    /// Reads a field if it is there, and keeps its canonical form.
    fn optional<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &'static str,
        document: &mut JsonMap<String, Json>,
        read: impl FnOnce(&mut Self, &Node) -> Option<(T, Json)>,
    ) -> Option<T> {
        let node = fields.get(name)?;
        let (value, json) = self.within(name, |this| read(this, node))?;
        document.insert(name.to_owned(), json);
        Some(value)
    }

    fn name(&mut self, node: &Node, fields: &Fields<'_>, wanted: Option<&str>) -> String {
        let Some(given) = fields.get("name") else {
            if wanted.is_none() {
                self.problem(node.at, "a rule needs a `name`", None);
            }
            return wanted.unwrap_or_default().to_owned();
        };
        self.within("name", |this| {
            let Some(name) = this.text(given, "`name`") else { return String::new() };
            if !is_name(name) {
                let hint = suggestion(name).map(|better| format!("`{better}` would do"));
                let message = format!(
                    "`{name}` is no name: lower-case letters, digits and hyphens, at most 64, no hyphen at the ends"
                );
                this.problem(given.at, message, hint);
            }
            if let Some(wanted) = wanted.filter(|wanted| *wanted != name) {
                this.problem(given.at, format!("the rule is saved as `{wanted}`, but calls itself `{name}`"), None);
            }
            name.to_owned()
        })
    }

    fn description(&mut self, node: &Node) -> Option<(String, Json)> {
        let text = self.text(node, "`description`")?;
        if text.len() > DESCRIPTION_BYTES_MAX {
            let message = format!("`description` is {} bytes long; the limit is {DESCRIPTION_BYTES_MAX}", text.len());
            self.problem(node.at, message, None);
        }
        Some((text.to_owned(), json!(text)))
    }

    fn on(&mut self, node: &Node, fields: &Fields<'_>, document: &mut JsonMap<String, Json>) -> Vec<Glob> {
        let Some(on) = fields.get("on") else {
            let hint = Some("as in `on: [orders.created]`; every type is `on: \"**\"`".to_owned());
            self.problem(node.at, "a rule needs `on`: the types of events that interest it", hint);
            return Vec::new();
        };
        let globs = self.within("on", |this| {
            let items = match &on.content {
                Content::List(items) => items.as_slice(),
                _ => std::slice::from_ref(on),
            };
            if items.is_empty() || items.len() > TYPES_MAX {
                let message = format!("`on` has 1 to {TYPES_MAX} types; this has {}", items.len());
                this.problem(on.at, message, None);
                return Vec::new();
            }
            items.iter().filter_map(|item| this.glob(item)).collect::<Vec<Glob>>()
        });
        document.insert("on".to_owned(), globs.iter().map(|glob| json!(glob.text())).collect());
        globs
    }

    fn glob(&mut self, node: &Node) -> Option<Glob> {
        let text = self.text(node, "a type")?;
        if text.len() > GLOB_BYTES_MAX {
            self.problem(node.at, format!("a type of {} bytes; the limit is {GLOB_BYTES_MAX}", text.len()), None);
            return None;
        }
        match Glob::parse(text) {
            Ok(glob) => Some(glob),
            Err(error) => {
                self.problem(node.at, error.to_string(), None);
                None
            }
        }
    }

    fn required_steps(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        document: &mut JsonMap<String, Json>,
    ) -> Vec<ReadStep> {
        let Some(steps) = fields.get("steps") else {
            let hint = Some("as in `steps: [{ handle: my-plugin }]`".to_owned());
            self.problem(node.at, "a rule needs `steps`: what happens with the events", hint);
            return Vec::new();
        };
        let steps = self.within("steps", |this| this.steps(steps));
        document.insert("steps".to_owned(), steps.iter().map(|read| read.document.clone()).collect());
        steps
    }

    fn retry(&mut self, node: &Node) -> Option<(Retry, Json)> {
        let mut document = JsonMap::new();
        let fields = self.fields(node, &["attempts", "first", "factor", "max"], "`retry`")?;
        let mut retry = Retry::default();
        let attempts = self.optional(&fields, "attempts", &mut document, |this, node| {
            let number = match &node.content {
                Content::Scalar(Scalar { value: Json::Number(number), .. }) => number.as_u64(),
                _ => None,
            };
            match number.filter(|number| (1..=ATTEMPTS_MAX).contains(number)) {
                Some(number) => Some((u32::try_from(number).unwrap_or(u32::MAX), json!(number))),
                None => {
                    let message = format!("`attempts` is a whole number from 1 to {ATTEMPTS_MAX}, the first included");
                    this.problem(node.at, message, None);
                    None
                }
            }
        });
        let factor = self.optional(&fields, "factor", &mut document, Self::factor);
        let first = self.optional(&fields, "first", &mut document, |this, node| this.wait(node, "`first`"));
        let max = self.optional(&fields, "max", &mut document, |this, node| this.wait(node, "`max`"));
        retry.attempts = attempts.unwrap_or(retry.attempts);
        retry.factor_percent = factor.unwrap_or(retry.factor_percent);
        retry.first = first.unwrap_or(retry.first);
        retry.max = max.unwrap_or(retry.max);
        if let (true, Some(at)) = (retry.first > retry.max, fields.get("first").or_else(|| fields.get("max"))) {
            let (first, max) = (duration::write(retry.first), duration::write(retry.max));
            let message = format!("`first` ({first}) is longer than `max` ({max}), so every wait would be `max`");
            self.problem(at.at, message, None);
        }
        Some((retry, Json::Object(document)))
    }

    fn factor(&mut self, node: &Node) -> Option<(u32, Json)> {
        let number = match &node.content {
            Content::Scalar(Scalar { value: Json::Number(number), .. }) => number.as_f64(),
            _ => None,
        };
        match number.filter(|number| (1.0..=10.0).contains(number)) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 100 to 1,000")]
            Some(number) => Some(((number * 100.0).round() as u32, node.json())),
            None => {
                self.problem(node.at, "`factor` is a number from 1 to 10", None);
                None
            }
        }
    }

    fn wait(&mut self, node: &Node, what: &str) -> Option<(Duration, Json)> {
        let parsed = match &node.content {
            Content::Scalar(scalar) => duration::parse(&scalar.text),
            _ => None,
        };
        let Some(wait) = parsed else {
            let hint = match &node.content {
                Content::Scalar(Scalar { value: Json::Number(number), .. }) => format!("seconds are `{number}s`"),
                _ => "as in `250ms`, `1s`, `1h30m`".to_owned(),
            };
            self.problem(node.at, format!("{what} must be a duration"), Some(hint));
            return None;
        };
        if wait < FIRST_MIN || wait > WAIT_MAX {
            let (least, most) = (duration::write(FIRST_MIN), duration::write(WAIT_MAX));
            self.problem(node.at, format!("{what} must be from {least} to {most}"), None);
            return None;
        }
        Some((wait, json!(duration::write(wait))))
    }

    /// A `type` in `match` beside an `on` that lets none of its types through.
    fn warn_of_types(&mut self, pattern: &Pattern, on: &[Glob], at: usize) {
        let fits = |test: &Test| match test {
            Test::Text(text) => on.iter().any(|glob| glob.matches(text)),
            _ => true,
        };
        let leaves = pattern.alternatives.iter().flat_map(|alternative| &alternative.leaves);
        let mut types = leaves.filter(|leaf| leaf.path == ["type"]).peekable();
        if types.peek().is_some() && !types.any(|leaf| leaf.tests.iter().any(fits)) {
            let hint = Some("types of events belong into `on` alone".to_owned());
            self.warn(at, "`match` wants a `type` that `on` never lets through", hint);
        }
    }
}

/// The name with everything that names may not have replaced.
fn suggestion(name: &str) -> Option<String> {
    let better: String = name
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            lower @ ('a'..='z' | '0'..='9') => lower,
            _ => '-',
        })
        .take(64)
        .collect();
    let better = better.trim_matches('-').to_owned();
    is_name(&better).then_some(better)
}
