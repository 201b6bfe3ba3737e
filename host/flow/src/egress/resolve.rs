//! From a name to addresses that may be reached.
//!
//! The guard sits inside the client's connector: what it lets through is what the client connects to, so a name server
//! that answers differently a moment later (rebinding) changes nothing.
//!
//! Names are asked for over the system's name servers by hickory, not by the C library: its lookups take a thread each
//! that cannot be called back, and a tenant whose name server answers slowly would soon hold them all. Names are taken
//! as absolute: no search list of this host's network applies to a name that a tenant wrote. The hosts file does.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;

use crate::egress::EgressError;
use crate::egress::Guard;
use crate::egress::PORT;

/// Finds the addresses of a name. The tests bring their own.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of an absolute name.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// One query to one name server; with two attempts it fits into the time for connecting.
const QUERY_TIMEOUT: Duration = Duration::from_millis(900);
/// An address is used no longer than this, whatever its owner says.
const TTL_MAX: Duration = Duration::from_secs(300);

/// Asks the system's name servers.
pub(super) struct SystemLookup(Option<TokioResolver>);

impl SystemLookup {
    pub(super) fn open() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = QUERY_TIMEOUT;
            options.attempts = 2;
            options.positive_max_ttl = Some(TTL_MAX);
            options.negative_max_ttl = Some(TTL_MAX);
            builder.build()
        });
        match built {
            Ok(resolver) => Self(Some(resolver)),
            Err(error) => {
                tracing::warn!(%error, "there is no usable name server; only addresses can be reached");
                Self(None)
            }
        }
    }
}

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let resolver = self.0.as_ref().ok_or_else(|| io::Error::other("there is no name server"))?;
        let absolute = format!("{}.", name.trim_end_matches('.'));
        let found = resolver.lookup_ip(absolute).await.map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }
}

/// The client's resolver: a lookup, and of what it finds only what the guard lets through.
pub(super) struct GuardedLookup {
    pub(super) guard: Arc<Guard>,
    pub(super) lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedLookup {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, lookup) = (Arc::clone(&self.guard), Arc::clone(&self.lookup));
        // Read here, where the request itself asks; without it, the answer has to be good for every port.
        let port = PORT.try_with(|port| *port).ok();
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await.map_err(|source| EgressError::Name { source })?;
            if found.is_empty() {
                return Err(EgressError::Name { source: io::Error::other("no addresses") }.into());
            }
            let allowed: Vec<_> = found.into_iter().filter(|address| guard.admits(*address, port).is_ok()).collect();
            if allowed.is_empty() {
                // Without the addresses: what this network calls its machines is not the tenant's business.
                let reason = format!("`{}` has no address that may be reached", name.as_str());
                return Err(EgressError::Denied { reason }.into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
