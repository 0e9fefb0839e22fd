//! Clients: public keys that are let in, and who may register one.

use tidegate_model::{Name, Role, Roles, Timestamp, code};

use crate::authorize::revoked;
use crate::catalog::refuse::{argument, full};
use crate::catalog::{Catalog, CatalogCommand, Client, Invitation};
use crate::limit::{
    CLIENT_NAMESPACES_MAX, CLIENTS_MAX, INVITATION_MS_MAX, INVITATIONS_MAX, REVOKED_MAX,
};
use crate::refusal::Refusal;

impl Catalog {
    pub(super) fn check_register_client(&self, public_key: &[u8; 32]) -> Result<(), Refusal> {
        if let Some(client) = self.revoked.get(public_key) {
            return Err(revoked(&client.name));
        }
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(public_key) {
            return Err(full("client keys", CLIENTS_MAX));
        }
        Ok(())
    }

    /// By the root token: whoever has it may do everything.
    pub(super) fn register_client(&mut self, now: Timestamp, public_key: [u8; 32], name: &Name) {
        let client = Client {
            public_key,
            name: name.clone(),
            registered: now,
            roles: Roles::ADMIN,
            namespaces: [].into(),
            revoked: None,
        };
        self.clients.insert(public_key, client);
    }

    pub(super) fn check_invite_client(&self, command: &CatalogCommand) -> Result<(), Refusal> {
        let CatalogCommand::InviteClient {
            name,
            roles,
            namespaces,
            invited,
            expires,
            ..
        } = command
        else {
            unreachable!("the caller has matched it")
        };
        let life = expires.0.saturating_sub(invited.0);
        if !(1..=INVITATION_MS_MAX).contains(&life) {
            return Err(argument(format!(
                "an invitation is good for 1 ms to {} days; {name}'s would be for {life} ms",
                INVITATION_MS_MAX / (24 * 60 * 60 * 1_000)
            )));
        }
        if roles.is_empty() {
            return Err(argument(format!("the invitation of {name} has no role")));
        }
        if roles.contains(Role::Admin) && (*roles != Roles::ADMIN || !namespaces.is_empty()) {
            return Err(argument(format!(
                "an admin may do everything in every namespace; the invitation of {name} adds to it or takes from it"
            )));
        }
        if namespaces.len() > CLIENT_NAMESPACES_MAX {
            return Err(argument(format!(
                "a client is kept to at most {CLIENT_NAMESPACES_MAX} namespaces; the invitation of {name} has {}",
                namespaces.len()
            )));
        }
        self.check_name_is_free(name)?;
        let mut open = self.open_invitations(*invited);
        if open.clone().any(|invitation| invitation.name == *name) {
            return Err(
                Refusal::new(code::CLIENT_EXISTS, format!("{name} is invited already"))
                    .hint(format!("tidegate client revoke {name}")),
            );
        }
        if open.nth(INVITATIONS_MAX - 1).is_some() {
            return Err(full("open invitations", INVITATIONS_MAX));
        }
        Ok(())
    }

    pub(super) fn invite_client(&mut self, command: &CatalogCommand) {
        let CatalogCommand::InviteClient {
            token,
            name,
            roles,
            namespaces,
            invited,
            expires,
        } = command
        else {
            unreachable!("the caller has matched it")
        };
        self.invitations
            .retain(|_, invitation| invitation.expires > *invited);
        let invitation = Invitation {
            name: name.clone(),
            roles: *roles,
            namespaces: namespaces.as_slice().into(),
            invited: *invited,
            expires: *expires,
        };
        self.invitations.insert(*token, invitation);
    }

    pub(super) fn check_accept_invitation(
        &self,
        token: &[u8; 32],
        public_key: &[u8; 32],
    ) -> Result<(), Refusal> {
        let invitation = self.invitations.get(token).ok_or_else(no_invitation)?;
        if let Some(client) = self.clients.get(public_key) {
            return Err(Refusal::new(
                code::CLIENT_EXISTS,
                format!("the key is that of client {} already", client.name),
            ));
        }
        self.check_name_is_free(&invitation.name)?;
        self.check_register_client(public_key)
    }

