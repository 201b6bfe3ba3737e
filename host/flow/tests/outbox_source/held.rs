//! Tenants that are refused for now, and an inbox that takes nothing.

use std::time::Duration;

use bulkhead_domain::policy::quota::Quotas;
use bulkhead_domain::policy::quota::Rate;
use bulkhead_flow::inbox;
use bulkhead_flow::source::Backlog;
use bulkhead_flow::source::State;
use bulkhead_store::catalogue::TenantState;
use tokio_util::sync::CancellationToken;

use crate::fixture::Application;
use crate::fixture::Host;
use crate::fixture::Running;
use crate::fixture::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_refused_keeps_its_rows_and_its_order_and_holds_nobody_up() {
    let (host, application) = (Host::start().await, Application::new());
    let (ann, bob) = (host.tenant("ann").await, host.tenant("bob").await);
    host.switch(&ann, TenantState::Suspended).await;
    // More than a look gives lies before the others' rows, under both of its names.
    for turn in 0..10 {
        application.write(if turn % 2 == 0 { "ann" } else { "ten_ann" }, turn * 30..(turn + 1) * 30);
    }
    application.write("bob", 0..200);
    let mut options = Running::options(&application);
    options.batch = 20;
    let mut source = Running::start(&host, options);
    until("the other's are taken", async || application.waiting() == 300).await;
    source.reading().await;
    assert_eq!(host.numbers(&bob).await, (0..200).collect::<Vec<_>>());
    application.write("bob", 200..210);
    until("more of them are taken", async || host.numbers(&bob).await.len() == 210).await;
    assert!(host.events(&ann).await.is_empty());
    host.switch(&ann, TenantState::Active).await;
    until("the table is empty", async || application.waiting() == 0).await;
    assert_eq!(host.numbers(&ann).await, (0..300).collect::<Vec<_>>());
    assert_eq!(host.numbers(&bob).await, (0..210).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_switched_on_and_off_in_the_middle_keeps_its_order() {
    const ROWS: u32 = 4_000;
    let (host, application) = (Host::start().await, Application::new());
    let (ann, bob) = (host.tenant("ann").await, host.tenant("bob").await);
    application.run(&format!(
        "INSERT INTO bulkhead_outbox (tenant, type, data)
         SELECT tenant, 'test.counted', to_jsonb(n)
         FROM generate_series(0, {ROWS} - 1) n, LATERAL (VALUES ('ann'), ('bob')) t(tenant) ORDER BY n;"
    ));
    let mut options = Running::options(&application);
    options.batch = 10;
    let source = Running::start(&host, options);
    let mut state = TenantState::Suspended;
    until("the table is empty", async || {
        host.switch(&ann, state).await;
        state = if state == TenantState::Active { TenantState::Suspended } else { TenantState::Active };
        host.switch(&ann, state).await;
        let waiting = application.waiting();
        if waiting <= ROWS {
            host.switch(&ann, TenantState::Active).await;
        }
        waiting == 0
    })
    .await;
    for tenant in [&ann, &bob] {
        assert_eq!(host.numbers(tenant).await, (0..ROWS).collect::<Vec<_>>(), "{}", tenant.name);
    }
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_has_used_its_quota_up_waits_alone() {
    let (host, application) = (Host::start().await, Application::new());
    let (ann, bob) = (host.tenant("ann").await, host.tenant("bob").await);
    let rate = Some(Rate { rate: 50, burst: Some(50) });
    let quotas = Quotas { events_per_second: rate, ..Quotas::default() };
    host.store.set_quotas(ann.id, &quotas).await.expect("because the tenant is there");
    application.write("ann", 0..200);
    application.write("bob", 0..1_000);
    let mut options = Running::options(&application);
    options.batch = 50;
    let source = Running::start(&host, options);
    until("the other's are taken", async || host.events(&bob).await.len() == 1_000).await;
    assert!(host.events(&ann).await.len() < 200, "it comes at its own pace");
    until("the table is empty", async || application.waiting() == 0).await;
    assert_eq!(host.numbers(&ann).await, (0..200).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_tenant_that_waits() {
    let (host, application) = (Host::start().await, Application::new());
    let ann = host.tenant("ann").await;
    host.switch(&ann, TenantState::Suspended).await;
    application.write("ann", 0..10);
    let mut source = Running::usual(&host, &application);
    source.reading().await;
    let stopped = tokio::time::timeout(Duration::from_secs(3), source.stop()).await;
    assert!(stopped.is_ok(), "it waits on");
    assert_eq!(application.waiting(), 10, "they are there for the next run");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_is_busy_with_others_is_waited_for_and_order_is_kept() {
    const ROWS: u32 = 200;
    // One request at a time.
    let host = Host::with(inbox::Limits { under_way_bytes: 1, ..inbox::Limits::default() }).await;
    let application = Application::new();
    let (ann, other) = (host.tenant("ann").await, host.tenant("other").await);
    application.write("ann", 0..ROWS);
    let enough = CancellationToken::new();
    let flood = host.flood(&other, &enough);
    let mut source = Running::usual(&host, &application);
    assert_eq!(source.waiting().await, "too many events are on their way into the store");
    enough.cancel();
    for writer in flood {
        writer.await.expect("because the store works");
    }
    source.reading().await;
    until("the table is empty", async || application.waiting() == 0).await;
    assert_eq!(host.numbers(&ann).await, (0..ROWS).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_in_the_status() {
    let (host, application) = (Host::start().await, Application::new());
    let ann = host.tenant("ann").await;
    application.run(
        "INSERT INTO bulkhead_outbox (tenant, type, created_at) VALUES
             ('ann', 'a.b', now() - interval '100 s'), ('ann', 'a.b', 'infinity'), ('ann', 'a.b', NULL);",
    );
    host.switch(&ann, TenantState::Suspended).await;
    let mut source = Running::usual(&host, &application);
    assert_eq!(source.status().backlog, None, "nobody has looked");
    let aged = |backlog: &Backlog| backlog.oldest_seconds.is_some_and(|age| (100..200).contains(&age));
    let seen = |backlog: &Backlog| (backlog.unread, backlog.pending) == (3, 0) && aged(backlog);
    source.until("all wait", |status| status.backlog.as_ref().is_some_and(seen)).await;
    host.switch(&ann, TenantState::Active).await;
    let nothing = Backlog { unread: 0, pending: 0, oldest_seconds: None };
    let ready = source.until("nothing waits", |status| status.backlog == Some(nothing)).await;
    assert_eq!(ready.state, State::Reading);
    source.stop().await;
}
