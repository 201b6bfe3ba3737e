//! Requests of plugins to other hosts: over the egress guard that sinks use, from the waiting lane.
//!
//! ```text
//!  a guest's thread                                    the host's runtime
//!  begin ──▶ one of ours? room? ──────────────────────▶ egress (names, addresses, no redirects, bounds)
//!  wait  ──▶ gives its worker place up, sleeps ◀─────── what came back
//! ```
//!
//! A guest that waits holds a thread, an instance and nothing else; how many may wait is bounded for the host and for each
//! plugin. Beyond that a request fails at once: nobody queues for a place to wait in.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

use bulkhead_domain::id::PluginId;
use bulkhead_domain::policy::origin::Origin;
use bulkhead_sandbox::outbound::Exchange;
use bulkhead_sandbox::outbound::Fault;
use bulkhead_sandbox::outbound::Outbound;
use bulkhead_sandbox::outbound::Reply;
use bulkhead_sandbox::outbound::Request;
use reqwest::Method;
use reqwest::Url;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::dispatch::workers;
use crate::egress::Call;
use crate::egress::Egress;
use crate::egress::EgressError;

/// How often one that waits is asked whether it still should.
const LOOK: Duration = Duration::from_millis(20);
/// Guests of one plugin that wait at a time.
const WAITING_OF_PLUGIN_MAX: usize = 8;
/// Requests of one plugin under way at a time: what is begun and not waited for counts, too.
const UNDER_WAY_OF_PLUGIN_MAX: usize = 64;

/// Where plugins may send requests at all: the operator's word, above what tenants grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Wherever the grant and the egress guard let them.
    All,
    /// To these.
    Only(BTreeSet<Origin>),
}

impl Default for Origins {
    /// Nowhere.
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Origins {
    /// Nobody may be called.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(origins) if origins.is_empty())
    }

    fn admits(&self, origin: &Origin) -> bool {
        match self {
            Self::All => true,
            Self::Only(origins) => origins.contains(origin),
        }
    }
}

/// Sends plugins' requests.
pub struct Requests {
    egress: Egress,
    origins: Origins,
    runtime: Handle,
    counts: Counts,
}

/// Waiting and under way, by plugin; only plugins that have any.
type Counts = Arc<Mutex<HashMap<PluginId, Count>>>;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    waiting: usize,
    under_way: usize,
}

impl Requests {
    /// Sends over `egress`, on `runtime`, to `origins`.
    #[must_use]
    pub fn new(egress: Egress, origins: Origins, runtime: Handle) -> Self {
        Self { egress, origins, runtime, counts: Counts::default() }
    }

    fn check(&self, request: &Request) -> Result<Turn, Fault> {
        let origin = Url::parse(&request.url).ok().and_then(|url| {
            let host = url.host_str()?.to_owned();
            Origin::of(url.scheme() == "https", &format!("{host}:{}", url.port_or_known_default()?))
        });
        let Some(origin) = origin else { return Err(Fault::Invalid("that is no URL".into())) };
        if !self.origins.admits(&origin) {
            let grant = origin.grant();
            return Err(Fault::Denied(format!(
                "the operator does not let plugins call `{grant}`; it would be in `plugins` under [egress] of the host"
            )));
        }
        let taken = |count: &mut Count| {
            let room = count.under_way < UNDER_WAY_OF_PLUGIN_MAX;
            count.under_way += usize::from(room);
            room
        };
        if !change(&self.counts, request.plugin, taken) {
            return Err(Fault::Busy(format!("{UNDER_WAY_OF_PLUGIN_MAX} requests of this plugin are under way")));
        }
        Ok(Turn { counts: Arc::clone(&self.counts), plugin: request.plugin, waits: false })
    }
}

impl Outbound for Requests {
    fn begin(&self, request: Request) -> Box<dyn Exchange> {
        let turn = match self.check(&request) {
            Ok(turn) => turn,
            Err(fault) => return Box::new(Ended(fault)),
        };
        let (sender, answer) = mpsc::sync_channel(1);
        let egress = self.egress.clone();
        let sending = self.runtime.spawn(async move {
            let ended = send(&egress, request).await;
            // Nobody may be waiting any more.
            let _ = sender.send(ended);
        });
        Box::new(UnderWay { answer, sending: sending.abort_handle(), turn })
    }
}

/// One that ended before it began.
struct Ended(Fault);

impl Exchange for Ended {
    fn wait(&mut self, _: Instant, _: &dyn Fn() -> bool) -> Option<Result<Reply, Fault>> {
        Some(Err(self.0.clone()))
    }
}

