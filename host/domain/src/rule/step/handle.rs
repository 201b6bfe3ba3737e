//! `handle: { plugin: fraud-score }`: the plugin acts on the event; the event goes on as it was.

/// Hands the event to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// The plugin's name.
    pub plugin: String,
}
