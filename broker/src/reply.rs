//! What the broker answers.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::{
    BackupFile, Bookmark, Code, LeaseId, MessageId, Name, Offset, ProducerEpoch, ProducerId,
    QueueId, Roles, Seq, ShardId, Timestamp, TopicSettings,
};

use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};
use crate::request::{BindingSpec, Receipt, RetryPolicy};

/// The answer to a [`crate::Request`] that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its payload")]
pub enum Reply {
    /// Done, and as durable as a message.
    Done,
    Topic(TopicInfo),
    Topics(Vec<TopicInfo>),
    Group(GroupInfo),
    Groups(Vec<GroupInfo>),
    /// Old and new offset of every queue.
    Reset(Vec<CursorMove>),
    View(ViewInfo),
    Views(Vec<ViewInfo>),
    Plugin(PluginInfo),
    Plugins(Vec<PluginInfo>),
    Producer(ProducerInfo),
    Published(Published),
    /// Lease runs of a [`crate::request::Receive`]; empty if the wait ended first.
    Received(Vec<Delivery>),
    /// One entry per run of a [`crate::request::Settle`], in its order.
    Settled(Vec<Result<(), Code>>),
    Read(ReadBatches),
    Found(FoundMessages),
    Server(ServerInfo),
    BackupBegun(BackupBegun),
    /// A page of what a backup consists of.
    BackupFiles(Vec<BackupFile>),
    BackupPiece(BackupPiece),
    Invited(Invited),
    Clients(ClientPage),
}

/// An invitation that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Invited {
    /// Works once. The server keeps its hash alone.
    pub token: String,
    /// Until when.
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

/// A page of who is let in or invited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPage {
    /// Invitations first, then by rising public key.
    pub clients: Vec<ClientInfo>,
    /// More follow after the last one.
    pub more: bool,
}

/// Somebody who is, was or may be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its name.
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

/// A backup that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupBegun {
    /// Names it in what is asked next.
    pub backup: u64,
    /// The node, by the pin of its key.
    pub node: String,
    /// When it began: all that was acknowledged before is in it.
    pub began: Timestamp,
    /// End of the log in it, exclusive, as a position of this node.
    pub durable: u64,
    /// The snapshot generation in it, 0 for none.
    pub snapshot: u64,
    /// Position of the snapshot.
    pub snapshot_position: u64,
    /// Format version of the data folder.
    pub format: u32,
    /// Files that it consists of.
    pub files: u32,
    /// Damaged ranges of the log, at most [`BACKUP_DAMAGED_MAX`]: from, and to exclusive.
    pub damaged: Vec<(u64, u64)>,
    /// Damaged ranges beyond those.
    pub more_damaged: u64,
    /// The backup ends when this is dropped: whoever answers keeps it for as long as the one who
    /// asked is there.
    pub hold: Hold,
}

/// Damaged ranges that the answer to a begun backup lists.
pub const BACKUP_DAMAGED_MAX: usize = 10_000;

/// Keeps something until it is dropped.
#[derive(Clone)]
pub struct Hold(Arc<dyn Any + Send + Sync>);

impl Hold {
    /// Drops `held` with the last clone.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self(Arc::new(held))
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hold {}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// A piece of a file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPiece {
    /// Its bytes; what can't be read is zero.
    pub bytes: Bytes,
    /// Bytes that can't be read.
    pub unreadable: u64,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: tidegate_model::TopicRef,
    /// Raised when queues are added.
    pub layout_version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// Its queues in index order.
    pub queues: Vec<QueueInfo>,
    /// What it keeps.
    pub settings: TopicSettings,
}

/// A queue as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub queue: QueueId,
    /// The shard that holds it.
    pub shard: ShardId,
    /// First offset that can be read.
    pub start: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Stored bytes of the batches between: headers, sections and padding.
    pub bytes: u64,
    /// When its first message was stored; `None` if it has none, or if that was not looked up.
    pub oldest: Option<Timestamp>,
}

/// A consumer group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub group: GroupRef,
    /// Its retry policy.
    pub policy: RetryPolicy,
    /// What it consumes.
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// A group's cursor on one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// The topic or view.
    pub source: SourceRef,
    /// The plugin bound to this subscription.
    pub binding: Option<BindingSpec>,
    /// Members with a live subscription.
    pub members: u32,
    /// Per queue, in index order.
    pub queues: Vec<CursorInfo>,
}

