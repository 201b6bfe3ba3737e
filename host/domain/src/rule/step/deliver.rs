//! `deliver: { sink: crm }`: the payload as it is now goes to a sink.

/// Delivers to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The sink's name.
    pub sink: String,
}
