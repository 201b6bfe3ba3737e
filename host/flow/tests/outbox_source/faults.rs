//! What may happen on the way: nothing is lost, and nothing comes twice.

use std::time::Duration;

use bulkhead_services::Postgres;
use bulkhead_services::Proxy;
use bulkhead_services::shared;

use crate::fixture::Application;
use crate::fixture::Host;
use crate::fixture::Running;
use crate::fixture::at;
use crate::fixture::until;

/// The port that an address of this machine names.
fn port(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').expect("because a port is named");
    let (port, _) = rest.split_once('/').expect("because a database is named");
    port.parse().expect("because it is a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deleted_is_taken_in_once() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.run("REVOKE DELETE ON bulkhead_outbox FROM bulkhead_host;");
    application.write("ann", 0..1_000);
    let mut source = Running::usual(&host, &application);
    let reason = source.waiting().await;
    assert!(reason.contains("permission denied for table bulkhead_outbox"), "{reason}");
    assert!(reason.contains("deploy/outbox.sql shows what must be granted"), "{reason}");
    assert_eq!(host.numbers(&tenant).await, (0..500).collect::<Vec<_>>(), "the batch is durable");
    // Whoever takes over, and the same one again and again.
    source.die().await;
    let mut source = Running::usual(&host, &application);
    source.waiting().await;
    assert_eq!(application.waiting(), 1_000);
    application.run("GRANT DELETE ON bulkhead_outbox TO bulkhead_host;");
    until("the table is empty", async || application.waiting() == 0).await;
    source.reading().await;
    assert_eq!(host.numbers(&tenant).await, (0..1_000).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_in_the_middle_lose_and_double_nothing() {
    const ROWS: u32 = 10_000;
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.write("ann", 0..ROWS);
    let proxy = Proxy::start(port(application.drain_url())).expect("because ports are free");
    let mut options = Running::options(&application);
    options.url = at(application.drain_url(), proxy.port()).into();
    options.batch = 50;
    let source = Running::start(&host, options);
    let (mut breaks, mut next) = (0, ROWS);
    until("the table is empty", async || {
        let waiting = application.waiting();
        if waiting < next {
            proxy.drop_all();
            (breaks, next) = (breaks + 1, waiting.saturating_sub(100));
        }
        waiting == 0
    })
    .await;
    assert!(breaks > 3, "it was over too soon");
    assert_eq!(host.numbers(&tenant).await, (0..ROWS).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_die_and_sources_that_run_beside_each_other_lose_and_double_nothing() {
    const ROWS: u32 = 5_000;
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.write("ann", 0..ROWS);
    let start = || {
        let mut options = Running::options(&application);
        options.batch = 20;
        Running::start(&host, options)
    };
    let stays = start();
    until("the table is empty", async || {
        let mut dies = start();
        dies.reading().await;
        tokio::task::yield_now().await;
        dies.die().await;
        application.waiting() == 0
    })
    .await;
    let mut numbers = host.numbers(&tenant).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>());
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_waited_for() {
    let server = Postgres::start(shared::postgres_options()).expect("because Postgres is installed");
    let application = Application::on(server.database().expect("because it answers"));
    let host = Host::start().await;
    let tenant = host.tenant("ann").await;
    let mut source = Running::start(&host, Running::listening(&application));
    source.reading().await;
    application.write("ann", 0..100);
    until("they are taken", async || host.numbers(&tenant).await.len() == 100).await;
    server.kill().expect("because it runs");
    let reason = source.waiting().await;
    assert!(reason.starts_with(&format!("outbox: Postgres at 127.0.0.1:{}", server.port())), "{reason}");
    assert!(!reason.contains("postgres://"), "{reason}");
    server.start_again().expect("because the folder is whole");
    source.reading().await;
    application.write("ann", 100..200);
    until("the table is empty", async || application.waiting() == 0).await;
    assert_eq!(host.numbers(&tenant).await, (0..200).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_yet_is_waited_for() {
    let host = Host::start().await;
    let tenant = host.tenant("ann").await;
    let database = shared::postgres().and_then(|server| server.database()).expect("because Postgres is installed");
    let application = Application::bare(database);
    let mut source = Running::usual(&host, &application);
    let reason = source.waiting().await;
    assert!(reason.contains("relation \"bulkhead_outbox\" does not exist; deploy/outbox.sql makes it"), "{reason}");
    application.furnish();
    source.reading().await;
    application.write("ann", 0..10);
    until("they are taken", async || host.numbers(&tenant).await.len() == 10).await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_shown_the_password() {
    let host = Host::start().await;
    let application = Application::new();
    let secret = "very-secret-password";
    let mut options = Running::options(&application);
    options.url = format!("postgres://bulkhead_host:{secret}@127.0.0.1:1/nowhere").into();
    assert!(!format!("{options:?}").contains(secret));
    let mut source = Running::start(&host, options.clone());
    let reason = source.waiting().await;
    assert!(reason.contains("127.0.0.1:1 cannot be reached") && !reason.contains(secret), "{reason}");
    let stopped = tokio::time::timeout(Duration::from_secs(10), source.stop()).await;
    assert!(stopped.is_ok(), "it waits on");
    options.url = format!("postgres://bulkhead_host:{secret}@127.0.0.1:port/nowhere").into();
    let error = bulkhead_flow::source::outbox::OutboxSource::new(options, host.store.clone(), host.inbox.clone());
    let error = error.err().expect("because a port is a number");
    assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
}
