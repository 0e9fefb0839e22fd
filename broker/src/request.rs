//! What a client of any protocol can ask for.

use bytes::Bytes;
use tidegate_model::{
    Bookmark, LeaseId, MessageId, Name, Offset, Order, ProducerEpoch, ProducerId, QueueId, Roles,
    Sequence, Timestamp, TopicChange, TopicRef,
};

use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};

/// A request of any front end. A kind without a rule in [`crate::authorize::required`] does not compile.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is documented at its payload")]
pub enum Request {
    CreateTopic(CreateTopic),
    UpdateTopic(UpdateTopic),
    DeleteTopic(OneTopic),
    DescribeTopic(OneTopic),
    ListTopics(List),
    CreateGroup(CreateGroup),
    DeleteGroup(OneGroup),
    DescribeGroup(OneGroup),
    ListGroups(List),
    ResetGroup(ResetGroup),
    CreateView(CreateView),
    DeleteView(OneView),
    DescribeView(OneView),
    ListViews(List),
    DeployPlugin(DeployPlugin),
    RemovePlugin(OnePlugin),
    DescribePlugin(OnePlugin),
    ListPlugins(List),
    Bind(Bind),
    Unbind(Unbind),
    OpenProducer(OpenProducer),
    Publish(Publish),
    Subscribe(Subscribe),
    Receive(Receive),
    Settle(Settle),
    Read(Read),
    FindMessages(FindMessages),
    GetMessage(GetMessage),
    /// Takes hold of everything that a data folder needs, for one backup at a time.
    BackupBegin,
    BackupFiles(BackupFiles),
    BackupRead(BackupRead),
    BackupEnd(BackupEnd),
    /// Whether a request with bindings would be carried out, its plugins' words on their
    /// configurations included. Nothing changes.
    Check(Box<Request>),
    /// Version, uptime, limits.
    DescribeServer,
    InviteClient(InviteClient),
    ListClients(ListClients),
    RevokeClient(RevokeClient),
}

impl Request {
    /// The bindings that it makes: each plugin is shown its configuration before the request is
    /// carried out.
    #[must_use]
    pub fn bindings(&self) -> &[BindingSpec] {
        match self {
            Self::CreateView(create) => &create.bindings,
            Self::Bind(bind) => std::slice::from_ref(&bind.binding),
            _ => &[],
        }
    }
}

/// Makes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub topic: TopicRef,
    /// Queues, 1 to [`tidegate_model::limits::TOPIC_QUEUES_MAX`].
    pub queues: u32,
    /// What it keeps, where it differs from the default.
    pub settings: TopicChange,
}

/// Changes what a topic keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateTopic {
    /// The topic.
    pub topic: TopicRef,
    /// The change.
    pub change: TopicChange,
}

/// Names a topic to describe or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTopic {
    /// The topic.
    pub topic: TopicRef,
}

/// Lists things of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Of this namespace.
    pub namespace: Name,
}

/// Makes a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroup {
    /// Its name.
    pub group: GroupRef,
    /// Its retry policy.
    pub policy: RetryPolicy,
}

/// How a group's deliveries are retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Deliveries in all, the first included, before a message goes to the dead-letter topic; at
    /// least 1. RocketMQ's default of 16 retries is 17 here.
    pub max_attempts: u16,
    /// Wait before attempt 2, 3, …, in ms; the last one serves all further attempts. Empty: at once.
    pub backoff_ms: Vec<u32>,
}

impl Default for RetryPolicy {
    /// 17 attempts; waits of 1 s, 5 s, 10 s, 30 s, then 1 to 10 minutes.
    fn default() -> Self {
        Self {
            max_attempts: 17,
            backoff_ms: vec![
                1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
            ],
        }
    }
}

/// Names a group to describe or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneGroup {
    /// The group.
    pub group: GroupRef,
}

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the first message there is.
    Earliest,
    /// After the last message there is.
    Latest,
    /// At the first message appended at this instant or later.
    Time(Timestamp),
    /// At this offset, in every queue.
    Offset(Offset),
}

/// Moves a group's cursor on a source; leases and parked messages of that cursor are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetGroup {
    /// The group.
    pub group: GroupRef,
    /// The topic or view whose cursor moves.
    pub source: SourceRef,
    /// Where to.
    pub to: StartAt,
    /// Tell old and new offsets, change nothing.
    pub dry_run: bool,
}

