//! The egress guard: the one way out of the host for anything that a tenant caused.
//!
//! A tenant names a URL; the host sits in a network that the tenant must not reach through it. So:
//!
//! 1. [`Egress::check_url`] looks at what is written: scheme, no user names, port, own hosts, literal addresses in any
//!    spelling (the URL parser has made them one by then).
//! 2. [`resolve`] looks at what a name leads to, inside the connector, and lets the client connect only there.
//! 3. The client follows no redirect, asks no proxy, decodes no compression, and every answer has bounds in time and size.
//!
//! Does not: sign, retry, or judge an answer's status (see `sink`).
//!
//! Reading order: [`EgressOptions`], [`Egress`], [`resolve`], [`EgressError`].

mod address;
mod answer;
mod error;
pub mod resolve;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;
use reqwest::Client;
use reqwest::Method;
use reqwest::Url;
use reqwest::header::HeaderMap;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

pub use crate::egress::answer::Answer;
pub use crate::egress::answer::Reply;
pub use crate::egress::error::EgressError;
use crate::egress::resolve::GuardedLookup;
use crate::egress::resolve::Lookup;
use crate::egress::resolve::SystemLookup;

/// A longer URL is a mistake or an attack.
pub const URL_BYTES_MAX: usize = 2_048;
/// What the HTTP parser buffers before it gives an answer's head up: its own bound, above ours.
const HEADER_BUFFER_BYTES: usize = 8_192 + 4_096 * 100;
/// Answers have a dozen headers; parsing thousands is work that the receiver makes us do.
const HEADERS_MAX: usize = 100;
/// Connections kept open per receiver, and for how long: enough to spare a busy one the handshakes.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(30);

/// Which ports may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// 80, 443, and everything from 1024 on: web servers live there; mail, shells and shares do not.
    Web,
    /// These.
    Only(Vec<u16>),
}

/// What the guard is told at start.
#[derive(Debug, Clone)]
pub struct EgressOptions {
    /// Networks that may be reached although they are not public: the operator's exceptions.
    pub allow: Vec<IpNet>,
    /// Hosts that are this product itself (`host`, `host:port`, addresses too; `0.0.0.0` and `[::]` are all addresses of
    /// this machine): nobody calls in a circle, under whatever name.
    pub own_hosts: Vec<String>,
    /// Which ports may be called.
    pub ports: Ports,
    /// Time to find the name, connect and shake hands.
    pub connect: Duration,
    /// Time until the answer's headers, if the caller sets none.
    pub first_byte: Duration,
    /// Time for everything. No caller gets more.
    pub total: Duration,
    /// Bytes of an answer's body.
    pub body_bytes_max: usize,
    /// Bytes of an answer's headers.
    pub header_bytes_max: usize,
    /// Certificates to trust beside the system's: an operator's own authority.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for EgressOptions {
    /// What a good receiver never notices and a bad one cannot stretch.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            own_hosts: Vec::new(),
            ports: Ports::Web,
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(5),
            total: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            header_bytes_max: 32 << 10,
            extra_roots: Vec::new(),
        }
    }
}

/// Which addresses may be reached.
#[derive(Debug)]
struct Guard {
    allow: Vec<IpNet>,
    own: Vec<(String, Option<u16>)>,
}

impl Guard {
    /// Whether a connection to this address may be made; without a port, to any of its ports.
    fn admits(&self, address: IpAddr, port: Option<u16>) -> Result<(), EgressError> {
        if self.is_own_address(address, port) {
            return Err(denied(format!("{address} is this product itself")));
        }
        match address::forbidden(address) {
            Some(kind) if !self.allow.iter().any(|net| net.contains(&address)) => {
                Err(denied(format!("{address} is no public address ({kind})")))
            }
            _ => Ok(()),
        }
    }

    /// Whether a host as URLs write it is one of the own ones, on this port or on all.
    fn is_own(&self, host: &str, port: Option<u16>) -> bool {
        self.own.iter().any(|(own, on)| own == host && (on.is_none() || *on == port))
    }

    /// The same of an address. What is bound to no address in particular answers on all that this machine has.
    fn is_own_address(&self, address: IpAddr, port: Option<u16>) -> bool {
        let address = address.to_canonical();
        self.own.iter().filter(|(_, on)| on.is_none() || port.is_none() || *on == port).any(|(own, _)| {
            let Ok(own) = own.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
            own == address || (own.is_unspecified() && is_local(address))
        })
    }
}

