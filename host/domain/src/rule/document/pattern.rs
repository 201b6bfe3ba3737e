//! `match` of a document: a map in the shape of an event becomes a [`Pattern`].

use serde_json::Value as Json;

use crate::rule::diagnostic::nearest;
use crate::rule::document::node::Content;
use crate::rule::document::node::Key;
use crate::rule::document::node::Node;
use crate::rule::document::node::Scalar;
use crate::rule::document::reader::Reader;
use crate::rule::document::reader::listed;
use crate::rule::pattern::ALTERNATIVES_MAX;
use crate::rule::pattern::Alternative;
use crate::rule::pattern::DEPTH_MAX;
use crate::rule::pattern::LEAVES_MAX;
use crate::rule::pattern::Leaf;
use crate::rule::pattern::Pattern;
use crate::rule::pattern::ROOTS;
use crate::rule::pattern::STARS_MAX;
use crate::rule::pattern::TESTS_MAX;
use crate::rule::pattern::TEXT_BYTES_MAX;
use crate::rule::pattern::test::Range;
use crate::rule::pattern::test::Test;
use crate::rule::pattern::test::fold;

/// What a test may be besides a value.
const OPERATORS: [&str; 7] =
    ["anything-but", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"];
/// What EventBridge or other matchers have, and what stands in for it here.
const ELSEWHERE: [(&str, &str); 6] = [
    ("cidr", "`where` can compare texts; a range of addresses is not supported"),
    ("regexp", "`where: data.x.matches('…')` takes a regular expression"),
    ("regex", "`where: data.x.matches('…')` takes a regular expression"),
    ("shellstyle", "`wildcard` is the same, with `\\*` for a star itself"),
    ("contains", "`wildcard: \"*x*\"` is the same"),
    ("anything-but-prefix", "`where: !data.x.startsWith('…')` is the same"),
];

impl Reader<'_> {
    /// Reads a pattern. None if there was a problem.
    pub fn pattern(&mut self, node: &Node) -> Option<Pattern> {
        let before = self.problems();
        let entries = self.map(node, "`match`")?;
        if entries.is_empty() {
            self.problem(node.at, "`match` is empty; leave it out to match every event of the types", None);
        }
        let mut path = Vec::new();
        let mut alternatives = self.level(node, &mut path);
        // The order of keys means nothing, and a store may not keep it.
        for alternative in &mut alternatives {
            alternative.leaves.sort_by(|one, other| one.path.cmp(&other.path));
        }
        let stars: usize = stars(&alternatives);
        if stars > STARS_MAX {
            let message = format!("`match` has {stars} stars in `wildcard`; the limit is {STARS_MAX}");
            self.problem(node.at, message, Some("`where` with `matches` may say it better".to_owned()));
        }
        (self.problems() == before).then_some(Pattern { alternatives })
    }

    /// Reads a map and everything below it: the alternatives that it allows.
    fn level(&mut self, node: &Node, path: &mut Vec<String>) -> Vec<Alternative> {
        let mut alternatives = vec![Alternative::default()];
        let Some(entries) = self.map(node, "a level of `match`") else { return alternatives };
        for (key, value) in entries {
            let choices = self.within(&key.text, |this| this.entry(key, value, path));
            alternatives = self.combined(key, alternatives, choices);
        }
        alternatives
    }

    fn entry(&mut self, key: &Key, value: &Node, path: &mut Vec<String>) -> Vec<Alternative> {
        if key.text == "$or" {
            return self.choice(value, path);
        }
        if !self.is_known(key, value, path) {
            return Vec::new();
        }
        if path.len() >= DEPTH_MAX {
            self.problem(key.at, format!("`match` nests deeper than {DEPTH_MAX}"), None);
            return Vec::new();
        }
        path.push(key.text.clone());
        let choices = match &value.content {
            Content::List(tests) => {
                let tests = self.tests(value, tests);
                vec![Alternative { leaves: vec![Leaf { path: path.clone(), tests }] }]
            }
            Content::Map(entries) => {
                if self.is_operator(entries) {
                    Vec::new()
                } else {
                    self.level(value, path)
                }
            }
            Content::Scalar(scalar) => {
                let hint = format!("one of several, or one: `{}: [{}]`", key.text, scalar.text);
                self.problem(value.at, format!("`{}` needs a list of what it may be", key.text), Some(hint));
                Vec::new()
            }
        };
        path.pop();
        choices
    }

    /// Is the key one that an event has at this place?
    fn is_known(&mut self, key: &Key, value: &Node, path: &[String]) -> bool {
        match path {
            [] if !ROOTS.contains(&key.text.as_str()) => {
                let hint = match nearest(&key.text, ROOTS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are {}; a field of the payload stands under `data`", listed(ROOTS)),
                };
                self.problem(key.at, format!("an event has no `{}`", key.text), Some(hint));
                false
            }
            [] if key.text == "attributes" && !matches!(value.content, Content::Map(_)) => {
                let hint = Some("as in `attributes: { category: [retail] }`".to_owned());
                self.problem(value.at, "`attributes` needs a map", hint);
                false
            }
            [] if !matches!(key.text.as_str(), "data" | "attributes") && matches!(value.content, Content::Map(_)) => {
                self.problem(value.at, format!("`{}` is a text, it has no fields", key.text), None);
                false
            }
            [root] if root == "attributes" => {
                if key.text.chars().any(char::is_uppercase) {
                    let hint = format!("write `{}`", key.text.to_lowercase());
                    self.warn(key.at, "names of attributes are in lower case; this one never comes", Some(hint));
                }
                if matches!(value.content, Content::Map(_)) {
                    self.problem(value.at, "an attribute is a text, it has no fields", None);
                    return false;
                }
                true
            }
            _ => true,
        }
    }

    /// `field: { prefix: x }` is a map of one field to us, and almost certainly a forgotten list.
    fn is_operator(&mut self, entries: &[(Key, Node)]) -> bool {
        let [(key, value)] = entries else { return false };
        let forgotten = match (key.text.as_str(), &value.content) {
            (_, Content::Map(_)) => false,
            // A list of values under such a name may be meant, unless it starts like the operator's own.
            ("anything-but", Content::List(_)) => true,
            ("numeric", Content::List(items)) => matches!(
                items.first().map(|first| &first.content),
                Some(Content::Scalar(first)) if first.text.starts_with(['<', '>', '='])
            ),
            (_, Content::List(_)) => false,
            (name, Content::Scalar(_)) => OPERATORS.contains(&name),
        };
        if forgotten {
            let hint = Some(format!("write `[{{ {}: … }}]`", key.text));
            self.problem(key.at, format!("`{}` is a test and stands in a list", key.text), hint);
        }
        forgotten
    }

    /// `$or: [{…}, {…}]`
    fn choice(&mut self, node: &Node, path: &mut Vec<String>) -> Vec<Alternative> {
        let Content::List(options) = &node.content else {
            self.problem(node.at, "`$or` needs a list of maps", None);
            return Vec::new();
        };
        if options.len() < 2 {
            self.problem(node.at, "`$or` needs at least two maps", None);
        }
        let mut alternatives = Vec::new();
        for (at, option) in options.iter().enumerate() {
            alternatives.extend(self.within_index(at, |this| this.level(option, path)));
        }
        alternatives
    }

    /// Both: every alternative of the one with every alternative of the other.
    fn combined(&mut self, key: &Key, these: Vec<Alternative>, those: Vec<Alternative>) -> Vec<Alternative> {
        if those.is_empty() {
            return these;
        }
        if these.len() * those.len() > ALTERNATIVES_MAX {
            let message = format!("`$or` multiplies to more than {ALTERNATIVES_MAX} alternatives");
            self.problem(key.at, message, Some("two rules, or `where`, may say it better".to_owned()));
            return these;
        }
        let mut combined = Vec::with_capacity(these.len() * those.len());
        for one in &these {
            for other in &those {
                let leaves = [one.leaves.clone(), other.leaves.clone()].concat();
                if leaves.len() > LEAVES_MAX {
                    self.problem(key.at, format!("`match` asks about more than {LEAVES_MAX} fields"), None);
                    return these;
                }
                combined.push(Alternative { leaves });
            }
        }
        combined
    }

    fn tests(&mut self, node: &Node, tests: &[Node]) -> Vec<Test> {
        if tests.is_empty() {
            self.problem(node.at, "an empty list matches nothing", None);
        }
        if tests.len() > TESTS_MAX {
            self.problem(node.at, format!("{} tests; the limit is {TESTS_MAX}", tests.len()), None);
            return Vec::new();
        }
        let mut read = Vec::with_capacity(tests.len());
        for (at, test) in tests.iter().enumerate() {
            read.extend(self.within_index(at, |this| this.test(test)));
        }
        read
    }

    fn test(&mut self, node: &Node) -> Option<Test> {
        match &node.content {
            Content::Scalar(_) => self.literal(node),
            Content::List(_) => {
                self.problem(node.at, "a test is a value or a map with one operator; this is a list", None);
                None
            }
            Content::Map(entries) => match entries.as_slice() {
                [(key, value)] => self.within(&key.text, |this| this.operator(key, value)),
                _ => {
                    let hint = Some("tests in one list are alternatives; for both, use `where`".to_owned());
                    self.problem(node.at, "a test has exactly one operator", hint);
                    None
                }
            },
        }
    }

    fn literal(&mut self, node: &Node) -> Option<Test> {
        let Content::Scalar(Scalar { value, text, .. }) = &node.content else {
            self.problem(node.at, format!("a value is needed here; this is {}", node.words()), None);
            return None;
        };
        match value {
            Json::Null => Some(Test::Null),
            Json::Bool(bool) => Some(Test::Bool(*bool)),
            Json::Number(number) => number.as_f64().map(Test::Number),
            _ => {
                self.check_length(node, text);
                Some(Test::Text(text.clone()))
            }
        }
    }

    fn check_length(&mut self, node: &Node, text: &str) {
        if text.len() > TEXT_BYTES_MAX {
            self.problem(node.at, format!("a text of {} bytes; the limit is {TEXT_BYTES_MAX}", text.len()), None);
        }
    }

    fn operator(&mut self, key: &Key, value: &Node) -> Option<Test> {
        match key.text.as_str() {
            "prefix" => Some(Test::Prefix(self.some_text(value, "`prefix`")?)),
            "suffix" => Some(Test::Suffix(self.some_text(value, "`suffix`")?)),
            "equals-ignore-case" => Some(Test::IgnoreCase(fold(&self.some_text(value, "`equals-ignore-case`")?))),
            "wildcard" => {
                let text = self.some_text(value, "`wildcard`")?;
                match pieces(&text) {
                    Ok(pieces) => Some(Test::Wildcard(pieces)),
                    Err(message) => {
                        self.problem(value.at, message, None);
                        None
                    }
                }
            }
            "exists" => self.bool(value, "`exists`").map(Test::Exists),
            "numeric" => self.numeric(value),
            "anything-but" => self.anything_but(value),
            unknown => {
                let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == unknown).map(|(_, instead)| *instead);
                let hint = match (elsewhere, nearest(unknown, OPERATORS)) {
                    (Some(instead), _) => instead.to_owned(),
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => format!("known are {}", listed(OPERATORS)),
                };
                self.problem(key.at, format!("unknown operator `{unknown}`"), Some(hint));
                None
            }
        }
    }

    /// A text that is not empty and not too long.
    fn some_text(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if text.is_empty() {
            let hint = Some("every text there is: `{ exists: true }`".to_owned());
            self.problem(node.at, format!("{what} must not be empty"), hint);
            return None;
        }
        self.check_length(node, text);
        Some(text.to_owned())
    }

    fn anything_but(&mut self, node: &Node) -> Option<Test> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            Content::Scalar(_) => std::slice::from_ref(node),
            Content::Map(_) => {
                let hint = Some("`where` can negate anything: `!data.x.startsWith('…')`".to_owned());
                self.problem(node.at, "`anything-but` takes values only, no operators", hint);
                return None;
            }
        };
        if items.is_empty() || items.len() > TESTS_MAX {
            self.problem(node.at, format!("`anything-but` takes 1 to {TESTS_MAX} values"), None);
            return None;
        }
        let mut unwanted = Vec::with_capacity(items.len());
        for item in items {
            match self.literal(item)? {
                test @ (Test::Text(_) | Test::Number(_)) => unwanted.push(test),
                _ => {
                    self.problem(item.at, "`anything-but` takes texts and numbers", None);
                    return None;
                }
            }
        }
        Some(Test::AnythingBut(unwanted))
    }

    /// `[">=", 1, "<", 5]`
    fn numeric(&mut self, node: &Node) -> Option<Test> {
        let usage = "`numeric` is a list of comparisons: `[\">=\", 1, \"<\", 5]`";
        let Content::List(items) = &node.content else {
            self.problem(node.at, usage, None);
            return None;
        };
        let mut range = Range { above: None, below: None };
        if items.is_empty() || items.len() % 2 == 1 {
            self.problem(node.at, usage, None);
            return None;
        }
        for pair in items.chunks_exact(2) {
            let sign = self.text(&pair[0], "a comparison")?;
            let number = match &pair[1].content {
                Content::Scalar(Scalar { value: Json::Number(number), .. }) => number.as_f64(),
                _ => None,
            };
            let Some(number) = number else {
                self.problem(pair[1].at, format!("`{sign}` needs a number; this is {}", pair[1].words()), None);
                return None;
            };
            let (above, below) = match sign {
                ">" => (Some((number, false)), None),
                ">=" => (Some((number, true)), None),
                "<" => (None, Some((number, false))),
                "<=" => (None, Some((number, true))),
                "=" => (Some((number, true)), Some((number, true))),
                _ => {
                    let message = format!("`numeric` compares by `=`, `<`, `<=`, `>` or `>=`; this is `{sign}`");
                    self.problem(pair[0].at, message, None);
                    return None;
                }
            };
            if (above.is_some() && range.above.is_some()) || (below.is_some() && range.below.is_some()) {
                self.problem(pair[0].at, "`numeric` has one lower and one upper end at most", None);
                return None;
            }
            range = Range { above: above.or(range.above), below: below.or(range.below) };
        }
        if let (Some((above, above_within)), Some((below, below_within))) = (range.above, range.below)
            && (above > below || (above == below && !(above_within && below_within)))
        {
            self.problem(node.at, "no number is within both ends of `numeric`", None);
            return None;
        }
        Some(Test::Numeric(range))
    }
}

fn stars(alternatives: &[Alternative]) -> usize {
    let tests = alternatives.iter().flat_map(|alternative| &alternative.leaves).flat_map(|leaf| &leaf.tests);
    tests.map(|test| if let Test::Wildcard(pieces) = test { pieces.len() - 1 } else { 0 }).sum()
}

/// The pieces between stars. A backslash makes the next star or backslash an ordinary letter.
fn pieces(text: &str) -> Result<Vec<String>, String> {
    let mut pieces = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = pieces.len() - 1;
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('*' | '\\')) => pieces[last].push(escaped),
                _ => return Err("in `wildcard` a backslash stands before `*` or `\\` only".to_owned()),
            },
            '*' if characters.peek() == Some(&'*') => return Err("`wildcard` has two stars in a row".to_owned()),
            '*' => pieces.push(String::new()),
            _ => pieces[last].push(character),
        }
    }
    if pieces.len() == 1 {
        return Err("`wildcard` has no star; write the text itself".to_owned());
    }
    Ok(pieces)
}
