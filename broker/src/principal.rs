//! Who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_model::{Name, Roles};

/// An authenticated peer.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The name under which its key was let in.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// Where: in these namespaces, or in all if there are none.
    pub namespaces: Arc<[Name]>,
    /// Whether its key is still let in.
    pub access: Access,
}

impl Principal {
    /// One who may do everything.
    #[must_use]
    pub fn admin(name: Name) -> Self {
        Self {
            name,
            roles: Roles::ADMIN,
            namespaces: Arc::default(),
            access: Access::default(),
        }
    }
}

/// Whether a key is let in. Clones share it, so that a revocation reaches every connection at once.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<AtomicBool>);

impl Access {
    /// Ends it for ever.
    pub fn revoke(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was ended.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
