//! The catalogue as bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidegate_model::{GroupId, Name, Offset, QueueId, Roles, Timestamp, TopicId, ViewId};

use super::wire::{self, Wrong, need};
use super::{Binding, Catalog, Client, Cursor, Group, Invitation, LastIds, Plugin, Topic, View};
use crate::id::{BindingId, CursorId, SourceId};

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, tag = "2")]
    shards: u32,
    #[prost(uint64, tag = "3")]
    last_topic: u64,
    #[prost(uint64, tag = "4")]
    last_queue: u64,
    #[prost(uint64, tag = "5")]
    last_group: u64,
    #[prost(uint64, tag = "6")]
    last_view: u64,
    #[prost(uint64, tag = "7")]
    last_cursor: u64,
    #[prost(uint64, tag = "8")]
    last_binding: u64,
    #[prost(message, repeated, tag = "9")]
    topics: Vec<TopicRow>,
    #[prost(message, repeated, tag = "10")]
    groups: Vec<GroupRow>,
    #[prost(message, repeated, tag = "11")]
    views: Vec<ViewRow>,
    #[prost(message, repeated, tag = "12")]
    plugins: Vec<PluginRow>,
    #[prost(message, repeated, tag = "13")]
    cursors: Vec<CursorRow>,
    /// Those who may do everything. A version that knows no roles takes all that stand here for that.
    #[prost(message, repeated, tag = "14")]
    clients: Vec<ClientRow>,
    /// Those who may do less, or whose keys are revoked: unknown to such a version, so not let in.
    #[prost(message, repeated, tag = "15")]
    limited_clients: Vec<ClientRow>,
    #[prost(message, repeated, tag = "16")]
    invitations: Vec<InvitationRow>,
}

#[derive(Clone, PartialEq, Message)]
struct ClientRow {
    #[prost(bytes = "bytes", tag = "1")]
    public_key: Bytes,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(sint64, tag = "3")]
    registered: i64,
    /// None is an admin.
    #[prost(uint32, repeated, tag = "4")]
    roles: Vec<u32>,
    #[prost(string, repeated, tag = "5")]
    namespaces: Vec<String>,
    #[prost(sint64, optional, tag = "6")]
    revoked: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct InvitationRow {
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
struct TopicRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    name: Option<wire::Named>,
    #[prost(uint32, tag = "3")]
    layout_version: u32,
    #[prost(sint64, tag = "4")]
    created: i64,
    #[prost(uint64, repeated, tag = "5")]
    queues: Vec<u64>,
    #[prost(message, optional, tag = "6")]
    settings: Option<wire::Settings>,
}

#[derive(Clone, PartialEq, Message)]
struct GroupRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    name: Option<wire::Named>,
    #[prost(message, optional, tag = "3")]
    policy: Option<wire::Policy>,
    #[prost(sint64, tag = "4")]
    created: i64,
    #[prost(message, repeated, tag = "5")]
    bindings: Vec<TopicBinding>,
}

#[derive(Clone, PartialEq, Message)]
struct TopicBinding {
    #[prost(uint64, tag = "1")]
    topic: u64,
    #[prost(message, repeated, tag = "2")]
    bindings: Vec<BindingRow>,
}

#[derive(Clone, PartialEq, Message)]
struct BindingRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    plugin: Option<wire::NamedPlugin>,
    #[prost(bytes = "bytes", tag = "3")]
    digest: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    config: Bytes,
    #[prost(uint32, tag = "5")]
    on_error: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ViewRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    name: Option<wire::NamedView>,
    #[prost(message, repeated, tag = "3")]
    bindings: Vec<BindingRow>,
    #[prost(sint64, tag = "4")]
    created: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PluginRow {
    #[prost(message, optional, tag = "1")]
    name: Option<wire::NamedPlugin>,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(string, tag = "3")]
    world: String,
    #[prost(uint64, tag = "4")]
    size: u64,
    #[prost(sint64, tag = "5")]
    deployed: i64,
}

/// A cursor; its source is a view if that isn't zero, else the topic.
#[derive(Clone, PartialEq, Message)]
struct CursorRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    group: u64,
    #[prost(uint64, tag = "3")]
    topic: u64,
    #[prost(uint64, tag = "4")]
    view: u64,
    #[prost(message, repeated, tag = "5")]
    starts: Vec<wire::At>,
}

