//! The product from outside: every test starts the real binary.
