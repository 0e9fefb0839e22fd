//! Who is let in, for connections: a copy of what the catalogue says, so that connecting doesn't wait
//! for the owner.

use std::collections::HashMap;
use std::sync::RwLock;

use tidegate_broker::authorize::revoked;
use tidegate_broker::catalog::Client;
use tidegate_broker::{Access, Catalog, Principal, Refusal};
use tidegate_model::code;
use tokio::sync::watch;

/// By public key: those that are let in, and those that the catalogue remembers as revoked.
#[derive(Default)]
pub(super) struct Clients {
    known: RwLock<HashMap<[u8; 32], Known>>,
}

struct Known {
    principal: Principal,
    /// True once the key is revoked: connections under it watch this.
    ended: watch::Sender<bool>,
}

impl Known {
    fn end(&self) {
        // The gate closes first.
        self.principal.access.revoke();
        self.ended.send_replace(true);
    }
}

impl Clients {
    pub(super) fn register(&self, public_key: [u8; 32], principal: Principal) {
        let known = Known {
            ended: watch::Sender::new(principal.access.is_revoked()),
            principal,
        };
        let mut clients = self.known.write().expect("no holder of this lock panics");
        if let Some(before) = clients.insert(public_key, known) {
            // Whoever is connected under what the key was known as before connects anew.
            before.end();
        }
    }

    pub(super) fn revoke_all_but(&self, catalog: &Catalog) {
        let mut clients = self.known.write().expect("no holder of this lock panics");
        clients.retain(|key, known| {
            if catalog.client(key).is_some() {
                return true;
            }
            if !known.principal.access.is_revoked() {
                tracing::info!(client = %known.principal.name, "a client key is revoked");
                known.end();
            }
            catalog.is_revoked(key)
        });
    }

    /// The holder of a key.
    pub(super) fn find(&self, public_key: &[u8; 32]) -> Result<Principal, Refusal> {
        let clients = self.known.read().expect("no holder of this lock panics");
        match clients.get(public_key) {
            None => Err(
                Refusal::new(code::AUTH_FAILED, "this client key isn't registered here")
                    .hint("run `tidegate login ADDRESS` with a token of this server"),
            ),
            Some(known) if known.principal.access.is_revoked() => {
                Err(revoked(&known.principal.name))
            }
            Some(known) => Ok(known.principal.clone()),
        }
    }

    /// Waits until a key is let in no more.
    pub(super) fn revoked(
        &self,
        public_key: &[u8; 32],
    ) -> impl Future<Output = Refusal> + Send + 'static {
        let clients = self.known.read().expect("no holder of this lock panics");
        let known = clients
            .get(public_key)
            .map(|known| (known.principal.name.clone(), known.ended.subscribe()));
        drop(clients);
        async move {
            let Some((name, mut ended)) = known else {
                return Refusal::new(code::KEY_REVOKED, "the client key was revoked");
            };
            // An error says that what was known of the key is gone, which ends it as well.
            let _ = ended.wait_for(|ended| *ended).await;
            revoked(&name)
        }
    }
}

/// A client as its connections carry it.
pub(crate) fn principal_of(client: &Client) -> Principal {
    let access = Access::default();
    if client.revoked.is_some() {
        access.revoke();
    }
    Principal {
        name: client.name.clone(),
        roles: client.roles,
        namespaces: client.namespaces.clone(),
        access,
    }
}