/// A group's cursor on one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorInfo {
    /// The queue.
    pub queue: QueueId,
    /// All messages before this offset are acked, parked or passed over.
    pub cursor: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Messages leased now.
    pub leased: u64,
    /// Messages waiting for their next attempt.
    pub parked: u64,
    /// Why nothing is delivered until the bindings change or a member subscribes anew: what a plugin
    /// under on-error `stop` failed with, or why the source can't be judged.
    pub stopped: Option<Code>,
}

/// A cursor moved, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The queue.
    pub queue: QueueId,
    /// Where it stood.
    pub from: Offset,
    /// Where it stands.
    pub to: Offset,
}

/// A view as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewInfo {
    /// Topic and name.
    pub view: ViewRef,
    /// Its plugin chain.
    pub bindings: Vec<BindingSpec>,
    /// When it was made.
    pub created: Timestamp,
}

/// A plugin version as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Name and version.
    pub plugin: PluginRef,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The world it implements, as in `tidegate:plugin/filter@0.1.0`.
    pub world: String,
    /// Bytes of the component.
    pub size: u64,
    /// When it was deployed.
    pub deployed: Timestamp,
    /// Views and subscriptions that bind it, as `TOPIC@VIEW` or `GROUP:TOPIC`.
    pub bound_to: Vec<String>,
    /// The last messages that it failed on since the server started, the newest first; a list of
    /// plugins has none.
    pub failures: Vec<PluginFailure>,
}

/// A message that a plugin failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginFailure {
    /// When.
    pub at: Timestamp,
    /// How.
    pub code: Code,
    /// What the plugin or the engine said.
    pub message: String,
    /// The message's topic; empty if it is gone.
    pub topic: String,
    /// Index of its queue in the topic, from 0.
    pub queue_index: u32,
    /// Its offset there.
    pub offset: Offset,
    /// Its id.
    pub message_id: MessageId,
}

/// An open producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The topic's layout.
    pub layout_version: u32,
    /// The topic's queues in index order.
    pub queues: Vec<QueueInfo>,
}

/// What an acknowledgement survives; the ack names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Memory = 0,
    /// A crash of the process.
    Os = 1,
    /// A power cut.
    Disk = 2,
    /// The loss of a minority of nodes.
    Quorum = 3,
}

/// A stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The shard that holds it.
    pub shard: ShardId,
    /// Its number there: with the shard, the id of its messages.
    pub seq: Seq,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// What the acknowledgement survives.
    pub level: Level,
    /// Whether it was stored by an earlier attempt.
    pub duplicate: bool,
}

/// One lease run, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Index of the queue in its topic.
    pub queue_index: u32,
    /// The receipt handle of the run.
    pub receipt: Receipt,
    /// The batch.
    pub batch: DeliveredBatch,
}

/// Records of one stored batch on their way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredBatch {
    /// The shard that holds it.
    pub shard: ShardId,
    /// Its number there.
    pub seq: Seq,
    /// Offset of delta 0.
    pub base_offset: Offset,
    /// When it was appended.
    pub append_time: Timestamp,
    /// Records in the section.
    pub count: u16,
    /// Offsets that the section covers.
    pub span: u16,
    /// [`tidegate_model::Codec`] as a byte.
    pub codec: u8,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// CRC-32C of the section.
    pub section_crc: u32,
    /// Records were left out, so the CRC is the server's.
    pub compacted: bool,
    /// Record table, head block, body block.
    pub section: Bytes,
}

impl Delivery {
    /// The lease.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.receipt.lease
    }
}

/// Stored batches read by offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatches {
    /// First offset that can be read.
    pub start: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Where to read on: everything before it was returned, passed over by the view's plugins, or is
    /// part of a gap.
    pub resume: Offset,
    /// The batches, in order.
    pub batches: Vec<DeliveredBatch>,
    /// What was passed over because it is damaged, by rising offset; empty unless it was asked for.
    pub gaps: Vec<Gap>,
}

/// Offsets of a queue that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: Offset,
    /// One past the last.
    pub to: Offset,
    /// Why.
    pub code: Code,
}

/// A page of messages found by key, time or id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMessages {
    /// Batches with the messages, in the order asked for; records within a batch always rise.
    pub batches: Vec<FoundBatch>,
    /// Where to go on; `None` after the last page. A page may be empty and not the last.
    pub next: Option<Bookmark>,
    /// Damaged batches that may have held what was looked for.
    pub unreadable: u64,
}

/// Found messages of one stored batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    /// Index of the queue in its topic, from 0.
    pub queue_index: u32,
    /// The messages.
    pub batch: DeliveredBatch,
}

/// The server as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Milliseconds since it became ready.
    pub uptime_ms: u64,
    /// Shards.
    pub shards: u32,
}
