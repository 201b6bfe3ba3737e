//! The demo: it does what it says, and says so if it does not.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_nothing_lost_and_nothing_twice() -> Result<()> {
    let plugins = std::env::var_os("BULKHEAD_PLUGINS").context("BULKHEAD_PLUGINS is not set")?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    // In a folder of its own, so that whatever it left behind would be seen.
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(bulkhead_tests::binary()?);
    command.args(["demo", "--once", "--listen", "127.0.0.1:0", "--days", "3", "--plugins"]).arg(plugins);
    command.arg("--data").arg(data).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.context("it did not end")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let said = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(text.contains("nothing lost, nothing applied twice") && !text.contains("FAIL"), "{said}");
    for tenant in ["acme-shop", "octo-hub"] {
        assert!(text.contains(tenant), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "it leaves nothing behind");
    Ok(())
}
