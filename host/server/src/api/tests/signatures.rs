//! Signed uploads: what a host that asks for signatures takes, and what it refuses.

use std::collections::BTreeMap;

use bulkhead_sandbox::script;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::Host;
use super::User;
use crate::manifest::Manifest;
use crate::signature::Secret;
use crate::signature::Statement;
use crate::signature::Trust;

const SOURCE: &str = "function handle(event) {}";
const MANIFEST: &str = "[plugin]\nname = \"shop\"\nversion = \"1.0.0\"\n";

/// The component that a host makes of [`SOURCE`], and what is to be signed about it.
fn component(host: &Host, name: &str, manifest: &str) -> (Bytes, Statement) {
    let wasm = script::component(&host.api.sandbox, SOURCE).expect("because the source has a handler");
    let inspection = host.api.sandbox.inspect(&wasm).expect("because it was made here");
    let manifest = Manifest::parse(manifest).expect("because it is right");
    (wasm, Statement::new(name, &manifest, &inspection))
}

async fn upload(user: &User<'_>, name: &str, parts: &BTreeMap<&str, &[u8]>) -> Answer {
    let mut body = Vec::new();
    for (part, content) in parts {
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"f\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    user.call("PUT", &format!("/v1/plugins/{name}"), &headers, body).await
}

async fn paste(user: &User<'_>, name: &str, signature: Option<&str>) -> Answer {
    let body = json!({"source": SOURCE, "manifest": MANIFEST, "signature": signature});
    let headers = [("content-type", "application/json")];
    user.call("POST", &format!("/v1/plugins/{name}/source"), &headers, body.to_string()).await
}

fn key(folder: &tempfile::TempDir, name: &str) -> Secret {
    Secret::create(&folder.path().join(name)).expect("because the folder is writable")
}

#[tokio::test]
async fn a_host_that_asks_for_signatures_takes_what_a_trusted_key_signed_for_this_name() {
    let folder = tempfile::tempdir().expect("because there is room");
    let (ours, other) = (key(&folder, "ours"), key(&folder, "other"));
    let host = Host::trusting(Trust { required: true, keys: vec![ours.public()] }).await;
    let user = host.tenant("acme").await;
    let (wasm, statement) = component(&host, "shop", MANIFEST);
    let (good, wrong) = (ours.sign(&statement), other.sign(&statement));
    let bare = BTreeMap::from([("component", &wasm[..]), ("manifest", MANIFEST.as_bytes())]);
    let with = |signature| bare.clone().into_iter().chain([("signature", signature)]).collect::<BTreeMap<_, _>>();

    let refused = |answer: Answer| (answer.status.as_u16(), answer.code());
    let missing = (422, "signature-missing".to_owned());
    let invalid = (422, "signature-invalid".to_owned());
    assert_eq!(refused(upload(&user, "shop", &bare).await), missing);
    assert_eq!(refused(paste(&user, "shop", None).await), missing);
    let plain = user.call("PUT", "/v1/plugins/shop", &[("content-type", "application/wasm")], wasm.clone()).await;
    assert_eq!(refused(plain), missing);
    assert_eq!(refused(upload(&user, "shop", &with(wrong.as_bytes())).await), invalid);
    assert_eq!(refused(paste(&user, "shop", Some(&wrong)).await), invalid);
    assert_eq!(refused(upload(&user, "shop", &with(b"{}")).await), invalid);
    assert_eq!(user.get("/v1/plugins").await["items"], json!([]), "nothing was stored");

    let taken = upload(&user, "shop", &with(good.as_bytes())).await;
    assert_eq!(taken.status.as_u16(), 201, "{:?}", taken.bytes);
    let again = paste(&user, "shop", Some(&good)).await;
    assert_eq!((again.status.as_u16(), &again.json()["existed"]), (200, &json!(true)));
    let shown = user.get("/v1/plugins/shop/versions/1").await;
    assert_eq!(shown["signature"]["key"], ours.public().to_string());
    let envelope: Value = serde_json::from_str(&good).expect("because it is JSON");
    assert_eq!(shown["signature"]["envelope"], envelope);

    // The same bytes under another name, or called another version.
    let answer = upload(&user, "bank", &with(good.as_bytes())).await;
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("for the name `shop`")));
    assert_eq!(refused(answer), invalid);
    let newer = MANIFEST.replace("1.0.0", "2.0.0");
    let mut parts = with(good.as_bytes());
    parts.insert("manifest", newer.as_bytes());
    assert_eq!(refused(upload(&user, "shop", &parts).await), invalid);
}

#[tokio::test]
async fn a_host_that_asks_for_none_keeps_good_ones_and_says_which_are_not() {
    let folder = tempfile::tempdir().expect("because there is room");
    let (ours, other) = (key(&folder, "ours"), key(&folder, "other"));
    let host = Host::trusting(Trust { required: false, keys: vec![ours.public()] }).await;
    let user = host.tenant("acme").await;
    let (_, statement) = component(&host, "shop", MANIFEST);
    let taken = paste(&user, "shop", Some(&other.sign(&statement))).await;
    let warnings = taken.json()["warnings"].to_string();
    assert_eq!((taken.status.as_u16(), warnings.contains("no key that this host trusts")), (201, true), "{warnings}");
    assert_eq!(user.get("/v1/plugins/shop/versions/1").await["signature"], Value::Null);
    // What is signed later is the same version, signed.
    let signed = paste(&user, "shop", Some(&ours.sign(&statement))).await;
    assert_eq!((signed.status.as_u16(), &signed.json()["warnings"]), (200, &json!([])));
    let shown = user.get("/v1/plugins/shop/versions/1").await;
    assert_eq!(shown["signature"]["key"], ours.public().to_string());
}
