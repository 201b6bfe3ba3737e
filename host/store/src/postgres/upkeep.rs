//! Upkeep: segments for the events to come, and one row of usage a line.

use async_trait::async_trait;

use crate::Result;
use crate::postgres::Postgres;
use crate::postgres::session::PATIENT;
use crate::postgres::session::Session;
use crate::postgres::text::Args;
use crate::upkeep::Upkeep;

#[async_trait]
impl Upkeep for Postgres {
    async fn host_tidy(&self) -> Result<()> {
        let mut session = Session::take(&self.0.pool, PATIENT).await?;
        session.fetch("SELECT grow()", Args::default()).await?;
        session.fetch("SELECT fold_usage()", Args::default()).await?;
        Ok(())
    }
}
