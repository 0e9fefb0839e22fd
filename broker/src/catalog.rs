//! What exists on a node: topics, groups, views, plugins, bindings and cursors, by name and id.

pub mod command;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::{GroupId, Offset, QueueId, ShardId, Timestamp, TopicId, TopicRef, ViewId};

use crate::id::{BindingId, CursorId, SourceId};
use crate::reference::{GroupRef, PluginRef, ViewRef};
use crate::request::{OnError, RetryPolicy};

pub use command::{CatalogCommand, CommandError};

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

/// What exists on a node. Changed by [`CatalogCommand`]s alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub(crate) shards: u32,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) topic_names: BTreeMap<TopicRef, TopicId>,
}

impl Catalog {
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

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &GroupRef) -> Option<&Group> {
        let _ = name;
        unimplemented!()
    }

    /// The group of this id.
    #[must_use]
    pub fn group_by_id(&self, id: GroupId) -> Option<&Group> {
        let _ = id;
        unimplemented!()
    }

    /// The view of this name.
    #[must_use]
    pub fn view(&self, name: &ViewRef) -> Option<&View> {
        let _ = name;
        unimplemented!()
    }

    /// The plugin version of this name.
    #[must_use]
    pub fn plugin(&self, name: &PluginRef) -> Option<&Plugin> {
        let _ = name;
        unimplemented!()
    }

    /// Every plugin version, by name: what the owner keeps component files of.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        core::iter::empty()
    }

    /// Every topic, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }
}
