//! Clients: who is invited, and whose key is let in.

use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::request::InviteClient;
use tidegate_broker::{Principal, Refusal};
use tidegate_model::{Timestamp, code};

use super::Owner;
use super::admin::Then;
use crate::input::{Answer, Token};
use crate::node::principal_of;

impl Owner {
    /// Logs an invitation under the hash of its token.
    pub(super) fn invite(
        &mut self,
        request: InviteClient,
        token: [u8; 32],
        answer: Answer<Timestamp>,
    ) {
        let invited = self.clock.now();
        // What is too long is refused by the check below.
        let life = i64::try_from(request.life_ms).unwrap_or(i64::MAX);
        let expires = Timestamp(invited.0.saturating_add(life));
        let command = CatalogCommand::InviteClient {
            token,
            name: request.name,
            roles: request.roles,
            namespaces: request.namespaces,
            invited,
            expires,
        };
        match self.core.check(&command) {
            Ok(()) => self.append_catalog(command, Then::Invited { expires, answer }),
            Err(refusal) => {
                self.metrics.refused(refusal.code);
                drop(answer.send(Err(refusal)));
            }
        }
    }

    /// Logs that a key is let in, if its token is good.
    pub(super) fn register(&mut self, public_key: [u8; 32], by: Token, answer: Answer<Principal>) {
        let command = match by {
            Token::Root(name) => CatalogCommand::RegisterClient { public_key, name },
            Token::Invitation(token) => CatalogCommand::AcceptInvitation { token, public_key },
        };
        let checked = self
            .core
            .check(&command)
            .and_then(|()| self.check_not_expired(&command));
        match checked {
            Ok(()) => self.append_catalog(command, Then::Registered { public_key, answer }),
            Err(refusal) => {
                self.metrics.refused(refusal.code);
                drop(answer.send(Err(refusal)));
            }
        }
    }

    fn check_not_expired(&mut self, command: &CatalogCommand) -> Result<(), Refusal> {
        let CatalogCommand::AcceptInvitation { token, .. } = command else {
            return Ok(());
        };
        let now = self.clock.now();
        match self.core.catalog().invitation(token) {
            Some(invitation) if invitation.expires <= now => Err(Refusal::new(
                code::TOKEN_EXPIRED,
                format!("the invitation of {} has expired", invitation.name),
            )
            .hint(format!(
                "ask for a new one: tidegate client invite {}",
                invitation.name
            ))),
            _ => Ok(()),
        }
    }

    /// The catalogue has the key now.
    pub(super) fn registered(&mut self, public_key: &[u8; 32], answer: Answer<Principal>) {
        let Some(client) = self.core.catalog().client(public_key) else {
            // Revoked by a command that became durable with it.
            let refusal = Refusal::new(code::KEY_REVOKED, "the key was revoked at once");
            return drop(answer.send(Err(refusal)));
        };
        let principal = principal_of(client);
        tracing::info!(client = %principal.name, roles = %principal.roles, "a client key is let in");
        self.shared.register(*public_key, principal.clone());
        drop(answer.send(Ok(principal)));
    }
}
