//! Consent, ceilings and the history of versions, as keys of several kinds see them.

use bulkhead_domain::policy::proof::Counts;
use bulkhead_domain::policy::proof::Preview;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_domain::policy::proof::RequirePreview;
use bulkhead_store::catalogue::NewVersion;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use super::Host;
use super::User;
use super::column;

/// A version that asks for so much; what it does is not the question here.
async fn version(host: &Host, user: &User<'_>, digest: &str, grants: Value) {
    let new = NewVersion {
        room: bulkhead_store::catalogue::Room::default(),
        digest: format!("sha256:{digest}"),
        wasm: Bytes::from(digest.to_owned()),
        manifest: "{}".to_owned(),
        inspection: "{}".to_owned(),
        grants: grants.to_string(),
        author: "key".to_owned(),
        approves: false,
        signature: None,
    };
    host.api.store.add_version(user.tenant.id, "p", &new, host.api.now()).await.expect("because the store works");
}

#[tokio::test]
async fn what_asks_for_more_waits_until_somebody_who_may_agrees() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let limited = host.user(user.tenant.clone(), &["read", "plugins"]).await;
    version(&host, &user, "1", json!({})).await;
    version(&host, &user, "2", json!({"emit": ["orders.*"], "schedule": true})).await;
    limited.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    assert_eq!(user.get("/v1/plugins/p/versions/2").await["state"], "needs-consent");
    for (path, body) in [
        ("/v1/plugins/p/activate", json!({"version": 2})),
        ("/v1/plugins/p/rollback", json!({"version": 2})),
        ("/v1/plugins/p/canary", json!({"version": 2, "percent": 5})),
        ("/v1/plugins/p/shadow", json!({"version": 2})),
        ("/v1/plugins/p/preview", json!({"version": 2})),
        ("/v1/plugins/p/preview", json!({"version": 1, "against": 2})),
    ] {
        let answer = limited.call("POST", path, &[], body.to_string()).await;
        let problem = answer.json();
        assert_eq!((answer.status.as_u16(), &problem["code"]), (403, &json!("consent-needed")), "{path}: {problem}");
    }
    let answer = limited.call("POST", "/v1/plugins/p/versions/2/approve", &[], String::new()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("scope-missing")));
    let approved = user.post("/v1/plugins/p/versions/2/approve", json!({})).await;
    assert_eq!((approved["state"].as_str(), approved["approval"]["by"].is_string()), (Some("ready"), true));
    assert_eq!(limited.post("/v1/plugins/p/activate", json!({"version": 2})).await["active"], 2);
    // The way back and forth again is free: both were active.
    assert_eq!(limited.post("/v1/plugins/p/rollback", json!({})).await["active"], 1);
    assert_eq!(limited.post("/v1/plugins/p/rollback", json!({"version": 2})).await["active"], 2);
    let history = user.get("/v1/plugins/p/history").await;
    assert_eq!(column(&history, "action"), ["rolled-back", "rolled-back", "activated", "approved", "activated"]);
    let page = user.get("/v1/plugins/p/history?limit=2").await;
    let next = page["next"].as_str().expect("because there are more");
    let page = user.get(&format!("/v1/plugins/p/history?limit=2&after={next}")).await;
    assert_eq!(column(&page, "action"), ["activated", "approved"]);
}

