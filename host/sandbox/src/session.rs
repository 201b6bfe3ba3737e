//! The calls of one batch to one plugin of one tenant.

use std::sync::Arc;

use crate::port::Attempt;
use crate::port::Call;
use crate::port::Setup;
use crate::sandbox::Plugin;

/// Calls one plugin, with an instance that lives as long as the policy says. Never share it between tenants.
pub struct Session {
    plugin: Plugin,
    setup: Arc<Setup>,
}

impl Session {
    pub(crate) fn new(plugin: Plugin, setup: Arc<Setup>) -> Self {
        Self { plugin, setup }
    }

    /// Lets the plugin act on the event.
    pub fn handle(&mut self, call: &Call<'_>) -> Attempt {
        let _ = (&self.plugin, &self.setup, call);
        unimplemented!("not built yet")
    }

    /// Lets the plugin turn the event into others.
    pub fn transform(&mut self, call: &Call<'_>) -> Attempt {
        let _ = call;
        unimplemented!("not built yet")
    }

    /// Takes new settings for the calls that follow (a warm session outlives a batch).
    pub fn renew(&mut self, setup: Arc<Setup>) {
        self.setup = setup;
    }
}
