//! Port: a number on the loopback interface that a server can have, and have again after a restart.

use std::fs;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::Ipv4Addr;
use std::net::TcpListener;

use anyhow::Result;
use anyhow::bail;

/// Where the search begins; below lie the ports of well-known services.
const LOWEST: u16 = 15_000;

/// Where systems that do not say otherwise begin to number outgoing connections.
const USUAL_EPHEMERAL: u16 = 32_768;

/// A port that nobody listens on. It lies below those that the system gives to outgoing connections, so none of these
/// takes it while its server is down.
pub(crate) fn free() -> Result<u16> {
    let end = ephemeral().filter(|end| *end > LOWEST + 1_000).unwrap_or(USUAL_EPHEMERAL);
    let random = RandomState::new();
    for attempt in 0..200_u32 {
        let offset = random.hash_one(attempt) % u64::from(end - LOWEST);
        let port = LOWEST + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {LOWEST} and {end} is free on 127.0.0.1")
}

fn ephemeral() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}
