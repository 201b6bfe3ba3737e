//! Policy: what a plugin may do ([`grants`]), how much in one call ([`limits`]) and over time ([`quota`]), and what
//! follows from how a run ended ([`retry`], [`verdict`]).

pub mod grants;
pub mod limits;
pub mod origin;
pub mod quota;
pub mod retry;
pub mod verdict;
