//! Which host, and as whom: flags, then the environment, then a profile file.

use secrecy::SecretString;

use crate::cli::client::Client;
use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::profile::Profile;

/// Where `serve` and `dev` listen if nobody says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The flags that say which host and as whom.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which host, and as whom")]
pub struct Connection {
    /// The host's address [default: the profile's, else 127.0.0.1:8080]
    #[arg(long, global = true, env = "BULKHEAD_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The key; better in the environment or a profile, where others cannot see it
    #[arg(long, global = true, env = "BULKHEAD_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: Option<String>,
}

/// Where to and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    url: String,
    key: Option<String>,
}

impl Connection {
    /// A client with a tenant's key.
    pub fn tenant(&self) -> Result<Client> {
        let resolved = self.resolve(&Profile::find()?, false, None)?;
        let Some(key) = resolved.key else {
            return Err(Error::hinted(
                format!("no key for {}", resolved.url),
                "give a tenant's key with --key or BULKHEAD_KEY; `bulkhead dev` writes one into .bulkhead/profile.toml",
            ));
        };
        Client::open(&resolved.url, Some(SecretString::from(key)))
    }

    /// A client with an operator's key.
    pub fn operator(&self) -> Result<Client> {
        let environment = std::env::var("BULKHEAD_OPERATOR_KEY").ok();
        let resolved = self.resolve(&Profile::find()?, true, environment)?;
        let Some(key) = resolved.key else {
            return Err(Error::hinted(
                format!("no operator key for {}", resolved.url),
                "this is the operator's command: give the key that `bulkhead serve` printed on its first start with --key or BULKHEAD_OPERATOR_KEY",
            ));
        };
        Client::open(&resolved.url, Some(SecretString::from(key)))
    }

    /// A client with whatever key there is, or none.
    pub fn anyone(&self) -> Result<Client> {
        let resolved = self.resolve(&Profile::find()?, false, None)?;
        Client::open(&resolved.url, resolved.key.map(SecretString::from))
    }

    /// Decides. A profile's keys go to the profile's address only.
    fn resolve(&self, profile: &Profile, operator: bool, environment: Option<String>) -> Result<Resolved> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let url = given(&self.url).or_else(|| profile.url.clone()).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let same = |one: &str, other: &str| -> Result<bool> {
            Ok(crate::cli::client::parse_url(one)? == crate::cli::client::parse_url(other)?)
        };
        let of_profile = match &profile.url {
            Some(at) if same(at, &url)? => {
                if operator {
                    profile.operator_key.clone()
                } else {
                    profile.key.clone()
                }
            }
            _ => None,
        };
        let own = given(&self.key);
        let key = if operator {
            // BULKHEAD_KEY often holds a tenant's key; a better one for this purpose counts more.
            let for_operators = own.clone().filter(|key| !key.starts_with("bhk_"));
            for_operators.or(environment.filter(|key| !key.is_empty())).or(of_profile).or(own)
        } else {
            own.or(of_profile)
        };
        Ok(Resolved { url, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn flags_count_before_the_profile_and_its_keys_stay_with_its_address() {
        let profile = Profile { url: text("http://127.0.0.1:9"), key: text("bhk_p"), operator_key: text("bho_p") };
        let check = |url: Option<&str>, key: Option<&str>, operator, environment: Option<&str>| {
            let connection = Connection { url: url.map(str::to_owned), key: key.map(str::to_owned) };
            let resolved = connection.resolve(&profile, operator, environment.map(str::to_owned));
            let resolved = resolved.expect("because the addresses are well formed");
            (resolved.url, resolved.key)
        };
        let here = "http://127.0.0.1:9".to_owned();
        let there = "https://there.example".to_owned();
        assert_eq!(check(None, None, false, None), (here.clone(), text("bhk_p")));
        assert_eq!(check(None, Some("bhk_f"), false, None), (here.clone(), text("bhk_f")));
        assert_eq!(check(Some(&there), None, false, None), (there.clone(), None));
        assert_eq!(check(Some(&there), Some("bhk_f"), false, None), (there, text("bhk_f")));
        assert_eq!(check(Some("127.0.0.1:9/"), None, false, None), ("127.0.0.1:9/".to_owned(), text("bhk_p")));
        // An operator's command passes over a tenant's key if there is a better one.
        assert_eq!(check(None, Some("bhk_f"), true, None), (here.clone(), text("bho_p")));
        assert_eq!(check(None, Some("bhk_f"), true, Some("bho_e")), (here.clone(), text("bho_e")));
        assert_eq!(check(None, Some("bho_f"), true, Some("bho_e")), (here, text("bho_f")));
    }
}