/// Whether this machine has the address: then, and only then, something can be bound to it.
fn is_local(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

tokio::task_local! {
    /// The port of the request that is sent: the client's resolver is asked for names alone.
    static PORT: u16;
}

/// A request to be.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// What is to be done.
    pub method: Method,
    /// Where to; checked by [`Egress::send`].
    pub url: &'a str,
    /// Headers, without those that belong to the connection.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// Time for everything, within [`EgressOptions::total`]; none leaves both bounds as they are set.
    pub timeout: Option<Duration>,
}

/// Headers that say how a message travels, which is not for the caller to say.
const CONNECTION_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Whether a header (in lower case) belongs to the connection and so to the host.
#[must_use]
pub fn is_connection_header(name: &str) -> bool {
    CONNECTION_HEADERS.contains(&name) || name.starts_with("proxy-")
}

/// The guard. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Egress {
    client: Client,
    guard: Arc<Guard>,
    options: Arc<EgressOptions>,
}

impl Egress {
    /// A guard that asks the system's name servers.
    #[must_use]
    pub fn new(options: EgressOptions) -> Self {
        Self::with_lookup(options, Arc::new(SystemLookup::open()))
    }

    /// A guard that finds addresses in another way.
    #[must_use]
    pub fn with_lookup(options: EgressOptions, lookup: Arc<dyn Lookup>) -> Self {
        let own = options.own_hosts.iter().filter_map(|host| own_host(host)).collect();
        let guard = Arc::new(Guard { allow: options.allow.clone(), own });
        let client = Client::builder()
            .tls_backend_preconfigured(tls(&options))
            .dns_resolver(GuardedLookup { guard: Arc::clone(&guard), lookup })
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // One request at a time on a connection: a receiver's stream tricks are then only its own.
            .http1_only()
            .http1_max_headers(HEADERS_MAX)
            .connect_timeout(options.connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("because the TLS configuration and the resolver are given");
        Self { client, guard, options: Arc::new(options) }
    }

    /// What a URL would have to pass before anything is sent, as far as its text tells. Asks no name server.
    pub fn check_url(&self, text: &str) -> Result<Url, EgressError> {
        if text.len() > URL_BYTES_MAX {
            return Err(denied(format!("a URL may have at most {URL_BYTES_MAX} bytes")));
        }
        // The parser takes some of these out without a word.
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(denied("a URL has no spaces and no control characters"));
        }
        let url = Url::parse(text).map_err(|error| denied(format!("that is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(denied(format!("`{}` is not http or https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(denied("a URL may not carry a user name or password; use a header with a secret"));
        }
        self.check_host(&url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        let fits = match &self.options.ports {
            Ports::Web => matches!(port, 80 | 443 | 1_024..),
            Ports::Only(ports) => ports.contains(&port),
        };
        if fits { Ok(url) } else { Err(denied(format!("port {port} may not be called"))) }
    }

    /// The longest that a call may take.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.options.total
    }

    fn check_host(&self, url: &Url) -> Result<(), EgressError> {
        let host = url.host_str().unwrap_or_default();
        let name = host.trim_end_matches('.');
        if name.is_empty() {
            return Err(denied("the URL names no host"));
        }
        let port = url.port_or_known_default();
        if self.guard.is_own(name, port) {
            return Err(denied(format!("`{name}` is this product itself")));
        }
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return self.guard.admits(address, port);
        }
        if METADATA_NAMES.contains(&name) {
            return Err(denied(format!("`{name}` is a cloud's own")));
        }
        // What it leads to is known, so it can be said now instead of at the first delivery.
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if (name == "localhost" || name.ends_with(".localhost"))
            && loopback.iter().all(|address| self.guard.admits(*address, port).is_err())
        {
            return Err(denied(format!("`{name}` is this machine")));
        }
        Ok(())
    }

    /// Sends a request and gives the answer as soon as its headers are there.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, EgressError> {
        let url = self.check_url(call.url)?;
        if let Some(name) = call.headers.keys().find(|name| is_connection_header(name.as_str())) {
            return Err(denied(format!("the header `{name}` is not the sender's to set")));
        }
        let total = call.timeout.map_or(self.options.total, |timeout| timeout.min(self.options.total));
        let head = call.timeout.map_or(self.options.first_byte.min(total), |_| total);
        let started = Instant::now();
        let port = url.port_or_known_default().unwrap_or_default();
        let request = self.client.request(call.method, url).headers(call.headers).body(call.body).send();
        let request = PORT.scope(port, request);
        let response = tokio::time::timeout(head, request)
            .await
            .map_err(|_| EgressError::Timeout { doing: "waiting for the answer" })?
            .map_err(EgressError::of)?;
        Answer::new(response, started + total, &self.options)
    }

