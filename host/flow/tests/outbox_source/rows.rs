//! What rows become.

use bulkhead_services::shared;
use bulkhead_services::sql;
use bulkhead_store::outbox::SCHEMA;
use serde_json::json;

use crate::fixture::Application;
use crate::fixture::Host;
use crate::fixture::LISTENERS;
use crate::fixture::Running;
use crate::fixture::Session;
use crate::fixture::until;

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_several_tenants_arrive_in_order_and_the_table_is_empty() {
    const ROWS: u32 = 3_000;
    let (host, application) = (Host::start().await, Application::new());
    let mut tenants = Vec::new();
    for name in ["ann", "bob", "cat"] {
        tenants.push(host.tenant(name).await);
    }
    // By name, by id, and by both in turn.
    application.run(&format!(
        "INSERT INTO bulkhead_outbox (tenant, type, data)
         SELECT tenant, 'test.counted', to_jsonb(n) FROM generate_series(0, {ROWS} - 1) n,
                LATERAL (VALUES ('ann'), ('ten_bob'), (CASE n % 2 WHEN 0 THEN 'cat' ELSE 'ten_cat' END)) t(tenant)
         ORDER BY n;"
    ));
    let mut options = Running::options(&application);
    options.batch = 100;
    let source = Running::start(&host, options);
    until("the table is empty", async || application.waiting() == 0).await;
    for tenant in &tenants {
        assert_eq!(host.numbers(tenant).await, (0..ROWS).collect::<Vec<_>>(), "{}", tenant.name);
    }
    assert!(application.rejected().is_empty());
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_become_attributes() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.run(
        r#"INSERT INTO bulkhead_outbox
               (tenant, event_id, source, type, subject, time, datacontenttype, partitionkey, attributes, data)
           VALUES ('ann', 'A-1', '/shop', 'orders.created', 'A', '2026-01-31 13:00:00.25+01', 'application/vnd.a+json',
                   'k', '{"category": "sales", "n": 2}', '{"total": 12.50}');
           INSERT INTO bulkhead_outbox (tenant, type, data_bytes) VALUES ('ann', 'orders.scanned', '\xff00');
           INSERT INTO bulkhead_outbox (tenant, type) VALUES ('ann', 'orders.empty');"#,
    );
    let source = Running::usual(&host, &application);
    until("the table is empty", async || application.waiting() == 0).await;
    let events = host.events(&tenant).await;
    let [full, bytes, empty] = &events[..] else { panic!("{events:?} are not three") };
    assert_eq!((full.id.as_str(), full.source.as_str(), full.kind.as_str()), ("A-1", "/shop", "orders.created"));
    assert_eq!((full.subject.as_deref(), full.key.as_deref()), (Some("A"), Some("k")));
    assert_eq!((full.time.0, full.content_type.as_str()), (1_769_860_800_250_000, "application/vnd.a+json"));
    let attributes = [("category", "sales"), ("n", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((&full.attributes[..], &*full.data), (&attributes[..], &b"{\"total\": 12.50}"[..]));
    assert_eq!((bytes.id.as_str(), bytes.source.as_str()), ("2", "outbox:shop"));
    assert_eq!((bytes.content_type.as_str(), &*bytes.data), ("application/octet-stream", &b"\xff\0"[..]));
    assert_eq!((empty.id.as_str(), &*empty.data), ("3", &b""[..]));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_never_arrives() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    let source = Running::usual(&host, &application);
    let mut session = Session::start(application.owner_url());
    for number in 0..10 {
        let write = Application::rows("ann", number..number + 1);
        let end = if number % 2 == 0 { "ROLLBACK" } else { "COMMIT" };
        session.run(&format!("BEGIN; {write}; {end};"));
    }
    until("the last is there", async || host.numbers(&tenant).await.contains(&9)).await;
    assert_eq!(host.numbers(&tenant).await, [1, 3, 5, 7, 9]);
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_put_aside_with_the_reason_and_hold_nobody_up() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.write("ann", 0..10);
    application.run(
        "INSERT INTO bulkhead_outbox (tenant, type, data) VALUES
             ('nobody', 'test.counted', '100'), ('', 'test.counted', '100'), ('ann', 'no type', '100'),
             ('ann', 'bulkhead.own', '100');
         INSERT INTO bulkhead_outbox (tenant, type, time) VALUES ('ann', 'test.counted', 'infinity');
         INSERT INTO bulkhead_outbox (tenant, type, attributes) VALUES ('ann', 'test.counted', '[]');
         INSERT INTO bulkhead_outbox (tenant, type, datacontenttype, data_bytes)
             VALUES ('ann', 'test.counted', 'application/json', '{');
         INSERT INTO bulkhead_outbox (tenant, type, data)
             VALUES ('ann', 'test.counted', to_jsonb(repeat('x', 300 << 10)));
         INSERT INTO bulkhead_outbox (tenant, type, data_bytes)
             VALUES ('ann', 'test.counted', convert_to(repeat('x', 20 << 20), 'UTF8'));
         INSERT INTO bulkhead_outbox (tenant, type, subject)
             VALUES ('ann', 'test.counted', repeat('x', 1 << 20));",
    );
    application.write("ann", 10..20);
    let source = Running::usual(&host, &application);
    until("the table is empty", async || application.waiting() == 0).await;
    assert_eq!(host.numbers(&tenant).await, (0..20).collect::<Vec<_>>());
    let rejected = application.rejected();
    let codes: Vec<&str> = rejected.iter().map(|(_, code, _)| code.as_str()).collect();
    let mut expected = ["event:tenant"; 10];
    expected[2..].copy_from_slice(&[
        "event:type",
        "event:type",
        "event:time",
        "event:attribute",
        "event:data",
        "event:too-large",
        "event:too-large",
        "event:attribute",
    ]);
    let sorted = |mut codes: Vec<&str>| {
        codes.sort_unstable();
        codes.join(" ")
    };
    assert_eq!(sorted(codes), sorted(expected.to_vec()), "{rejected:?}");
    let (row, _, reason) = &rejected[0];
    assert_eq!((&row["id"], &row["tenant"], &row["data"]), (&json!(11), &json!("nobody"), &json!(100)));
    assert_eq!(reason, "there is no tenant with the name or id `nobody`");
    let large = rejected.iter().find(|(row, ..)| row["id"] == 19).map(|(row, ..)| row["data_bytes"].as_str());
    assert_eq!(large.flatten().map(str::len), Some(2 + (40 << 20)), "a large row is kept whole, in hexadecimal digits");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_can_be_put_back() {
    const DOCS: &str = include_str!("../../../../docs/outbox.md");
    let (host, application) = (Host::start().await, Application::new());
    let source = Running::usual(&host, &application);
    application.run(
        r"INSERT INTO bulkhead_outbox (tenant, type, data, partitionkey) VALUES ('late', 'test.counted', '7', 'k');
          INSERT INTO bulkhead_outbox (tenant, type, data_bytes) VALUES ('late', 'test.bytes', '\xff00');",
    );
    until("they are refused", async || application.rejected().len() == 2).await;
    let tenant = host.tenant("late").await;
    let (_, script) = DOCS.split_once("```sql put-back\n").expect("because the page shows it");
    let (script, _) = script.split_once("```").expect("because it ends");
    application.run(script);
    until("they are taken", async || host.events(&tenant).await.len() == 2).await;
    assert!(application.rejected().is_empty());
    let events = host.events(&tenant).await;
    assert_eq!((&*events[0].data, events[0].key.as_deref()), (&b"7"[..], Some("k")));
    assert_eq!(&*events[1].data, b"\xff\0");
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_server_cannot_show_is_put_aside_by_its_names() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    // A column that fails for one row, as one does whose text would be larger than the server can make.
    application.run(
        "ALTER TABLE bulkhead_outbox RENAME TO things;
         CREATE VIEW bulkhead_outbox AS
             SELECT id, tenant, event_id, source, type, subject, time, datacontenttype, partitionkey, attributes,
                    CASE type WHEN 'test.poison' THEN to_jsonb(1 / (length(type) - 11)) ELSE data END AS data,
                    data_bytes, created_at
             FROM things;
         GRANT SELECT, DELETE ON bulkhead_outbox TO bulkhead_host;
         INSERT INTO things (tenant, type, data) SELECT 'ann', 'test.counted', to_jsonb(n) FROM generate_series(0, 99) n;
         INSERT INTO things (tenant, type, data) VALUES ('ann', 'test.poison', '100'), ('nobody', 'test.poison', '101');
         INSERT INTO things (tenant, type, data) VALUES ('ann', 'test.counted', '100');",
    );
    let source = Running::usual(&host, &application);
    until("all are gone", async || application.run("SELECT count(*) FROM things;") == "0").await;
    assert_eq!(host.numbers(&tenant).await, (0..101).collect::<Vec<_>>());
    let rejected = application.rejected();
    let [poison, nobody] = &rejected[..] else { panic!("{rejected:?} are not two") };
    assert_eq!(poison.0, json!({"id": 101, "tenant": "ann", "type": "test.poison"}));
    assert_eq!((poison.1.as_str(), poison.2.as_str()), ("event:data", "it cannot be read: division by zero"));
    assert_eq!((nobody.0["tenant"].as_str(), nobody.1.as_str()), (Some("nobody"), "event:tenant"));
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_may_have_another_name_in_another_schema() {
    let host = Host::start().await;
    let tenant = host.tenant("ann").await;
    let database = shared::postgres().and_then(|server| server.database()).expect("because Postgres is installed");
    let application = Application::bare(database);
    let schema = SCHEMA.replace("bulkhead_outbox", "order_events");
    application.run(&format!(
        "CREATE SCHEMA app; SET search_path = app; {schema}
         GRANT USAGE ON SCHEMA app TO bulkhead_host;
         GRANT SELECT, DELETE ON order_events TO bulkhead_host;
         GRANT INSERT ON order_events_rejected TO bulkhead_host;"
    ));
    let mut options = Running::listening(&application);
    options.table = "app.order_events".parse().expect("because it is a name");
    let mut source = Running::start(&host, options);
    source.reading().await;
    until("it listens", async || application.run(LISTENERS) == "1").await;
    application.run("INSERT INTO app.order_events (tenant, type) VALUES ('ann', 'a.b'), ('nobody', 'a.b');");
    until("it is there", async || host.events(&tenant).await.len() == 1).await;
    until("the other is put aside", async || !application.run("TABLE app.order_events_rejected;").is_empty()).await;
    source.stop().await;
}

#[test]
fn the_script_may_run_again_and_changes_nothing_that_is_there() {
    let application = Application::new();
    application.write("ann", 0..3);
    application.furnish();
    assert_eq!(application.waiting(), 3);
    let both = "INSERT INTO bulkhead_outbox (tenant, type, data, data_bytes) VALUES ('ann', 'a.b', '1', '');";
    let refused = sql(application.owner_url(), both).expect_err("because an event has one payload");
    assert!(refused.to_string().contains("bulkhead_outbox_one_payload"), "{refused}");
}
