//! Changes of the catalogue as the log of shard 0 keeps them.

use bytes::Bytes;
use tidegate_model::{Offset, QueueId, ShardId, TopicRef};

use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};
use crate::request::{BindingSpec, RetryPolicy};

/// A change of the catalogue: one record of a catalogue batch.
///
/// It was valid when it was planned. It is checked again when applied, since another may have come
/// before it; one that isn't valid then is refused and changes nothing, at replay as when live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are those of the requests of the same names"
)]
pub enum CatalogCommand {
    CreateTopic {
        topic: TopicRef,
        queues: u32,
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
        /// Where it begins, per queue of the topic.
        starts: Vec<(QueueId, Offset)>,
    },
    /// A group's dead-letter topic needs a queue in a shard. Without effect if it has one.
    OpenDeadLetter {
        group: GroupRef,
        shard: ShardId,
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

impl CatalogCommand {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads what [`CatalogCommand::encode`] wrote.
    ///
    /// # Errors
    /// [`CommandError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let _ = bytes;
        unimplemented!()
    }
}
