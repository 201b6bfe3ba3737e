//! `redact: [/customer/email, "/items/*/card"]`: blanks parts of the payload.

use serde_json::Value as Json;

/// What stands where something was.
pub const REDACTED: &str = "[redacted]";

/// A JSON pointer (RFC 6901) whose `*` segments stand for every element or member.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pointer {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Named(String),
    Every,
}

/// Pointers to what is blanked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redact {
    pointers: Vec<Pointer>,
}

impl Redact {
    /// Reads pointers; the error says what is wrong with which.
    pub(in crate::rule) fn parse<'p>(pointers: impl IntoIterator<Item = &'p str>) -> Result<Self, (usize, String)> {
        let parse = |(at, text)| Pointer::parse(text).map_err(|message| (at, message));
        let pointers = pointers.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { pointers })
    }

    /// Blanks. What is not there need not be.
    pub fn apply(&self, data: &mut Json) {
        for pointer in &self.pointers {
            blank(data, &pointer.segments);
        }
    }
}

impl Pointer {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("`{text}` is no JSON pointer: it starts with `/`, as in `/customer/email`"));
        };
        let mut segments = Vec::new();
        for segment in path.split('/') {
            segments.push(match segment {
                "*" => Segment::Every,
                _ => Segment::Named(unescape(segment).ok_or_else(|| {
                    format!("`{text}`: in a JSON pointer `~` is written `~0`, and `/` within a name `~1`")
                })?),
            });
        }
        Ok(Self { segments })
    }
}

/// `~1` is a slash and `~0` a tilde; any other tilde is wrong.
fn unescape(segment: &str) -> Option<String> {
    let mut name = String::with_capacity(segment.len());
    let mut characters = segment.chars();
    while let Some(character) = characters.next() {
        name.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(name)
}

fn blank(data: &mut Json, segments: &[Segment]) {
    let Some((first, rest)) = segments.split_first() else {
        *data = Json::String(REDACTED.to_owned());
        return;
    };
    match (first, data) {
        (Segment::Named(name), Json::Object(map)) => {
            if let Some(value) = map.get_mut(name) {
                blank(value, rest);
            }
        }
        (Segment::Named(name), Json::Array(list)) => {
            if let Some(value) = name.parse::<usize>().ok().and_then(|at| list.get_mut(at)) {
                blank(value, rest);
            }
        }
        (Segment::Every, Json::Object(map)) => map.values_mut().for_each(|value| blank(value, rest)),
        (Segment::Every, Json::Array(list)) => list.iter_mut().for_each(|value| blank(value, rest)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pointers: &[&str], data: Json, expected: Json) {
        let mut data = data;
        Redact::parse(pointers.iter().copied()).expect("because these are pointers").apply(&mut data);
        assert_eq!(data, expected, "{pointers:?}");
    }

    #[test]
    fn what_pointers_point_to_is_blanked() {
        check(&["/a"], json!({"a": 1, "b": 2}), json!({"a": "[redacted]", "b": 2}));
        check(&["/a/b"], json!({"a": {"b": {"c": 1}, "d": 2}}), json!({"a": {"b": "[redacted]", "d": 2}}));
        check(&["/a/1"], json!({"a": [1, 2, 3]}), json!({"a": [1, "[redacted]", 3]}));
        check(&["/a/*/x"], json!({"a": [{"x": 1}, {"y": 2}, 3]}), json!({"a": [{"x": "[redacted]"}, {"y": 2}, 3]}));
        check(&["/*"], json!({"a": 1, "b": [2]}), json!({"a": "[redacted]", "b": "[redacted]"}));
        check(&["/a~1b", "/c~0d"], json!({"a/b": 1, "c~d": 2}), json!({"a/b": "[redacted]", "c~d": "[redacted]"}));
        // What is not there stays away.
        check(&["/x/y/z", "/a/9", "/a/x"], json!({"a": [1]}), json!({"a": [1]}));
        check(&["/a"], json!(5), json!(5));
    }

    #[test]
    fn what_is_no_pointer_says_why() {
        let check = |pointer: &str, expected: &str| {
            let (_, message) = Redact::parse([pointer]).expect_err("because this is no pointer");
            assert!(message.contains(expected), "{message}");
        };
        check("customer/email", "starts with `/`");
        check("/a~b", "`~` is written `~0`");
    }
}
