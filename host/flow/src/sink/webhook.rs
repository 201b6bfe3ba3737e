//! The `webhook` sink: a POST, signed as Standard Webhooks say.
//!
//! `webhook-id` is the delivery's id, the same on every attempt; `webhook-timestamp` is the attempt's time; the signature
//! covers both and the body, once per secret, so that a receiver can change secrets without a gap.
//!
//! The signature is made here and not by the `standardwebhooks` crate, because that signs text only and a plugin may send
//! any bytes; the crate is the judge in the tests.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulkhead_domain::clock::Timestamp;
use bulkhead_domain::policy::retry::Retry;
use bulkhead_domain::policy::verdict::Failure;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_domain::rule::duration;
use bulkhead_store::deliveries::DueDelivery;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use sha2::Sha256;

use crate::egress::Answer;
use crate::egress::Call;
use crate::egress::Egress;
use crate::egress::EgressError;
use crate::egress::is_connection_header;
use crate::sink::Attempt;
use crate::sink::spec;
use crate::sink::spec::RawRetry;
use crate::sink::spec::SpecError;

const CONCURRENCY_DEFAULT: usize = 8;
const CONCURRENCY_MAX: u32 = 32;
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4_096;
/// During a change there are the old and the new one; more make every request larger for nothing.
const SECRETS_MAX: usize = 4;
/// What Standard Webhooks ask of a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How much of an answer is read: for people after a failure, for the connection's sake after a success.
const EXCERPT_BYTES: usize = 1_024;
const EXCERPT_WAIT: Duration = Duration::from_millis(500);

/// A checked `webhook` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// Names of the secrets it is signed with, none for no signature.
    pub signed_with: Vec<String>,
    /// Further headers.
    headers: Vec<(HeaderName, Template)>,
    /// Time for one attempt; none is the host's.
    pub timeout: Option<Duration>,
    /// When the next attempt is.
    pub retry: Retry,
    /// Attempts under way at a time.
    pub concurrency: usize,
}

/// A header's value in which `{{secret:name}}` stands for a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    #[serde(default)]
    secret: Names,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    timeout: Option<String>,
    retry: Option<RawRetry>,
    concurrency: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged, expecting = "expected the name of a secret, or a list of such names")]
enum Names {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

pub(super) fn parse(fields: Map<String, Value>) -> Result<Webhook, SpecError> {
    let raw: Raw = spec::raw(fields)?;
    let signed_with = match raw.secret {
        Names::None => Vec::new(),
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    };
    if signed_with.len() > SECRETS_MAX {
        return Err(SpecError::new("secret", format!("at most {SECRETS_MAX} secrets can sign at a time")));
    }
    if let Some(name) = signed_with.iter().find(|name| !is_secret_name(name)) {
        let hint = if name.starts_with(PREFIX) { "; store the secret itself apart and name it here" } else { "" };
        return Err(SpecError::new("secret", format!("that is not the name of a secret{hint}")));
    }
    let timeout =
        raw.timeout.map(|text| spec::read_duration("timeout", &text, TIMEOUT_MIN, TIMEOUT_MAX)).transpose()?;
    let concurrency = match raw.concurrency {
        None => CONCURRENCY_DEFAULT,
        Some(number @ 1..=CONCURRENCY_MAX) => number as usize,
        Some(_) => return Err(SpecError::new("concurrency", format!("must be from 1 to {CONCURRENCY_MAX}"))),
    };
    Ok(Webhook {
        url: raw.url,
        signed_with,
        headers: headers(raw.headers)?,
        timeout,
        retry: raw.retry.map(RawRetry::check).transpose()?.unwrap_or_else(Retry::of_deliveries),
        concurrency,
    })
}

/// Names are shown in errors and headers; what looks like the secret itself is none.
fn is_secret_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(PREFIX)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn headers(raw: BTreeMap<String, String>) -> Result<Vec<(HeaderName, Template)>, SpecError> {
    if raw.len() > HEADERS_MAX {
        return Err(SpecError::new("headers", format!("there are {}; at most {HEADERS_MAX} are sent", raw.len())));
    }
    let mut headers: Vec<(HeaderName, Template)> = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        let field = format!("headers.{}", name.escape_debug());
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(SpecError::new(field, "is not the name of a header"));
        };
        if is_hosts_own(parsed.as_str()) {
            return Err(SpecError::new(field, "is set by the host"));
        }
        if headers.iter().any(|(other, _)| *other == parsed) {
            return Err(SpecError::new(field, "is there twice, in different cases"));
        }
        if value.len() > HEADER_BYTES_MAX || value.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            let message = format!("must be at most {HEADER_BYTES_MAX} printable ASCII characters");
            return Err(SpecError::new(field, message));
        }
        headers.push((parsed, Template::parse(&value).map_err(|message| SpecError::new(field, message))?));
    }
    Ok(headers)
}

/// Headers that neither a sink nor a plugin sets.
fn is_hosts_own(name: &str) -> bool {
    is_connection_header(name) || name.starts_with("webhook-") || matches!(name, "content-type" | "user-agent")
}

impl Template {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "what stands in `{{…}}` must be `secret:` and the name of a secret";
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or("a `{{` is not closed")?;
            let name = inside.trim().strip_prefix("secret:").ok_or(WRONG)?.trim();
            if !is_secret_name(name) {
                return Err(WRONG);
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Secret(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Secret(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    fn render(&self, secrets: &BTreeMap<String, SecretString>) -> Result<HeaderValue, Attempt> {
        let mut text = Zeroizing::new(String::new());
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Secret(name) => text.push_str(secret(secrets, name)?.expose_secret()),
            }
        }
        let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
            let names: Vec<_> = self.secrets().collect();
            let reason = format!("the secret `{}` cannot stand in a header", names.join("`, `"));
            Attempt::refused("sink:secret", reason)
        })?;
        value.set_sensitive(self.secrets().next().is_some());
        Ok(value)
    }
}