    /// Posts a body and gives the whole answer, within its bounds.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: Bytes) -> Result<Reply, EgressError> {
        self.send(Call { method: Method::POST, url, headers, body, timeout: None }).await?.whole().await
    }
}

/// Names that lead to a cloud's credentials wherever they resolve.
const METADATA_NAMES: [&str; 5] =
    ["metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"];

fn denied(reason: impl Into<String>) -> EgressError {
    EgressError::Denied { reason: reason.into() }
}

/// Reads `host` or `host:port` into what a parsed URL would hold.
fn own_host(text: &str) -> Option<(String, Option<u16>)> {
    let url = Url::parse(&format!("http://{text}")).ok();
    let host = url.as_ref().and_then(Url::host_str).map(|host| host.trim_end_matches('.').to_owned());
    if host.is_none() {
        tracing::warn!(host = text, "an own host is not a host's name and is left out");
    }
    // The parser leaves out a port that is the scheme's own; `host:80` names that port all the same.
    let port = url.as_ref().and_then(Url::port).or_else(|| text.ends_with(":80").then_some(80));
    Some((host?, port))
}

fn tls(options: &EgressOptions) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (system, _) = roots.add_parsable_certificates(native.certs);
    if system == 0 {
        tracing::warn!("the system trusts no certificate authority; https works only with the operator's own");
    }
    let (extra, refused) = roots.add_parsable_certificates(options.extra_roots.iter().cloned());
    if refused > 0 {
        tracing::warn!(extra, refused, "not all of the operator's certificates can be read");
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("because the provider supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

#[cfg(test)]
mod tests {
    use std::io;

    use async_trait::async_trait;
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Every name leads to this machine.
    struct Here;

    #[async_trait]
    impl Lookup for Here {
        async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        }
    }

    /// Answers every request; gives its port.
    async fn receiver() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("because a port is free");
        let port = listener.local_addr().expect("because it is bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
            }
        });
        port
    }

    async fn code(egress: &Egress, url: &str) -> &'static str {
        match egress.post(url, HeaderMap::new(), Bytes::new()).await {
            Ok(_) => "sent",
            Err(error) => error.code(),
        }
    }

    #[tokio::test]
    async fn no_name_of_an_allowed_network_leads_to_the_own_port() {
        let (own, other) = (receiver().await, receiver().await);
        for bound in ["127.0.0.1", "0.0.0.0", "[::]"] {
            let allow = vec!["127.0.0.0/8".parse().expect("because it is a network")];
            let own_hosts = vec![format!("{bound}:{own}")];
            let egress =
                Egress::with_lookup(EgressOptions { allow, own_hosts, ..EgressOptions::default() }, Arc::new(Here));
            for host in ["localhost", "alias.test", "127.0.0.1", "2130706433"] {
                assert_eq!(code(&egress, &format!("http://{host}:{own}/")).await, "denied:egress", "{bound} {host}");
                assert_eq!(code(&egress, &format!("http://{host}:{other}/")).await, "sent", "{bound} {host}");
            }
        }
    }

    #[test]
    fn what_is_bound_to_no_address_is_at_all_of_this_machine() {
        let guard = Guard { allow: Vec::new(), own: own_host("0.0.0.0:8080").into_iter().collect() };
        let is_own =
            |address: &str, port| guard.is_own_address(address.parse().expect("because it is an address"), port);
        for address in ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::ffff:127.0.0.1"] {
            assert!(is_own(address, Some(8_080)), "{address}");
            assert!(is_own(address, None), "{address}: for every port it is not good");
            assert!(!is_own(address, Some(8_081)), "{address}");
        }
        // No machine has an address that is set aside for documents.
        assert!(!is_own("192.0.2.1", Some(8_080)));
    }
}
