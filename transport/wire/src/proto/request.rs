//! What a request stream asks.

use bytes::Bytes;
use tidegate_model::{self as model, Keep};

/// The only frame that a client sends on a request stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked; `None` is a kind from the future, refused as `unsupported`.
    #[prost(
        oneof = "RequestKind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33"
    )]
    pub kind: Option<RequestKind>,
}

/// The kinds of requests. Each is answered by the [`super::ReplyKind`] named beside it.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestKind {
    /// Makes a topic: `Topic`.
    #[prost(message, tag = "1")]
    CreateTopic(CreateTopic),
    /// Removes a topic: `Done`.
    #[prost(message, tag = "2")]
    DeleteTopic(TopicRef),
    /// `Topic`.
    #[prost(message, tag = "3")]
    DescribeTopic(TopicRef),
    /// `Topics`.
    #[prost(message, tag = "4")]
    ListTopics(Namespace),
    /// Makes a group: `Group`.
    #[prost(message, tag = "5")]
    CreateGroup(CreateGroup),
    /// Removes a group: `Done`.
    #[prost(message, tag = "6")]
    DeleteGroup(GroupRef),
    /// `Group`.
    #[prost(message, tag = "7")]
    DescribeGroup(GroupRef),
    /// `Groups`.
    #[prost(message, tag = "8")]
    ListGroups(Namespace),
    /// Moves a cursor: `Reset`.
    #[prost(message, tag = "9")]
    ResetGroup(ResetGroup),
    /// Makes a view: `View`.
    #[prost(message, tag = "10")]
    CreateView(CreateView),
    /// Removes a view: `Done`.
    #[prost(message, tag = "11")]
    DeleteView(ViewRef),
    /// `View`.
    #[prost(message, tag = "12")]
    DescribeView(ViewRef),
    /// `Views`.
    #[prost(message, tag = "13")]
    ListViews(Namespace),
    /// Uploads a component: `Plugin`.
    #[prost(message, tag = "14")]
    DeployPlugin(DeployPlugin),
    /// Removes a plugin version: `Done`.
    #[prost(message, tag = "15")]
    RemovePlugin(PluginRef),
    /// `Plugin`.
    #[prost(message, tag = "16")]
    DescribePlugin(PluginRef),
    /// `Plugins`.
    #[prost(message, tag = "17")]
    ListPlugins(Namespace),
    /// Binds a plugin to a group's subscription: `Done`.
    #[prost(message, tag = "18")]
    Bind(Bind),
    /// Removes it: `Done`.
    #[prost(message, tag = "19")]
    Unbind(Unbind),
    /// Takes messages once: `Received`, then its delivery frames.
    #[prost(message, tag = "20")]
    Receive(Receive),
    /// Settles leases without a subscription: `Settled`.
    #[prost(message, tag = "21")]
    Settle(Settle),
    /// Reads by offset: `Read`, then its delivery frames.
    #[prost(message, tag = "22")]
    Read(Read),
    /// `Server`.
    #[prost(message, tag = "23")]
    DescribeServer(Empty),
    /// Changes what a topic keeps: `Topic`.
    #[prost(message, tag = "24")]
    UpdateTopic(UpdateTopic),
    /// Finds messages by key and time: `Found`, then its delivery frames.
    #[prost(message, tag = "25")]
    FindMessages(FindMessages),
    /// Reads one message by its id: `Found`, then its delivery frame.
    #[prost(message, tag = "26")]
    GetMessage(GetMessage),
    /// Takes hold of what a data folder needs: `BackupBegun`.
    #[prost(message, tag = "27")]
    BackupBegin(Empty),
    /// Lists what a backup consists of: `BackupFiles`.
    #[prost(message, tag = "28")]
    BackupFiles(BackupFiles),
    /// Reads a piece of a file: `BackupPiece`.
    #[prost(message, tag = "29")]
    BackupRead(BackupRead),
    /// Ends a backup: `Done`.
    #[prost(message, tag = "30")]
    BackupEnd(BackupEnd),
    /// Makes a token that lets a key in once: `Invited`.
    #[prost(message, tag = "31")]
    InviteClient(InviteClient),
    /// Lists who is let in or invited: `Clients`.
    #[prost(message, tag = "32")]
    ListClients(ListClients),
    /// Ends what a client may do: `Done`.
    #[prost(message, tag = "33")]
    RevokeClient(RevokeClient),
}

/// Nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// A topic by name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TopicRef {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The topic's name in it.
    #[prost(string, tag = "2")]
    pub topic: String,
}

/// A consumer group by name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct GroupRef {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The group's name in it.
    #[prost(string, tag = "2")]
    pub group: String,
}

/// A view by name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ViewRef {
    /// The topic that it reads.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// The view's name on that topic.
    #[prost(string, tag = "2")]
    pub view: String,
}

/// A plugin version by name.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PluginRef {
    /// The namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// The plugin's name in it.
    #[prost(string, tag = "2")]
    pub plugin: String,
    /// The version.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// A topic, or a view of it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SourceRef {
    /// The topic.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// The view's name on it; empty for the topic itself.
    #[prost(string, tag = "2")]
    pub view: String,
}

/// A namespace to list.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Namespace {
    /// Its name.
    #[prost(string, tag = "1")]
    pub namespace: String,
}

/// Makes a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateTopic {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// Queues, 1 to [`tidegate_model::limits::TOPIC_QUEUES_MAX`].
    #[prost(uint32, tag = "2")]
    pub queues: u32,
    /// What it keeps, where it differs from the server's default; `None` differs nowhere.
    #[prost(message, optional, tag = "3")]
    pub settings: Option<TopicSettings>,
}

/// Changes what a topic keeps.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateTopic {
    /// The topic.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// What changes.
    #[prost(message, optional, tag = "2")]
    pub change: Option<TopicSettings>,
}

/// What a topic keeps: all of it in a reply, what differs in a request.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TopicSettings {
    /// A message may go this many ms after its append; 0 is never.
    #[prost(uint64, optional, tag = "1")]
    pub retain_ms: Option<u64>,
    /// The oldest messages may go beyond this many bytes; 0 is no bound.
    #[prost(uint64, optional, tag = "2")]
    pub retain_bytes: Option<u64>,
    /// A message may go once every group on the topic and its views is past it.
    #[prost(bool, optional, tag = "3")]
    pub retain_consumed: Option<bool>,
    /// Of each key in each queue the newest message alone is kept.
    #[prost(bool, optional, tag = "4")]
    pub compact: Option<bool>,
    /// Then a message without a body may go this many ms after its append; 0 is never.
    #[prost(uint64, optional, tag = "5")]
    pub tombstone_ms: Option<u64>,
}

impl From<&model::TopicChange> for TopicSettings {
    fn from(change: &model::TopicChange) -> Self {
        Self {
            retain_ms: change.retain_ms.map(Keep::number),
            retain_bytes: change.retain_bytes.map(Keep::number),
            retain_consumed: change.retain_consumed,
            compact: change.compact,
            tombstone_ms: change.tombstone_ms.map(Keep::number),
        }
    }
}

impl From<&model::TopicSettings> for TopicSettings {
    fn from(settings: &model::TopicSettings) -> Self {
        Self {
            retain_ms: Some(settings.retain_ms.number()),
            retain_bytes: Some(settings.retain_bytes.number()),
            retain_consumed: Some(settings.retain_consumed),
            compact: Some(settings.compact),
            tombstone_ms: Some(settings.tombstone_ms.number()),
        }
    }
}

impl TopicSettings {
    /// As a change.
    #[must_use]
    pub fn change(&self) -> model::TopicChange {
        model::TopicChange {
            retain_ms: self.retain_ms.map(Keep::from_number),
            retain_bytes: self.retain_bytes.map(Keep::from_number),
            retain_consumed: self.retain_consumed,
            compact: self.compact,
            tombstone_ms: self.tombstone_ms.map(Keep::from_number),
        }
    }
}

/// Makes a consumer group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateGroup {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// Its retry policy; `None` takes the server's default.
    #[prost(message, optional, tag = "2")]
    pub policy: Option<RetryPolicy>,
}

/// How a group's deliveries are retried.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RetryPolicy {
    /// Deliveries in all before a message is a dead letter; at least 1, below 2^16.
    #[prost(uint32, tag = "1")]
    pub max_attempts: u32,
    /// Wait before attempt 2, 3, …, in ms; the last serves all further ones.
    #[prost(uint32, repeated, tag = "2")]
    pub backoff_ms: Vec<u32>,
}

