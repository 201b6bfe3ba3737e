//! The product from outside: every test starts the real binary.

mod bad_input;
mod crash;
mod demo;
mod faults;
mod flow;
mod isolation;
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
mod sources;
mod stop;
mod swap;
mod switches;
mod toolchains;
mod tour;