    pub(super) fn accept_invitation(
        &mut self,
        now: Timestamp,
        token: &[u8; 32],
        public_key: [u8; 32],
    ) {
        let Some(invitation) = self.invitations.remove(token) else {
            unreachable!("it was checked")
        };
        let client = Client {
            public_key,
            name: invitation.name,
            registered: now,
            roles: invitation.roles,
            namespaces: invitation.namespaces,
            revoked: None,
        };
        self.clients.insert(public_key, client);
    }

    pub(super) fn check_revoke_client(
        &self,
        name: &Name,
        public_key: Option<&[u8; 32]>,
    ) -> Result<(), Refusal> {
        let is_meant = |client: &Client| is_meant(client, name, public_key);
        let is_admin = |client: &Client| client.roles.contains(Role::Admin);
        let invited = public_key.is_none() && self.invitations.values().any(|i| i.name == *name);
        if !invited && !self.clients.values().any(is_meant) {
            return Err(Refusal::new(
                code::CLIENT_NOT_FOUND,
                format!("no client {name} is let in or invited with such a key"),
            ));
        }
        let ends_admin = self.clients.values().any(|c| is_meant(c) && is_admin(c));
        let other_admin = self.clients.values().any(|c| !is_meant(c) && is_admin(c));
        if ends_admin && !other_admin {
            return Err(Refusal::new(
                code::LAST_ADMIN,
                format!(
                    "client {name} is the only admin: without it nobody could manage the broker"
                ),
            )
            .hint("let another admin in first: tidegate client invite NAME --role admin"));
        }
        Ok(())
    }

    pub(super) fn revoke_client(
        &mut self,
        now: Timestamp,
        name: &Name,
        public_key: Option<&[u8; 32]>,
    ) {
        let ended = self
            .clients
            .extract_if(.., |_, client| is_meant(client, name, public_key));
        for (key, client) in ended {
            let revoked = Some(now);
            self.revoked.insert(key, Client { revoked, ..client });
        }
        if public_key.is_none() {
            self.invitations.retain(|_, i| i.name != *name);
        }
        while self.revoked.len() > REVOKED_MAX {
            let oldest = self.revoked.values().min_by_key(|client| client.revoked);
            let Some(key) = oldest.map(|client| client.public_key) else {
                break;
            };
            self.revoked.remove(&key);
        }
    }

    /// Invitations that are good at an instant.
    fn open_invitations(&self, at: Timestamp) -> impl Iterator<Item = &Invitation> + Clone {
        self.invitations
            .values()
            .filter(move |invitation| invitation.expires > at)
    }

    fn check_name_is_free(&self, name: &Name) -> Result<(), Refusal> {
        if self.clients.values().any(|client| client.name == *name) {
            return Err(Refusal::new(
                code::CLIENT_EXISTS,
                format!("a client {name} is let in already"),
            )
            .hint(format!(
                "choose another name, or end it: tidegate client revoke {name}"
            )));
        }
        Ok(())
    }
}

fn is_meant(client: &Client, name: &Name, public_key: Option<&[u8; 32]>) -> bool {
    client.name == *name && public_key.is_none_or(|key| client.public_key == *key)
}

