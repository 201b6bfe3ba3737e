//! Uploads: they arrive on the disk, too much is refused as soon as it is too much, and nothing is left of what broke off.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use bulkhead_sandbox::inspect::SIZE_MAX;
use bulkhead_sandbox::script;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;

use super::Host;
use super::PATIENCE;
use super::User;

const PIECE: usize = 1 << 20;
const FORM: [(&str, &str); 1] = [("content-type", "multipart/form-data; boundary=b")];
const WASM: [(&str, &str); 1] = [("content-type", "application/wasm")];

/// A component of exactly this size: one that works, with a section that means nothing.
fn component(host: &Host, size: usize) -> Vec<u8> {
    let small = script::component(&host.api.sandbox, "function handle(event) {}").expect("because it has a handler");
    let mut wasm = Vec::with_capacity(size);
    wasm.extend_from_slice(&small);
    // The number of a custom section, its length in five bytes, its name.
    let content = size - small.len() - 6;
    wasm.push(0);
    let length = u32::try_from(content).expect("because components are small");
    wasm.extend((0..5).map(|at| ((length >> (7 * at)) & 0x7f) as u8 | if at < 4 { 0x80 } else { 0 }));
    wasm.extend_from_slice(b"\x01x");
    wasm.resize(size, 7);
    wasm
}

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        body.extend(format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

/// A body that begins so and never ends; counts the bytes that were taken of it.
fn endless(head: &'static [u8], taken: &Arc<AtomicUsize>) -> Body {
    let taken = Arc::clone(taken);
    let pieces =
        stream::once(async move { Bytes::from_static(head) }).chain(stream::repeat(Bytes::from(vec![7; PIECE])));
    Body::from_stream(pieces.map(move |piece| {
        taken.fetch_add(piece.len(), Ordering::Relaxed);
        Ok::<_, std::io::Error>(piece)
    }))
}

/// A body that begins so and then stands still.
fn stalled(head: Vec<u8>) -> Body {
    let head = stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(head)) });
    Body::from_stream(head.chain(stream::pending()))
}

/// Files of the folder of uploads that this process has open.
fn open_files(host: &Host) -> usize {
    let folder = host.folder.path().join("uploads");
    assert_eq!(fs::read_dir(&folder).expect("because it is there").count(), 0, "an upload's file has no name");
    let open = fs::read_dir("/proc/self/fd").expect("because this is Linux").flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.starts_with(&folder))).count()
}

/// A write that is under way ends before its file is closed: that is soon, not at once.
async fn until_open(host: &Host, count: usize) {
    let begun = Instant::now();
    while open_files(host) != count {
        assert!(begun.elapsed() < PATIENCE, "{} uploads are open, not {count}", open_files(host));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_component_of_sixty_mebibytes_is_taken_and_kept() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let wasm = component(&host, 60 << 20);
    let digest = bulkhead_sandbox::inspect::digest(&wasm);
    let answer = user.call("PUT", "/v1/plugins/large?activate=true", &FORM, form(&[("component", &wasm)])).await;
    assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.bytes);
    assert_eq!((&answer.json()["digest"], &answer.json()["state"]), (&json!(digest), &json!("active")));
    // As it is, the same is a version that is there.
    let again = user.call("PUT", "/v1/plugins/large", &WASM, wasm.clone()).await;
    assert_eq!((again.status.as_u16(), &again.json()["existed"]), (200, &json!(true)));
    let kept = host.api.store.component(user.tenant.id, &digest).await.expect("because the store works");
    assert!(kept.is_some_and(|kept| kept == wasm));
    until_open(&host, 0).await;
}

#[tokio::test]
async fn the_largest_component_is_taken_and_one_byte_more_is_too_large() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    // What comes whole says its size: it is refused before anything is read.
    let more = component(&host, SIZE_MAX + 1);
    for (headers, body) in [(&WASM, more.clone()), (&FORM, form(&[("component", &more)]))] {
        let refused = user.call("PUT", "/v1/plugins/large", headers, body).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (413, "body-too-large".to_owned()));
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("larger than the 64MiB"), "{detail}");
    }
    let most = component(&host, SIZE_MAX);
    let taken = user.call("PUT", "/v1/plugins/large", &FORM, form(&[("component", &most)])).await;
    assert_eq!(taken.status.as_u16(), 201, "{:?}", taken.bytes);
}

