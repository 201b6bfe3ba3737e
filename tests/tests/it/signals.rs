//! Signals between nodes are hints, and who can write to the Redis can forge them: they make nobody work for a tenant that
//! is not there, and leave nothing behind.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use bulkhead_tests::cluster::Cluster;
use bulkhead_tests::eventually;
use bulkhead_tests::host::event;
use bulkhead_tests::receiver::Receiver;
use serde_json::json;

const SETTLED: Duration = Duration::from_secs(60);
/// As many as a node sends in one message; more is refused unread.
const RECORDS: i64 = 4_096;
const MESSAGES: i64 = 25;
/// What a node may have grown by, all in all: nothing that grows with what was forged.
const GROWTH_MAX: u64 = 64 << 20;

/// A connection to Redis, for commands whose answer is short.
struct Redis(TcpStream);

impl Redis {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("Redis accepts no connection")?;
        stream.set_read_timeout(Some(SETTLED))?;
        Ok(Self(stream))
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<String> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        self.0.write_all(&command)?;
        let mut answer = [0; 1_024];
        let length = self.0.read(&mut answer).context("Redis did not answer")?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// The channel on which nodes speak.
    fn channel(&mut self) -> Result<String> {
        let answer = self.ask(&[b"PUBSUB", b"CHANNELS", b"bulkhead:bus:*"])?;
        let channel = answer.lines().find(|line| line.starts_with("bulkhead:bus:"));
        Ok(channel.with_context(|| format!("nobody listens: {answer}"))?.to_owned())
    }
}

/// A message as nodes send it: version, sender, and records of kind, tenant and shard.
fn message(records: impl Iterator<Item = (u8, i64, u16)>) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(7_u64.to_le_bytes());
    for (kind, tenant, shard) in records {
        bytes.push(kind);
        bytes.extend(tenant.to_le_bytes());
        bytes.extend(shard.to_le_bytes());
    }
    bytes
}

/// Rows of tenants that are not there.
fn strays(cluster: &Cluster) -> Result<String> {
    let tables = ["progress", "lanes", "events", "runs", "unfinished", "state_keys", "deliveries", "timers", "usage"];
    let tenants = tables.map(|table| format!("SELECT tenant FROM {table}")).join(" UNION ALL ");
    let sql = format!("SELECT count(*) FROM ({tenants}) AS found WHERE tenant NOT IN (SELECT id FROM tenants)");
    cluster.ask(&sql)?.pop().context("no count")
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_signals_of_tenants_that_are_not_there_occupy_nothing_and_leave_nothing() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    cluster.balanced(1).await?;
    let host = &cluster.nodes[0].host;
    let receiver = Receiver::start().await?;
    let client = cluster.tenant("acme").await?;
    client.sink("out", json!({"kind": "webhook", "url": receiver.url})).await?;
    client.rule(json!({"name": "all", "on": "order", "steps": [{"deliver": "out"}]})).await?;
    client.publish(&[event("before", "order", json!({}))]).await?;
    eventually("the first delivery", SETTLED, async || Ok((receiver.distinct() == 1).then_some(()))).await?;
    let mut redis = Redis::connect(cluster.redis.port())?;
    let channel = redis.channel()?;
    let resident = host.resident()?;

    for number in 0..MESSAGES {
        // Work, events, settings and deliveries, of tenants with any number, in shards that are there and others.
        let forged = (0..RECORDS).map(|at| {
            let tenant = [number * RECORDS + at + 1_000, -at, i64::MAX - at, i64::MIN + at][(at % 4) as usize];
            ((at / 4 % 4) as u8, tenant, (at % 64) as u16)
        });
        let heard = redis.ask(&[b"PUBLISH", channel.as_bytes(), &message(forged)])?;
        ensure!(heard.starts_with(":1"), "{heard}");
    }
    let began = Instant::now();
    client.publish(&[event("meanwhile", "order", json!({}))]).await?;
    eventually("the delivery meanwhile", SETTLED, async || Ok((receiver.distinct() == 2).then_some(()))).await?;
    println!("an event behind {} forged signals was delivered after {:?}", MESSAGES * RECORDS, began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    eventually("all that was forged to be heard", SETTLED, async || {
        let heard = host.metric("bulkhead_bus_signals_received_total").await?;
        Ok((heard >= (MESSAGES * RECORDS) as f64).then_some(()))
    })
    .await?;
    eventually("nothing to be left of it", SETTLED, async || {
        let left = (host.metric("bulkhead_turns_waiting").await?, host.metric("bulkhead_turns_running").await?);
        if left == (0.0, 0.0) { Ok(Some(())) } else { anyhow::bail!("turns that wait, and are under way: {left:?}") }
    })
    .await?;
    let grown = host.resident()?.saturating_sub(resident);
    println!("the node has grown by {} KiB", grown >> 10);
    assert!(grown < GROWTH_MAX, "it has grown by {grown} bytes");

    assert_eq!(strays(&cluster)?, "0", "nothing is written for tenants that are not there");
    assert_eq!(cluster.ask("SELECT name FROM tenants")?, ["acme"]);
    Ok(())
}
