//! Servers that tests need: a Postgres and a Redis of their own, on free ports, in temporary folders.
//!
//! [`shared`] is for tests that only use a server; [`Postgres`] is for those that also do it harm. Either way a server
//! ends with the process that started it, however that ends, and leaves nothing behind. Linux only.
//!
//! Reading order: `shared`, `postgres`, `database`, then `server`, which both kinds of servers stand on.

mod account;
mod database;
mod port;
mod postgres;
pub mod programs;
mod server;
pub mod shared;

pub use database::Database;
pub use database::sql;
pub use postgres::Postgres;
pub use postgres::PostgresOptions;
