//! The Postgres backend passes the suite that every backend passes.

mod postgres;

use postgres::Server;

bulkhead_store::conformance!(Server::new());
