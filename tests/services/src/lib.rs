//! Servers that tests need: a Postgres and a Redis of their own, on free ports, in temporary folders.
