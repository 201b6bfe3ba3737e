//! The host's own list of its routes, so that a suite over all of them misses none.

use anyhow::Context;
use anyhow::Result;
use reqwest::Method;
use serde_json::Value;

use crate::host::Client;

/// One operation.
#[derive(Debug, Clone)]
pub struct Route {
    /// GET, PUT …
    pub method: Method,
    /// `/v1/plugins/{name}/state/{key}`
    pub path: String,
    /// Names of its query parameters.
    pub query: Vec<String>,
    /// Whether it takes a body.
    pub body: bool,
}

impl Route {
    /// `GET /v1/runs/{id}`
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The path with each parameter replaced by what `value` gives for the segment before it and the parameter's name.
    pub fn filled(&self, value: impl Fn(&str, &str) -> Result<String>) -> Result<String> {
        let mut filled = String::new();
        let mut before = "";
        for segment in self.path.split('/').skip(1) {
            filled.push('/');
            match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => filled.push_str(&value(before, name.trim_start_matches('*'))?),
                None => {
                    filled.push_str(segment);
                    before = segment;
                }
            }
        }
        Ok(filled)
    }

    /// Whether its path names something.
    #[must_use]
    pub fn names_something(&self) -> bool {
        self.path.contains('{')
    }
}

/// All routes of the host.
pub async fn routes(client: &Client) -> Result<Vec<Route>> {
    let document = client.get("/openapi.json").await?;
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        let shared = item["parameters"].as_array().cloned().unwrap_or_default();
        for (method, operation) in item.as_object().context("a path that is no object")? {
            let Ok(method @ (Method::GET | Method::PUT | Method::POST | Method::DELETE | Method::PATCH)) =
                method.to_uppercase().parse::<Method>()
            else {
                continue;
            };
            let own = operation["parameters"].as_array().cloned().unwrap_or_default();
            let query = shared.iter().chain(&own).filter(|parameter| parameter["in"] == "query");
            let query = query.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned).collect();
            let body = operation.get("requestBody").is_some_and(|body| *body != Value::Null);
            routes.push(Route { method, path: path.clone(), query, body });
        }
    }
    Ok(routes)
}