/// Where a cursor begins.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StartAt {
    /// The way to say it; `None` reads as the latest.
    #[prost(oneof = "StartKind", tags = "1, 2, 3, 4")]
    pub kind: Option<StartKind>,
}

/// Ways to say where a cursor begins.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum StartKind {
    /// At the first message there is.
    #[prost(message, tag = "1")]
    Earliest(Empty),
    /// After the last message there is.
    #[prost(message, tag = "2")]
    Latest(Empty),
    /// At the first message appended at this instant or later, in ms since the Unix epoch.
    #[prost(int64, tag = "3")]
    TimeMs(i64),
    /// At this offset, in every queue.
    #[prost(uint64, tag = "4")]
    Offset(u64),
}

/// Moves a group's cursor on a source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResetGroup {
    /// The group.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// The topic or view.
    #[prost(message, optional, tag = "2")]
    pub source: Option<SourceRef>,
    /// Where to.
    #[prost(message, optional, tag = "3")]
    pub to: Option<StartAt>,
    /// Tell old and new offsets, change nothing.
    #[prost(bool, tag = "4")]
    pub dry_run: bool,
}

/// Makes a view.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateView {
    /// Its topic and name.
    #[prost(message, optional, tag = "1")]
    pub view: Option<ViewRef>,
    /// Its plugin chain, run in order.
    #[prost(message, repeated, tag = "2")]
    pub bindings: Vec<BindingSpec>,
    /// Say whether it can be made, and make nothing; the reply is `done`.
    #[prost(bool, tag = "3")]
    pub dry_run: bool,
}

/// A plugin version with a configuration and an on-error policy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BindingSpec {
    /// The plugin version.
    #[prost(message, optional, tag = "1")]
    pub plugin: Option<PluginRef>,
    /// Given to its `configure`.
    #[prost(bytes = "bytes", tag = "2")]
    pub config: Bytes,
    /// What happens to messages on which it fails.
    #[prost(enumeration = "OnError", tag = "3")]
    pub on_error: i32,
}

/// What happens to messages on which a plugin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OnError {
    /// They go to the group's dead-letter topic.
    DeadLetter = 0,
    /// They are delivered as if accepted.
    Pass = 1,
    /// They are passed over and counted.
    Skip = 2,
    /// They are judged again after the group's backoff, then dead-lettered.
    Retry = 3,
    /// Delivery of the queue waits until the binding is changed.
    Stop = 4,
}

/// Uploads a component.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeployPlugin {
    /// Its name and version.
    #[prost(message, optional, tag = "1")]
    pub plugin: Option<PluginRef>,
    /// The WebAssembly component, at most [`crate::limits::COMPONENT_BYTES_MAX`] bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub component: Bytes,
}

/// Binds a plugin to a group's subscription of a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bind {
    /// The group.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// The topic.
    #[prost(message, optional, tag = "2")]
    pub topic: Option<TopicRef>,
    /// What to bind.
    #[prost(message, optional, tag = "3")]
    pub binding: Option<BindingSpec>,
    /// Say whether it can be bound, and change nothing.
    #[prost(bool, tag = "4")]
    pub dry_run: bool,
}

/// Removes the plugin bound to a group's subscription of a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Unbind {
    /// The group.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// The topic.
    #[prost(message, optional, tag = "2")]
    pub topic: Option<TopicRef>,
}

/// Takes messages once, waiting for some if there are none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receive {
    /// The group.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// The topic or view.
    #[prost(message, optional, tag = "2")]
    pub source: Option<SourceRef>,
    /// Where the cursor begins if the group has none on this source yet.
    #[prost(message, optional, tag = "3")]
    pub start: Option<StartAt>,
    /// Messages at most, at least 1.
    #[prost(uint32, tag = "4")]
    pub max_messages: u32,
    /// Bytes of heads and bodies at most; the first message comes whatever its size.
    #[prost(uint32, tag = "5")]
    pub max_bytes: u32,
    /// How long they stay leased, in ms.
    #[prost(uint32, tag = "6")]
    pub invisible_ms: u32,
    /// How long to wait for the first, in ms; 0 answers at once.
    #[prost(uint32, tag = "7")]
    pub wait_ms: u32,
}

