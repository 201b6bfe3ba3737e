//! The way out, with real sockets: the guard, the sinks, and the service that works the outbox off.

mod egress;
mod file;
mod fixture;
mod outbound;
mod service;
mod webhook;
