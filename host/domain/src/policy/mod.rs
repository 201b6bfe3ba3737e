//! Policy: what a plugin may do ([`grants`], [`ceiling`]), how much in one call ([`limits`]) and over time ([`quota`]), and
//! what follows from how a run ended ([`retry`], [`verdict`]), how a candidate version does ([`rollout`]) or did on past
//! events ([`proof`]).

pub mod ceiling;
pub mod grants;
pub mod limits;
pub mod origin;
pub mod proof;
pub mod quota;
pub mod recorder;
pub mod retry;
pub mod rollout;
pub mod verdict;
