//! `transform: { plugin: enrich-order }`: the plugin answers with the event that goes on.

/// Passes the event through a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// The plugin's name.
    pub plugin: String,
}
