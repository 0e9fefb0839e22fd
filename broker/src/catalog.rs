//! What exists on a node: topics, groups, views, plugins, bindings and cursors, by name and id.

mod apply;
pub mod command;
mod refuse;
mod snapshot;
mod wire;

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::{
    GroupId, Name, Offset, QueueId, QueueTable, Roles, ShardId, Timestamp, TopicId, TopicRef,
    TopicSettings, ViewId,
};

use crate::id::{BindingId, CursorId, SourceId};
use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};
use crate::refusal::Refusal;
use crate::request::{OnError, RetryPolicy};

pub use command::{CatalogCommand, CommandError};
pub(crate) use refuse::{no_binding, no_group, no_plugin, no_topic, no_view, settings_refused};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicRef,
    /// Raised when queues are added.
    pub layout_version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// Its queues in index order.
    pub queues: Vec<QueueId>,
    /// What it keeps.
    pub settings: TopicSettings,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: GroupRef,
    /// Its retry policy.
    pub policy: RetryPolicy,
    /// When it was made.
    pub created: Timestamp,
    /// Its cursors.
    pub cursors: BTreeMap<SourceId, CursorId>,
    /// Filters bound to its subscriptions of topics, one each.
    pub bindings: BTreeMap<TopicId, Arc<[Binding]>>,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: ViewId,
    /// Its name.
    pub name: ViewRef,
    /// The topic that it reads.
    pub topic: TopicId,
    /// Its filters in order.
    pub bindings: Arc<[Binding]>,
    /// When it was made.
    pub created: Timestamp,
}

/// A plugin version. Its component's bytes live in the log and in a file named by the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name and version.
    pub name: PluginRef,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The world it implements.
    pub world: String,
    /// Bytes of the component.
    pub size: u64,
    /// When it was deployed.
    pub deployed: Timestamp,
}

/// A plugin version attached to a view or a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its id: the same id is the same plugin, configuration and policy for ever.
    pub id: BindingId,
    /// The plugin version.
    pub plugin: PluginRef,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// Given to the plugin's `configure`.
    pub config: Bytes,
    /// What happens to messages on which it fails.
    pub on_error: OnError,
}

/// A group's cursor over one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its id.
    pub id: CursorId,
    /// Its group.
    pub group: GroupId,
    /// What it runs over.
    pub source: SourceId,
    /// Where it began in each queue; a queue added later begins at its first message.
    pub starts: BTreeMap<QueueId, Offset>,
}

/// Ids by name. With a fixed seed its order is that of no name, so who lists sorts.
#[expect(
    clippy::disallowed_types,
    reason = "the seed is fixed: the same in every run"
)]
pub(crate) type NameMap<N, I> = std::collections::HashMap<N, I, BuildHasherDefault<DefaultHasher>>;

/// What exists on a node. Changed by [`CatalogCommand`]s alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub(crate) shards: u32,
    /// The last id given of each kind; none is ever given again.
    pub(crate) last: LastIds,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) topic_names: NameMap<TopicRef, TopicId>,
    pub(crate) queues: QueueTable<TopicId>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) group_names: NameMap<GroupRef, GroupId>,
    pub(crate) views: BTreeMap<ViewId, View>,
    pub(crate) view_names: NameMap<ViewRef, ViewId>,
    pub(crate) plugins: BTreeMap<PluginRef, Plugin>,
    pub(crate) cursors: BTreeMap<CursorId, Cursor>,
    pub(crate) clients: BTreeMap<[u8; 32], Client>,
    /// By key, at most [`crate::limit::REVOKED_MAX`].
    pub(crate) revoked: BTreeMap<[u8; 32], Client>,
    /// By the SHA-256 of the token.
    pub(crate) invitations: BTreeMap<[u8; 32], Invitation>,
}

/// A client that is let in, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
    /// How it is known.
    pub name: Name,
    /// When it was let in.
    pub registered: Timestamp,
    /// What it may do.
    pub roles: Roles,
    /// In which namespaces; none is all.
    pub namespaces: Arc<[Name]>,
    /// When its key was revoked.
    pub revoked: Option<Timestamp>,
}

/// Who may register a key with a token that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// How the client is to be known.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// In which namespaces; none is all.
    pub namespaces: Arc<[Name]>,
    /// When it was made.
    pub invited: Timestamp,
    /// From when on the token is worth nothing.
    pub expires: Timestamp,
}

/// The last id given of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastIds {
    pub(crate) topic: u64,
    pub(crate) queue: u64,
    pub(crate) group: u64,
    pub(crate) view: u64,
    pub(crate) cursor: u64,
    pub(crate) binding: u64,
}

impl Catalog {
    /// Nothing yet, over this many shards.
    #[must_use]
    pub(crate) fn new(shards: u32) -> Self {
        Self {
            shards,
            last: LastIds::default(),
            topics: BTreeMap::new(),
            topic_names: NameMap::default(),
            queues: QueueTable::default(),
            groups: BTreeMap::new(),
            group_names: NameMap::default(),
            views: BTreeMap::new(),
            view_names: NameMap::default(),
            plugins: BTreeMap::new(),
            cursors: BTreeMap::new(),
            clients: BTreeMap::new(),
            revoked: BTreeMap::new(),
            invitations: BTreeMap::new(),
        }
    }

