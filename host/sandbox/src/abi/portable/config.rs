//! `wasi:config/store@0.2.0-rc.1` on the plugin's settings.

use super::bindings::wasi::config::store;
use super::bindings::wasi::config::store::Error;
use crate::abi::host::Host;

impl store::Host for Host {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        let run = self.run();
        run.enter()?;
        Ok(Ok(run.setup.config.get(&key).map(|json| plain(json))))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let run = self.run();
        run.enter()?;
        Ok(Ok(run.setup.config.iter().map(|(name, json)| (name.clone(), plain(json))).collect()))
    }
}

/// A text as it is; anything else as the JSON that it is kept as.
fn plain(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_their_quotes_and_nothing_else_changes() {
        for (json, expected) in
            [(r#""EUR""#, "EUR"), (r#""a\nb""#, "a\nb"), ("5", "5"), ("true", "true"), (r#"{"a":1}"#, r#"{"a":1}"#)]
        {
            assert_eq!(plain(json), expected);
        }
    }
}
