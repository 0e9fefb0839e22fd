//! Plugins on their way in: how many may wait, how many bytes of them, and whose turn it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_broker::Refusal;
use tidegate_model::{Name, code};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Deploys that may be under way at a time.
pub(crate) const UPLOADS_MAX: usize = 64;
/// Bytes of their components.
pub(crate) const UPLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Of these, deploys of one client.
pub(crate) const UPLOADS_PER_CLIENT_MAX: usize = 8;
/// Of these, bytes of one client's components.
pub(crate) const UPLOAD_BYTES_PER_CLIENT_MAX: usize = 8 * 1024 * 1024;
/// Configurations that plugins are asked about at a time.
const CONFIGURATIONS_AT_ONCE: usize = 2;
/// Bindings that may wait for that.
pub(crate) const BINDINGS_WAITING_MAX: usize = 256;

/// The budgets of a node.
pub(crate) struct Uploads {
    held: Mutex<Held>,
    compiler: Semaphore,
    configurations: Semaphore,
}

#[derive(Default)]
struct Held {
    all: Amount,
    by_client: HashMap<Name, Amount>,
    bindings: usize,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    count: usize,
    bytes: usize,
}

/// Room for one deploy, until it is dropped.
pub(crate) struct Upload {
    uploads: Arc<Uploads>,
    client: Name,
    bytes: usize,
}

/// Room for one request whose bindings are tried, until it is dropped.
pub(crate) struct Trying(Arc<Uploads>);

impl Default for Uploads {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            compiler: Semaphore::new(1),
            configurations: Semaphore::new(CONFIGURATIONS_AT_ONCE),
        }
    }
}

impl Uploads {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a deploy.
    ///
    /// # Errors
    /// `OVERLOADED` where the node or the client has too much under way.
    pub(crate) fn admit(self: &Arc<Self>, client: &Name, bytes: usize) -> Result<Upload, Refusal> {
        let mut held = self.held();
        let own = held.by_client.get(client).copied().unwrap_or_default();
        refuse_full(
            "this client's",
            own,
            bytes,
            UPLOADS_PER_CLIENT_MAX,
            UPLOAD_BYTES_PER_CLIENT_MAX,
        )?;
        refuse_full(
            "all clients'",
            held.all,
            bytes,
            UPLOADS_MAX,
            UPLOAD_BYTES_MAX,
        )?;
        held.all.count += 1;
        held.all.bytes += bytes;
        let own = held.by_client.entry(client.clone()).or_default();
        own.count += 1;
        own.bytes += bytes;
        Ok(Upload {
            uploads: Arc::clone(self),
            client: client.clone(),
            bytes,
        })
    }

    /// Takes room for a request whose bindings are tried.
    ///
    /// # Errors
    /// `OVERLOADED`.
    pub(crate) fn admit_bindings(self: &Arc<Self>) -> Result<Trying, Refusal> {
        let mut held = self.held();
        if held.bindings >= BINDINGS_WAITING_MAX {
            return Err(Refusal::new(
                code::OVERLOADED,
                format!("{BINDINGS_WAITING_MAX} requests wait already for plugins to look at their configurations"),
            )
            .hint("try again in a moment"));
        }
        held.bindings += 1;
        Ok(Trying(Arc::clone(self)))
    }

    /// Waits for the compiler, in the order of asking.
    pub(crate) async fn compiler(&self) -> SemaphorePermit<'_> {
        self.compiler.acquire().await.expect("it is never closed")
    }

    /// Waits for a place to try a configuration, in the order of asking.
    pub(crate) async fn configuration(&self) -> SemaphorePermit<'_> {
        self.configurations
            .acquire()
            .await
            .expect("it is never closed")
    }

    /// Deploys under way and the bytes of their components.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        let all = self.held().all;
        (all.count, all.bytes)
    }
}

fn refuse_full(
    whose: &str,
    held: Amount,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
) -> Result<(), Refusal> {
    if held.count < count_max && held.bytes + bytes <= bytes_max {
        return Ok(());
    }
    Err(Refusal::new(
        code::OVERLOADED,
        format!(
            "{} of {whose} deploys with {} bytes are under way already, of at most {count_max} with {bytes_max} bytes",
            held.count, held.bytes
        ),
    )
    .hint("wait until they are done"))
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut held = self.uploads.held();
        held.all.count -= 1;
        held.all.bytes -= self.bytes;
        if let Some(own) = held.by_client.get_mut(&self.client) {
            own.count -= 1;
            own.bytes -= self.bytes;
            if own.count == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.0.held().bindings -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_take_its_share_and_no_more() {
        let uploads: Arc<Uploads> = Arc::default();
        let (one, other) = (Name::new("one").unwrap(), Name::new("other").unwrap());
        let refused = |client, bytes| {
            uploads
                .admit(client, bytes)
                .err()
                .map(|refusal| refusal.code)
        };
        let taken: Vec<_> = (0..UPLOADS_PER_CLIENT_MAX)
            .map(|_| uploads.admit(&one, 7).unwrap())
            .collect();
        assert_eq!(refused(&one, 0), Some(code::OVERLOADED));
        assert_eq!(refused(&other, UPLOAD_BYTES_PER_CLIENT_MAX), None);
        assert_eq!(
            refused(&other, UPLOAD_BYTES_PER_CLIENT_MAX + 1),
            Some(code::OVERLOADED)
        );
        assert_eq!(uploads.under_way(), (taken.len(), 7 * taken.len()));
        drop(taken);
        assert_eq!(uploads.under_way(), (0, 0));
        assert_eq!(refused(&one, 0), None);
        assert!(uploads.held().by_client.is_empty());
    }

    #[test]
    fn the_node_takes_so_many_bytes_and_no_more() {
        let uploads: Arc<Uploads> = Arc::default();
        let taken: Vec<_> = (0..UPLOAD_BYTES_MAX / UPLOAD_BYTES_PER_CLIENT_MAX)
            .map(|n| {
                let client = Name::new(&format!("client-{n}")).unwrap();
                uploads.admit(&client, UPLOAD_BYTES_PER_CLIENT_MAX).unwrap()
            })
            .collect();
        let late = Name::new("late").unwrap();
        let refusal = uploads.admit(&late, 1).err().unwrap();
        assert_eq!(refusal.code, code::OVERLOADED);
        drop(taken);
        uploads.admit(&late, 1).unwrap();
    }
}
