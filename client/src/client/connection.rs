//! Watching a client's connection.

use tokio::sync::watch;

use super::supervise::LinkState;
use crate::Error;

/// Whether a client is connected, as it knows by now: a server that has gone without a word is noticed
/// after the idle timeout of the connection. It doesn't keep the client alive.
#[derive(Clone)]
pub struct Connection {
    link: watch::Receiver<LinkState>,
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(link: watch::Receiver<LinkState>) -> Self {
        Self { link }
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.link.borrow(), LinkState::Up(_))
    }

    /// Waits until [`Self::is_up`] may have changed since the last call, or until the client has ended.
    ///
    /// Cancel-safe.
    pub async fn changed(&mut self) {
        // An error says that the supervisor has gone.
        let _ = self.link.changed().await;
    }

    /// Waits until there is a connection.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why there will be none: the last attempt's error, or `CANCELLED` of a client that was closed.
    pub async fn up(&mut self) -> Result<(), Error> {
        let state = self
            .link
            .wait_for(|state| !matches!(state, LinkState::Down))
            .await;
        match state.as_deref() {
            Ok(LinkState::Up(_)) => Ok(()),
            Ok(LinkState::Ended(error)) => Err(error.clone()),
            Ok(LinkState::Down) | Err(_) => Err(super::closed()),
        }
    }
}
