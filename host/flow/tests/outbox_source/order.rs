//! Order, and transactions that overlap.

use crate::fixture::Application;
use crate::fixture::Host;
use crate::fixture::Running;
use crate::fixture::Session;
use crate::fixture::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    let source = Running::usual(&host, &application);
    let mut late = Session::start(application.owner_url());
    late.run(&format!("BEGIN; {};", Application::rows("ann", 0..3)));
    // Many looks go past the numbers that nobody can see yet.
    for number in 10..20 {
        application.write("ann", number..number + 1);
        until("it is taken", async || host.numbers(&tenant).await.contains(&number)).await;
    }
    late.run("COMMIT;");
    // Who begins to write after that comes after it.
    application.write("ann", 20..30);
    until("all are there", async || host.numbers(&tenant).await.len() == 23).await;
    let expected: Vec<u32> = (10..20).chain(0..3).chain(20..30).collect();
    assert_eq!(host.numbers(&tenant).await, expected);
    until("the table is empty", async || application.waiting() == 0).await;
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_lose_nothing_and_keep_their_own_order() {
    const WRITERS: u32 = 4;
    const TRANSACTIONS: u32 = 200;
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    let mut options = Running::options(&application);
    options.batch = 50;
    let source = Running::start(&host, options);
    // Each writes three rows in pieces, and commits at another pace.
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let url = application.owner_url().to_owned();
            tokio::task::spawn_blocking(move || {
                let mut session = Session::start(&url);
                for turn in 0..TRANSACTIONS {
                    let first = writer * 10_000 + turn * 3;
                    let (one, two) = (Application::rows("ann", first..first + 1), first + 1..first + 3);
                    let two = Application::rows("ann", two);
                    let pause = f64::from(writer) * 0.002;
                    session.run(&format!("BEGIN; {one}; SELECT pg_sleep({pause}); {two}; COMMIT;"));
                }
            })
        })
        .collect();
    for writer in writing {
        writer.await.expect("because it writes");
    }
    until("the table is empty", async || application.waiting() == 0).await;
    let numbers = host.numbers(&tenant).await;
    for writer in 0..WRITERS {
        let own: Vec<u32> = numbers.iter().copied().filter(|number| number / 10_000 == writer).collect();
        let expected: Vec<u32> = (writer * 10_000..writer * 10_000 + TRANSACTIONS * 3).collect();
        assert_eq!(own, expected, "of writer {writer}");
    }
    source.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_open_transaction_holds_nobody_up() {
    let (host, application) = (Host::start().await, Application::new());
    let tenant = host.tenant("ann").await;
    application.run("CREATE TABLE elsewhere (n INT);");
    let mut idle = Session::start(application.owner_url());
    idle.run("BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO elsewhere VALUES (1); TABLE bulkhead_outbox;");
    let source = Running::usual(&host, &application);
    for turn in 0..5 {
        application.write("ann", turn * 1_000..(turn + 1) * 1_000);
        until("the table is empty", async || application.waiting() == 0).await;
    }
    assert_eq!(host.numbers(&tenant).await, (0..5_000).collect::<Vec<_>>());
    idle.run("COMMIT;");
    source.stop().await;
}
