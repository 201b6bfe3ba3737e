//! `kill -9` of the real process at random moments under load: nothing acknowledged is lost, nothing is applied twice.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use bulkhead_tests::eventually;
use bulkhead_tests::host::Host;
use bulkhead_tests::ledger::Ledger;
use bulkhead_tests::nightly;
use bulkhead_tests::receiver::Receiver;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Keys, and events of each key in one batch.
const KEYS: usize = 20;
const EACH: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_any_moment_loses_nothing_and_repeats_nothing() -> Result<()> {
    let kills = if nightly() { 100 } else { 10 };
    let seed = std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (set BULKHEAD_SEED to repeat)");
    let mut random = StdRng::seed_from_u64(seed);

    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    Ledger::prepare(&client, &receiver).await?;

    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let mut ledger = Ledger::default();
    let (mut recoveries, mut while_recovering) = (Vec::new(), 0);
    let mut batch = ledger.next(&keys, EACH);
    for _ in 0..kills {
        // The kill falls anywhere on the way of an event, also while a request waits for its answer: what becomes of that
        // one the publisher cannot know, so it is sent again.
        let moment = Duration::from_millis(random.random_range(20..600));
        let load = async {
            while ledger.offer(&client, &batch).await {
                batch = ledger.next(&keys, EACH);
            }
        };
        let kill = async {
            tokio::time::sleep(moment).await;
            host.kill().await
        };
        let ((), killed) = tokio::join!(load, kill);
        killed?;
        let down = Instant::now();
        host.restart().await?;
        // Recovery is a moment like any other.
        if random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
            host.kill().await?;
            host.restart().await?;
            while_recovering += 1;
        }
        client = client.at(&host);
        eventually("the first acknowledgement after a kill", Duration::from_secs(30), async || {
            Ok(ledger.offer(&client, &batch).await.then_some(()))
        })
        .await?;
        batch = ledger.next(&keys, EACH);
        recoveries.push(down.elapsed());
    }

    let findings = ledger.compare(&client, &receiver, Duration::from_secs(120)).await?;
    recoveries.sort();
    println!(
        "kills {kills} and {while_recovering} while recovering, offered {}, acknowledged {}, duplicates reported {}, requests failed {}",
        ledger.offered, findings.acked, ledger.duplicates, ledger.failed_requests
    );
    println!(
        "counted {}, followed up {}, delivered {} (and {} repeats under the same id)",
        findings.counted, findings.followed, findings.arrived, findings.repeats
    );
    println!(
        "kill to first acknowledgement: median {:?}, longest {:?}",
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1]
    );
    assert!(findings.violations.is_empty(), "seed {seed}: {:#?}", findings.violations);
    assert!(findings.acked > u64::try_from(kills)? * 100, "a run in which everything failed proves nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_drains_and_ends_with_0() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start().await?;
    let mut host = Host::start(folder.path()).await?;
    let mut client = host.tenant("acme").await?;
    Ledger::prepare(&client, &receiver).await?;
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
    let mut ledger = Ledger::default();
    for _ in 0..20 {
        let batch = ledger.next(&keys, EACH);
        assert!(ledger.offer(&client, &batch).await);
    }
    assert_eq!(host.terminate().await?, Some(0));
    host.restart().await?;
    client = client.at(&host);
    let findings = ledger.compare(&client, &receiver, Duration::from_secs(60)).await?;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
    Ok(())
}