impl Catalog {
    /// Its bytes.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        Snapshot {
            version: VERSION,
            shards: self.shards,
            last_topic: self.last.topic,
            last_queue: self.last.queue,
            last_group: self.last.group,
            last_view: self.last.view,
            last_cursor: self.last.cursor,
            last_binding: self.last.binding,
            topics: self.topics.values().map(topic_row).collect(),
            groups: self.groups.values().map(group_row).collect(),
            views: self.views.values().map(view_row).collect(),
            plugins: self.plugins.values().map(plugin_row).collect(),
            cursors: self.cursors.values().map(cursor_row).collect(),
            clients: self
                .clients
                .values()
                .filter(|client| client.roles == Roles::ADMIN)
                .map(client_row)
                .collect(),
            limited_clients: self
                .clients
                .values()
                .filter(|client| client.roles != Roles::ADMIN)
                .chain(self.revoked.values())
                .map(client_row)
                .collect(),
            invitations: self
                .invitations
                .iter()
                .map(|(token, invitation)| invitation_row(token, invitation))
                .collect(),
        }
        .encode_to_vec()
    }

    /// Reads what [`Catalog::snapshot`] wrote, of a node with as many shards.
    pub(crate) fn restore(shards: u32, bytes: &[u8]) -> Result<Self, Wrong> {
        let snapshot = Snapshot::decode(bytes).map_err(|error| error.to_string())?;
        if snapshot.version != VERSION {
            return Err(format!("its version is {}", snapshot.version));
        }
        if snapshot.shards != shards {
            return Err(format!(
                "it was written with {} shards, the node is set up for {shards}",
                snapshot.shards
            ));
        }
        let mut catalog = Self::new(shards);
        catalog.last = LastIds {
            topic: snapshot.last_topic,
            queue: snapshot.last_queue,
            group: snapshot.last_group,
            view: snapshot.last_view,
            cursor: snapshot.last_cursor,
            binding: snapshot.last_binding,
        };
        for row in snapshot.plugins {
            catalog.restore_plugin(row)?;
        }
        for row in snapshot.topics {
            catalog.restore_topic(row)?;
        }
        for row in snapshot.groups {
            catalog.restore_group(row)?;
        }
        for row in snapshot.views {
            catalog.restore_view(row)?;
        }
        for row in snapshot.cursors {
            catalog.restore_cursor(row)?;
        }
        for row in snapshot.clients.into_iter().chain(snapshot.limited_clients) {
            catalog.restore_client(&row)?;
        }
        for row in snapshot.invitations {
            let invitation = Invitation {
                name: wire::read_name(&row.name)?,
                roles: wire::read_roles(&row.roles)?,
                namespaces: wire::read_names(&row.namespaces)?.into(),
                invited: Timestamp(row.invited),
                expires: Timestamp(row.expires),
            };
            let token = wire::digest(&row.token)?;
            catalog.invitations.insert(token, invitation);
        }
        Ok(catalog)
    }

    fn restore_client(&mut self, row: &ClientRow) -> Result<(), Wrong> {
        let public_key = wire::public_key(&row.public_key)?;
        let roles = wire::read_roles(&row.roles)?;
        let client = Client {
            public_key,
            name: wire::read_name(&row.name)?,
            registered: Timestamp(row.registered),
            roles: if roles.is_empty() {
                Roles::ADMIN
            } else {
                roles
            },
            namespaces: wire::read_names(&row.namespaces)?.into(),
            revoked: row.revoked.map(Timestamp),
        };
        let clients = match client.revoked {
            None => &mut self.clients,
            Some(_) => &mut self.revoked,
        };
        clients.insert(public_key, client);
        Ok(())
    }

    fn restore_plugin(&mut self, row: PluginRow) -> Result<(), Wrong> {
        let name = wire::read_plugin(row.name)?;
        let plugin = Plugin {
            name: name.clone(),
            digest: wire::digest(&row.digest)?,
            world: row.world,
            size: row.size,
            deployed: Timestamp(row.deployed),
        };
        self.plugins.insert(name, plugin);
        Ok(())
    }

    fn restore_topic(&mut self, row: TopicRow) -> Result<(), Wrong> {
        let id = TopicId(row.id);
        let name = wire::read_topic(row.name)?;
        let queues: Vec<_> = row.queues.into_iter().map(QueueId).collect();
        if queues.is_empty() {
            return Err(format!("topic {name} has no queue"));
        }
        for queue in &queues {
            if self.queues.insert(*queue, id).is_some() {
                return Err(format!("queue {queue} belongs to two topics"));
            }
        }
        self.topic_names.insert(name.clone(), id);
        self.topics.insert(
            id,
            Topic {
                id,
                name,
                layout_version: row.layout_version,
                created: Timestamp(row.created),
                queues,
                settings: wire::read_settings(row.settings),
            },
        );
        Ok(())
    }

    fn restore_group(&mut self, row: GroupRow) -> Result<(), Wrong> {
        let id = GroupId(row.id);
        let name = wire::read_group(row.name)?;
        let mut bindings = BTreeMap::new();
        for bound in row.bindings {
            let topic = TopicId(bound.topic);
            if !self.topics.contains_key(&topic) {
                return Err(format!(
                    "group {name} has a binding on topic id {topic}, which isn't there"
                ));
            }
            bindings.insert(topic, read_bindings(bound.bindings)?);
        }
        self.group_names.insert(name.clone(), id);
        self.groups.insert(
            id,
            Group {
                id,
                name,
                policy: wire::read_policy(row.policy)?,
                created: Timestamp(row.created),
                cursors: BTreeMap::new(),
                bindings,
            },
        );
        Ok(())
    }

    fn restore_view(&mut self, row: ViewRow) -> Result<(), Wrong> {
        let id = ViewId(row.id);
        let name = wire::read_view(row.name)?;
        let Some(topic) = self.topic_names.get(&name.topic) else {
            return Err(format!("view {name} reads a topic that isn't there"));
        };
        self.view_names.insert(name.clone(), id);
        self.views.insert(
            id,
            View {
                id,
                topic: *topic,
                name,
                bindings: read_bindings(row.bindings)?,
                created: Timestamp(row.created),
            },
        );
        Ok(())
    }

    fn restore_cursor(&mut self, row: CursorRow) -> Result<(), Wrong> {
        let id = CursorId(row.id);
        let source = match row.view {
            0 => SourceId::Topic(TopicId(row.topic)),
            view => SourceId::View(ViewId(view)),
        };
        if self.source_name(source).is_none() {
            return Err(format!(
                "cursor {id} runs over {source:?}, which isn't there"
            ));
        }
        let group = need(
            self.groups.get_mut(&GroupId(row.group)),
            &format!("group id {} of cursor {id}", row.group),
        )?;
        group.cursors.insert(source, id);
        self.cursors.insert(
            id,
            Cursor {
                id,
                group: group.id,
                source,
                starts: row
                    .starts
                    .into_iter()
                    .map(|at| (QueueId(at.queue), Offset(at.offset)))
                    .collect(),
            },
        );
        Ok(())
    }
}

