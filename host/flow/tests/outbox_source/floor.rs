//! The floor under looks: it rises past what is over, and never past what may still come.

use std::time::Duration;

use bulkhead_store::outbox::Outbox;
use bulkhead_store::outbox::Share;
use bulkhead_store::outbox::Table;

use crate::fixture::Application;
use crate::fixture::Session;

const SHARE: Share = Share { rows: 100, bytes: 1 << 20, row_bytes: 1 << 20 };
/// More calls than it takes to look below the floor.
const MANY: u32 = 70;

struct Reader(Outbox);

impl Reader {
    fn new(application: &Application) -> Self {
        let outbox = Outbox::new(application.drain_url(), Table::default(), "floor");
        Self(outbox.expect("because the address reads"))
    }

    /// The numbers of the lowest rows, without those of `tenants`.
    async fn look(&self, tenants: &[&str]) -> Vec<i64> {
        let tenants: Vec<String> = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
        let rows = self.0.next(SHARE, &tenants, &[]).await.expect("because the server answers");
        rows.into_iter().map(|row| row.id).collect()
    }

    async fn drain(&self, tenants: &[&str]) -> Vec<i64> {
        let ids = self.look(tenants).await;
        self.0.done(&ids).await.expect("because the server answers");
        ids
    }

    async fn raise(&self, times: u32) {
        for _ in 0..times {
            self.0.raise_floor().await.expect("because the server answers");
        }
    }
}

/// Writes a row with a number of the test's own choice.
fn put(application: &Application, id: i64) {
    application.run(&format!(
        "INSERT INTO bulkhead_outbox (id, tenant, type) OVERRIDING SYSTEM VALUE VALUES ({id}, 'ann', 'a.b');"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_rises_past_what_is_over_and_finds_numbers_that_were_set_back_in_the_end() {
    let application = Application::new();
    let reader = Reader::new(&application);
    application.write("ann", 0..10);
    assert_eq!(reader.drain(&[]).await, (1..=10).collect::<Vec<_>>());
    put(&application, 5);
    assert_eq!(reader.drain(&[]).await, [5], "it does not rise by itself");
    reader.raise(3).await;
    put(&application, 5);
    assert_eq!(reader.look(&[]).await, [0_i64; 0], "it has risen");
    application.write("ann", 10..11);
    assert_eq!(reader.look(&[]).await, [11]);
    reader.raise(MANY).await;
    assert_eq!(reader.drain(&[]).await, [5, 11]);
    reader.raise(3).await;
    put(&application, 5);
    reader.0.begin_anew();
    assert_eq!(reader.look(&[]).await, [5], "after a failure nothing is taken for granted");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_whoever_is_writing_and_for_nobody_else() {
    let application = Application::new();
    let reader = Reader::new(&application);
    application.run("CREATE TABLE elsewhere (n INT);");
    let mut idle = Session::start(application.owner_url());
    idle.run("BEGIN; INSERT INTO elsewhere VALUES (1); TABLE bulkhead_outbox;");
    let mut late = Session::start(application.owner_url());
    late.run(&format!("BEGIN; {};", Application::rows("ann", 0..1)));
    application.write("ann", 1..5);
    assert_eq!(reader.drain(&[]).await, [2, 3, 4, 5]);
    reader.raise(MANY).await;
    late.run("COMMIT;");
    assert_eq!(reader.drain(&[]).await, [1]);
    reader.raise(3).await;
    put(&application, 1);
    assert_eq!(reader.look(&[]).await, [0_i64; 0], "the session that is idle does not matter");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_below_rows_whose_tenants_wait() {
    let application = Application::new();
    let reader = Reader::new(&application);
    application.write("ann", 0..3);
    application.write("bob", 3..6);
    application.write("ann", 6..9);
    assert_eq!(reader.drain(&["bob"]).await, [1, 2, 3, 7, 8, 9]);
    reader.raise(MANY).await;
    assert_eq!(reader.look(&["ann"]).await, [4, 5, 6]);
    let waiting = reader.0.waiting().await.expect("because the server answers");
    assert_eq!(waiting.rows, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stays_down_where_numbers_do_not_come_one_by_one() {
    let application = Application::new();
    let reader = Reader::new(&application);
    application.run("ALTER TABLE bulkhead_outbox ALTER id SET CACHE 10;");
    let mut slow = Session::start(application.owner_url());
    slow.run(&format!("{};", Application::rows("ann", 0..1)));
    application.write("ann", 1..2);
    assert_eq!(reader.drain(&[]).await, [1, 11]);
    reader.raise(3).await;
    slow.run(&format!("{};", Application::rows("ann", 2..3)));
    assert_eq!(reader.look(&[]).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_gives_what_was_asked_for() {
    let application = Application::new();
    let reader = Reader::new(&application);
    application.run(
        "INSERT INTO bulkhead_outbox (tenant, type, data_bytes)
         SELECT 'ann', 'a.b', convert_to(repeat('x', 1000 * n), 'UTF8') FROM generate_series(1, 9) n;",
    );
    let look = async |share: Share, under_way: &[i64]| -> Vec<i64> {
        let rows = reader.0.next(share, &[], under_way).await.expect("because the server answers");
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(look(Share { rows: 3, ..SHARE }, &[1, 3]).await, [2, 4, 5]);
    assert_eq!(look(Share { bytes: 3_500, ..SHARE }, &[]).await, [1, 2], "1256 + 2256 bytes, and no further row");
    assert_eq!(look(Share { bytes: 1, ..SHARE }, &[1, 2]).await, [3], "one in any case");
    // Whoever waits for nothing is told when it is over.
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        reader.0.wait(Duration::ZERO).await;
        reader.0.wait(Duration::ZERO).await;
    });
    assert!(waited.await.is_ok());
}