#[tokio::test]
async fn a_preview_runs_what_may_run_for_whoever_may_read() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let limited = host.user(user.tenant.clone(), &["plugins"]).await;
    for digest in ["1", "2"] {
        version(&host, &user, digest, json!({})).await;
    }
    version(&host, &user, "3", json!({"secrets": ["token"]})).await;
    user.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    let preview = async |user: &User<'_>, body: Value| {
        let answer = user.call("POST", "/v1/plugins/p/preview", &[], body.to_string()).await;
        (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(preview(&limited, json!({"version": 2})).await, (403, "scope-missing".to_owned()), "it shows events");
    let reader = host.user(user.tenant.clone(), &["plugins", "read"]).await;
    assert_eq!(preview(&reader, json!({"version": 2})).await.0, 200);
    assert_eq!(preview(&reader, json!({"version": 3})).await, (403, "consent-needed".to_owned()));
    // Whoever may agree may see what it does before; that is no agreement for others.
    assert_eq!(preview(&user, json!({"version": 3})).await.0, 200);
    assert_eq!(preview(&reader, json!({"version": 3})).await, (403, "consent-needed".to_owned()));
    user.post("/v1/plugins/p/versions/3/approve", json!({})).await;
    assert_eq!(preview(&reader, json!({"version": 3})).await.0, 200);
    for number in [2, 3] {
        let body = json!({"version": number}).to_string();
        assert_eq!(user.call("POST", "/v1/plugins/p/retire", &[], body).await.status.as_u16(), 204);
    }
    assert_eq!(preview(&user, json!({"version": 2})).await, (409, "conflict".to_owned()));
    assert_eq!(preview(&user, json!({"version": 1, "against": 3})).await, (409, "conflict".to_owned()));
}

