//! The product from outside: every test starts the real binary.

mod bad_input;
mod crash;
mod demo;
mod faults;
mod flow;
mod hangs;
mod isolation;
mod moving;
mod nodes;
mod order;
mod outbound;
mod pasted;
mod plugin_tools;
mod preview;
mod quotas;
mod recorder;
mod releases;
mod retention;
mod signals;
mod sources;
mod stop;
mod swap;
mod switches;
mod syncs;
mod toolchains;
mod tour;
