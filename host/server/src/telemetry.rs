//! What the host says about itself: the log on standard error, and what is measured.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::Context as _;
use metrics_exporter_prometheus::Matcher;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::EnvFilter;

use crate::config::Log;
use crate::config::LogFormat;

/// Upper bounds of what takes time, in seconds: from a cached read to what nobody waits for any longer.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The recorder is the process's; hosts that follow each other in one process (tests, the demo) share it.
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts the log and the measuring. Only the first host of a process decides how the log looks.
pub fn start(log: &Log) -> anyhow::Result<PrometheusHandle> {
    let filter = EnvFilter::try_new(&log.level).with_context(|| format!("`{}` is no log level", log.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that somebody before us has set the log up.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    if let Some(handle) = METRICS.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .context("the buckets of histograms are wrong")?
        .build_recorder();
    let handle = METRICS.get_or_init(|| recorder.handle()).clone();
    // Again, an error means that there is one already.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle)
}
