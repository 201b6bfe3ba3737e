//! The text of a key.

/// What a tenant's key begins with.
pub const TENANT_PREFIX: &str = "bhk_";
/// What an operator's key begins with.
pub const OPERATOR_PREFIX: &str = "bho_";