fn topic_row(topic: &Topic) -> TopicRow {
    TopicRow {
        id: topic.id.0,
        name: wire::topic(&topic.name),
        layout_version: topic.layout_version,
        created: topic.created.0,
        queues: topic.queues.iter().map(|queue| queue.0).collect(),
        settings: Some(wire::settings(&topic.settings)),
    }
}

fn group_row(group: &Group) -> GroupRow {
    GroupRow {
        id: group.id.0,
        name: wire::group(&group.name),
        policy: wire::policy(&group.policy),
        created: group.created.0,
        bindings: group
            .bindings
            .iter()
            .map(|(topic, bindings)| TopicBinding {
                topic: topic.0,
                bindings: bindings.iter().map(binding_row).collect(),
            })
            .collect(),
    }
}

fn view_row(view: &View) -> ViewRow {
    ViewRow {
        id: view.id.0,
        name: wire::view(&view.name),
        bindings: view.bindings.iter().map(binding_row).collect(),
        created: view.created.0,
    }
}

fn plugin_row(plugin: &Plugin) -> PluginRow {
    PluginRow {
        name: wire::plugin(&plugin.name),
        digest: Bytes::copy_from_slice(&plugin.digest),
        world: plugin.world.clone(),
        size: plugin.size,
        deployed: plugin.deployed.0,
    }
}

fn cursor_row(cursor: &Cursor) -> CursorRow {
    let (topic, view) = match cursor.source {
        SourceId::Topic(topic) => (topic.0, 0),
        SourceId::View(view) => (0, view.0),
    };
    CursorRow {
        id: cursor.id.0,
        group: cursor.group.0,
        topic,
        view,
        starts: cursor
            .starts
            .iter()
            .map(|(queue, offset)| wire::At {
                queue: queue.0,
                offset: offset.0,
            })
            .collect(),
    }
}

fn client_row(client: &Client) -> ClientRow {
    ClientRow {
        public_key: Bytes::copy_from_slice(&client.public_key),
        name: client.name.to_string(),
        registered: client.registered.0,
        roles: wire::roles(client.roles),
        namespaces: client.namespaces.iter().map(Name::to_string).collect(),
        revoked: client.revoked.map(|at| at.0),
    }
}

fn invitation_row(token: &[u8; 32], invitation: &Invitation) -> InvitationRow {
    InvitationRow {
        token: Bytes::copy_from_slice(token),
        name: invitation.name.to_string(),
        roles: wire::roles(invitation.roles),
        namespaces: invitation.namespaces.iter().map(Name::to_string).collect(),
        invited: invitation.invited.0,
        expires: invitation.expires.0,
    }
}

fn binding_row(binding: &Binding) -> BindingRow {
    BindingRow {
        id: binding.id.0,
        plugin: wire::plugin(&binding.plugin),
        digest: Bytes::copy_from_slice(&binding.digest),
        config: binding.config.clone(),
        on_error: binding.on_error as u32,
    }
}

fn read_bindings(rows: Vec<BindingRow>) -> Result<Arc<[Binding]>, Wrong> {
    rows.into_iter()
        .map(|row| {
            Ok(Binding {
                id: BindingId(row.id),
                plugin: wire::read_plugin(row.plugin)?,
                digest: wire::digest(&row.digest)?,
                config: row.config,
                on_error: wire::on_error(row.on_error)?,
            })
        })
        .collect()
}
