//! The file sink: whole lines, in a folder of the tenant's own, and no more than fit.

use std::sync::Arc;

use bulkhead_domain::clock::Clock as _;
use bulkhead_domain::clock::SystemClock;
use bulkhead_domain::policy::verdict::Outcome;
use bulkhead_flow::sink::Outlets;
use bulkhead_flow::sink::SinkSpec;
use bulkhead_flow::sink::file::Files;
use serde_json::Value;
use serde_json::json;

use crate::fixture::due;
use crate::fixture::local_outlets;
use crate::fixture::resolved;

fn outlets(folder: &std::path::Path, most: u64) -> Outlets {
    let files = Files::open(folder, most).expect("because the folder is ours");
    Outlets { files: Some(Arc::new(files)), ..local_outlets() }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_write_whole_lines() {
    let folder = tempfile::tempdir().expect("because there is room");
    let outlets = outlets(folder.path(), 1 << 30);
    let sink = resolved(&json!({"kind": "file", "path": "a/b.ndjson"}), &[]);
    let writing = (0..200).map(|number| {
        let (sink, outlets) = (sink.clone(), outlets.clone());
        tokio::spawn(async move {
            // A line break in the body must not become one in the file.
            let body = format!("{{\"number\":\n{number}}}");
            sink.deliver(&outlets, &due(1, &format!("eff_{number}"), "file", &body), SystemClock.now()).await
        })
    });
    for written in writing.collect::<Vec<_>>() {
        assert_eq!(written.await.expect("because it did not panic").outcome, Outcome::Done);
    }
    let text = std::fs::read_to_string(folder.path().join("ten_test/a/b.ndjson")).expect("because it was written");
    let mut numbers: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("because a line is whole")["data"]["number"].clone())
        .map(|number| number.as_u64().expect("because it is a number"))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_file_says_so_and_takes_no_part_of_a_line() {
    let folder = tempfile::tempdir().expect("because there is room");
    let outlets = outlets(folder.path(), 1_000);
    let sink = resolved(&json!({"kind": "file", "path": "full.ndjson"}), &[]);
    let mut codes = Vec::new();
    for number in 0..20 {
        let delivery = due(1, &format!("eff_{number}"), "file", "{}");
        match sink.deliver(&outlets, &delivery, SystemClock.now()).await.outcome {
            Outcome::Done => codes.push("done".to_owned()),
            Outcome::Failed(failure) | Outcome::Rejected(failure) => codes.push(failure.code),
        }
    }
    assert_eq!(
        (codes.first().map(String::as_str), codes.last().map(String::as_str)),
        (Some("done"), Some("file:full"))
    );
    let text = std::fs::read_to_string(folder.path().join("ten_test/full.ndjson")).expect("because it was written");
    assert!(text.len() <= 1_000 && text.ends_with('\n'), "{}", text.len());
}

#[test]
fn no_path_leads_out_of_the_folder() {
    for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/.b", "a\\b", "a\0b", "ü", "-x", "a/b/c/d/e"]
    {
        let error = SinkSpec::parse(&json!({"kind": "file", "path": path})).expect_err("because it is no plain path");
        assert_eq!(error.field, "path", "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_folder_is_not_followed_out_of_it() {
    let folder = tempfile::tempdir().expect("because there is room");
    let outside = tempfile::tempdir().expect("because there is room");
    let outlets = outlets(folder.path(), 1 << 20);
    std::fs::create_dir(folder.path().join("ten_test")).expect("because it is ours");
    std::os::unix::fs::symlink(outside.path(), folder.path().join("ten_test/link")).expect("because it is ours");
    let sink = resolved(&json!({"kind": "file", "path": "link/x.ndjson"}), &[]);
    let made = sink.deliver(&outlets, &due(1, "eff_1", "file", "{}"), SystemClock.now()).await;
    assert_ne!(made.outcome, Outcome::Done);
    assert_eq!(std::fs::read_dir(outside.path()).expect("because it is ours").count(), 0);
}