/// Makes a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateView {
    /// Its topic and name.
    pub view: ViewRef,
    /// Its plugin chain, run in order; a message is in the view if all accept it.
    pub bindings: Vec<BindingSpec>,
}

/// Names a view to describe or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneView {
    /// The view.
    pub view: ViewRef,
}

/// A plugin version with a configuration and an on-error policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingSpec {
    /// The plugin version.
    pub plugin: PluginRef,
    /// Given to its `configure`; the plugin knows the format.
    pub config: Bytes,
    /// What happens to messages on which it fails.
    pub on_error: OnError,
}

/// What happens to messages on which a delivery-side plugin fails. Nothing is lost silently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OnError {
    /// They go to the group's dead-letter topic.
    #[default]
    DeadLetter = 0,
    /// They are delivered as if accepted.
    Pass = 1,
    /// They are passed over as if rejected, and counted.
    Skip = 2,
    /// They are judged again after the group's backoff, then dead-lettered.
    Retry = 3,
    /// Delivery of the queue waits until the binding is changed.
    Stop = 4,
}

/// Uploads a component under a name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployPlugin {
    /// Its name and version.
    pub plugin: PluginRef,
    /// The WebAssembly component.
    pub component: Bytes,
}

/// Names a plugin version to describe or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePlugin {
    /// The plugin version.
    pub plugin: PluginRef,
}

/// Binds a plugin to a group's subscription of a topic, in place of one bound before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The group.
    pub group: GroupRef,
    /// The topic.
    pub topic: TopicRef,
    /// What to bind.
    pub binding: BindingSpec,
}

/// Removes the plugin bound to a group's subscription of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbind {
    /// The group.
    pub group: GroupRef,
    /// The topic.
    pub topic: TopicRef,
}

/// Opens a producer on a topic, or resumes one on a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenProducer {
    /// The topic.
    pub topic: TopicRef,
    /// Who it is.
    pub identity: ProducerIdentity,
}

/// Who a producer is to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerIdentity {
    /// A new one.
    Fresh,
    /// One that was given this id and epoch earlier.
    Resumed(ProducerId, ProducerEpoch),
    /// One of which nothing is remembered: a batch that it sends again is stored again.
    NonIdempotent,
}

/// A producer that its client has ended: nothing is sent again under its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndProducer {
    /// The topic that it published to.
    pub topic: TopicRef,
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Indexes in the topic of the queues that it published to.
    pub queues: Vec<u32>,
}

/// A batch for one queue, its section as the client encoded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: TopicRef,
    /// Index of the queue in the topic, from 0.
    pub queue_index: u32,
    /// The layout by which the client placed it.
    pub layout_version: u32,
    /// The producer; zero publishes without dedup.
    pub producer: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Number of the first record in (producer, queue), from 0.
    pub sequence: Sequence,
    /// Records in the section.
    pub count: u16,
    /// Offsets it takes; equals `count` from a client.
    pub span: u16,
    /// [`tidegate_model::Codec`] as a byte.
    pub codec: u8,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// CRC-32C of the section as the client computed it.
    pub section_crc: u32,
    /// Record table, head block, body block.
    pub section: Bytes,
}

/// Starts pushing a source's messages to a member of a group, as far as its credit goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The group.
    pub group: GroupRef,
    /// The topic or view.
    pub source: SourceRef,
    /// Where the cursor begins if the group has none on this source yet.
    pub start: StartAt,
    /// How long a delivered message stays leased, in ms.
    pub invisible_ms: u32,
}

/// Takes messages once, waiting for some if there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The group.
    pub group: GroupRef,
    /// The topic or view.
    pub source: SourceRef,
    /// Where the cursor begins if the group has none on this source yet.
    pub start: StartAt,
    /// Messages at most, at least 1.
    pub max_messages: u32,
    /// Bytes of heads and bodies at most; the first message comes whatever its size.
    pub max_bytes: u32,
    /// How long they stay leased, in ms.
    pub invisible_ms: u32,
    /// How long to wait for the first, in ms; 0 answers at once.
    pub wait_ms: u32,
}

