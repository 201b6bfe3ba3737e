//! Several nodes on a Postgres and a Redis of their own, each behind wires that can be cut.
//!
//! ```text
//! node 1 ── wire ──┐                 one folder of keys for all nodes,
//! node 2 ── wire ──┼─▶ Postgres      as an operator would copy it
//! node 3 ── wire ──┘      Redis ◀── wire ── every node
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use bulkhead_services::Database;
use bulkhead_services::Postgres;
use bulkhead_services::PostgresOptions;
use bulkhead_services::Proxy;
use bulkhead_services::Redis;
use bulkhead_services::RedisOptions;
use tempfile::TempDir;

use crate::eventually;
use crate::host::Client;
use crate::host::Host;
use crate::host::Settings;

/// Nodes that are up answer within this time.
const UP: Duration = Duration::from_secs(30);

/// All of it. Dropping it ends everything.
pub struct Cluster {
    /// The nodes; killed ones keep their place.
    pub nodes: Vec<Node>,
    /// The truth.
    pub postgres: Postgres,
    /// The transport.
    pub redis: Redis,
    database: Database,
    folder: TempDir,
}

/// One node and its wires.
pub struct Node {
    /// The process.
    pub host: Host,
    /// To Postgres.
    pub wire: Proxy,
    /// To Redis.
    pub redis_wire: Proxy,
}

impl Cluster {
    /// Starts the servers and this many nodes, all at once.
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, &[]).await
    }

    /// The same; the nodes get these variables, too.
    pub async fn start_with(nodes: usize, environment: &[(&str, &str)]) -> Result<Self> {
        let mut cluster = Self::bare()?;
        for _ in 0..nodes {
            cluster.join(environment).await?;
        }
        Ok(cluster)
    }

    /// The servers, without a node.
    pub fn bare() -> Result<Self> {
        Self::bare_on(PostgresOptions::default())
    }

    /// The same, with another Postgres.
    pub fn bare_on(options: PostgresOptions) -> Result<Self> {
        let postgres = Postgres::start(options)?;
        let redis = Redis::start(RedisOptions::default())?;
        let database = postgres.database()?;
        Ok(Self { nodes: Vec::new(), postgres, redis, database, folder: tempfile::tempdir()? })
    }

    /// One more node.
    pub async fn join(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let name = format!("node-{}", self.nodes.len() + 1);
        let folder = self.folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        let wire = Proxy::start(self.postgres.port())?;
        let redis_wire = Proxy::start(self.redis.port())?;
        let settings = self.settings(&name, &wire, &redis_wire, environment);
        let host = Host::start_as(&folder, settings).await.with_context(|| format!("{name} does not start"))?;
        self.nodes.push(Node { host, wire, redis_wire });
        Ok(())
    }

    fn settings(&self, name: &str, wire: &Proxy, redis_wire: &Proxy, environment: &[(&str, &str)]) -> Settings {
        let through = |url: &str, from: u16, to: u16| url.replace(&format!(":{from}"), &format!(":{to}"));
        let port = self.postgres.port();
        let given = [
            ("BULKHEAD_STORE_OWNER", through(self.database.owner_url(), port, wire.port())),
            ("BULKHEAD_KEYS_DIR", self.folder.path().join("keys").display().to_string()),
            ("BULKHEAD_REDIS", through(&self.redis.url(), self.redis.port(), redis_wire.port())),
            ("BULKHEAD_NODE", name.to_owned()),
        ];
        let given = given.into_iter().map(|(name, value)| (name.to_owned(), value));
        let more = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings {
            store: Some(through(self.database.host_url(), port, wire.port())),
            arguments: Vec::new(),
            environment: given.chain(more).collect(),
        }
    }

    /// Where the owner of the tables reaches them: to look from outside.
    #[must_use]
    pub fn owner_url(&self) -> &str {
        self.database.owner_url()
    }

    /// A folder of the cluster's own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new tenant, with a client at the first node.
    pub async fn tenant(&self, name: &str) -> Result<Client> {
        self.nodes[0].host.tenant(name).await
    }

    /// Rows of one column, asked of the database from outside.
    pub fn ask(&self, sql: &str) -> Result<Vec<String>> {
        let script = format!("SET search_path = bulkhead;\n{sql};\n");
        let said = bulkhead_services::sql(self.owner_url(), &script)?;
        Ok(said.lines().map(str::to_owned).filter(|line| line != "SET" && !line.is_empty()).collect())
    }

    /// How many shards each node holds whose lease lasts, in no order.
    pub fn shares(&self) -> Result<Vec<u64>> {
        let rows = self.ask(
            "SELECT count(*) FROM leases l JOIN nodes n ON n.name = l.owner
             WHERE n.until > extract(epoch FROM clock_timestamp()) * 1000000 GROUP BY n.name ORDER BY 1",
        )?;
        rows.iter().map(|row| Ok(row.parse()?)).collect()
    }

    /// Waits until all shards are held, evenly, by this many nodes.
    pub async fn balanced(&self, nodes: usize) -> Result<()> {
        eventually(&format!("{nodes} nodes to have even shares"), UP, async || {
            let shares = self.shares()?;
            let even = shares.iter().max().zip(shares.iter().min()).is_some_and(|(most, least)| most - least <= 1);
            let shards: u64 = self.ask("SELECT count(*) FROM leases")?[0].parse()?;
            if shares.len() == nodes && even && shares.iter().sum::<u64>() == shards {
                Ok(Some(()))
            } else {
                anyhow::bail!("the shares are {shares:?}")
            }
        })
        .await
    }
}
