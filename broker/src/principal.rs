//! Who asks.

use tidegate_model::Name;

/// An authenticated peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name given at login.
    pub name: Name,
    /// What it may do.
    pub role: Role,
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything, on every resource.
    Admin,
    /// Nothing. Holders of revoked keys keep their name in the log, but no right.
    Revoked,
}