/// What the holder of leases says about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The group.
    pub group: GroupRef,
    /// The topic or view.
    pub source: SourceRef,
    /// One entry per lease run.
    pub runs: Vec<SettleRun>,
}

/// Something said about records of one lease run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleRun {
    /// The run, as delivered.
    pub receipt: Receipt,
    /// Ranges of offset deltas from the run's base offset: first, and one past the last.
    pub records: Vec<(u16, u16)>,
    /// What is said.
    pub outcome: Outcome,
}

/// The receipt handle of a lease run; its MAC covers every field and the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The queue.
    pub queue: QueueId,
    /// Base offset of the delivered frame.
    pub base_offset: Offset,
    /// Offsets that the frame covers.
    pub span: u16,
    /// Which delivery of its records this was, from 1.
    pub attempt: u16,
    /// The lease.
    pub lease: LeaseId,
    /// HMAC-SHA-256, first 16 bytes, under a key that survives restarts.
    pub mac: [u8; 16],
}

/// What becomes of leased records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: never again.
    Ack,
    /// Failed: again after this many ms, or after the group's backoff.
    Nack {
        /// Wait in ms; `None` takes the group's backoff.
        delay_ms: Option<u32>,
    },
    /// Still at work: leased for this many ms from now.
    Extend {
        /// New invisible duration in ms.
        invisible_ms: u32,
    },
}

/// Reads stored messages by offset, without a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The topic or view.
    pub source: SourceRef,
    /// Index of the queue in the topic, from 0.
    pub queue_index: u32,
    /// Where to begin.
    pub from: StartAt,
    /// Messages at most.
    pub max_messages: u32,
    /// Bytes of sections at most; the first batch comes whatever its size.
    pub max_bytes: u32,
    /// What is damaged is listed in the answer and passed over; else the request is refused there.
    pub over_gaps: bool,
}

/// Finds stored messages of a topic by key and time, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindMessages {
    /// The topic.
    pub topic: TopicRef,
    /// Messages with this key; all messages if `None`.
    pub key: Option<Bytes>,
    /// Appended at this instant or later.
    pub from: Timestamp,
    /// Appended before this instant.
    pub to: Timestamp,
    /// In which order.
    pub order: Order,
    /// Where the page before ended; `None` begins.
    pub page: Option<Bookmark>,
    /// Messages at most; at least one comes if there is one.
    pub max_messages: u32,
    /// Bytes of heads and bodies at most; the first message comes whatever its size.
    pub max_bytes: u32,
}

/// Reads one message by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetMessage {
    /// The topic that holds it.
    pub topic: TopicRef,
    /// Its id.
    pub id: MessageId,
}

/// Lists what a backup consists of, page by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupFiles {
    /// The backup, as it was begun.
    pub backup: u64,
    /// Number of the first file, from 0.
    pub first: u32,
}

/// Reads a piece of a file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupRead {
    /// The backup, as it was begun.
    pub backup: u64,
    /// Number of the file, from 0.
    pub file: u32,
    /// First byte.
    pub at: u64,
    /// Bytes. None still says that the client is at work.
    pub len: u32,
}

/// Ends a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// The backup, as it was begun.
    pub backup: u64,
}

/// Lets somebody register a key, with a token that works once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteClient {
    /// How the client is to be known.
    pub name: Name,
    /// What it may do; at least one.
    pub roles: Roles,
    /// In which namespaces, at most [`crate::limit::CLIENT_NAMESPACES_MAX`]; none is all. An admin's
    /// are none.
    pub namespaces: Vec<Name>,
    /// How long the token is good for, in ms, at most [`crate::limit::INVITATION_MS_MAX`].
    pub life_ms: u64,
}

/// Lists who is let in or invited, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListClients {
    /// Of this name alone.
    pub name: Option<Name>,
    /// Those with a higher public key than this; `None` begins, with the invitations.
    pub after: Option<[u8; 32]>,
    /// Revoked keys too.
    pub revoked: bool,
}

/// Ends what a client may do, at once and for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeClient {
    /// Its name: all its keys, and an invitation of that name.
    pub name: Name,
    /// Of its keys this one alone.
    pub public_key: Option<[u8; 32]>,
}
