//! `deliver: { sink: crm }`: the event goes to a sink, with the payload as it is now.

/// Delivers to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The sink's name.
    pub sink: String,
}
