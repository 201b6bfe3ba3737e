//! A manifest's subscriptions as rules of the tenant: made where there are none of that name, never changed.
//!
//! Rules belong to the tenant, who may have narrowed one since; a push must not widen it again.

use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::screen;
use crate::cli::value::at;
use crate::manifest::Manifest;

/// Makes the rules that are missing, and says what it did.
pub async fn make_rules(client: &Client, manifest: &Manifest, plugin: &str) -> Result<()> {
    let missing = missing(client, manifest, plugin).await?;
    for rule in manifest.rules(plugin) {
        let name = at(&rule, "/name");
        if missing.contains(&rule) {
            client.put(&["v1", "rules", &name], &rule).await?;
            screen::note(&format!("rule {name}: {} to {plugin}", at(&rule, "/on")))?;
        } else {
            screen::note(&format!("rule {name} is there already and stays as it is"))?;
        }
    }
    Ok(())
}

/// The rules of the manifest for which there is none of that name.
pub async fn missing(client: &Client, manifest: &Manifest, plugin: &str) -> Result<Vec<Value>> {
    let mut missing = Vec::new();
    for rule in manifest.rules(plugin) {
        match client.get(&["v1", "rules", &at(&rule, "/name")], &[]).await {
            Ok(_) => {}
            Err(Error::Refused(problem)) if problem.status == 404 => missing.push(rule),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::cli::client;

    #[tokio::test]
    async fn only_rules_of_a_name_that_there_is_not_are_missing() {
        let text =
            "[plugin]\nname = \"p\"\n[[subscribe]]\non = [\"a\"]\n[[subscribe]]\nname = \"other\"\non = [\"b\"]\n";
        let manifest = Manifest::parse(text).expect("because it is right");
        let there = axum::routing::get(async || Json(json!({"name": "p"})));
        let routes = axum::Router::new()
            .route("/v1/rules/p", there)
            .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"title": "Not found"}))));
        let missing = missing(&client::of(routes).await, &manifest, "p").await.expect("because the host answers");
        let names: Vec<String> = missing.iter().map(|rule| at(rule, "/name")).collect();
        assert_eq!(names, ["other"]);
    }
}
