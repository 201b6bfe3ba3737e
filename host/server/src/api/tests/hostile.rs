//! What a hostile tenant tries.

use axum::http::StatusCode;
use bulkhead_store::catalogue::TenantState;

use super::Host;

#[tokio::test]
async fn a_request_that_was_let_in_before_a_suspension_does_not_undo_it() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    // The key is remembered from here on; to whoever knows it, the tenant is not suspended yet.
    user.get("/v1/rules").await;
    let store = &host.api.store;
    store.set_tenant_state(user.tenant.id, TenantState::Suspended).await.expect("because the store works");
    for path in ["/v1/resume", "/v1/pause"] {
        let answer = user.call("POST", path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "tenant-suspended"));
        let tenant = store.tenant(user.tenant.id).await.expect("because the store works");
        assert_eq!(tenant.expect("because it is there").state, TenantState::Suspended);
    }
}
