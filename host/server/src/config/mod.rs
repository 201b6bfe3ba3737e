//! The configuration: what the operator says, read once, checked as a whole.
//!
//! ```text
//! default.toml < bulkhead.toml < BULKHEAD_* < flags ──layer──▶ raw::Config ──check──▶ Config
//! ```
//!
//! Only [`crate::app`] looks at a [`Config`]; it hands every part the options that are its own. Nothing but the command
//! line reads the environment; tests pass their own.
//!
//! Reading order: `default.toml` (the reference), `raw`, `layer`, `check`, `render`.

mod check;
mod error;
mod layer;
mod raw;
mod render;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_domain::policy::ceiling::Ceiling;
use bulkhead_domain::policy::proof::ReleasePolicy;
use bulkhead_flow::dispatch::recorder;
use bulkhead_flow::inbox;
use bulkhead_flow::keeper::Retention;
use bulkhead_flow::outbound::Origins;
use bulkhead_flow::source::Spec;
use bulkhead_sandbox::Compiler;
use bulkhead_store::catalogue::Room;
use ipnet::IpNet;
use secrecy::SecretString;

use crate::signature::Trust;

pub use crate::config::error::Error;
pub use crate::config::error::Problem;

/// The commented defaults: the reference of all settings.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The file that is read when none is named.
pub const FILE: &str = "bulkhead.toml";

/// Settings given by flags; they go before everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--store`
    pub store: Option<String>,
    /// `--redis`
    pub redis: Option<String>,
    /// `--plugins-dir`
    pub plugins_dir: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// Any other setting by its path, such as `("egress.allow", "127.0.0.0/8")`.
    pub others: Vec<(String, String)>,
}

/// What a host is told. Every value has been checked, alone and against the others.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub store: Store,
    /// The Redis that nodes signal each other over, and that sinks write to.
    pub redis: Option<SecretString>,
    /// This node's name in logs and in the list of nodes; none is the machine's.
    pub node: Option<String>,
    /// When an event counts as durable.
    pub synchronous: Synchronous,
    /// Caches, files of sinks, and what is this node's alone.
    pub data_dir: PathBuf,
    /// Keys that all nodes of a store share.
    pub keys_dir: PathBuf,
    /// The folder that is watched for plugins.
    pub plugins_dir: Option<PathBuf>,
    /// How long what is under way may take to finish at the end.
    pub drain_grace: Duration,
    /// How the log is written.
    pub log: Log,
    /// Private subnets that tenants may reach.
    pub egress_allow: Vec<IpNet>,
    /// Where plugins may send requests.
    pub egress_plugins: Origins,
    /// The budget along a chain of events.
    pub causation: Causation,
    /// Limits.
    pub limits: Limits,
    /// Room for plugins.
    pub sandbox: Sandbox,
    /// How long what is over is kept.
    pub retention: Retention,
    /// What may be recorded of plugins' calls.
    pub recorder: recorder::Options,
    /// The most that any tenant's plugins may be granted.
    pub ceiling: Ceiling,
    /// Whose signatures of plugins count.
    pub(crate) signatures: Trust,
    /// What is asked of versions of any tenant's plugins.
    pub asks: ReleasePolicy,
    /// Queues of others that events are taken from.
    pub sources: Vec<Spec>,
    /// The operator's key, if it is set from outside.
    pub operator_key: Option<SecretString>,
    /// How components are compiled. No setting: only tests, whose binary is not the host's, change it.
    pub compiler: Compiler,
    /// Worth telling the operator.
    pub warnings: Vec<String>,
    settled: Vec<layer::Setting>,
}

/// Where everything is kept.
#[derive(Debug, Clone)]
pub enum Store {
    /// An SQLite database at this path, for one node.
    Sqlite(PathBuf),
    /// A Postgres database, for several.
    Postgres {
        /// With the host's own role, which owns nothing.
        url: SecretString,
        /// With the role that owns the tables: if it is given, they are made and brought up to date at the start.
        owner: Option<SecretString>,
        /// Connections of this node at most.
        connections: u32,
    },
}

/// When an event counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Once the disk says so.
    Full,
    /// Once the kernel has it: a power cut can take the last moments.
    Normal,
}

/// How the log is written.
#[derive(Debug, Clone)]
pub struct Log {
    /// For people or for collectors.
    pub format: LogFormat,
    /// What is written, as `tracing` filters are.
    pub level: String,
}

/// For whom the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: a JSON object per line.
    Json,
}

/// The budget along a chain of events.
#[derive(Debug, Clone, Copy)]
pub struct Causation {
    /// How far an event may be from its first cause.
    pub hops: u16,
    /// How many events may follow from one first event.
    pub descendants: u32,
}

/// Limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of what publishers hand in.
    pub event: inbox::Limits,
    /// Of one call of a plugin.
    pub plugin: bulkhead_domain::policy::limits::Limits,
    /// Of a tenant whose own quotas are unset.
    pub tenant: bulkhead_domain::policy::quota::Quotas,
    /// Of other requests.
    pub api: ApiLimits,
}

/// Limits of requests.
#[derive(Debug, Clone)]
pub struct ApiLimits {
    /// Bytes of a plugin's upload.
    pub upload_bytes: usize,
    /// Uploads in work at a time.
    pub uploads: usize,
    /// Plugins of one tenant, and versions of one plugin. How much they may keep is the tenant's quota.
    pub room: Room,
    /// Bytes of any other document.
    pub document_bytes: usize,
    /// Live streams open at a time for one tenant.
    pub streams: usize,
    /// Requests in work at a time.
    pub requests: usize,
}

/// Room for plugins.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Instances alive at a time.
    pub instances: u32,
    /// Linear memories alive at a time.
    pub memories: u32,
    /// Bytes of machine code in memory.
    pub cache_bytes: u64,
    /// Bytes of machine code on disk.
    pub disk_bytes: u64,
    /// Compilations at a time; 0 is half the cores.
    pub compilers: usize,
}

impl Config {
    /// Puts the layers together and checks the result. Without a `file`, [`FILE`] is read if it is there.
    ///
    /// `environment` is what [`std::env::vars`] gives; only `BULKHEAD_*` is looked at.
    pub fn load(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Error> {
        let layers = layer::Layers::read(file, environment, flags)?;
        check::check(layers)
    }

    /// All settings as TOML, each with where it comes from; secrets are masked.
    #[must_use]
    pub fn render(&self) -> String {
        render::render(self)
    }
}

#[cfg(test)]
mod tests;