fn secret<'a>(secrets: &'a BTreeMap<String, SecretString>, name: &str) -> Result<&'a SecretString, Attempt> {
    secrets.get(name).ok_or_else(|| Attempt::refused("sink:secret", format!("there is no secret `{name}`")))
}

const PREFIX: &str = "whsec_";

/// The `webhook-signature` header: one signature per key, by the first that is tried, separated by spaces.
fn signature(keys: &[Zeroizing<Vec<u8>>], id: &str, seconds: u64, body: &[u8]) -> String {
    let signatures: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("because HMAC takes keys of any length");
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    signatures.join(" ")
}

fn key(secrets: &BTreeMap<String, SecretString>, name: &str) -> Result<Zeroizing<Vec<u8>>, Attempt> {
    let text = secret(secrets, name)?.expose_secret().trim();
    let key = text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok()).map(Zeroizing::new);
    key.filter(|key| KEY_BYTES.contains(&key.len())).ok_or_else(|| {
        let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
        let reason = format!("the secret `{name}` is not `{PREFIX}` and {least} to {most} bytes in base64");
        Attempt::refused("sink:secret", reason)
    })
}

impl Webhook {
    pub(super) fn check(&self, egress: &Egress) -> Result<(), SpecError> {
        egress.check_url(&self.url).map_err(|error| SpecError::new("url", error.to_string()))?;
        match self.timeout {
            Some(timeout) if timeout > egress.total() => {
                let most = duration::write(egress.total());
                Err(SpecError::new("timeout", format!("this host waits at most {most} for an answer")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn secrets(&self) -> Vec<&str> {
        let in_headers = self.headers.iter().flat_map(|(_, template)| template.secrets());
        self.signed_with.iter().map(String::as_str).chain(in_headers).collect()
    }

    pub(super) async fn deliver(
        &self,
        egress: &Egress,
        secrets: &BTreeMap<String, SecretString>,
        due: &DueDelivery,
        now: Timestamp,
    ) -> Attempt {
        let headers = match self.request_headers(secrets, due, now) {
            Ok(headers) => headers,
            Err(refused) => return refused,
        };
        let body = due.delivery.body.clone();
        let call = Call { method: Method::POST, url: &self.url, headers, body, timeout: self.timeout };
        match egress.send(call).await {
            Ok(answer) => judge(answer, now).await,
            Err(error) => failed(&error),
        }
    }

    fn request_headers(
        &self,
        secrets: &BTreeMap<String, SecretString>,
        due: &DueDelivery,
        now: Timestamp,
    ) -> Result<HeaderMap, Attempt> {
        let delivery = &due.delivery;
        let mut headers = HeaderMap::new();
        for (name, value) in &delivery.attributes {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
                && !is_hosts_own(name.as_str())
            {
                headers.insert(name, printable(value));
            }
        }
        for (name, template) in &self.headers {
            headers.insert(name.clone(), template.render(secrets)?);
        }
        let content_type = match delivery.content_type.as_str() {
            "" => "application/json",
            given => given,
        };
        headers.insert("content-type", printable(content_type));
        let seconds = now.millis() / 1_000;
        headers.insert("webhook-id", printable(&delivery.id));
        headers.insert("webhook-timestamp", HeaderValue::from(seconds));
        let keys = self.signed_with.iter().map(|name| key(secrets, name)).collect::<Result<Vec<_>, _>>()?;
        if !keys.is_empty() {
            let signature = signature(&keys, &delivery.id, seconds, &delivery.body);
            headers.insert("webhook-signature", printable(&signature));
        }
        Ok(headers)
    }
}

/// A header's value of any text: what a header cannot carry is percent-encoded, as CloudEvents do. No line can end.
fn printable(text: &str) -> HeaderValue {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => value.push(char::from(byte)),
            _ => value.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(value).expect("because it is printable ASCII now")
}

fn failed(error: &EgressError) -> Attempt {
    let failure = Failure::new(error.code(), error.to_string());
    match error.is_final() {
        true => Attempt::refused(&failure.code, failure.reason),
        false => Attempt::failed(failure),
    }
}

async fn judge(answer: Answer, now: Timestamp) -> Attempt {
    let status = answer.status();
    let after = retry_after(answer.headers(), now);
    let mut said = status.to_string().trim_end().to_owned();
    let body = answer.excerpt(EXCERPT_BYTES, EXCERPT_WAIT).await;
    if status.is_success() {
        return Attempt::done(said);
    }
    let text = String::from_utf8_lossy(&body);
    let text: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(200).collect();
    if !text.trim().is_empty() {
        said = format!("{said}: {}", text.trim());
    }
    Attempt { outcome: outcome(status, &said, after), said, reached_out: true }
}

/// What a status means. Whoever may do better later is tried again; whoever says no is believed.
fn outcome(status: StatusCode, said: &str, after: Option<Duration>) -> Outcome {
    let reason = |why: &str| format!("{why}{said}");
    let failure = |why: &str| Failure::new(format!("http:{}", status.as_u16()), reason(why));
    match status.as_u16() {
        200..=299 => Outcome::Done,
        429 | 503 => Outcome::Failed(Failure { after, ..failure("") }),
        408 | 425 | 500..=599 => Outcome::Failed(failure("")),
        300..=399 => Outcome::Rejected(failure("redirects are not followed: ")),
        410 => Outcome::Rejected(failure("the receiver wants no more: ")),
        _ => Outcome::Rejected(failure("")),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Timestamp(date.as_microsecond()).since(now))
}
