//! What becomes of entries.

use std::time::Duration;

use bulkhead_flow::source::State;
use bulkhead_flow::source::redis::Format;
use bulkhead_services::shared;

use crate::fixture::Host;
use crate::fixture::Queue;
use crate::fixture::Running;
use crate::fixture::until;

type Fields<'a> = &'a [(&'a str, &'a [u8])];

fn queue() -> Queue {
    Queue::on(shared::redis().expect("because Redis is installed").url())
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_belong_to_the_tenant_of_the_setting_whatever_they_say() {
    let (host, queue) = (Host::start().await, queue());
    let (ours, theirs) = (host.tenant("ours").await, host.tenant("theirs").await);
    let whole = br#"{"specversion":"1.0","id":"A-1","source":"/shop","type":"orders.created","subject":"order/1",
        "tenant":"theirs","tenantid":"ten_theirs","partitionkey":"k","data":{"total":1}}"#;
    queue.add(&[("event", whole), ("tenant", b"theirs"), ("tenant_id", b"2")]).await;
    let nameless = br#"{"specversion":"1.0","type":"orders.paid","data":{"total":2}}"#;
    let second = queue.add(&[("data", nameless)]).await;
    let mut options = Running::options(&queue, &ours);
    options.format = Format::CloudEvents;
    let origin = format!("redis:{}/{}", options.name, queue.stream);
    let source = Running::start(&host, options);
    until("both are taken in", async || host.events(&ours).await.len() == 2).await;
    let events = host.events(&ours).await;
    assert_eq!((&*events[0].id, &*events[0].source, &*events[0].kind), ("A-1", "/shop", "orders.created"));
    assert_eq!((events[0].subject.as_deref(), events[0].key.as_deref()), (Some("order/1"), Some("k")));
    assert_eq!(events[0].data, r#"{"total":1}"#);
    assert_eq!((&*events[1].id, &*events[1].source, &*events[1].kind), (&*second, &*origin, "orders.paid"));
    assert!(host.events(&theirs).await.is_empty(), "nobody speaks for another tenant");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_belong_to_the_tenant_of_the_setting_whatever_they_say() {
    let (host, queue) = (Host::start().await, queue());
    let (ours, theirs) = (host.tenant("ours").await, host.tenant("theirs").await);
    let fields: [(&str, &[u8]); 7] = [
        ("type", b"orders.created"),
        ("id", b"A-1"),
        ("source", b"/shop"),
        ("tenant", b"theirs"),
        ("tenantid", b"ten_theirs"),
        ("datacontenttype", b"application/octet-stream"),
        ("data", b"\xff\x00"),
    ];
    queue.add(&fields).await;
    let second = queue.add(&[("type", b"orders.paid"), ("data", br#"{"total":2}"#)]).await;
    let options = Running::options(&queue, &ours);
    let origin = format!("redis:{}/{}", options.name, queue.stream);
    let source = Running::start(&host, options);
    until("both are taken in", async || host.events(&ours).await.len() == 2).await;
    let events = host.events(&ours).await;
    assert_eq!((&*events[0].id, &*events[0].source, &events[0].data[..]), ("A-1", "/shop", &b"\xff\x00"[..]));
    assert_eq!((&*events[1].id, &*events[1].source), (&*second, &*origin));
    assert!(host.events(&theirs).await.is_empty(), "nobody speaks for another tenant");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_acknowledged_only_when_it_is_durable_and_order_is_kept() {
    const ENTRIES: u32 = 5_000;
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    let ids = queue.number(0..ENTRIES).await;
    let mut options = Running::options(&queue, &tenant);
    options.batch = 50;
    let mut source = Running::start(&host, options);
    source.reading().await;
    let mut looks = 0_u32;
    until("all are acknowledged", async || {
        let (read, pending) = queue.progress().await.expect("because the group is there");
        let acknowledged = usize::try_from(read - pending).expect("because they fit into memory");
        if let Some(last) = acknowledged.checked_sub(1) {
            let found = host.store.events_by_id(tenant.id, &ids[last]).await.expect("because the store works");
            assert!(!found.is_empty(), "{acknowledged} entries were let go of too early");
            looks += 1;
        }
        acknowledged == ids.len()
    })
    .await;
    assert!(looks > 5, "only {looks} looks while it was at work");
    assert_eq!(host.numbers(&tenant).await, (0..ENTRIES).collect::<Vec<_>>());
    assert_eq!(queue.ask::<u32>(&["XLEN"], &[]).await, ENTRIES, "the stream is its publisher's");
    assert_eq!((source.counted("entries"), source.counted("acked")), (u64::from(ENTRIES), u64::from(ENTRIES)));
    assert_eq!((source.counted("duplicates"), source.counted("reconnects")), (0, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_no_events_go_where_people_see_them_and_hold_up_nobody() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    let good = |id: u32| format!(r#"{{"specversion":"1.0","id":"{id}","type":"a.b","data":{id}}}"#).into_bytes();
    let large = format!(r#"{{"specversion":"1.0","id":"large","type":"a.b","data":"{}"}}"#, "x".repeat(300 << 10));
    let poison: [(&str, &[u8], &str); 5] = [
        ("event", b"{\"specversion\":", "event:json"),
        ("event", b"{\"specversion\":\"1.0\",\"type\":\"a.\xff\"}", "event:json"),
        ("event", large.as_bytes(), "event:too-large"),
        ("event", br#"{"specversion":"1.0","data":1}"#, "event:type"),
        ("body", b"\x00\xff", "event:json"),
    ];
    let mut ids = Vec::new();
    for (number, (name, value, _)) in (0..).zip(&poison) {
        queue.add(&[("event", &good(number))]).await;
        ids.push(queue.add(&[("trace", b"\xfe"), (name, value)]).await);
    }
    queue.add(&[("event", &good(5))]).await;
    let mut options = Running::options(&queue, &tenant);
    options.format = Format::CloudEvents;
    let source = Running::start(&host, options);
    until("all are acknowledged", async || source.counted("acked") == 11).await;
    assert_eq!(host.numbers(&tenant).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!((queue.pending().await, source.counted("rejected")), (0, 5));
    let rejected = queue.rejected().await;
    assert_eq!(rejected.len(), 5);
    for ((fields, id), (name, value, code)) in rejected.iter().zip(&ids).zip(&poison) {
        let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["trace", *name, "code", "reason", "entry", "group"]);
        let [trace, body, said, reason, entry, group] = std::array::from_fn(|at| &*fields[at].1);
        assert_eq!((trace, body), (&b"\xfe"[..], *value), "the entry as it was");
        assert_eq!((said, entry, group), (code.as_bytes(), id.as_bytes(), &b"bulkhead"[..]));
        assert!(std::str::from_utf8(reason).is_ok_and(|reason| !reason.is_empty()), "people can read it");
    }
    assert_eq!(source.status().state, State::Reading);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_fields_are_told_from_good_ones() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    let poison: [(Fields<'_>, &str); 5] = [
        (&[("data", b"1")], "event:type"),
        (&[("type", b"a.b"), ("data", b"{")], "event:data"),
        (&[("type", b"a.b"), ("subject", b"\xff"), ("data", b"1")], "event:attribute"),
        (&[("type", b"bulkhead.mine"), ("data", b"1")], "event:type"),
        (&[("type", b"a.b"), ("time", b"yesterday"), ("data", b"1")], "event:time"),
    ];
    for (number, (fields, _)) in (0..).zip(poison) {
        queue.add(fields).await;
        queue.number(number..number + 1).await;
    }
    let source = Running::usual(&host, &queue, &tenant);
    until("all are acknowledged", async || source.counted("acked") == 10).await;
    assert_eq!(host.numbers(&tenant).await, [0, 1, 2, 3, 4]);
    let said = |fields: &Vec<(String, Vec<u8>)>| fields.iter().find(|(name, _)| name == "code").cloned();
    let codes: Vec<_> = queue.rejected().await.iter().filter_map(said).map(|(_, code)| code).collect();
    assert_eq!(codes, poison.map(|(_, code)| code.as_bytes().to_vec()));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_go_in_as_many_pieces_as_the_inbox_wants() {
    const ENTRIES: u32 = 150;
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    for number in 0..ENTRIES {
        let data = format!("{number}{}", " ".repeat(200 << 10));
        queue.add(&[("type", b"a.b"), ("data", data.as_bytes())]).await;
    }
    let source = Running::usual(&host, &queue, &tenant);
    until("all are acknowledged", async || source.counted("acked") == u64::from(ENTRIES)).await;
    assert_eq!(host.numbers(&tenant).await, (0..ENTRIES).collect::<Vec<_>>());
    assert_eq!((queue.pending().await, source.counted("duplicates")), (0, 0));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_entry_twice_is_one_event() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.number(0..10).await;
    let mut options = Running::options(&queue, &tenant);
    options.name = format!("{}-again", options.name);
    let source = Running::start(&host, options.clone());
    until("all are acknowledged", async || source.counted("acked") == 10).await;
    source.stop().await;
    // As an operator does who wants a group to begin anew.
    queue.ask::<()>(&["XGROUP", "SETID"], &["bulkhead", "0"]).await;
    let source = Running::start(&host, options);
    until("all came again", async || source.counted("duplicates") == 10).await;
    until("all are acknowledged", async || queue.pending().await == 0).await;
    assert_eq!(host.numbers(&tenant).await, (0..10).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_gone_before_they_are_taken_in_are_counted_and_let_go_of() {
    let (host, queue) = (Host::start().await, queue());
    let tenant = host.tenant("ours").await;
    queue.make_group().await;
    queue.number(0..30).await;
    assert_eq!(queue.read_as("one", 10).await, 10, "what the source itself has read before");
    assert_eq!(queue.read_as("dead", 10).await, 10);
    // Five of each of the first two tens are left, and all of the third.
    let entries: Vec<(String, redis::Value)> = queue.ask(&["XRANGE"], &["-", "+"]).await;
    let gone: Vec<&str> = entries[..5].iter().chain(&entries[10..15]).map(|(id, _)| &**id).collect();
    assert_eq!(queue.ask::<u32>(&["XDEL"], &gone).await, 10);
    let mut options = Running::options(&queue, &tenant);
    options.claim_idle = Duration::from_millis(200);
    let source = Running::start(&host, options);
    until("all that is left is taken in", async || host.numbers(&tenant).await.len() == 20).await;
    until("nothing is pending", async || queue.pending().await == 0).await;
    let mut numbers = host.numbers(&tenant).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (5..10).chain(15..30).collect::<Vec<_>>());
    until("those that are gone are counted", async || source.counted("trimmed") == 10).await;
    assert_eq!(source.counted("rejected"), 0);
    source.stop().await;
}
