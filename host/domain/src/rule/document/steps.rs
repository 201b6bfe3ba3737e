//! `steps` of a document.

use serde_json::Value as Json;
use serde_json::json;

use crate::rule::condition::Condition;
use crate::rule::diagnostic::nearest;
use crate::rule::document::STEPS_MAX;
use crate::rule::document::node::Content;
use crate::rule::document::node::Key;
use crate::rule::document::node::Node;
use crate::rule::document::node::Scalar;
use crate::rule::document::reader::Reader;
use crate::rule::document::reader::listed;
use crate::rule::expression::Expression;
use crate::rule::glob::Glob;
use crate::rule::step::Action;
use crate::rule::step::Step;
use crate::rule::step::deliver::Deliver;
use crate::rule::step::emit::Emit;
use crate::rule::step::handle::Handle;
use crate::rule::step::map::Map;
use crate::rule::step::map::Template;
use crate::rule::step::redact::Redact;
use crate::rule::step::transform::Transform;

/// Every action, and the field that its short form stands for.
const ACTIONS: [(&str, Option<&str>); 6] = [
    ("map", None),
    ("redact", None),
    ("transform", Some("plugin")),
    ("handle", Some("plugin")),
    ("emit", Some("type")),
    ("deliver", Some("sink")),
];
/// The most keys of a `map`, all levels together.
const MAP_KEYS_MAX: usize = 512;
/// The deepest that a `map` may be written.
const MAP_DEPTH_MAX: usize = 16;
/// The most pointers of a `redact`.
const POINTERS_MAX: usize = 64;

/// A step, its canonical document, and where its action stands.
pub struct ReadStep {
    pub step: Step,
    pub document: Json,
    pub at: usize,
}

