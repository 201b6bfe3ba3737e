//! A store in a folder that goes when the test ends.

use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_store::Store;
use bulkhead_store::conformance::Ground;
use bulkhead_store::sqlite::Options;
use bulkhead_store::sqlite::Sqlite;
use tempfile::TempDir;

/// See the module's text.
pub struct OnDisk {
    folder: TempDir,
    open: Option<Sqlite>,
}

impl OnDisk {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("because the test may write"), open: None }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }
}

#[async_trait::async_trait]
impl Ground for OnDisk {
    async fn open(&mut self) -> Store {
        let store = Sqlite::open(Options::new(self.path())).await.expect("because the store opens");
        self.open = Some(store.clone());
        Arc::new(store)
    }

    async fn close(&mut self) {
        if let Some(store) = self.open.take() {
            store.close().await;
        }
    }
}
