//! Clients: public keys that are let in.

use tidegate_model::{Name, Timestamp, code};

use crate::catalog::{Catalog, Client};
use crate::limit::CLIENTS_MAX;
use crate::refusal::Refusal;

impl Catalog {
    pub(super) fn check_register_client(&self, public_key: &[u8; 32]) -> Result<(), Refusal> {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(public_key) {
            return Err(Refusal::new(
                code::LIMIT_REACHED,
                format!("{CLIENTS_MAX} client keys are registered, the most there may be"),
            ));
        }
        Ok(())
    }

    pub(super) fn register_client(&mut self, now: Timestamp, public_key: [u8; 32], name: &Name) {
        let client = Client {
            public_key,
            name: name.clone(),
            registered: now,
        };
        self.clients.insert(public_key, client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogCommand;

    #[test]
    fn a_registered_key_survives_bytes_and_snapshots() {
        let command = CatalogCommand::RegisterClient {
            public_key: [7; 32],
            name: Name::new("laptop").unwrap(),
        };
        let mut catalog = Catalog::new(8);
        let read = CatalogCommand::decode(&command.encode()).unwrap();
        catalog.apply(Timestamp(5), &read).unwrap();
        let restored = Catalog::restore(8, &catalog.snapshot()).unwrap();
        assert_eq!(restored, catalog);
        let client = restored.clients().next().unwrap();
        assert_eq!(
            (client.public_key, client.name.as_str()),
            ([7; 32], "laptop")
        );
    }
}
