//! A store in a database of its own, on the server that all tests share.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;

use async_trait::async_trait;
use bulkhead_services::Database;
use bulkhead_services::shared;
use bulkhead_store::Store;
use bulkhead_store::conformance::Ground;
use bulkhead_store::postgres::Options;
use bulkhead_store::postgres::Postgres;
use bulkhead_store::postgres::migrate;

/// As many as an embedded store has.
pub const SHARDS: u16 = 16;

/// See the module's text.
pub struct Server {
    pub database: Database,
    open: Option<Postgres>,
}

impl Server {
    pub fn new() -> Self {
        let server = shared::postgres().expect("because the server's programs are there");
        Self { database: server.database().expect("because the server makes databases"), open: None }
    }

    /// Connects once more, as another node does.
    pub async fn connect(&self) -> Postgres {
        let (owner, host) = (self.database.owner_url(), self.database.host_url());
        migrate(owner, host, SHARDS).await.expect("because the database is empty or ours");
        // Many tests share the server's connections.
        let options = Options { connections: 4, ..Options::new(host) };
        Postgres::open(options).await.expect("because the tables are there")
    }
}

#[async_trait]
impl Ground for Server {
    async fn open(&mut self) -> Store {
        let store = self.connect().await;
        self.open = Some(store.clone());
        Arc::new(store)
    }

    async fn close(&mut self) {
        if let Some(store) = self.open.take() {
            store.close().await;
        }
    }
}
