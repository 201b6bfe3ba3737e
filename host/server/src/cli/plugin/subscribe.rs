//! A manifest's subscriptions as rules of the tenant: made where there are none of that name, never changed.
//!
//! Rules belong to the tenant, who may have narrowed one since; a push must not widen it again.

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::value::at;
use crate::manifest::Manifest;

/// Makes the rules that are missing, and says what it did.
pub async fn make_rules(client: &Client, manifest: &Manifest, plugin: &str) -> Result<()> {
    for rule in manifest.rules(plugin) {
        let name = at(&rule, "/name");
        let path = ["v1", "rules", &name];
        match client.get(&path, &[]).await {
            Ok(_) => screen::note(&format!("rule {name} is there already and stays as it is"))?,
            Err(Error::Refused(problem)) if problem.status == 404 => {
                client.put(&path, &rule).await?;
                screen::note(&format!("rule {name}: {} to {plugin}", at(&rule, "/on")))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
