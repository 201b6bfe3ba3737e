//! Policy: what a plugin may do ([`grants`]), how much ([`limits`]), and what follows from how a run ended
//! ([`retry`], [`verdict`]).

pub mod grants;
pub mod limits;
pub mod retry;
pub mod verdict;
