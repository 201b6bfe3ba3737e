//! Tenants at their limits: what they have waits, loses nothing, and holds nobody else up.

use bulkhead_domain::policy::quota::Quota;
use bulkhead_domain::policy::quota::Quotas;
use bulkhead_flow::quota::Hold;
use bulkhead_store::work::RunState;
use serde_json::json;

use crate::fixture::Host;

const RULE: &str = "{name: check, on: [steps], order: key, steps: [{handle: {plugin: checker}}]}";

#[tokio::test(flavor = "multi_thread")]
async fn without_fuel_a_tenant_waits_until_it_is_paid_or_the_quota_is_raised() {
    let host = Host::start().await;
    let (poor, rich) = (host.tenant("poor").await, host.tenant("rich").await);
    for tenant in [&poor, &rich] {
        host.plugin(tenant, "checker", &json!({})).await;
        host.rules(tenant, RULE).await;
    }
    // Less than one call uses.
    let poor = host.allow(&poor, Quotas { fuel_per_minute: Some(1), ..Quotas::default() }).await;
    host.publish(&poor, "steps", "1", None, &json!({"key": "k", "seq": 1})).await;
    host.settled(&poor, 1).await;
    let line = host.flow.limiter.lines(&poor)[0];
    assert_eq!((line.quota, line.hold), (Quota::Fuel, Hold::Stopped));
    assert!(line.retry_after.is_some_and(|wait| !wait.is_zero()) && line.since.is_some(), "{line:?}");
    host.publish(&poor, "steps", "2", None, &json!({"key": "k", "seq": 2})).await;
    host.publish(&rich, "steps", "1", None, &json!({"key": "k", "seq": 1})).await;
    host.settled(&rich, 1).await;
    host.until("only the poor one's turn waits", async || host.flow.dispatch.depth() == (1, 0)).await;
    assert_eq!(host.runs(&poor, Some(RunState::Done)).await.len(), 1);
    // As another node would: nobody tells this one.
    host.allow(&poor, Quotas { fuel_per_minute: Some(1 << 40), ..Quotas::default() }).await;
    host.settled(&poor, 2).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_batches_are_at_work_than_the_quota_allows_and_all_are_done() {
    let host = Host::start().await;
    let tenant = host.tenant("acme").await;
    host.plugin(&tenant, "checker", &json!({})).await;
    host.rules(&tenant, RULE).await;
    let tenant = host.allow(&tenant, Quotas { concurrency: Some(1), ..Quotas::default() }).await;
    host.flow.limiter.know(&tenant);
    host.scatter(&tenant, "steps", 50).await;
    host.until("all are done, one shard at a time", async || {
        assert!(host.flow.dispatch.depth().1 <= 1);
        host.runs(&tenant, Some(RunState::Done)).await.len() == 50
    })
    .await;
    host.stop().await;
}
