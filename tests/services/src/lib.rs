//! Servers that tests need: a Postgres and a Redis of their own, on free ports, in temporary folders.
//!
//! [`shared`] is for tests that only use a server; [`Postgres`] and [`Redis`] are for those that also do it harm, and
//! [`Proxy`] and [`Relay`] for those that come between it and its clients. A server ends with the process that started it,
//! however that ends, and leaves nothing behind. Linux only.
//!
//! Reading order: `shared`, `postgres`, `database`, `redis`, then `server`, which both kinds of servers stand on;
//! `proxy` and `relay` stand alone.

mod account;
mod database;
mod disk;
mod port;
mod postgres;
pub mod programs;
mod proxy;
mod redis;
mod relay;
mod server;
pub mod shared;

pub use database::Database;
pub use database::sql;
pub use disk::SmallDisk;
pub use postgres::Postgres;
pub use postgres::PostgresOptions;
pub use proxy::Proxy;
pub use redis::AppendOnly;
pub use redis::Redis;
pub use redis::RedisOptions;
pub use relay::Relay;
