//! Requests to other hosts: granted one by one, within limits, kept for a recording.
//!
//! Without a way out everything is denied. An answer is read whole before the guest sees any of it, so that its size is
//! known and a re-execution sees the same.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::effect::EffectSeed;
use bulkhead_domain::effect::Level;
use bulkhead_domain::policy::limits::HttpLimits;
use bulkhead_domain::policy::origin::Origin;
use bulkhead_domain::recording::Read;
use bytes::Bytes;

use super::Stop;
use super::not_granted;
use super::run::Run;
use crate::outbound::Exchange;
use crate::outbound::Fault;
use crate::outbound::Outbound;
use crate::outbound::Reply;
use crate::outbound::Request;

/// Bytes of an URL.
pub(crate) const URL_MAX: usize = 2_048;
/// By which a receiver can tell that it was sent this before; the guest may set its own.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request as the guest made it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub method: String,
    pub tls: bool,
    pub authority: String,
    /// Begins with a slash.
    pub path: String,
    pub headers: Vec<(String, Bytes)>,
    /// What the guest allows it, if it says so.
    pub timeout: Option<Duration>,
}

/// The requests of one call.
pub(crate) struct Http {
    way: Option<Arc<dyn Outbound>>,
    seed: EffectSeed,
    begun: Vec<Begun>,
    waited: Duration,
}

struct Begun {
    /// What a recording knows it by.
    fingerprint: String,
    /// For the log: the URL without its query, which may have secrets in it.
    shown: String,
    state: State,
}

enum State {
    UnderWay(Box<dyn Exchange>),
    Over(Result<Reply, Fault>),
    Taken,
}

impl Http {
    pub(crate) fn new(way: Option<Arc<dyn Outbound>>, seed: EffectSeed) -> Self {
        Self { way, seed, begun: Vec::new(), waited: Duration::ZERO }
    }
}

impl Run {
    /// Whether the guest may ask this at all. Said before a body is written, and written to the log.
    pub(crate) fn http_check(&mut self, asked: &Asked) -> Result<(), Fault> {
        let checked = self.may_ask(asked);
        if let Err(fault) = &checked {
            let shown = shown(asked);
            self.http_log(&shown, fault);
        }
        checked
    }

    fn may_ask(&self, asked: &Asked) -> Result<(), Fault> {
        let Some(origin) = Origin::of(asked.tls, &asked.authority) else {
            return Err(Fault::Invalid(format!("`{}` is no host", asked.authority.escape_debug())));
        };
        if !self.setup.grants.may_call(&origin) {
            return Err(Fault::Denied(not_granted(&format!("calling `{}`", origin.grant()), "it to `http`")));
        }
        if self.http.way.is_none() {
            return Err(Fault::Denied("nothing is sent from here: this is a trial, not the running host".into()));
        }
        if asked.path.len() > URL_MAX {
            return Err(Fault::Invalid(format!("an URL may have {URL_MAX} bytes")));
        }
        let limits = &self.setup.limits.http;
        if u32::try_from(self.http.begun.len()).unwrap_or(u32::MAX) >= limits.requests {
            return Err(Fault::Busy(format!("one run may send {} requests", limits.requests)));
        }
        let bytes: usize = asked.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let room = headers_max(limits);
        if bytes > room {
            return Err(Fault::Invalid(format!("the request's headers have {bytes} bytes; they may have {room}")));
        }
        Ok(())
    }

