//! Redis Streams as a source, against a real Redis and a real store: what is in the stream is in the store once, in
//! order, and let go of only then, whatever happens to the server, the wire, the readers, or the inbox.

mod entries;
mod faults;
mod fixture;
mod readers;
mod waits;
