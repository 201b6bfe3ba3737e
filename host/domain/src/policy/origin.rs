//! Origins: where requests of plugins may go, as grants and the operator's list name them.
//!
//! `api.example.com` is https on its usual port, `api.example.com:8443` https on that one, and only `http://` in front of
//! it allows plain HTTP. Hosts are compared as they are: no patterns, no addresses behind names.

/// A scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// In lower case, without a dot at its end; an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The longest name of a host.
const HOST_MAX: usize = 253;

impl Origin {
    /// Reads what a grant says. None if it is no origin.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tls, authority) = match text.strip_prefix("http://") {
            Some(authority) => (false, authority),
            None => (true, text.strip_prefix("https://").unwrap_or(text)),
        };
        Self::of(tls, authority)
    }

    /// The origin of a request to `authority`, which is a host or a host and a port.
    #[must_use]
    pub fn of(tls: bool, authority: &str) -> Option<Self> {
        // Within brackets there are colons.
        let split = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match split {
            Some(at) => (&authority[..at], Some(&authority[at + 1..])),
            None => (authority, None),
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None if tls => 443,
            None => 80,
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let name = |text: &str| {
            text.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            })
        };
        let fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.len() <= HOST_MAX && name(&host),
        };
        (fits && port > 0).then_some(Self { tls, host, port })
    }

    /// `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// As a grant names it.
    #[must_use]
    pub fn grant(&self) -> String {
        let Self { host, port, .. } = self;
        match (self.tls, *port) {
            (true, 443) => host.clone(),
            (true, _) => format!("{host}:{port}"),
            (false, 80) => format!("http://{host}"),
            (false, _) => format!("http://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_and_written_as_grants_are() {
        for (text, tls, host, port) in [
            ("api.example.com", true, "api.example.com", 443),
            ("API.example.com.", true, "api.example.com", 443),
            ("https://api.example.com:8443", true, "api.example.com", 8443),
            ("http://127.0.0.1:9000", false, "127.0.0.1", 9000),
            ("http://internal", false, "internal", 80),
            ("[::1]:8443", true, "[::1]", 8443),
            ("[2001:DB8::1]", true, "[2001:db8::1]", 443),
        ] {
            let origin = Origin::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((origin.tls, origin.host.as_str(), origin.port), (tls, host, port), "{text}");
            assert_eq!(Origin::parse(&origin.grant()), Some(origin), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_none() {
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "*.example.com",
            "*",
            "user@host",
            "host/path",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "ftp://host",
            "[::1",
            "[nothing]",
            "::1",
            "host\r\n",
            "hößt",
            "http://http://a",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }
}
