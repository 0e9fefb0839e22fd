//! Who is let in, as an admin sees and changes it.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use tidegate_model::{Name, Role, Roles, Timestamp};
use tidegate_wire::proto::{self, ReplyKind, RequestKind};

use crate::client::unfitting;
use crate::{Client, Error, convert};

/// Lets somebody in: whoever has the token that comes of it registers a key, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteClient {
    /// How the client is to be known.
    pub name: Name,
    /// What it may do; at least one. An admin has no other.
    pub roles: Roles,
    /// In which namespaces; none is all. An admin's are none.
    pub namespaces: Vec<Name>,
    /// How long the token is good for, 1 ms to 30 days.
    pub life: Duration,
}

/// An invitation that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Invited {
    /// For [`Client::login`], once. The server keeps its hash alone.
    pub token: String,
    /// Until when it is good.
    pub expires: Timestamp,
}

impl fmt::Debug for Invited {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invited")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Somebody who is, was or may be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its name. Keys that the root token let in may share one.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// In which namespaces; none is all.
    pub namespaces: Vec<Name>,
    /// Its Ed25519 public key; `None` while it is invited.
    pub public_key: Option<[u8; 32]>,
    /// When it was let in, or invited.
    pub since: Timestamp,
    /// When its key was revoked.
    pub revoked: Option<Timestamp>,
    /// When its invitation ends.
    pub expires: Option<Timestamp>,
}

impl Client {
    /// Invites a client.
    ///
    /// # Errors
    /// `FORBIDDEN` to all but admins; `CLIENT_EXISTS`, `INVALID_ARGUMENT`, `LIMIT_REACHED`.
    pub async fn invite_client(&self, invite: &InviteClient) -> Result<Invited, Error> {
        let kind = RequestKind::InviteClient(proto::InviteClient {
            name: invite.name.to_string(),
            roles: invite.roles.iter().map(Role::number).collect(),
            namespaces: invite.namespaces.iter().map(Name::to_string).collect(),
            life_ms: u64::try_from(invite.life.as_millis()).unwrap_or(u64::MAX),
        });
        match self.ask(kind).await? {
            (ReplyKind::Invited(invited), _) => Ok(Invited {
                token: invited.token,
                expires: Timestamp(invited.expires_ms),
            }),
            _ => Err(unfitting()),
        }
    }

    /// Everybody who is let in or invited, or those of one name; with `revoked` also whose keys were
    /// revoked.
    ///
    /// # Errors
    /// `FORBIDDEN` to all but admins.
    pub async fn clients(
        &self,
        name: Option<&Name>,
        revoked: bool,
    ) -> Result<Vec<ClientInfo>, Error> {
        let mut clients = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let kind = RequestKind::ListClients(proto::ListClients {
                name: name.map_or_else(String::new, Name::to_string),
                after: after.clone(),
                revoked,
            });
            let (ReplyKind::Clients(page), _) = self.ask(kind).await? else {
                return Err(unfitting());
            };
            let last = page.clients.last().and_then(|last| last.public_key.clone());
            for client in page.clients {
                clients.push(client_info(client)?);
            }
            if !page.more {
                return Ok(clients);
            }
            // Keys rise, so a server that gives one twice would never end.
            if last.is_none() || last <= after {
                return Err(unfitting());
            }
            after = last;
        }
    }

    /// Ends what a client may do: all its keys, or one of them, and an invitation of its name. Its
    /// connections end at once, and no such key comes back.
    ///
    /// # Errors
    /// `FORBIDDEN` to all but admins; `CLIENT_NOT_FOUND`; `LAST_ADMIN`.
    pub async fn revoke_client(
        &self,
        name: &Name,
        public_key: Option<[u8; 32]>,
    ) -> Result<(), Error> {
        let kind = RequestKind::RevokeClient(proto::RevokeClient {
            name: name.to_string(),
            public_key: public_key.map(|key| Bytes::copy_from_slice(&key)),
        });
        match self.ask(kind).await? {
            (ReplyKind::Done(_), _) => Ok(()),
            _ => Err(unfitting()),
        }
    }
}

/// A role that this version doesn't know is left out.
fn client_info(client: proto::Client) -> Result<ClientInfo, Error> {
    let public_key = client
        .public_key
        .map(|key| <[u8; 32]>::try_from(key.as_ref()).map_err(|_| unfitting()));
    Ok(ClientInfo {
        name: convert::name(&client.name)?,
        roles: client
            .roles
            .into_iter()
            .filter_map(Role::from_number)
            .collect(),
        namespaces: client
            .namespaces
            .iter()
            .map(|name| convert::name(name))
            .collect::<Result<_, _>>()?,
        public_key: public_key.transpose()?,
        since: Timestamp(client.since_ms),
        revoked: client.revoked_ms.map(Timestamp),
        expires: client.expires_ms.map(Timestamp),
    })
}
