//! Changes of the catalogue as the log of shard 0 keeps them.

use bytes::Bytes;
use prost::Message;
use tidegate_model::{
    Name, Offset, QueueId, Roles, ShardId, Timestamp, TopicChange, TopicRef, TopicSettings,
};

use super::wire::{self, Wrong};
use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};
use crate::request::{BindingSpec, RetryPolicy};

/// A change of the catalogue: one record of a catalogue batch.
///
/// It was valid when it was planned. It is checked again when applied, since another may have come
/// before it; one that isn't valid then is refused and changes nothing, at replay as when live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "variants and fields are those of the requests of the same names"
)]
pub enum CatalogCommand {
    CreateTopic {
        topic: TopicRef,
        queues: u32,
        settings: TopicSettings,
    },
    UpdateTopic {
        topic: TopicRef,
        change: TopicChange,
    },
    DeleteTopic {
        topic: TopicRef,
    },
    CreateGroup {
        group: GroupRef,
        policy: RetryPolicy,
    },
    DeleteGroup {
        group: GroupRef,
    },
    CreateView {
        view: ViewRef,
        bindings: Vec<BindingSpec>,
    },
    DeleteView {
        view: ViewRef,
    },
    /// Carries the component for whoever keeps it; the catalogue's state holds the digest alone.
    DeployPlugin {
        plugin: PluginRef,
        digest: [u8; 32],
        world: String,
        component: Bytes,
    },
    RemovePlugin {
        plugin: PluginRef,
    },
    Bind {
        group: GroupRef,
        topic: TopicRef,
        binding: BindingSpec,
    },
    Unbind {
        group: GroupRef,
        topic: TopicRef,
    },
    /// A group's first subscription of a source. Without effect if the cursor is there already.
    OpenCursor {
        group: GroupRef,
        source: SourceRef,
        /// Where it begins, per queue of the topic; a queue left out begins at offset 0.
        starts: Vec<(QueueId, Offset)>,
    },
    /// A group's dead-letter topic needs a queue in a shard. Without effect if it has one.
    OpenDeadLetter {
        group: GroupRef,
        shard: ShardId,
    },
    /// A client's public key is let in under a name, in place of what it was known as before.
    RegisterClient {
        public_key: [u8; 32],
        name: Name,
    },
    /// Whoever has the token may register a key, once, before `expires`.
    InviteClient {
        /// SHA-256 of the token.
        token: [u8; 32],
        name: Name,
        roles: Roles,
        namespaces: Vec<Name>,
        invited: Timestamp,
        expires: Timestamp,
    },
    /// A key is let in as its invitation says, which is used up.
    AcceptInvitation {
        /// SHA-256 of the token.
        token: [u8; 32],
        public_key: [u8; 32],
    },
    /// The keys of a client, or one of them, are let in no more; an invitation of that name ends.
    RevokeClient {
        name: Name,
        public_key: Option<[u8; 32]>,
    },
}

/// The bytes are no catalogue command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a catalogue record of {len} bytes is damaged or of another version: {what}")]
pub struct CommandError {
    /// Bytes in all.
    pub len: usize,
    /// What is wrong.
    pub what: String,
}

/// A command as Protobuf: one field of `kind` is set.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(
        oneof = "Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17"
    )]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    CreateTopic(CreateTopic),
    #[prost(message, tag = "2")]
    DeleteTopic(wire::Named),
    #[prost(message, tag = "3")]
    CreateGroup(CreateGroup),
    #[prost(message, tag = "4")]
    DeleteGroup(wire::Named),
    #[prost(message, tag = "5")]
    CreateView(CreateView),
    #[prost(message, tag = "6")]
    DeleteView(wire::NamedView),
    #[prost(message, tag = "7")]
    DeployPlugin(DeployPlugin),
    #[prost(message, tag = "8")]
    RemovePlugin(wire::NamedPlugin),
    #[prost(message, tag = "9")]
    Bind(Bind),
    #[prost(message, tag = "10")]
    Unbind(Unbind),
    #[prost(message, tag = "11")]
    OpenCursor(OpenCursor),
    #[prost(message, tag = "12")]
    OpenDeadLetter(OpenDeadLetter),
    #[prost(message, tag = "13")]
    RegisterClient(RegisterClient),
    #[prost(message, tag = "14")]
    UpdateTopic(UpdateTopic),
    #[prost(message, tag = "15")]
    InviteClient(InviteClient),
    #[prost(message, tag = "16")]
    AcceptInvitation(AcceptInvitation),
    #[prost(message, tag = "17")]
    RevokeClient(RevokeClient),
}