    /// Every client that is let in, by key.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// The client of this key, if it is let in.
    #[must_use]
    pub fn client(&self, public_key: &[u8; 32]) -> Option<&Client> {
        self.clients.get(public_key)
    }

    /// Whether this key is remembered as revoked.
    #[must_use]
    pub fn is_revoked(&self, public_key: &[u8; 32]) -> bool {
        self.revoked.contains_key(public_key)
    }

    /// Clients whose keys were revoked and are still remembered, by key.
    pub fn revoked_clients(&self) -> impl Iterator<Item = &Client> {
        self.revoked.values()
    }

    /// The invitation whose token has this SHA-256. It may have expired.
    #[must_use]
    pub fn invitation(&self, token: &[u8; 32]) -> Option<&Invitation> {
        self.invitations.get(token)
    }

    /// Every binding of every view and subscription.
    pub fn live_bindings(&self) -> impl Iterator<Item = &Binding> {
        let views = self.views.values().map(|view| &view.bindings);
        let subscriptions = self
            .groups
            .values()
            .flat_map(|group| group.bindings.values());
        views
            .chain(subscriptions)
            .flat_map(|bindings| bindings.iter())
    }

    /// The shard that holds a queue, by its id alone: shard 0 is the catalogue's where there are others.
    #[must_use]
    pub fn shard_of(&self, queue: QueueId) -> ShardId {
        match self.shards {
            0 | 1 => ShardId(0),
            shards => {
                let others = u64::from(shards - 1);
                ShardId(1 + u32::try_from(queue.0 % others).expect("below a u32"))
            }
        }
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &TopicRef) -> Option<&Topic> {
        self.topics.get(self.topic_names.get(name)?)
    }

    /// The topic of this id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The topic that a queue belongs to; `None` once it is removed.
    #[must_use]
    pub fn topic_of(&self, queue: QueueId) -> Option<&Topic> {
        self.topics.get(self.queues.get(queue)?)
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &GroupRef) -> Option<&Group> {
        self.groups.get(self.group_names.get(name)?)
    }

    /// The group of this id.
    #[must_use]
    pub fn group_by_id(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// The view of this name.
    #[must_use]
    pub fn view(&self, name: &ViewRef) -> Option<&View> {
        self.views.get(self.view_names.get(name)?)
    }

    /// The plugin version of this name.
    #[must_use]
    pub fn plugin(&self, name: &PluginRef) -> Option<&Plugin> {
        self.plugins.get(name)
    }

    /// The cursor of this id.
    #[must_use]
    pub fn cursor(&self, id: CursorId) -> Option<&Cursor> {
        self.cursors.get(&id)
    }

    /// Every topic, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// Every group, by id.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Every view, by id.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.views.values()
    }

    /// Every plugin version, by name: what the owner keeps component files of.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.values()
    }

    /// The name of a source; `None` once it is removed.
    #[must_use]
    pub fn source_name(&self, source: SourceId) -> Option<SourceRef> {
        Some(match source {
            SourceId::Topic(id) => SourceRef::Topic(self.topics.get(&id)?.name.clone()),
            SourceId::View(id) => SourceRef::View(self.views.get(&id)?.name.clone()),
        })
    }

    /// The id of a source and the topic that it reads.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`.
    pub fn source(&self, source: &SourceRef) -> Result<(SourceId, &Topic), Refusal> {
        let topic = self
            .topic(source.topic())
            .ok_or_else(|| no_topic(source.topic()))?;
        match source {
            SourceRef::Topic(_) => Ok((SourceId::Topic(topic.id), topic)),
            SourceRef::View(name) => {
                let view = self.view(name).ok_or_else(|| no_view(name))?;
                Ok((SourceId::View(view.id), topic))
            }
        }
    }

    /// The filters between a group and a source, in order.
    pub(crate) fn bindings(&self, group: GroupId, source: SourceId) -> Arc<[Binding]> {
        match source {
            SourceId::Topic(topic) => self
                .groups
                .get(&group)
                .and_then(|group| group.bindings.get(&topic)),
            SourceId::View(view) => self.views.get(&view).map(|view| &view.bindings),
        }
        .cloned()
        .unwrap_or_default()
    }

    /// Views and subscriptions that bind a plugin version, as `TOPIC@VIEW` or `GROUP:TOPIC`.
    pub(crate) fn bound_to(&self, plugin: &PluginRef) -> Vec<String> {
        let binds = |bindings: &[Binding]| bindings.iter().any(|bound| bound.plugin == *plugin);
        let views = self
            .views
            .values()
            .filter(|view| binds(&view.bindings))
            .map(|view| view.name.to_string());
        let subscriptions = self.groups.values().flat_map(|group| {
            group
                .bindings
                .iter()
                .filter(|(_, bindings)| binds(bindings))
                .filter_map(|(topic, _)| self.topics.get(topic))
                .map(|topic| format!("{}:{}", group.name, topic.name))
        });
        views.chain(subscriptions).collect()
    }
}