/// Settles leases by group and source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Settle {
    /// The group.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// The topic or view.
    #[prost(message, optional, tag = "2")]
    pub source: Option<SourceRef>,
    /// Runs, encoded as in a settle frame: [`crate::settle::encode_runs`].
    #[prost(bytes = "bytes", tag = "3")]
    pub runs: Bytes,
}

/// Reads stored messages by offset, without a group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Read {
    /// The topic or view.
    #[prost(message, optional, tag = "1")]
    pub source: Option<SourceRef>,
    /// Index of the queue in the topic, from 0.
    #[prost(uint32, tag = "2")]
    pub queue_index: u32,
    /// Where to begin.
    #[prost(message, optional, tag = "3")]
    pub from: Option<StartAt>,
    /// Messages at most.
    #[prost(uint32, tag = "4")]
    pub max_messages: u32,
    /// Bytes of sections at most; the first batch comes whatever its size.
    #[prost(uint32, tag = "5")]
    pub max_bytes: u32,
    /// What is damaged is listed in the answer and passed over; else the request is refused there.
    #[prost(bool, tag = "6")]
    pub over_gaps: bool,
}

/// Finds stored messages by key and time, page by page.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindMessages {
    /// The topic.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// Messages with this key; all messages if `None`.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub key: Option<Bytes>,
    /// Appended at this instant or later, in ms since the Unix epoch; `None` has no bound.
    #[prost(int64, optional, tag = "3")]
    pub from_ms: Option<i64>,
    /// Appended before this instant, in ms since the Unix epoch; `None` has no bound.
    #[prost(int64, optional, tag = "4")]
    pub to_ms: Option<i64>,
    /// From the oldest to the newest, not the other way.
    #[prost(bool, tag = "5")]
    pub oldest_first: bool,
    /// The page of the reply before; empty begins.
    #[prost(string, tag = "6")]
    pub page: String,
    /// Messages at most.
    #[prost(uint32, tag = "7")]
    pub max_messages: u32,
    /// Bytes of heads and bodies at most; the first message comes whatever its size.
    #[prost(uint32, tag = "8")]
    pub max_bytes: u32,
}

/// Reads one message by its id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetMessage {
    /// The topic that holds it.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// The shard that numbered its batch.
    #[prost(uint32, tag = "2")]
    pub shard: u32,
    /// The batch's number there.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// Index of its record in the batch as first stored, below 2^16.
    #[prost(uint32, tag = "4")]
    pub record: u32,
}

/// Lists what a backup consists of, page by page.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BackupFiles {
    /// The backup, as its begin was answered.
    #[prost(uint64, tag = "1")]
    pub backup: u64,
    /// Number of the first file, from 0.
    #[prost(uint32, tag = "2")]
    pub first: u32,
}

/// Reads a piece of a file of a backup.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BackupRead {
    /// The backup, as its begin was answered.
    #[prost(uint64, tag = "1")]
    pub backup: u64,
    /// Number of the file, from 0.
    #[prost(uint32, tag = "2")]
    pub file: u32,
    /// First byte.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// Bytes, at most [`crate::limits::BACKUP_PIECE_BYTES_MAX`]; with none the backup is only kept.
    #[prost(uint32, tag = "4")]
    pub len: u32,
}

/// Ends a backup.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BackupEnd {
    /// The backup, as its begin was answered.
    #[prost(uint64, tag = "1")]
    pub backup: u64,
}

/// Makes a token that lets a key in once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InviteClient {
    /// How the client is to be known.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Numbers of [`tidegate_model::Role`].
    #[prost(uint32, repeated, tag = "2")]
    pub roles: Vec<u32>,
    /// In which namespaces; none is all.
    #[prost(string, repeated, tag = "3")]
    pub namespaces: Vec<String>,
    /// How long the token is good for, in ms.
    #[prost(uint64, tag = "4")]
    pub life_ms: u64,
}

/// Lists who is let in or invited, page by page.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListClients {
    /// Of this name alone; empty for all.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The public key at which the page before ended; absent begins.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub after: Option<Bytes>,
    /// Revoked keys too.
    #[prost(bool, tag = "3")]
    pub revoked: bool,
}

/// Ends what a client may do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RevokeClient {
    /// Its name: all its keys, and an invitation of that name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Of its keys this one alone.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub public_key: Option<Bytes>,
}
