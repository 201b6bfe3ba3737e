//! What the commands that start a host share: their flags, their configuration, the host's address as people type it.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use rand::Rng as _;

use crate::cli::error::Error;
use crate::cli::error::Result;
use crate::cli::paint::Paint;
use crate::cli::problem::Fault;
use crate::config;
use crate::config::Config;
use crate::config::Flags;

/// The flags of a host; they count before the environment, which counts before the file.
#[derive(Debug, Clone, Default, Args)]
pub struct HostFlags {
    /// The configuration file [default: ./bulkhead.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 is any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where everything is kept, sqlite:PATH or postgres://ROLE@SERVER/DATABASE; with a password better in
    /// BULKHEAD_STORE, where others cannot see it [default: sqlite:bulkhead.db]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A Redis that nodes tell each other over what happened, and that Redis sinks write to
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Upload plugins from DIR/TENANT/NAME.wasm (with NAME.toml beside it) whenever they change
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
    /// Where keys, caches and other files of this node are [default: bulkhead-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How the log is written to standard error: text, or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl HostFlags {
    /// The configuration that comes of them, the environment and the file.
    pub fn load(self) -> Result<Config> {
        let flags = Flags {
            listen: self.listen,
            store: self.store,
            redis: self.redis,
            plugins_dir: self.plugins_dir,
            data_dir: self.data_dir,
            log_format: self.log_format,
            others: Vec::new(),
        };
        load(self.config, environment(), &flags)
    }
}

/// The variables that are text; others cannot be ours.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The file that a configuration is read from when no flag names one; none if there is none.
pub fn file(environment: &[(String, String)]) -> Option<PathBuf> {
    let named = environment.iter().find(|(name, _)| name == "BULKHEAD_CONFIG").map(|(_, file)| PathBuf::from(file));
    named.or_else(|| Some(PathBuf::from(config::FILE)).filter(|file| file.exists()))
}

/// Reads a configuration; all that is wrong with it becomes one error.
pub fn load(file: Option<PathBuf>, environment: Vec<(String, String)>, flags: &Flags) -> Result<Config> {
    Config::load(file, environment, flags).map_err(|error| refused(&error, Paint::stderr()))
}

fn refused(error: &config::Error, paint: Paint) -> Error {
    let mut faults = String::new();
    for problem in &error.problems {
        let fault = &problem.fault;
        let fault = Fault {
            path: fault.path.clone(),
            line: fault.line,
            column: fault.column,
            message: fault.message.clone(),
            hint: fault.hint.clone(),
            excerpt: fault.excerpt.clone(),
            place: Some(problem.origin.clone()),
        };
        fault.render(None, paint, &mut faults);
    }
    let what = match error.problems.len() {
        1 => "the configuration has a problem".to_owned(),
        many => format!("the configuration has {many} problems"),
    };
    Error::Failed {
        what: format!("{what}\n{}", faults.trim_end()),
        hint: Some("`bulkhead config default` prints every setting".to_owned()),
    }
}

/// An operator's key that nobody has yet.
pub fn new_operator_key(purpose: &str) -> String {
    let secret: [u8; 32] = rand::rng().random();
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("bho_{purpose}_{digits}")
}

/// The address to type: a host that listens on every address is also on this machine's own.
pub fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_be_typed() {
        for (address, expected) in [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
        ] {
            assert_eq!(url(address.parse().expect("because it is an address")), expected);
        }
    }

    #[test]
    fn the_variable_names_the_file() {
        let environment = [("BULKHEAD_CONFIG".to_owned(), "/etc/bulkhead.toml".to_owned())];
        assert_eq!(file(&environment), Some(PathBuf::from("/etc/bulkhead.toml")));
        assert_eq!(file(&[]), None, "there is none in this folder");
    }

    #[test]
    fn a_wrong_flag_is_named() {
        let flags = HostFlags { listen: Some("nowhere".to_owned()), ..HostFlags::default() };
        let flags = Flags { listen: flags.listen, ..Flags::default() };
        let error = load(Some("/dev/null".into()), Vec::new(), &flags).expect_err("because that is no address");
        let text = error.render(Paint::plain());
        assert!(text.contains("--> --listen") && text.contains("error: the configuration has a problem"), "{text}");
    }

    #[test]
    fn operator_keys_differ_and_are_taken() {
        let key = new_operator_key("test");
        assert_ne!(key, new_operator_key("test"));
        let environment = vec![("BULKHEAD_OPERATOR_KEY".to_owned(), key)];
        assert!(load(Some("/dev/null".into()), environment, &Flags::default()).is_ok());
    }
}