#[derive(Clone, PartialEq, Message)]
struct CreateTopic {
    #[prost(message, optional, tag = "1")]
    topic: Option<wire::Named>,
    #[prost(uint32, tag = "2")]
    queues: u32,
    #[prost(message, optional, tag = "3")]
    settings: Option<wire::Settings>,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateTopic {
    #[prost(message, optional, tag = "1")]
    topic: Option<wire::Named>,
    #[prost(message, optional, tag = "2")]
    change: Option<wire::Change>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateGroup {
    #[prost(message, optional, tag = "1")]
    group: Option<wire::Named>,
    #[prost(message, optional, tag = "2")]
    policy: Option<wire::Policy>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateView {
    #[prost(message, optional, tag = "1")]
    view: Option<wire::NamedView>,
    #[prost(message, repeated, tag = "2")]
    bindings: Vec<wire::Spec>,
}

#[derive(Clone, PartialEq, Message)]
struct DeployPlugin {
    #[prost(message, optional, tag = "1")]
    plugin: Option<wire::NamedPlugin>,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(string, tag = "3")]
    world: String,
    #[prost(bytes = "bytes", tag = "4")]
    component: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Bind {
    #[prost(message, optional, tag = "1")]
    group: Option<wire::Named>,
    #[prost(message, optional, tag = "2")]
    topic: Option<wire::Named>,
    #[prost(message, optional, tag = "3")]
    binding: Option<wire::Spec>,
}

#[derive(Clone, PartialEq, Message)]
struct Unbind {
    #[prost(message, optional, tag = "1")]
    group: Option<wire::Named>,
    #[prost(message, optional, tag = "2")]
    topic: Option<wire::Named>,
}

#[derive(Clone, PartialEq, Message)]
struct OpenCursor {
    #[prost(message, optional, tag = "1")]
    group: Option<wire::Named>,
    #[prost(message, optional, tag = "2")]
    source: Option<wire::NamedSource>,
    #[prost(message, repeated, tag = "3")]
    starts: Vec<wire::At>,
}

#[derive(Clone, PartialEq, Message)]
struct OpenDeadLetter {
    #[prost(message, optional, tag = "1")]
    group: Option<wire::Named>,
    #[prost(uint32, tag = "2")]
    shard: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RegisterClient {
    #[prost(bytes = "bytes", tag = "1")]
    public_key: Bytes,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct InviteClient {
    #[prost(bytes = "bytes", tag = "1")]
    token: Bytes,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, repeated, tag = "3")]
    roles: Vec<u32>,
    #[prost(string, repeated, tag = "4")]
    namespaces: Vec<String>,
    #[prost(sint64, tag = "5")]
    invited: i64,
    #[prost(sint64, tag = "6")]
    expires: i64,
}

#[derive(Clone, PartialEq, Message)]
struct AcceptInvitation {
    #[prost(bytes = "bytes", tag = "1")]
    token: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    public_key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RevokeClient {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    public_key: Option<Bytes>,
}

impl CatalogCommand {
    /// Its bytes, at most the 2 MiB of a component and what names it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Self::CreateTopic {
                topic,
                queues,
                settings,
            } => Kind::CreateTopic(CreateTopic {
                topic: wire::topic(topic),
                queues: *queues,
                settings: Some(wire::settings(settings)),
            }),
            Self::UpdateTopic { topic, change } => Kind::UpdateTopic(UpdateTopic {
                topic: wire::topic(topic),
                change: Some(wire::change(change)),
            }),
            Self::DeleteTopic { topic } => {
                Kind::DeleteTopic(wire::topic(topic).unwrap_or_default())
            }
            Self::CreateGroup { group, policy } => Kind::CreateGroup(CreateGroup {
                group: wire::group(group),
                policy: wire::policy(policy),
            }),
            Self::DeleteGroup { group } => {
                Kind::DeleteGroup(wire::group(group).unwrap_or_default())
            }
            Self::CreateView { view, bindings } => Kind::CreateView(CreateView {
                view: wire::view(view),
                bindings: bindings.iter().map(wire::spec).collect(),
            }),
            Self::DeleteView { view } => Kind::DeleteView(wire::view(view).unwrap_or_default()),
            Self::DeployPlugin {
                plugin,
                digest,
                world,
                component,
            } => Kind::DeployPlugin(DeployPlugin {
                plugin: wire::plugin(plugin),
                digest: Bytes::copy_from_slice(digest),
                world: world.clone(),
                component: component.clone(),
            }),
            Self::RemovePlugin { plugin } => {
                Kind::RemovePlugin(wire::plugin(plugin).unwrap_or_default())
            }
            Self::Bind {
                group,
                topic,
                binding,
            } => Kind::Bind(Bind {
                group: wire::group(group),
                topic: wire::topic(topic),
                binding: Some(wire::spec(binding)),
            }),
            Self::Unbind { group, topic } => Kind::Unbind(Unbind {
                group: wire::group(group),
                topic: wire::topic(topic),
            }),
            Self::OpenCursor {
                group,
                source,
                starts,
            } => Kind::OpenCursor(OpenCursor {
                group: wire::group(group),
                source: wire::source(source),
                starts: starts
                    .iter()
                    .map(|(queue, offset)| wire::At {
                        queue: queue.0,
                        offset: offset.0,
                    })
                    .collect(),
            }),
            Self::OpenDeadLetter { group, shard } => Kind::OpenDeadLetter(OpenDeadLetter {
                group: wire::group(group),
                shard: shard.0,
            }),
            Self::RegisterClient { public_key, name } => Kind::RegisterClient(RegisterClient {
                public_key: Bytes::copy_from_slice(public_key),
                name: name.to_string(),
            }),
            Self::InviteClient {
                token,
                name,
                roles,
                namespaces,
                invited,
                expires,
            } => Kind::InviteClient(InviteClient {
                token: Bytes::copy_from_slice(token),
                name: name.to_string(),
                roles: wire::roles(*roles),
                namespaces: namespaces.iter().map(Name::to_string).collect(),
                invited: invited.0,
                expires: expires.0,
            }),
            Self::AcceptInvitation { token, public_key } => {
                Kind::AcceptInvitation(AcceptInvitation {
                    token: Bytes::copy_from_slice(token),
                    public_key: Bytes::copy_from_slice(public_key),
                })
            }
            Self::RevokeClient { name, public_key } => Kind::RevokeClient(RevokeClient {
                name: name.to_string(),
                public_key: public_key.map(|key| Bytes::copy_from_slice(&key)),
            }),
        };
        Record { kind: Some(kind) }.encode_to_vec()
    }

    /// Reads what [`CatalogCommand::encode`] wrote.
    ///
    /// # Errors
    /// [`CommandError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let error = |what| CommandError {
            len: bytes.len(),
            what,
        };
        let record = Record::decode(bytes).map_err(|wrong| error(wrong.to_string()))?;
        let kind = wire::need(record.kind, "a kind that is known").map_err(error)?;
        read(kind).map_err(error)
    }
}