#[tokio::test]
async fn too_much_is_refused_while_it_comes() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let part = |name| -> &'static [u8] {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes().leak()
    };
    for (headers, head, most, code) in [
        (&WASM, &b"\0asm"[..], SIZE_MAX, "body-too-large"),
        (&FORM, part("component"), SIZE_MAX, "body-too-large"),
        (&FORM, part("manifest"), crate::manifest::SIZE_MAX, "body-too-large"),
        (&FORM, part("signature"), crate::signature::SIZE_MAX, "body-too-large"),
        // The parser of forms would keep all of it, looking for the end of a head, or for the first part.
        (&FORM, b"--b\r\nContent-Disposition: ", 64 << 10, "body-malformed"),
        (&FORM, b"no part", 64 << 10, "body-malformed"),
        (&FORM, part("other"), 0, "body-malformed"),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let answer = user.call("PUT", "/v1/plugins/large", headers, endless(head, &taken)).await;
        assert_eq!(answer.code(), code, "{:?}", answer.bytes);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= most + 3 * PIECE, "{taken} bytes were taken, where {most} are too many: {:?}", answer.bytes);
        until_open(&host, 0).await;
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_before_anything_is_read() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let taken = Arc::new(AtomicUsize::new(0));
    let answer = user.call("PUT", "/v1/plugins/No", &WASM, endless(b"\0asm", &taken)).await;
    assert_eq!((answer.code(), taken.load(Ordering::Relaxed)), ("field-invalid".to_owned(), 0));
}

#[tokio::test]
async fn nothing_is_left_of_what_broke_off() {
    let host = Host::start().await;
    let user = host.tenant("acme").await;
    let whole = form(&[("component", &component(&host, 4 << 20))]);
    let half = whole[..whole.len() / 2].to_vec();
    // The sender's line breaks.
    let broken = stream::iter([Ok(Bytes::from(half.clone())), Err(std::io::Error::other("gone"))]);
    let answer = user.call("PUT", "/v1/plugins/half", &FORM, Body::from_stream(broken)).await;
    assert_eq!(answer.code(), "body-malformed");
    until_open(&host, 0).await;
    assert!(answer.json()["detail"].to_string().contains("the body broke off"), "{:?}", answer.bytes);
    // It ends too early.
    let answer = user.call("PUT", "/v1/plugins/half", &FORM, half.clone()).await;
    assert_eq!(answer.code(), "body-malformed");
    until_open(&host, 0).await;
    // The sender goes while the host waits for more.
    let waiting = user.call("PUT", "/v1/plugins/half", &FORM, stalled(half));
    tokio::select! {
        answer = waiting => panic!("there is more to come: {answer:?}"),
        () = until_open(&host, 1) => {}
    }
    until_open(&host, 0).await;
    assert_eq!(user.get("/v1/plugins").await["items"], json!([]));
}

/// Sends the beginning of uploads, until the host holds `count` of them.
async fn hold(host: &Host, user: &User<'_>, count: usize, meanwhile: impl Future<Output = ()>) {
    let begun = (0..count).map(|_| user.call("PUT", "/v1/plugins/slow", &WASM, stalled(b"\0asm".to_vec())));
    let all = futures_util::future::join_all(begun);
    tokio::select! {
        answers = all => panic!("they stand still: {answers:?}"),
        () = async { until_open(host, count).await; meanwhile.await } => {}
    }
}

#[tokio::test]
async fn slow_uploads_hold_their_tenant_s_places_and_nobody_else_s() {
    let host = Host::start().await;
    let (slow, other) = (host.tenant("slow").await, host.tenant("other").await);
    let wasm = script::component(&host.api.sandbox, "function handle(event) {}").expect("because it has a handler");
    hold(&host, &slow, 2, async {
        let taken = other.call("PUT", "/v1/plugins/quick", &WASM, wasm.clone()).await;
        assert_eq!(taken.status.as_u16(), 201, "{:?}", taken.bytes);
        assert_eq!(slow.get("/v1/plugins").await["items"], json!([]), "its other requests are answered");
        let refused = slow.call("PUT", "/v1/plugins/quick", &WASM, wasm.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (503, "busy".to_owned()));
        assert!(refused.json()["detail"].to_string().contains("2 uploads in work"), "{:?}", refused.bytes);
        assert!(refused.headers.contains_key("retry-after"));
    })
    .await;
    until_open(&host, 0).await;
    let taken = slow.call("PUT", "/v1/plugins/quick", &WASM, wasm).await;
    assert_eq!(taken.status.as_u16(), 201, "those who went gave their places back: {:?}", taken.bytes);
}
