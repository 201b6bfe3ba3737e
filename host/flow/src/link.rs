//! The way to the operator's Redis, which sinks and the bus share: one address, checked once, and one set of habits.
//!
//! Connections speak RESP3 (Redis 6 and later, Valkey), so that the end of one is noticed when it comes and not at the
//! next command. What is written goes out at once: commands are small, and somebody waits for each.

use redis::Client;
use redis::ErrorKind;
use redis::IntoConnectionInfo as _;
use redis::ProtocolVersion;
use redis::RedisError;

/// The address is none that a Redis could be reached at. Says what is wrong, and never repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(String);

/// Reads `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, or `unix:///path`. Connects to nothing.
pub(crate) fn client(url: &str) -> Result<Client, LinkError> {
    let info = url.into_connection_info().map_err(|error| wrong(&error))?;
    let habits = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Client::open(info.set_redis_settings(habits).set_tcp_settings(tcp)).map_err(|error| wrong(&error))
}

/// Whether that is an address. Connects to nothing.
pub fn check(url: &str) -> Result<(), LinkError> {
    client(url).map(drop)
}

fn wrong(error: &RedisError) -> LinkError {
    // The library's own words come without the address; those of others would not have to.
    let reason = match error.kind() {
        ErrorKind::InvalidClientConfig => error.to_string(),
        _ => "it does not read".to_owned(),
    };
    LinkError(format!("that is no address of a Redis, as in redis://localhost:6379 ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_its_password_never_repeated() {
        for url in ["redis://localhost", "rediss://user:secret@redis.example.com:6380/3", "unix:///run/redis.sock"] {
            assert!(client(url).is_ok(), "{url}");
        }
        for url in ["", "localhost:6379", "http://localhost", "redis://:secret@localhost/x", "redis://:secret@"] {
            let error = client(url).expect_err("because it is no address").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
