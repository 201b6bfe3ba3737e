//! Takes secrets out of texts that leave the sandbox.
//!
//! A plugin that may read a secret may also print it, by mistake mostly. Values are found as they are; a plugin that
//! wants to disguise one can, and the grant is what decides about that.

use std::borrow::Cow;

use bulkhead_domain::recording::REDACTED;
use memchr::memmem;
use secrecy::ExposeSecret;
use secrecy::SecretString;

use crate::port::Setup;

/// Shorter values are not looked for: they are no secrets, and every text would have holes.
const LENGTH_MIN: usize = 4;

/// Lines of a value of several lines (a key file) are looked for one by one if they are at least this long: a log
/// has one line at a time.
const LINE_MIN: usize = 16;

/// The secrets of one setup.
#[derive(Default)]
pub(crate) struct Redactor {
    needles: Vec<SecretString>,
}

impl Redactor {
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut needles: Vec<&str> = Vec::new();
        for secret in setup.secrets.values() {
            let value = secret.expose_secret();
            if value.len() >= LENGTH_MIN {
                needles.push(value);
            }
            if value.contains('\n') {
                needles.extend(value.lines().map(str::trim).filter(|line| line.len() >= LINE_MIN));
            }
        }
        Self::of(needles)
    }

    fn of(mut needles: Vec<&str>) -> Self {
        // The longest first: a secret that contains another is taken out whole.
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles: needles.into_iter().map(|needle| SecretString::from(needle.to_owned())).collect() }
    }

    /// The same with further texts; and all of them also as they are written within JSON.
    pub(crate) fn with(&self, more: &[String]) -> Self {
        let all = self.needles.iter().map(ExposeSecret::expose_secret);
        let mut needles: Vec<String> = all
            .chain(more.iter().map(String::as_str))
            .filter(|needle| needle.len() >= LENGTH_MIN)
            .map(str::to_owned)
            .collect();
        let quoted = |needle: &String| serde_json::Value::from(needle.as_str()).to_string();
        let escaped: Vec<String> = needles.iter().map(quoted).map(|text| text[1..text.len() - 1].to_owned()).collect();
        needles.extend(escaped);
        Self::of(needles.iter().map(String::as_str).collect())
    }

    /// `bytes` without the secrets; none if there is none in it.
    pub(crate) fn redact_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut without: Option<Vec<u8>> = None;
        for needle in &self.needles {
            let needle = needle.expose_secret().as_bytes();
            let present: &[u8] = without.as_deref().unwrap_or(bytes);
            let mut rest = 0;
            let mut parts = Vec::new();
            for at in memmem::find_iter(present, needle) {
                parts.extend_from_slice(&present[rest..at]);
                parts.extend_from_slice(REDACTED.as_bytes());
                rest = at + needle.len();
            }
            if rest > 0 {
                parts.extend_from_slice(&present[rest..]);
                without = Some(parts);
            }
        }
        without
    }

    /// `text` without the secrets.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for needle in &self.needles {
            let needle = needle.expose_secret();
            if text.contains(needle) {
                text = Cow::Owned(text.replace(needle, REDACTED));
            }
        }
        text
    }
}

/// `text` on one line that no terminal and no log reader takes for more than text: control characters and those that
/// turn the direction of writing are escaped. Cut at `limit` bytes, with a mark.
pub(crate) fn escape(text: &str, limit: usize) -> String {
    let plain = |c: char| !c.is_control() && !turns(c);
    let cut = "…";
    if text.len() <= limit && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len().min(limit));
    // Where to cut if it turns out that the mark is needed.
    let mut room = 0;
    for c in text.chars() {
        if plain(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
        if escaped.len() > limit {
            escaped.truncate(room);
            escaped.push_str(cut);
            return escaped;
        }
        if escaped.len() + cut.len() <= limit {
            room = escaped.len();
        }
    }
    escaped
}

/// Marks and overrides of direction: they make a text look like another.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let secrets = secrets.iter().map(|value| ((*value).to_owned(), SecretString::from((*value).to_owned())));
        Redactor::new(&Setup { secrets: secrets.collect(), ..crate::port::tests::setup() })
    }

    #[test]
    fn secrets_are_taken_out_whole() {
        let redactor = redactor(&["hunter2", "hunter2-and-more", "abc"]);
        assert_eq!(redactor.redact("a hunter2 b hunter2-and-more c"), "a [redacted] b [redacted] c");
        assert_eq!(redactor.redact("abc"), "abc", "too short to be a secret");
        assert!(matches!(redactor.redact("nothing"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_secret_of_several_lines_is_found_line_by_line() {
        let redactor = redactor(&["-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0B\n-----END KEY-----"]);
        assert_eq!(redactor.redact("line: MIIBVgIBADANBgkqhkiG9w0B"), "line: [redacted]");
    }

    #[test]
    fn bytes_lose_secrets_also_as_json_writes_them() {
        let redactor = redactor(&["a\"b\"c", "hunter2"]).with(&["ann@example.org".into(), "ab".into()]);
        let redacted = |bytes: &[u8]| redactor.redact_bytes(bytes);
        assert_eq!(redacted(b"\xffhunter2hunter2\xfe").as_deref(), Some(&b"\xff[redacted][redacted]\xfe"[..]));
        assert_eq!(
            redacted(br#"{"k":"a\"b\"c","to":"ann@example.org"}"#).as_deref(),
            Some(&br#"{"k":"[redacted]","to":"[redacted]"}"#[..])
        );
        assert_eq!(redacted(b"ab"), None, "too short to be looked for");
    }

    #[test]
    fn what_leaves_is_one_harmless_line() {
        assert_eq!(escape("a\u{1b}[31m\r\n\tb\u{202e}c\u{0}", 100), "a\\u{1b}[31m\\r\\n\\tb\\u{202e}c\\u{0}");
        assert_eq!(escape("äöü", 6), "äöü");
        assert_eq!(escape("äöüä", 6), "ä…");
        assert_eq!(escape(&"x".repeat(20), 10), format!("{}…", "x".repeat(7)));
        assert!(escape(&"\u{0}".repeat(1_000), 100).len() <= 100);
    }
}
