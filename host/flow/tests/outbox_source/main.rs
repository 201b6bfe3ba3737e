//! An outbox as a source, against a real Postgres and a real store: what a transaction wrote is in the store once, in
//! order, and deleted only then, whatever happens to the server, the wire, the tenants, or the inbox.

mod faults;
mod fixture;
mod floor;
mod held;
mod order;
mod rows;
mod wake;