/// What is said of a token that is no invitation's.
pub(crate) fn no_invitation() -> Refusal {
    Refusal::new(
        code::TOKEN_INVALID,
        "this token is wrong, was used before or was withdrawn",
    )
    .hint("a key that is registered already needs no token: run `tidegate context ls`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// Through bytes, as the log and a snapshot keep it.
    fn apply(catalog: &mut Catalog, at: i64, command: &CatalogCommand) -> Result<(), Refusal> {
        let read = CatalogCommand::decode(&command.encode()).unwrap();
        assert_eq!(read, *command);
        let applied = catalog.apply(Timestamp(at), &read).map(drop);
        let restored = Catalog::restore(8, &catalog.snapshot()).unwrap();
        assert_eq!(restored, *catalog);
        applied
    }

    fn register(key: u8, text: &str) -> CatalogCommand {
        CatalogCommand::RegisterClient {
            public_key: [key; 32],
            name: name(text),
        }
    }

    fn invite(token: u8, text: &str, roles: Roles, at: i64, life: i64) -> CatalogCommand {
        CatalogCommand::InviteClient {
            token: [token; 32],
            name: name(text),
            roles,
            namespaces: Vec::new(),
            invited: Timestamp(at),
            expires: Timestamp(at + life),
        }
    }

    fn accept(token: u8, key: u8) -> CatalogCommand {
        CatalogCommand::AcceptInvitation {
            token: [token; 32],
            public_key: [key; 32],
        }
    }

    fn revoke(text: &str, key: Option<u8>) -> CatalogCommand {
        CatalogCommand::RevokeClient {
            name: name(text),
            public_key: key.map(|key| [key; 32]),
        }
    }

    fn consumer() -> Roles {
        Roles::default().with(Role::Consumer)
    }

    fn code_of(result: Result<(), Refusal>) -> tidegate_model::Code {
        result.unwrap_err().code
    }

    #[test]
    fn a_registered_key_is_an_admins() {
        let mut catalog = Catalog::new(8);
        apply(&mut catalog, 5, &register(7, "laptop")).unwrap();
        let client = catalog.client(&[7; 32]).unwrap();
        assert_eq!(client.name, name("laptop"));
        assert_eq!(client.roles, Roles::ADMIN);
    }

    #[test]
    fn a_row_without_roles_is_an_admins() {
        // Version 1 as it was written before there were roles: shards 8, one client.
        let mut bytes = vec![8, 1, 16, 8, 114, 40, 10, 32];
        bytes.extend([7; 32]);
        bytes.extend([18, 2, b'm', b'e', 24, 10]);
        let catalog = Catalog::restore(8, &bytes).unwrap();
        assert_eq!(catalog.client(&[7; 32]).unwrap().roles, Roles::ADMIN);
    }

    #[test]
    fn an_invitation_works_once_and_gives_what_it_says() {
        let mut catalog = Catalog::new(8);
        apply(&mut catalog, 0, &invite(1, "app", consumer(), 0, 10)).unwrap();
        assert_eq!(
            code_of(apply(&mut catalog, 1, &accept(2, 9))),
            code::TOKEN_INVALID
        );
        apply(&mut catalog, 2, &accept(1, 9)).unwrap();
        assert_eq!(catalog.client(&[9; 32]).unwrap().roles, consumer());
        assert_eq!(
            code_of(apply(&mut catalog, 3, &accept(1, 8))),
            code::TOKEN_INVALID
        );
        assert!(catalog.client(&[8; 32]).is_none());
    }

    #[test]
    fn names_are_given_once_and_expired_invitations_make_room() {
        let mut catalog = Catalog::new(8);
        apply(&mut catalog, 0, &register(1, "ann")).unwrap();
        let of = |result| code_of(result);
        assert_eq!(
            of(apply(&mut catalog, 1, &invite(1, "ann", consumer(), 1, 10))),
            code::CLIENT_EXISTS
        );
        apply(&mut catalog, 1, &invite(1, "bob", consumer(), 1, 10)).unwrap();
        assert_eq!(
            of(apply(&mut catalog, 2, &invite(2, "bob", consumer(), 2, 10))),
            code::CLIENT_EXISTS
        );
        apply(&mut catalog, 11, &invite(2, "bob", consumer(), 11, 10)).unwrap();
        assert!(catalog.invitation(&[1; 32]).is_none(), "it had expired");
        for number in 0..INVITATIONS_MAX - 1 {
            let mut command = invite(0, &format!("c{number}"), consumer(), 12, 10);
            if let CatalogCommand::InviteClient { token, .. } = &mut command {
                token[..8].copy_from_slice(&(number as u64).to_le_bytes());
            }
            catalog.apply(Timestamp(12), &command).unwrap();
        }
        assert_eq!(
            of(apply(
                &mut catalog,
                13,
                &invite(3, "zoe", consumer(), 13, 10)
            )),
            code::LIMIT_REACHED
        );
        apply(&mut catalog, 40, &invite(3, "zoe", consumer(), 40, 10)).unwrap();
    }

    #[test]
    fn invitations_out_of_bounds_are_refused() {
        let mut catalog = Catalog::new(8);
        for (roles, life) in [
            (consumer(), 0),
            (consumer(), INVITATION_MS_MAX + 1),
            (Roles::default(), 10),
            (Roles::ADMIN.with(Role::Consumer), 10),
        ] {
            let refused = apply(&mut catalog, 1, &invite(1, "app", roles, 1, life));
            assert_eq!(code_of(refused), code::INVALID_ARGUMENT, "{roles} {life}");
        }
    }

    #[test]
    fn a_revoked_key_never_comes_back() {
        let mut catalog = Catalog::new(8);
        apply(&mut catalog, 0, &register(1, "ann")).unwrap();
        apply(&mut catalog, 1, &register(2, "bob")).unwrap();
        apply(&mut catalog, 2, &revoke("bob", None)).unwrap();
        assert!(catalog.client(&[2; 32]).is_none());
        assert_eq!(
            code_of(apply(&mut catalog, 3, &register(2, "bob"))),
            code::KEY_REVOKED
        );
        apply(&mut catalog, 4, &invite(5, "bob", consumer(), 4, 10)).unwrap();
        assert_eq!(
            code_of(apply(&mut catalog, 5, &accept(5, 2))),
            code::KEY_REVOKED
        );
        apply(&mut catalog, 5, &accept(5, 3)).unwrap();
    }

    #[test]
    fn one_key_of_a_name_can_be_revoked_and_an_invitation_withdrawn() {
        let mut catalog = Catalog::new(8);
        for key in [1, 2] {
            apply(&mut catalog, 0, &register(key, "ann")).unwrap();
        }
        apply(&mut catalog, 1, &invite(1, "bob", consumer(), 1, 10)).unwrap();
        apply(&mut catalog, 2, &revoke("ann", Some(1))).unwrap();
        let left: Vec<_> = catalog.clients().map(|client| client.public_key).collect();
        assert_eq!(left, [[2; 32]]);
        apply(&mut catalog, 3, &revoke("bob", None)).unwrap();
        assert_eq!(
            code_of(apply(&mut catalog, 4, &accept(1, 9))),
            code::TOKEN_INVALID
        );
        assert_eq!(
            code_of(apply(&mut catalog, 5, &revoke("bob", None))),
            code::CLIENT_NOT_FOUND
        );
    }

    #[test]
    fn the_last_admin_stays() {
        let mut catalog = Catalog::new(8);
        for key in [1, 2] {
            apply(&mut catalog, 0, &register(key, "ann")).unwrap();
        }
        apply(&mut catalog, 1, &invite(1, "app", consumer(), 1, 10)).unwrap();
        apply(&mut catalog, 1, &accept(1, 3)).unwrap();
        let refused = apply(&mut catalog, 2, &revoke("ann", None));
        assert_eq!(code_of(refused), code::LAST_ADMIN);
        apply(&mut catalog, 2, &revoke("ann", Some(1))).unwrap();
        let refused = apply(&mut catalog, 3, &revoke("ann", Some(2)));
        assert_eq!(code_of(refused), code::LAST_ADMIN);
        apply(&mut catalog, 3, &revoke("app", None)).unwrap();
    }

    #[test]
    fn revoked_keys_are_remembered_within_a_bound() {
        let mut catalog = Catalog::new(8);
        catalog.apply(Timestamp(0), &register(1, "ann")).unwrap();
        for number in 0..=REVOKED_MAX as u64 {
            let mut public_key = [9; 32];
            public_key[..8].copy_from_slice(&number.to_le_bytes());
            let at = Timestamp(1 + i64::try_from(number).unwrap());
            let register = CatalogCommand::RegisterClient {
                public_key,
                name: name("bob"),
            };
            catalog.apply(at, &register).unwrap();
            catalog.apply(at, &revoke("bob", None)).unwrap();
        }
        assert_eq!(catalog.revoked.len(), REVOKED_MAX);
        assert!(
            catalog
                .revoked
                .values()
                .all(|c| c.revoked > Some(Timestamp(1)))
        );
    }
}