impl Reader<'_> {
    /// Reads the steps of a rule.
    pub fn steps(&mut self, node: &Node) -> Vec<ReadStep> {
        let Content::List(items) = &node.content else {
            let hint = Some("each step starts with `- `".to_owned());
            self.problem(node.at, format!("`steps` must be a list; this is {}", node.words()), hint);
            return Vec::new();
        };
        if items.is_empty() || items.len() > STEPS_MAX {
            let message = format!("a rule has 1 to {STEPS_MAX} steps; this has {}", items.len());
            self.problem(node.at, message, None);
            return Vec::new();
        }
        let steps: Vec<ReadStep> =
            items.iter().enumerate().filter_map(|(at, item)| self.within_index(at, |this| this.step(item))).collect();
        self.warn_of_idle_end(&steps);
        steps
    }

    /// What the last steps make of the payload must go somewhere.
    fn warn_of_idle_end(&mut self, steps: &[ReadStep]) {
        let Some((at, last)) = steps.iter().enumerate().next_back() else { return };
        if matches!(last.step.action, Action::Map(_) | Action::Redact(_) | Action::Transform(_)) {
            let message = format!("nothing comes after this `{}`, so its result goes nowhere", last.step.action.word());
            let hint = Some("add `emit`, `deliver` or `handle`".to_owned());
            let place = last.at;
            self.within_index(at, |this| this.warn(place, message, hint));
        }
    }

    fn step(&mut self, node: &Node) -> Option<ReadStep> {
        let usage = "a step is a map such as `handle: fraud-score`";
        let Content::Map(entries) = &node.content else {
            self.problem(node.at, format!("{usage}; this is {}", node.words()), None);
            return None;
        };
        let mut action: Option<(&Key, &Node)> = None;
        let mut beside: Option<&Node> = None;
        for (key, value) in entries {
            if key.text == "when" {
                beside = Some(value);
            } else if !ACTIONS.iter().any(|(name, _)| *name == key.text) {
                self.unknown_action(key);
                return None;
            } else if action.replace((key, value)).is_some() {
                let hint = Some("each action is a step of its own, with its own `- `".to_owned());
                self.problem(key.at, "a step has one action; this is a second one", hint);
                return None;
            }
        }
        let Some((key, body)) = action else {
            self.problem(node.at, usage, None);
            return None;
        };
        let (action, inside, mut document) = self.within(&key.text, |this| this.action(key, body))?;
        let when = match (beside, inside) {
            (Some(_), Some(inside)) => {
                self.problem(inside.at, "`when` stands inside and beside the action; one of them is enough", None);
                return None;
            }
            (Some(beside), None) => Some(self.within("when", |this| this.condition(beside))?),
            (None, Some(inside)) => {
                Some(self.within(&key.text, |this| this.within("when", |this| this.condition(inside)))?)
            }
            (None, None) => None,
        };
        if let (Some(condition), Some(document)) = (&when, document.as_object_mut()) {
            document.insert("when".to_owned(), json!(condition.source()));
        }
        Some(ReadStep { step: Step { when, action }, document, at: key.at })
    }

    fn unknown_action(&mut self, key: &Key) {
        let names = ACTIONS.map(|(name, _)| name);
        let hint = match nearest(&key.text, names.into_iter().chain(["when"])) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", listed(names)),
        };
        self.problem(key.at, format!("there is no step `{}`", key.text), Some(hint));
    }

    /// An action, the `when` inside it, and its canonical document.
    fn action<'n>(&mut self, key: &Key, body: &'n Node) -> Option<(Action, Option<&'n Node>, Json)> {
        match key.text.as_str() {
            "map" => {
                let entries = self.map(body, "`map`")?;
                let mut keys = 0;
                let entries = self.template_entries(entries, &mut keys, 0)?;
                if entries.is_empty() {
                    self.problem(body.at, "`map` is empty; it would replace the payload by nothing", None);
                    return None;
                }
                Some((Action::Map(Map { entries }), None, json!({ "map": body.json() })))
            }
            "redact" => {
                let pointers = self.pointers(body)?;
                match Redact::parse(pointers.iter().map(|(_, pointer)| *pointer)) {
                    Ok(redact) => {
                        let list: Vec<&str> = pointers.iter().map(|(_, pointer)| *pointer).collect();
                        Some((Action::Redact(redact), None, json!({ "redact": list })))
                    }
                    Err((at, message)) => {
                        let place = pointers.get(at).map_or(body.at, |(place, _)| *place);
                        self.problem(place, message, None);
                        None
                    }
                }
            }
            "transform" => {
                let (plugin, when) = self.named(body, "`transform`", "plugin")?;
                let action = Action::Transform(Transform { plugin: plugin.clone() });
                Some((action, when, json!({ "transform": { "plugin": plugin } })))
            }
            "handle" => {
                let (plugin, when) = self.named(body, "`handle`", "plugin")?;
                let action = Action::Handle(Handle { plugin: plugin.clone() });
                Some((action, when, json!({ "handle": { "plugin": plugin } })))
            }
            "deliver" => {
                let (sink, when) = self.named(body, "`deliver`", "sink")?;
                let action = Action::Deliver(Deliver { sink: sink.clone() });
                Some((action, when, json!({ "deliver": { "sink": sink } })))
            }
            _ => {
                let (kind, when) = self.named(body, "`emit`", "type")?;
                let action = Action::Emit(Emit { kind: kind.clone() });
                Some((action, when, json!({ "emit": { "type": kind } })))
            }
        }
    }

    /// `handle: x`, or `handle: { plugin: x, when: … }`: the name, checked, and the condition's node.
    fn named<'n>(&mut self, body: &'n Node, what: &str, field: &'static str) -> Option<(String, Option<&'n Node>)> {
        let (node, when) = match &body.content {
            Content::Map(_) => {
                let fields = self.fields(body, &[field, "when"], what)?;
                let Some(node) = fields.get(field) else {
                    self.problem(body.at, format!("{what} needs `{field}`"), None);
                    return None;
                };
                (node, fields.get("when"))
            }
            _ => (body, None),
        };
        let name = self.within_field(body, field, |this| {
            let name = this.text(node, &format!("`{field}`"))?;
            this.check_name(node, field, name).then(|| name.to_owned())
        })?;
        Some((name, when))
    }

    /// In the short form the name stands for the field, and the path does not mention it.
    fn within_field<T>(&mut self, body: &Node, field: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        match &body.content {
            Content::Map(_) => self.within(field, read),
            _ => read(self),
        }
    }

    fn check_name(&mut self, node: &Node, field: &str, name: &str) -> bool {
        if field == "type" {
            let exact = Glob::parse(name).ok().and_then(|glob| glob.exact());
            if exact.is_none() || name.len() > 256 || name.chars().any(char::is_whitespace) {
                let hint = Some("as in `orders.flagged`".to_owned());
                self.problem(node.at, format!("`{name}` is no type of an event: names separated by dots"), hint);
                return false;
            }
            return true;
        }
        let Some(names) = self.names else { return true };
        let known = if field == "plugin" { names.plugins } else { names.sinks };
        if known.contains(name) {
            return true;
        }
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no {field} yet"),
            None if known.len() <= 10 => format!("known are {}", listed(known.iter().map(String::as_str))),
            None => format!("there are {} of them, none with a name like this", known.len()),
        };
        self.problem(node.at, format!("there is no {field} `{name}`"), Some(hint));
        false
    }

    fn pointers<'n>(&mut self, body: &'n Node) -> Option<Vec<(usize, &'n str)>> {
        let items = match &body.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(body),
        };
        if items.is_empty() || items.len() > POINTERS_MAX {
            self.problem(body.at, format!("`redact` takes 1 to {POINTERS_MAX} JSON pointers"), None);
            return None;
        }
        items.iter().map(|item| Some((item.at, self.text(item, "a JSON pointer")?))).collect()
    }

    fn template_entries(
        &mut self,
        entries: &[(Key, Node)],
        keys: &mut usize,
        depth: usize,
    ) -> Option<Vec<(String, Template)>> {
        let mut templates = Vec::with_capacity(entries.len());
        let mut sound = true;
        for (key, value) in entries {
            match self.within(&key.text, |this| this.template(value, keys, depth + 1)) {
                Some(template) => templates.push((key.text.clone(), template)),
                None => sound = false,
            }
        }
        // The order of keys means nothing, and a store may not keep it.
        templates.sort_by(|(one, _), (other, _)| one.cmp(other));
        sound.then_some(templates)
    }

    fn template(&mut self, node: &Node, keys: &mut usize, depth: usize) -> Option<Template> {
        *keys += 1;
        if *keys > MAP_KEYS_MAX || depth > MAP_DEPTH_MAX {
            // Said once: the count only passes its limit once, and below the deepest level nothing is read.
            if *keys == MAP_KEYS_MAX + 1 || depth > MAP_DEPTH_MAX {
                let message = format!("`map` has more than {MAP_KEYS_MAX} values or is deeper than {MAP_DEPTH_MAX}");
                self.problem(node.at, message, None);
            }
            return None;
        }
        match &node.content {
            Content::Map(entries) => self.template_entries(entries, keys, depth).map(Template::Map),
            Content::List(items) => {
                let mut templates = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    templates.push(self.within_index(at, |this| this.template(item, keys, depth + 1)));
                }
                templates.into_iter().collect::<Option<Vec<_>>>().map(Template::List)
            }
            Content::Scalar(Scalar { value: Json::String(_), text, .. }) => match Expression::compile(text) {
                Ok(expression) => Some(Template::Expression(expression)),
                Err(problems) => {
                    for problem in problems {
                        self.expression_problem(node, problem);
                    }
                    None
                }
            },
            Content::Scalar(Scalar { value, .. }) => Some(Template::Constant(value.clone())),
        }
    }

    /// An expression that is true or false.
    pub fn condition(&mut self, node: &Node) -> Option<Condition> {
        let text = match &node.content {
            // `when: true` is a truth to YAML, and an expression to us.
            Content::Scalar(Scalar { value: Json::String(_) | Json::Bool(_), text, .. }) => text,
            _ => {
                self.problem(node.at, format!("a condition must be an expression; this is {}", node.words()), None);
                return None;
            }
        };
        match Condition::compile(text) {
            Ok(condition) => {
                if let Some(always) = condition.constant() {
                    let what = if always { "always" } else { "never" };
                    self.warn(node.at, format!("this condition {what} holds"), None);
                }
                Some(condition)
            }
            Err(problems) => {
                for problem in problems {
                    self.expression_problem(node, problem);
                }
                None
            }
        }
    }
}
