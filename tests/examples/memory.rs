//! Memory of an idle host, and of each idle tenant.
//!
//! ```text
//! memory [SECONDS [TENANTS]]        SECONDS is not used; TENANTS is 2,000
//! ```
//!
//! Resident memory is read when it stands still: after the start, after so many tenants were made (each with a key, a
//! plugin and a rule), after each has worked off an event, and after a restart with all of them. The first two show
//! tenants that were busy a moment ago (their rules and settings are kept in memory for some minutes), the last one
//! tenants that are idle.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Client;
use bulkhead_tests::host::Host;
use bulkhead_tests::host::event;
use serde_json::json;

/// The marks.
const HOST_MAX: u64 = 100 << 20;
const TENANT_MAX: u64 = 16 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let tenants: u64 = std::env::args().nth(2).map_or(Ok(2_000), |text| text.parse())?;
    let folder = tempfile::tempdir_in(if Path::new("target").is_dir() { "target" } else { "." })?;
    let mut host = Host::start(folder.path()).await?;
    let empty = settled(&host).await?;
    println!("idle host: {:.1} MiB", mib(empty));

    let began = Instant::now();
    // One tenant first: what the first plugin costs (its machine code) is not a tenant's.
    let mut clients = vec![tenant(&host, 0).await?];
    worked(&clients, "first").await?;
    let one = settled(&host).await?;
    println!("with one tenant that has worked: {:.1} MiB", mib(one));
    for number in 1..tenants / 2 {
        clients.push(tenant(&host, number).await?);
    }
    let half = settled(&host).await?;
    for number in tenants / 2..tenants {
        clients.push(tenant(&host, number).await?);
    }
    println!("{tenants} tenants with a key, a plugin and a rule each, made in {:.0} s", began.elapsed().as_secs_f64());
    let made = settled(&host).await?;
    report("made, and never used", one, made, tenants);
    // Caches of a fixed size fill with the first ones; the second half shows what a tenant adds by itself.
    report("  of these the second half", half, made, tenants - tenants / 2);
    worked(&clients, "second").await?;
    let used = settled(&host).await?;
    report("having worked once", one, used, tenants);

    host.terminate().await?;
    host.restart().await?;
    let restarted = settled(&host).await?;
    report("after a restart", empty, restarted, tenants);
    let verdict = |met: bool| if met { "met" } else { "missed" };
    println!("\nmarks: idle host below 100 MiB: {}", verdict(empty < HOST_MAX));
    println!("       idle tenant below 16 KiB: {}", verdict(each(empty, restarted, tenants) < TENANT_MAX));
    println!("       a tenant of the last minutes, beyond that: {:.1} KiB", kib(each(one, used, tenants)));
    Ok(())
}

async fn tenant(host: &Host, number: u64) -> Result<Client> {
    let client = host.tenant(&format!("tenant-{number}")).await?;
    client.push("bench-standard").await?;
    client.rule(json!({"name": "bench", "on": "orders.created", "steps": [{"handle": "bench-standard"}]})).await?;
    Ok(client)
}

/// One event through each tenant.
async fn worked(clients: &[Client], id: &str) -> Result<()> {
    for client in clients {
        client.publish(&[event(id, "orders.created", json!({"id": id, "total": 1.0, "channel": "web"}))]).await?;
    }
    for client in clients {
        client.run_in(id, "bench", "done").await?;
    }
    Ok(())
}

/// Resident memory once it has changed by less than 1 % for two seconds.
async fn settled(host: &Host) -> Result<u64> {
    let (mut last, mut since) = (host.resident()?, Instant::now());
    eventually("memory to stand still", Duration::from_secs(60), async || {
        let now = host.resident()?;
        if now.abs_diff(last) > last / 100 {
            (last, since) = (now, Instant::now());
            bail!("it is at {now}");
        }
        Ok((since.elapsed() > Duration::from_secs(2)).then_some(now))
    })
    .await
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn each(before: u64, after: u64, tenants: u64) -> u64 {
    after.saturating_sub(before) / tenants.max(1)
}

fn report(what: &str, before: u64, after: u64, tenants: u64) {
    println!("{what}: {:.1} MiB, {:.1} KiB for each tenant", mib(after), kib(each(before, after, tenants)));
}