struct UnderWay {
    answer: mpsc::Receiver<Result<Reply, Fault>>,
    sending: AbortHandle,
    turn: Turn,
}

impl Exchange for UnderWay {
    fn wait(&mut self, until: Instant, given_up: &dyn Fn() -> bool) -> Option<Result<Reply, Fault>> {
        // What is there already costs no place.
        if let Ok(ended) = self.answer.try_recv() {
            return Some(ended);
        }
        let Some(_waiting) = self.turn.wait() else {
            let text = format!("{WAITING_OF_PLUGIN_MAX} calls of this plugin wait for others already");
            return Some(Err(Fault::Busy(text)));
        };
        let Some(_lane) = workers::wait() else {
            return Some(Err(Fault::Busy("as many plugins of this host wait for others as may".into())));
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.answer.recv_timeout(left.min(LOOK)) {
                Ok(ended) => return Some(ended),
                Err(RecvTimeoutError::Disconnected) => return Some(Err(Fault::Broken)),
                Err(RecvTimeoutError::Timeout) if left <= LOOK || given_up() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

/// One of a plugin's requests under way, or one of its guests that waits.
struct Turn {
    counts: Counts,
    plugin: PluginId,
    waits: bool,
}

impl Turn {
    fn wait(&self) -> Option<Self> {
        let taken = change(&self.counts, self.plugin, |count| {
            let room = count.waiting < WAITING_OF_PLUGIN_MAX;
            count.waiting += usize::from(room);
            room
        });
        taken.then(|| Self { counts: Arc::clone(&self.counts), plugin: self.plugin, waits: true })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        change(&self.counts, self.plugin, |count| match self.waits {
            true => count.waiting -= 1,
            false => count.under_way -= 1,
        });
    }
}

fn change<T>(counts: &Counts, plugin: PluginId, change: impl FnOnce(&mut Count) -> T) -> T {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(plugin).or_default();
    let changed = change(count);
    if count.waiting + count.under_way == 0 {
        counts.remove(&plugin);
    }
    changed
}

async fn send(egress: &Egress, request: Request) -> Result<Reply, Fault> {
    let Request { method, url, headers, body, timeout, response_bytes, .. } = request;
    let invalid = |what: &str| Fault::Invalid(format!("{what} cannot be sent"));
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| invalid("the method"))?;
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("a header's name"))?;
        map.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| invalid("a header's value"))?);
    }
    let call = Call { method, url: &url, headers: map, body, timeout: Some(timeout) };
    let answer = egress.send(call).await.map_err(fault)?;
    let reply = answer.with_body_max(response_bytes).whole().await.map_err(fault)?;
    let headers = reply.headers.iter();
    Ok(Reply {
        status: reply.status.as_u16(),
        headers: headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec().into())).collect(),
        body: reply.body,
    })
}

fn fault(error: EgressError) -> Fault {
    match error {
        EgressError::Denied { reason } => Fault::Prohibited(reason),
        EgressError::Name { .. } => Fault::Name,
        EgressError::Connect { reason: "refused", .. } => Fault::Refused,
        EgressError::Connect { .. } => Fault::Unreachable,
        EgressError::Tls { reason } => Fault::Tls(reason),
        EgressError::Timeout { doing: "connecting" } => Fault::ConnectTimeout,
        EgressError::Timeout { .. } => Fault::Timeout,
        EgressError::Limit { what: "headers", limit } => Fault::HeadersTooLarge(limit),
        EgressError::Limit { limit, .. } => Fault::ResponseTooLarge(limit),
        EgressError::Broken { .. } => Fault::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_nobody_is_called() {
        let origin = Origin::parse("api.example.com").expect("because it is one");
        assert!(!Origins::default().admits(&origin) && Origins::default().is_none());
        assert!(Origins::All.admits(&origin));
        assert!(Origins::Only([origin.clone()].into()).admits(&origin));
    }

    #[test]
    fn places_to_wait_in_are_counted_by_plugin() {
        let counts = Counts::default();
        let turn = |plugin| Turn { counts: Arc::clone(&counts), plugin: PluginId(plugin), waits: false };
        change(&counts, PluginId(1), |count| count.under_way += 1);
        let one = turn(1);
        let waiting: Vec<_> = (0..WAITING_OF_PLUGIN_MAX).map(|_| one.wait().expect("because there is room")).collect();
        assert!(one.wait().is_none());
        change(&counts, PluginId(2), |count| count.under_way += 1);
        assert!(turn(2).wait().is_some(), "another plugin has its own");
        drop(waiting);
        assert!(one.wait().is_some());
        drop(one);
        assert!(counts.lock().expect("because nobody panics here").is_empty());
    }
}
