//! Scopes: what a tenant's key may do.

use std::fmt;

/// One thing that a key may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read everything of the tenant but the values of secrets.
    Read,
    /// Change, pause and restore rules.
    Rules,
    /// Upload, activate, configure, pause and retire plugins.
    Plugins,
    /// Give a plugin version more than the version before it was given.
    Consent,
    /// Everything that keeps the tenant running: sinks, secrets, parked runs, deliveries, the tenant's own switch.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Publish, Self::Read, Self::Rules, Self::Plugins, Self::Consent, Self::Admin];

    /// As keys name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Rules => "rules",
            Self::Plugins => "plugins",
            Self::Consent => "consent",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything.
pub const ALL: &str = "*";

/// Does a list of scopes, as it is stored, cover this one? What is stored and unknown covers nothing.
pub fn covers(scopes: &[String], scope: Scope) -> bool {
    scopes.iter().any(|held| held == ALL || held == scope.name())
}

/// Is it the name of a scope, or of all?
pub fn is_name(text: &str) -> bool {
    text == ALL || Scope::ALL.iter().any(|scope| scope.name() == text)
}
