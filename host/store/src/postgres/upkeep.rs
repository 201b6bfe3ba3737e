//! Upkeep: segments for the events to come, and one row of usage a line.

use async_trait::async_trait;

use crate::Result;
use crate::postgres::Postgres;
use crate::upkeep::Upkeep;

#[async_trait]
impl Upkeep for Postgres {
    async fn host_tidy(&self) -> Result<()> {
        self.call("SELECT grow()", |_| {}).await?;
        self.call("SELECT fold_usage()", |_| {}).await?;
        Ok(())
    }
}
