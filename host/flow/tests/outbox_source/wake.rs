//! How new rows are found.

use std::time::Duration;
use std::time::Instant;

use bulkhead_store::catalogue::Tenant;

use crate::fixture::Application;
use crate::fixture::Host;
use crate::fixture::LISTENERS;
use crate::fixture::Running;
use crate::fixture::until;

/// How long it takes from a commit until the event is durable.
async fn latency(host: &Host, application: &Application, tenant: &Tenant, number: u32) -> Duration {
    application.write("ann", number..number + 1);
    let committed = Instant::now();
    until("it is there", async || host.numbers(tenant).await.contains(&number)).await;
    committed.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_long_before_the_next_look() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    let source = Running::start(&host, Running::listening(&application));
    until("it listens", async || application.run(LISTENERS) == "1").await;
    let mut latencies = Vec::new();
    for number in 0..21 {
        latencies.push(latency(&host, &application, &tenant, number).await);
    }
    latencies.sort_unstable();
    assert!(latencies[10] < Duration::from_millis(100), "{latencies:?}");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_rows_are_found_by_looking() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.run("DROP TRIGGER bulkhead_outbox_notify ON bulkhead_outbox;");
    let mut options = Running::options(&application);
    options.poll = Duration::from_millis(200);
    let source = Running::start(&host, options);
    until("it listens", async || application.run(LISTENERS) == "1").await;
    for number in 0..3 {
        latency(&host, &application, &tenant, number).await;
    }
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_was_cut_off_listens_again() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    let source = Running::start(&host, Running::listening(&application));
    until("it listens", async || application.run(LISTENERS) == "1").await;
    application.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid();",
    );
    // Found by looking, as nobody hears yet.
    latency(&host, &application, &tenant, 0).await;
    until("it listens again", async || application.run(LISTENERS) == "1").await;
    latency(&host, &application, &tenant, 1).await;
    source.stop().await;
}
