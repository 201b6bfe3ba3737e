//! The product from outside: every test starts the real binary.

mod bad_input;
mod crash;
mod flow;
mod isolation;
mod order;
mod stop;
mod swap;
mod tour;
