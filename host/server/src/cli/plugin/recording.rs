//! Recordings, as the host gives them to this command line.

use bulkhead_domain::recording::FORMAT;
use bulkhead_domain::recording::Recording;
use clap::Args;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;

/// Which recording.
#[derive(Debug, Args)]
pub struct Which {
    /// The run's id
    run: String,
    /// Of this attempt; else of the last one that was recorded
    #[arg(long)]
    attempt: Option<u32>,
    /// Of the call at this step, counted from 0; else of the last call that was recorded
    #[arg(long)]
    step: Option<u32>,
}

impl Which {
    /// The run's id.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Fetches it.
    pub async fn fetch(&self, client: &Client) -> Result<Recording> {
        let (attempt, step) = (self.attempt.map(|it| it.to_string()), self.step.map(|it| it.to_string()));
        let all = [("attempt", &attempt), ("step", &step)];
        let query: Vec<_> = all.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let answer = client.get(&["v1", "runs", &self.run, "recording"], &query).await?;
        read(answer)
    }
}

fn read(answer: Value) -> Result<Recording> {
    let format = answer.get("format").and_then(Value::as_u64).unwrap_or_default();
    serde_json::from_value(answer).map_err(|cause| match format > u64::from(FORMAT) {
        true => Error::hinted(
            format!("the recording has format {format}, and this program reads formats up to {FORMAT}"),
            "update this program to the host's version",
        ),
        false => Error::failed(format!("the recording does not read: {cause}")),
    })
}
