//! Takes secrets out of texts that leave the sandbox.
//!
//! A plugin that may read a secret may also print it, by mistake mostly. Values are found as they are; a plugin that
//! wants to disguise one can, and the grant is what decides about that.

use std::borrow::Cow;

use bulkhead_domain::recording::REDACTED;
use memchr::memmem;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use secrecy::ExposeSecret;
use secrecy::SecretString;

use crate::port::Setup;

/// Shorter values are not looked for: they are no secrets, and every text would have holes.
const LENGTH_MIN: usize = 4;

/// Lines of a value of several lines (a key file) are looked for one by one if they are at least this long: a log
/// has one line at a time.
const LINE_MIN: usize = 16;

/// How programs write a text in a URL: what each of them leaves as it is. A blank is `%20` for all of these.
const IN_URLS: [&AsciiSet; 4] = [
    // RFC 3986, and what most languages do with a part of a path or a query.
    STRICT,
    // The same with the slash left, for whole paths.
    &STRICT.remove(b'/'),
    // `encodeURIComponent`.
    &COMPONENT,
    // `encodeURI`.
    &COMPONENT
        .remove(b';')
        .remove(b',')
        .remove(b'/')
        .remove(b'?')
        .remove(b':')
        .remove(b'@')
        .remove(b'&')
        .remove(b'=')
        .remove(b'+')
        .remove(b'$')
        .remove(b'#'),
];
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const FORM: &AsciiSet = &STRICT.remove(b'*').add(b'~');
const COMPONENT: AsciiSet = STRICT.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');

/// What was taken out of an event's data.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Texts.
    pub(crate) texts: Vec<String>,
    /// Numbers, as they are written, without a sign.
    pub(crate) numbers: Vec<String>,
}

/// The secrets of one setup.
#[derive(Default)]
pub(crate) struct Redactor {
    needles: Vec<SecretString>,
    /// Numbers: looked for where no further digit is beside them.
    numbers: Vec<SecretString>,
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
        Self { needles: of(needles), numbers: Vec::new() }
    }

    /// The same with further texts and numbers; and all texts also as they are written within JSON and in URLs.
    pub(crate) fn with(&self, more: &Found) -> Self {
        let all = self.needles.iter().map(ExposeSecret::expose_secret);
        let plain = all.chain(more.texts.iter().map(String::as_str)).filter(|needle| needle.len() >= LENGTH_MIN);
        let mut needles = Vec::new();
        for needle in plain {
            let quoted = serde_json::Value::from(needle).to_string();
            needles.push(quoted[1..quoted.len() - 1].to_owned());
            needles.extend(IN_URLS.map(|kept| utf8_percent_encode(needle, kept).to_string()));
            // Forms leave the star, not the tilde, and write a blank as a plus.
            let form = utf8_percent_encode(needle, FORM).to_string();
            needles.push(form.replace("%20", "+"));
            needles.push(needle.to_owned());
        }
        let digits = |number: &&str| number.bytes().filter(u8::is_ascii_digit).count() >= LENGTH_MIN;
        let numbers = more.numbers.iter().map(String::as_str).filter(digits).collect();
        Self { needles: of(needles.iter().map(String::as_str).collect()), numbers: of(numbers) }
    }

    /// `bytes` without the secrets; none if there is none in it.
    pub(crate) fn redact_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut without: Option<Vec<u8>> = None;
        for (needle, is_number) in self.all() {
            let taken = take(without.as_deref().unwrap_or(bytes), needle.as_bytes(), is_number, true);
            without = taken.or(without);
        }
        without
    }

    /// `text` without the secrets.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (needle, is_number) in self.all() {
            if let Some(without) = take(text.as_bytes(), needle.as_bytes(), is_number, false) {
                text = Cow::Owned(String::from_utf8(without).expect("because whole texts were taken out of a text"));
            }
        }
        text
    }

    /// What is looked for, and whether it is a number.
    fn all(&self) -> impl Iterator<Item = (&str, bool)> {
        let texts = self.needles.iter().map(|needle| (needle.expose_secret(), false));
        texts.chain(self.numbers.iter().map(|number| (number.expose_secret(), true)))
    }
}