    /// Sends a request; its number.
    pub(crate) fn http_begin(&mut self, asked: Asked, body: Bytes) -> Result<usize, Fault> {
        self.http_check(&asked)?;
        let limits = self.setup.limits.http.clone();
        let shown = shown(&asked);
        if body.len() > limits.request_bytes {
            let fault = Fault::RequestTooLarge(limits.request_bytes);
            self.http_log(&shown, &fault);
            return Err(fault);
        }
        let Asked { method, tls, authority, path, mut headers, timeout } = asked;
        let number = self.http.begun.len();
        if !headers.iter().any(|(name, _)| name == IDEMPOTENCY_KEY) {
            let key = self.http.seed.request_id(number);
            headers.push((IDEMPOTENCY_KEY.to_owned(), key.into()));
        }
        let scheme = if tls { "https" } else { "http" };
        let request = Request {
            plugin: self.setup.plugin,
            method,
            url: format!("{scheme}://{authority}{path}"),
            headers,
            body,
            timeout: timeout.unwrap_or(limits.time).min(limits.time),
            response_bytes: limits.response_bytes,
        };
        let fingerprint = fingerprint(&request);
        let Some(way) = &self.http.way else {
            return Err(Fault::Denied(String::new()));
        };
        let state = State::UnderWay(way.begin(request));
        self.http.begun.push(Begun { fingerprint, shown, state });
        Ok(number)
    }

    /// Waits until a request is over.
    pub(crate) fn http_wait(&mut self, number: usize) -> Result<(), Stop> {
        let limit = self.setup.limits.http.wait;
        let Some(begun) = self.http.begun.get_mut(number) else { return Ok(()) };
        let State::UnderWay(exchange) = &mut begun.state else { return Ok(()) };
        let started = Instant::now();
        let before = self.http.waited;
        // Waiting is not computing: only cancellation ends it, and its own limit.
        let watch = &self.watch;
        let ended = exchange.wait(started + limit.saturating_sub(before), &|| watch.check_cancelled().is_err());
        watch.check_cancelled()?;
        let ended = ended.unwrap_or(Err(Fault::Timeout));
        self.http.waited = before + started.elapsed();
        self.watch.pause(self.http.waited);
        let (fingerprint, shown) = (begun.fingerprint.clone(), begun.shown.clone());
        begun.state = State::Over(ended.clone());
        self.keep(|| read(fingerprint, &ended));
        if let Err(fault) = &ended {
            self.http_log(&shown, fault);
        }
        Ok(())
    }

    /// Takes what came back, once. Waits for it if need be.
    pub(crate) fn http_take(&mut self, number: usize) -> Result<Option<Result<Reply, Fault>>, Stop> {
        self.http_wait(number)?;
        let Some(begun) = self.http.begun.get_mut(number) else { return Ok(None) };
        match std::mem::replace(&mut begun.state, State::Taken) {
            State::Over(ended) => Ok(Some(ended)),
            State::UnderWay(_) | State::Taken => Ok(None),
        }
    }

    fn http_log(&mut self, shown: &str, fault: &Fault) {
        let text = format!("{shown}: {fault}");
        self.log.write(&self.setup.limits, &self.redactor, Level::Warn, &text, &[]);
    }
}

/// Bytes of a request's headers.
fn headers_max(limits: &HttpLimits) -> usize {
    limits.request_bytes / 16
}

fn shown(asked: &Asked) -> String {
    let path = asked.path.split('?').next().unwrap_or_default();
    format!("{} {}://{}{path}", asked.method, if asked.tls { "https" } else { "http" }, asked.authority)
}

/// `POST https://api.example.com/orders blake3:…`: method and URL as they are, the body by its digest.
pub(crate) fn fingerprint(request: &Request) -> String {
    format!("{} {} blake3:{}", request.method, request.url, &blake3::hash(&request.body).to_hex()[..32])
}

/// What a recording keeps: what came back, or, without a status, why nothing did.
fn read(request: String, ended: &Result<Reply, Fault>) -> Read {
    match ended {
        Ok(Reply { status, headers, body }) => Read::Http {
            request,
            status: Some(*status),
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
            body: body.clone(),
        },
        Err(fault) => Read::Http {
            request,
            status: None,
            headers: Vec::new(),
            body: serde_json::to_vec(fault).expect("because a fault is plain data").into(),
        },
    }
}

/// What a recording has kept.
pub(crate) fn recorded(status: Option<u16>, headers: &[(String, String)], body: &Bytes) -> Result<Reply, Fault> {
    match status {
        Some(status) => Ok(Reply {
            status,
            headers: headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            body: body.clone(),
        }),
        None => Err(serde_json::from_slice(body).unwrap_or(Fault::Broken)),
    }
}
