//! `emit: { type: orders.flagged }`: a new event of this type, with the payload as it is now.

/// Emits an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    /// The new event's type.
    pub kind: String,
}