fn of(mut needles: Vec<&str>) -> Vec<SecretString> {
    // The longest first: a secret that contains another is taken out whole.
    needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    needles.dedup();
    needles.into_iter().map(|needle| SecretString::from(needle.to_owned())).collect()
}

/// `bytes` without `needle`; none if it is not there. Where digits were a whole value of a JSON document, the mark gets
/// quotes, so that a document stays one.
fn take(bytes: &[u8], needle: &[u8], is_number: bool, quote: bool) -> Option<Vec<u8>> {
    let is_digits = is_number || needle.iter().all(u8::is_ascii_digit);
    let mut parts = Vec::new();
    let mut rest = 0;
    for at in memmem::find_iter(bytes, needle) {
        let end = at + needle.len();
        let (mut before, after) = (&bytes[..at], &bytes[end..]);
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        if is_number && (is_digit(before.last()) || is_digit(after.first())) {
            continue;
        }
        let mut quotes: &[u8] = b"";
        if quote && is_digits {
            let unsigned = before.strip_suffix(b"-").filter(|unsigned| unsigned.len() >= rest).unwrap_or(before);
            let begins = unsigned.trim_ascii_end().last().is_none_or(|byte| b":[,".contains(byte));
            let ends = after.trim_ascii_start().first().is_none_or(|byte| b",]}".contains(byte));
            if begins && ends {
                (before, quotes) = (unsigned, b"\"");
            }
        }
        parts.extend_from_slice(&before[rest..]);
        parts.extend_from_slice(quotes);
        parts.extend_from_slice(REDACTED.as_bytes());
        parts.extend_from_slice(quotes);
        rest = end;
    }
    if rest == 0 {
        return None;
    }
    parts.extend_from_slice(&bytes[rest..]);
    Some(parts)
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

    fn found(texts: &[&str], numbers: &[&str]) -> Found {
        let all = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Found { texts: all(texts), numbers: all(numbers) }
    }

    #[test]
    fn secrets_are_found_as_urls_write_them() {
        let redactor = redactor(&["p/w d+ü*!~x"]).with(&Found::default());
        for written in [
            "p%2Fw%20d%2B%C3%BC%2A%21~x",
            "p/w%20d%2B%C3%BC%2A%21~x",
            "p%2Fw%20d%2B%C3%BC*!~x",
            "p/w%20d+%C3%BC*!~x",
            "p%2Fw+d%2B%C3%BC*%21%7Ex",
        ] {
            let url = format!("https://x.example/?key={written}&a=1");
            assert_eq!(redactor.redact(&url), "https://x.example/?key=[redacted]&a=1", "{written}");
        }
    }

    #[test]
    fn numbers_are_found_as_whole_numbers_and_documents_stay_documents() {
        let redactor = redactor(&[]).with(&found(&["5500005555555559"], &["4111111111111111", "1234.5", "123"]));
        for (bytes, expected) in [
            (r#"{"card":4111111111111111}"#, r#"{"card":"[redacted]"}"#),
            (r#"[ -4111111111111111 , 1]"#, r#"[ "[redacted]" , 1]"#),
            (r#"{"card":5500005555555559}"#, r#"{"card":"[redacted]"}"#),
            (r#"{"text":"card 4111111111111111"}"#, r#"{"text":"card [redacted]"}"#),
            (r#"{"card":"4111111111111111"}"#, r#"{"card":"[redacted]"}"#),
            ("4111111111111111", r#""[redacted]""#),
            (r#"{"sum":1234.5}"#, r#"{"sum":"[redacted]"}"#),
        ] {
            let without = redactor.redact_bytes(bytes.as_bytes()).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&without), expected);
        }
        for other in ["41111111111111112", "94111111111111111", "a 123 b"] {
            assert_eq!(redactor.redact(other), other, "another number, or too short");
        }
        assert_eq!(redactor.redact("card 4111111111111111"), "card [redacted]");
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
        let redactor = redactor(&["a\"b\"c", "hunter2"]).with(&found(&["ann@example.org", "ab"], &[]));
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
