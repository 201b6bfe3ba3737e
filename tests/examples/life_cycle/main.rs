//! A plugin's versions on a real host: swaps under load, and the time from an upload to the first event handled.
//!
//! ```text
//! life_cycle [SECONDS [EVENTS [ROUNDS]]] [swaps|uploads]
//! ```
//!
//! SECONDS (40) in which the swaps are spread, EVENTS (5,000) a second meanwhile, ROUNDS (5) of each upload. With `swaps`
//! or `uploads` only that part. Generator, host and compiler share the machine. The bare compiles are `bare_compile` of
//! the sandbox, which must have been built beside this program.
//!
//! Ends with 1 if an event was lost or handled twice; what takes longer than its mark is printed as missed.

mod load;
mod swaps;
mod uploads;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use bulkhead_tests::host::Host;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (numbers, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    if let Some(word) = words.iter().find(|word| !matches!(word.as_str(), "swaps" | "uploads")) {
        bail!("`{word}` is neither `swaps` nor `uploads`");
    }
    let number = |at: usize, otherwise: u64| numbers.get(at).map_or(Ok(otherwise), |text| text.parse());
    let (seconds, events, rounds) = (number(0, 40)?, number(1, 5_000)?, number(2, 5)?);
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);

    let mut code = ExitCode::SUCCESS;
    if wanted("swaps") {
        // Beside the build, not in a folder that may be in memory: durable is what is measured.
        let folder = folder()?;
        let host = Host::start(folder.path()).await?;
        if !swaps::run(&host, Duration::from_secs(seconds), events).await? {
            code = ExitCode::FAILURE;
        }
    }
    if wanted("uploads") {
        let folder = folder()?;
        let host = Host::start(folder.path()).await?;
        uploads::run(&host, folder.path(), usize::try_from(rounds)?).await?;
    }
    Ok(code)
}

fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(if Path::new("target").is_dir() { "target" } else { "." })?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// The value below which this share lies; zero of nothing.
fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}