#[tokio::test]
async fn a_canary_does_not_outlive_the_consent_that_let_it() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let limited = host.user(user.tenant.clone(), &["read", "plugins"]).await;
    let grants = json!({"emit": ["x.y"]});
    for (digest, grants) in [("1", &json!({})), ("2", &grants), ("3", &grants)] {
        version(&host, &user, digest, grants.clone()).await;
    }
    for number in [1, 2] {
        user.post("/v1/plugins/p/activate", json!({"version": number})).await;
    }
    let call = async |path: &str, body: Value| {
        let answer = limited.call("POST", path, &[], body.to_string()).await;
        (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let canary = json!({"version": 3, "percent": 5});
    assert_eq!(call("/v1/plugins/p/canary", canary.clone()).await.0, 201, "it asks for no more");
    user.post("/v1/plugins/p/rollback", json!({})).await;
    assert_eq!(call("/v1/plugins/p/activate", json!({"version": 3})).await, (403, "consent-needed".to_owned()));
    assert_eq!(call("/v1/plugins/p/canary/promote", json!({})).await.0, 404, "it has ended");
    assert_eq!(call("/v1/plugins/p/canary", canary).await, (403, "consent-needed".to_owned()));
    let history = user.get("/v1/plugins/p/history?limit=1").await;
    let ended = &history["items"][0];
    assert_eq!((&ended["action"], &ended["detail"]["reason"]), (&json!("canary-ended"), &json!("asks-for-more")));
    assert_eq!(user.get("/v1/plugins/p").await["active"], 1);
}

#[tokio::test]
async fn who_is_bound_by_a_policy_cannot_lift_it() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let limited = host.user(user.tenant.clone(), &["read", "plugins"]).await;
    version(&host, &user, "1", json!({})).await;
    let put = async |user: &User<'_>, asked: Value| {
        let body = json!({ "require_preview": asked }).to_string();
        let answer = user.call("PUT", "/v1/plugins/p/policy", &[], body).await;
        (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(put(&limited, json!({"min_runs": 10})).await.0, 200);
    assert_eq!(put(&limited, json!({"min_runs": 20, "within_hours": 1})).await.0, 200, "that is more");
    for weaker in [Value::Null, json!({"min_runs": 1, "within_hours": 1}), json!({"min_runs": 20})] {
        assert_eq!(put(&limited, weaker.clone()).await, (403, "scope-missing".to_owned()), "{weaker}");
    }
    assert_eq!(put(&user, Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_tenants_ceiling_cuts_what_its_plugins_are_granted() {
    let host = Host::start().await;
    let (user, operator) = (host.tenant("acme").await, host.operator().await);
    version(&host, &user, "1", json!({"emit": ["orders.**"], "http": ["x.example"], "schedule": true})).await;
    let whole = user.get("/v1/plugins/p/versions/1").await;
    assert_eq!((&whole["effective"], &whole["cut"]), (&whole["grants"], &Value::Null));
    let path = "/admin/v1/tenants/acme/grants";
    let ceiling = json!({"emit": ["orders.flagged"], "http": []});
    let put = operator.call("PUT", path, &[], ceiling.to_string()).await;
    assert_eq!((put.status.as_u16(), &put.json()["tenant"]), (200, &ceiling));
    let cut = user.get("/v1/plugins/p/versions/1").await;
    assert_eq!(cut["effective"], json!({"emit": ["orders.flagged"], "schedule": true}));
    let expected = json!([{"grant": "emit orders.**", "by": "tenant"}, {"grant": "http x.example", "by": "tenant"}]);
    assert_eq!(cut["cut"], expected);
    let wrong = operator.call("PUT", path, &[], json!({"emit": ["a..b"]}).to_string()).await;
    assert_eq!(wrong.status.as_u16(), 422);
    assert_eq!(user.call("PUT", path, &[], ceiling.to_string()).await.status.as_u16(), 403);
}

#[tokio::test]
async fn candidates_say_what_is_wrong_with_them() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    for digest in ["1", "2"] {
        version(&host, &user, digest, json!({})).await;
    }
    let start =
        async |body: Value| user.call("POST", "/v1/plugins/p/canary", &[], body.to_string()).await.status.as_u16();
    assert_eq!(start(json!({"version": 2, "percent": 5})).await, 409, "nothing is active");
    user.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    for wrong in [
        json!({"version": 2}),
        json!({"version": 2, "percent": 0}),
        json!({"version": 2, "percent": 100.5}),
        json!({"version": 2, "percent": 5, "key_hash": [0, 5]}),
        json!({"version": 2, "key_hash": [5, 5]}),
        json!({"version": 2, "percent": 5, "max_failure_rate": 1.5}),
        json!({"version": 2, "percent": 5, "max_fuel_ratio": 0}),
        json!({"version": 2, "percent": 5, "min_runs": 0}),
    ] {
        assert_eq!(start(wrong.clone()).await, 422, "{wrong}");
    }
    assert_eq!(start(json!({"version": 9, "percent": 5})).await, 404);
    assert_eq!(start(json!({"version": 2, "key_hash": [10, 20.5], "max_fuel_ratio": 1.5})).await, 201);
    assert_eq!(start(json!({"version": 2, "percent": 5})).await, 409, "one is under way");
    let shown = user.get("/v1/plugins/p").await;
    let candidate = &shown["candidates"][0];
    assert_eq!((&candidate["kind"], &candidate["key_hash"]), (&json!("canary"), &json!([10.0, 20.5])));
    assert_eq!(candidate["guard"]["max_fuel_ratio"], 1.5);
    assert_eq!(shown["versions"][0]["state"], "canary");
    let answer = user.call("DELETE", "/v1/plugins/p/canary", &[], String::new()).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(user.call("DELETE", "/v1/plugins/p/canary", &[], String::new()).await.status.as_u16(), 404);
    let history = user.get("/v1/plugins/p/history").await;
    assert_eq!(column(&history, "action"), ["canary-ended", "canary-started", "activated"]);
}

#[tokio::test]
async fn versions_come_in_pages_without_their_manifests_and_have_a_bound() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    for digest in ["1", "2", "3", "4", "5"] {
        version(&host, &user, digest, json!({"emit": ["orders.*"]})).await;
    }
    user.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    let numbers = |shown: &Value| -> Vec<u64> {
        let versions = shown["versions"].as_array().expect("because there are some");
        versions.iter().filter_map(|version| version["version"].as_u64()).collect()
    };
    let shown = user.get("/v1/plugins/p?limit=2").await;
    assert_eq!((&shown["active"], &shown["digest"]), (&json!(1), &json!("sha256:1")), "{shown}");
    assert_eq!((numbers(&shown), &shown["versions"][0]["state"]), (vec![5, 4], &json!("ready")));
    for heavy in ["manifest", "inspection"] {
        assert!(shown["versions"][0].get(heavy).is_none(), "{shown}");
    }
    let next = |shown: &Value| format!("/v1/plugins/p?limit=2&after={}", shown["next"].as_str().unwrap_or_default());
    let second = user.get(&next(&shown)).await;
    assert_eq!(numbers(&second), [3, 2]);
    let last = user.get(&next(&second)).await;
    assert_eq!((&last["next"], &last["versions"][0]["state"]), (&Value::Null, &json!("active")), "{last}");
    assert_eq!(numbers(&last), [1]);

    let text = [("content-type", "text/javascript")];
    let paste = async || user.call("POST", "/v1/plugins/p/source", &text, "function handle() {}".to_owned()).await;
    let full = paste().await;
    let problem = full.json();
    assert_eq!((full.status.as_u16(), &problem["code"]), (409, &json!("conflict")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("plugin retire p")), "{problem}");
    let retired = user.call("POST", "/v1/plugins/p/retire", &[], json!({"version": 2}).to_string()).await;
    assert_eq!(retired.status.as_u16(), 204);
    assert_eq!(paste().await.status.as_u16(), 201);
}

/// A preview of version 2 against version 1 that compared so many runs.
async fn previewed(host: &Host, user: &User<'_>, runs: u64) {
    let counts = Counts { runs, ..Counts::default() };
    let preview = Preview { version: 2, against: Some(1), author: "key".to_owned(), at: host.api.now(), counts };
    host.api.store.add_preview(user.tenant.id, "p", &preview).await.expect("because the plugin is there");
}

#[tokio::test]
async fn what_the_operator_asks_no_tenant_can_lift() {
    let host = Host::start().await;
    let (user, operator) = (host.tenant("acme").await, host.operator().await);
    for digest in ["1", "2"] {
        version(&host, &user, digest, json!({})).await;
    }
    user.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    let path = "/admin/v1/tenants/acme/policy";
    assert_eq!(user.call("PUT", path, &[], "{\"require_preview\": null}").await.code(), "operator-only");
    let wrong = operator.call("PUT", path, &[], json!({"require_preview": {"min_runs": 0}}).to_string()).await;
    assert_eq!(wrong.code(), "field-invalid");
    let asked = operator.call("PUT", path, &[], json!({"require_preview": {"min_runs": 10}}).to_string()).await;
    assert_eq!((asked.status.as_u16(), &asked.json()["host"]), (200, &json!({"require_preview": null})));
    assert_eq!(operator.get(path).await["tenant"]["require_preview"]["min_runs"], 10);
    let lifted = user.call("PUT", "/v1/plugins/p/policy", &[], json!({"require_preview": {"min_runs": 5}}).to_string());
    let shown = lifted.await.json();
    let runs = |of: &str| shown[of]["min_runs"].clone();
    assert_eq!(
        [runs("require_preview"), runs("tenant"), runs("effective")],
        [json!(5), json!(10), json!(10)],
        "{shown}"
    );
    assert_eq!(shown["host"], Value::Null);
    let activate = async || {
        let answer = user.call("POST", "/v1/plugins/p/activate", &[], json!({"version": 2}).to_string()).await;
        (answer.status.as_u16(), answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    previewed(&host, &user, 9).await;
    let (status, detail) = activate().await;
    assert!(status == 409 && detail.contains("compared 9 runs, and 10 are needed"), "{detail}");
    previewed(&host, &user, 10).await;
    assert_eq!(activate().await.0, 200);
}

#[tokio::test]
async fn what_a_host_asks_it_asks_of_every_tenant() {
    let wanted = RequirePreview { min_runs: 3, ..RequirePreview::default() };
    let host = Host::asking(ReleasePolicy { require_preview: Some(wanted) }).await;
    let user = host.tenant("acme").await;
    for digest in ["1", "2"] {
        version(&host, &user, digest, json!({})).await;
    }
    let call = async |path: &str, body: Value| {
        let answer = user.call("POST", path, &[], body.to_string()).await;
        (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let lacks = (409, "preview-required".to_owned());
    assert_eq!(call("/v1/plugins/p/activate", json!({"version": 1})).await, lacks, "the first one, too");
    let counts = Counts { runs: 3, ..Counts::default() };
    let first = Preview { version: 1, against: None, author: "key".to_owned(), at: host.api.now(), counts };
    host.api.store.add_preview(user.tenant.id, "p", &first).await.expect("because the plugin is there");
    assert_eq!(call("/v1/plugins/p/activate", json!({"version": 1})).await.0, 200);
    assert_eq!(call("/v1/plugins/p/canary", json!({"version": 2, "percent": 5})).await, lacks);
    let shown = user.get("/v1/plugins/p/policy").await;
    assert_eq!((&shown["host"]["min_runs"], &shown["effective"]["min_runs"]), (&json!(3), &json!(3)));
    assert_eq!((&shown["require_preview"], &shown["tenant"]), (&Value::Null, &Value::Null));
    // Approving is about rights; what else is missing is said with it.
    let approved = user.post("/v1/plugins/p/versions/2/approve", json!({})).await;
    let hint = approved["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("needs a preview") && hint.contains("bulkhead plugin preview p 2"), "{approved}");
    assert!(approved["approval"]["by"].is_string());
    previewed(&host, &user, 3).await;
    let again = user.post("/v1/plugins/p/versions/2/approve", json!({})).await;
    assert_eq!(again.get("hint"), None, "{again}");
}

#[tokio::test]
async fn what_was_let_go_says_so() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    for digest in ["1", "2", "3", "4"] {
        version(&host, &user, digest, json!({})).await;
    }
    user.post("/v1/plugins/p/activate", json!({"version": 4})).await;
    for number in [1, 2, 3] {
        let body = json!({ "version": number }).to_string();
        assert_eq!(user.call("POST", "/v1/plugins/p/retire", &[], body).await.status.as_u16(), 204);
    }
    let shown = user.get("/v1/plugins/p").await;
    let versions = shown["versions"].as_array().expect("because there are some");
    assert_eq!(versions.iter().map(|head| head["version"].clone()).collect::<Vec<_>>(), [4, 3, 2]);
    for (method, path, body) in [
        ("GET", "/v1/plugins/p/versions/1", Value::Null),
        ("GET", "/v1/plugins/p/versions/1/component", Value::Null),
        ("POST", "/v1/plugins/p/activate", json!({"version": 1})),
        ("POST", "/v1/plugins/p/preview", json!({"version": 4, "against": 1})),
    ] {
        let answer = user.call(method, path, &[], body.to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "not-found".to_owned()), "{path}");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains("version 1 of plugin `p` was let go"), "{path}: {detail}");
    }
    let never = user.call("GET", "/v1/plugins/p/versions/9", &[], "").await;
    assert!(!never.json()["detail"].to_string().contains("let go"), "{:?}", never.bytes);
    let history = user.get("/v1/plugins/p/history").await;
    assert_eq!(column(&history, "action"), ["retired", "retired", "retired", "activated"]);
}

#[tokio::test]
async fn a_plugin_says_what_its_active_version_may_do_and_since_when() {
    let host = Host::start().await;
    let (user, operator) = (host.tenant("acme").await, host.operator().await);
    let asked = json!({"emit": ["orders.*"], "schedule": true});
    version(&host, &user, "1", asked.clone()).await;
    let before = user.get("/v1/plugins/p").await;
    for missing in ["requested", "effective", "cut", "activated_at"] {
        assert_eq!(before.get(missing), None, "{before}");
    }
    user.post("/v1/plugins/p/activate", json!({"version": 1})).await;
    operator.call("PUT", "/admin/v1/tenants/acme/grants", &[], json!({"emit": []}).to_string()).await;
    let shown = user.get("/v1/plugins/p").await;
    assert_eq!((&shown["requested"], &shown["effective"]), (&asked, &json!({"schedule": true})));
    assert_eq!(shown["cut"], json!([{"grant": "emit orders.*", "by": "tenant"}]));
    let listed = user.get("/v1/plugins").await["items"][0].clone();
    assert!(listed["activated_at"].is_string(), "{listed}");
    assert_eq!((&listed["activated_at"], &listed["digest"]), (&shown["activated_at"], &json!("sha256:1")));
}
