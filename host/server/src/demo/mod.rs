//! The demo: a host in this process with two tenants, their plugins, rules and events, on a store that is forgotten.
//!
//! It uses the host as anybody would, over HTTP with the tenants' own keys, and counts from outside what came of the
//! events: nothing lost, nothing applied twice.
//!
//! Reading order: [`script`] (what the tenants do), [`stream`] (their events), [`stage`] (the host, the receiver, the
//! set-up), [`summary`] (what came of it), [`receiver`].

mod receiver;
mod script;
mod stage;
mod stream;
mod summary;

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

use crate::cli::Error;
use crate::cli::FeedOptions;
use crate::cli::Paint;
use crate::cli::Result;
use crate::cli::Tally;
use crate::cli::count;
use crate::cli::publish;
use crate::demo::stage::Actor;
use crate::demo::stage::Stage;

/// How long the host may take to work everything off before that counts as a failure.
const WORK_MAX: Duration = Duration::from_secs(300);

/// The pause between two events of the trickle that keeps the demo alive.
const TRICKLE: Duration = Duration::from_millis(1_500);

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; none is port 8080, or any free one.
    pub listen: Option<String>,
    /// End after the summary.
    pub once: bool,
    /// How many days of events are fed.
    pub days: usize,
    /// Where `<name>.wasm` and `<name>.toml` of the example plugins are.
    pub plugins: PathBuf,
    /// Where `<stream>/events.ndjson` are.
    pub data: PathBuf,
}

/// Runs the demo. With `once` it fails if anything is not as it must be.
pub async fn run(options: Options) -> Result<()> {
    let stage = Stage::open(&options).await?;
    let outcome = tokio::select! {
        outcome = play(&stage, &options) => outcome,
        _ = crate::cli::stopped() => Ok(()),
    };
    stage.close().await;
    outcome
}

async fn play(stage: &Stage, options: &Options) -> Result<()> {
    let fed = feed_all(stage, options.days).await?;
    let worked = settle(stage, options.days).await;
    let well = summary::print(stage, options.days, &fed).await?;
    if let Err(what) = worked {
        crate::cli::note(&Paint::stderr().red(&format!("after {} s: {what}", WORK_MAX.as_secs())))?;
    }
    if options.once {
        return if well { Ok(()) } else { Err(Error::failed("not everything is as it must be; see above")) };
    }
    summary::look_further(stage)?;
    trickle(stage, options.days).await
}

/// What feeding took.
#[derive(Debug)]
pub struct Fed {
    /// What the host answered, per actor.
    pub tallies: Vec<Tally>,
    /// How long.
    pub took: Duration,
}

/// Feeds every tenant its days, all tenants at once.
async fn feed_all(stage: &Stage, days: usize) -> Result<Fed> {
    let total: usize = stage.actors.iter().map(|actor| actor.stream.per_day() * days).sum();
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
    let shape = "publishing  {bar:28} {pos} of {len} events  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let tallies: Vec<RefCell<Tally>> = stage.actors.iter().map(|_| RefCell::default()).collect();
    let begun = Instant::now();
    let feeds = stage.actors.iter().zip(&tallies).map(async |(actor, tally)| {
        for day in 0..days {
            let mut lines = String::new();
            for line in actor.stream.day(day) {
                lines.push_str(&line);
                lines.push('\n');
            }
            publish(&actor.client, lines.as_bytes(), FeedOptions::default(), tally).await?;
        }
        Ok::<(), Error>(())
    });
    let feeds = futures_util::future::try_join_all(feeds);
    let watch = async {
        loop {
            bar.set_position(tallies.iter().map(|tally| tally.borrow().answered()).sum());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        fed = feeds => fed.map(|_| ())?,
        () = watch => {}
    }
    bar.finish_and_clear();
    let took = begun.elapsed();
    let tallies: Vec<Tally> = tallies.into_iter().map(RefCell::into_inner).collect();
    let accepted: u64 = tallies.iter().map(|tally| tally.accepted).sum();
    let rate = (accepted as f64 / took.as_secs_f64().max(0.001)) as u64;
    crate::cli::line(&format!(
        "published {} events over HTTP in {:.1} s ({}/s), each durable before it was answered",
        count(accepted),
        took.as_secs_f64(),
        count(rate)
    ))?;
    Ok(Fed { tallies, took })
}

/// Waits until nothing is left to do; says what was, if it takes too long.
async fn settle(stage: &Stage, days: usize) -> std::result::Result<(), String> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(100));
    let begun = Instant::now();
    loop {
        let left = match summary::left(stage, days).await {
            Ok(None) => return Ok(()),
            Ok(Some(left)) => left,
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > WORK_MAX {
            return Err(left);
        }
        bar.set_message(format!("working off: {left}"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One event now and then, for ever, so that there is something to watch.
async fn trickle(stage: &Stage, days: usize) -> Result<()> {
    for day in days.. {
        let mut streams: Vec<(&Actor, Vec<String>)> =
            stage.actors.iter().map(|actor| (actor, actor.stream.day(day).collect())).collect();
        let longest = streams.iter().map(|(_, lines)| lines.len()).max().unwrap_or_default();
        for index in 0..longest {
            for (actor, lines) in &mut streams {
                let Some(line) = lines.get(index) else { continue };
                let tally = RefCell::default();
                let fed = publish(&actor.client, line.as_bytes(), FeedOptions::default(), &tally).await;
                if let Err(error) = fed {
                    tracing::warn!(%error, tenant = actor.script.tenant, "the trickle was not taken");
                }
            }
            tokio::time::sleep(TRICKLE).await;
        }
    }
    Ok(())
}