fn read(kind: Kind) -> Result<CatalogCommand, Wrong> {
    Ok(match kind {
        Kind::CreateTopic(r) => CatalogCommand::CreateTopic {
            topic: wire::read_topic(r.topic)?,
            queues: r.queues,
            settings: wire::read_settings(r.settings),
        },
        Kind::UpdateTopic(r) => CatalogCommand::UpdateTopic {
            topic: wire::read_topic(r.topic)?,
            change: wire::read_change(r.change)?,
        },
        Kind::DeleteTopic(r) => CatalogCommand::DeleteTopic {
            topic: wire::read_topic(Some(r))?,
        },
        Kind::CreateGroup(r) => CatalogCommand::CreateGroup {
            group: wire::read_group(r.group)?,
            policy: wire::read_policy(r.policy)?,
        },
        Kind::DeleteGroup(r) => CatalogCommand::DeleteGroup {
            group: wire::read_group(Some(r))?,
        },
        Kind::CreateView(r) => CatalogCommand::CreateView {
            view: wire::read_view(r.view)?,
            bindings: r
                .bindings
                .into_iter()
                .map(wire::read_spec)
                .collect::<Result<_, _>>()?,
        },
        Kind::DeleteView(r) => CatalogCommand::DeleteView {
            view: wire::read_view(Some(r))?,
        },
        Kind::DeployPlugin(r) => CatalogCommand::DeployPlugin {
            plugin: wire::read_plugin(r.plugin)?,
            digest: wire::digest(&r.digest)?,
            world: r.world,
            component: r.component,
        },
        Kind::RemovePlugin(r) => CatalogCommand::RemovePlugin {
            plugin: wire::read_plugin(Some(r))?,
        },
        Kind::Bind(r) => CatalogCommand::Bind {
            group: wire::read_group(r.group)?,
            topic: wire::read_topic(r.topic)?,
            binding: wire::read_spec(wire::need(r.binding, "a binding")?)?,
        },
        Kind::Unbind(r) => CatalogCommand::Unbind {
            group: wire::read_group(r.group)?,
            topic: wire::read_topic(r.topic)?,
        },
        Kind::OpenCursor(r) => CatalogCommand::OpenCursor {
            group: wire::read_group(r.group)?,
            source: wire::read_source(r.source)?,
            starts: r
                .starts
                .into_iter()
                .map(|at| (QueueId(at.queue), Offset(at.offset)))
                .collect(),
        },
        Kind::OpenDeadLetter(r) => CatalogCommand::OpenDeadLetter {
            group: wire::read_group(r.group)?,
            shard: ShardId(r.shard),
        },
        Kind::RegisterClient(r) => CatalogCommand::RegisterClient {
            public_key: wire::public_key(&r.public_key)?,
            name: wire::read_name(&r.name)?,
        },
        Kind::InviteClient(r) => CatalogCommand::InviteClient {
            token: wire::digest(&r.token)?,
            name: wire::read_name(&r.name)?,
            roles: wire::read_roles(&r.roles)?,
            namespaces: wire::read_names(&r.namespaces)?,
            invited: Timestamp(r.invited),
            expires: Timestamp(r.expires),
        },
        Kind::AcceptInvitation(r) => CatalogCommand::AcceptInvitation {
            token: wire::digest(&r.token)?,
            public_key: wire::public_key(&r.public_key)?,
        },
        Kind::RevokeClient(r) => CatalogCommand::RevokeClient {
            name: wire::read_name(&r.name)?,
            public_key: r.public_key.map(|key| wire::public_key(&key)).transpose()?,
        },
    })
}
