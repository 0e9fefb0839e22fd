//! What a request stream answers.

use bytes::Bytes;
use tidegate_model::{self as model, FileId};

use super::{
    Alias, BindingSpec, Empty, GroupRef, PluginRef, Queue, RetryPolicy, Settled, SourceRef,
    TopicRef, TopicSettings, ViewRef,
};

/// The first frame that a server sends on a request stream, unless it refuses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The answer; `None` is a kind from the future.
    #[prost(
        oneof = "ReplyKind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20"
    )]
    pub kind: Option<ReplyKind>,
}

/// The kinds of replies.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ReplyKind {
    /// Done, and as durable as a message.
    #[prost(message, tag = "1")]
    Done(Empty),
    /// A topic.
    #[prost(message, tag = "2")]
    Topic(Topic),
    /// Topics.
    #[prost(message, tag = "3")]
    Topics(Topics),
    /// A group.
    #[prost(message, tag = "4")]
    Group(Group),
    /// Groups.
    #[prost(message, tag = "5")]
    Groups(Groups),
    /// Old and new offset of every queue.
    #[prost(message, tag = "6")]
    Reset(CursorMoves),
    /// A view.
    #[prost(message, tag = "7")]
    View(View),
    /// Views.
    #[prost(message, tag = "8")]
    Views(Views),
    /// A plugin version.
    #[prost(message, tag = "9")]
    Plugin(Plugin),
    /// Plugin versions.
    #[prost(message, tag = "10")]
    Plugins(Plugins),
    /// Lease runs follow.
    #[prost(message, tag = "11")]
    Received(Received),
    /// Outcomes of a settle request; its ticket is 0.
    #[prost(message, tag = "12")]
    Settled(Settled),
    /// Batches follow.
    #[prost(message, tag = "13")]
    Read(ReadDone),
    /// The server.
    #[prost(message, tag = "14")]
    Server(Server),
    /// Messages follow.
    #[prost(message, tag = "15")]
    Found(Found),
    /// A backup was begun.
    #[prost(message, tag = "16")]
    BackupBegun(BackupBegun),
    /// What a backup consists of.
    #[prost(message, tag = "17")]
    BackupFiles(BackupFileList),
    /// A piece of a file of a backup.
    #[prost(message, tag = "18")]
    BackupPiece(BackupPiece),
    /// A token that lets a key in once.
    #[prost(message, tag = "19")]
    Invited(Invited),
    /// Who is let in or invited.
    #[prost(message, tag = "20")]
    Clients(Clients),
}

/// A topic as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Topic {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// Raised when queues are added.
    #[prost(uint32, tag = "2")]
    pub layout_version: u32,
    /// When it was made, in ms since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub created_ms: i64,
    /// Its queues in index order.
    #[prost(message, repeated, tag = "4")]
    pub queues: Vec<Queue>,
    /// What it keeps.
    #[prost(message, optional, tag = "5")]
    pub settings: Option<TopicSettings>,
}

/// Topics of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Topics {
    /// In order of name.
    #[prost(message, repeated, tag = "1")]
    pub topics: Vec<Topic>,
}

/// A consumer group as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Group {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub group: Option<GroupRef>,
    /// Its retry policy.
    #[prost(message, optional, tag = "2")]
    pub policy: Option<RetryPolicy>,
    /// What it consumes.
    #[prost(message, repeated, tag = "3")]
    pub subscriptions: Vec<Subscription>,
}

/// Groups of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Groups {
    /// In order of name.
    #[prost(message, repeated, tag = "1")]
    pub groups: Vec<Group>,
}

/// A group's cursor on one source.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscription {
    /// The topic or view.
    #[prost(message, optional, tag = "1")]
    pub source: Option<SourceRef>,
    /// The plugin bound to it.
    #[prost(message, optional, tag = "2")]
    pub binding: Option<BindingSpec>,
    /// Members with a live subscription.
    #[prost(uint32, tag = "3")]
    pub members: u32,
    /// Per queue, in index order.
    #[prost(message, repeated, tag = "4")]
    pub queues: Vec<Cursor>,
}

/// A group's cursor on one queue.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Cursor {
    /// The queue.
    #[prost(uint64, tag = "1")]
    pub queue: u64,
    /// All messages before this offset are acked, parked or passed over.
    #[prost(uint64, tag = "2")]
    pub cursor: u64,
    /// One past the last durable message.
    #[prost(uint64, tag = "3")]
    pub next: u64,
    /// Messages leased now.
    #[prost(uint64, tag = "4")]
    pub leased: u64,
    /// Messages waiting for their next attempt.
    #[prost(uint64, tag = "5")]
    pub parked: u64,
    /// A [`tidegate_model::Code`]: why delivery is stopped; 0 if it isn't.
    #[prost(uint32, tag = "6")]
    pub stopped: u32,
}

/// Cursors moved, or about to be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CursorMoves {
    /// Per queue, in index order.
    #[prost(message, repeated, tag = "1")]
    pub moves: Vec<CursorMove>,
}

/// A cursor moved, or about to be.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CursorMove {
    /// The queue.
    #[prost(uint64, tag = "1")]
    pub queue: u64,
    /// Where it stood.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// Where it stands.
    #[prost(uint64, tag = "3")]
    pub to: u64,
}

/// A view as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct View {
    /// Topic and name.
    #[prost(message, optional, tag = "1")]
    pub view: Option<ViewRef>,
    /// Its plugin chain.
    #[prost(message, repeated, tag = "2")]
    pub bindings: Vec<BindingSpec>,
    /// When it was made, in ms since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub created_ms: i64,
}

/// Views of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Views {
    /// In order of name.
    #[prost(message, repeated, tag = "1")]
    pub views: Vec<View>,
}

/// A plugin version as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plugin {
    /// Name and version.
    #[prost(message, optional, tag = "1")]
    pub plugin: Option<PluginRef>,
    /// SHA-256 of the component, 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub digest: Bytes,
    /// The world it implements.
    #[prost(string, tag = "3")]
    pub world: String,
    /// Bytes of the component.
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// When it was deployed, in ms since the Unix epoch.
    #[prost(int64, tag = "5")]
    pub deployed_ms: i64,
    /// Views and subscriptions that bind it.
    #[prost(string, repeated, tag = "6")]
    pub bound_to: Vec<String>,
    /// The last messages that it failed on, the newest first.
    #[prost(message, repeated, tag = "7")]
    pub failures: Vec<PluginFailure>,
}

/// A message that a plugin failed on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginFailure {
    /// When, in ms since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub at_ms: i64,
    /// How: an error code.
    #[prost(uint32, tag = "2")]
    pub code: u32,
    /// What the plugin or the engine said.
    #[prost(string, tag = "3")]
    pub message: String,
    /// The message's topic as `NAMESPACE/TOPIC` or `TOPIC`; empty if it is gone.
    #[prost(string, tag = "4")]
    pub topic: String,
    /// Index of its queue in the topic.
    #[prost(uint32, tag = "5")]
    pub queue_index: u32,
    /// Its offset there.
    #[prost(uint64, tag = "6")]
    pub offset: u64,
    /// Its id: shard.
    #[prost(uint32, tag = "7")]
    pub shard: u32,
    /// Its id: number of its batch.
    #[prost(uint64, tag = "8")]
    pub seq: u64,
    /// Its id: record in the batch.
    #[prost(uint32, tag = "9")]
    pub record: u32,
}

/// Plugin versions of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plugins {
    /// In order of name and version.
    #[prost(message, repeated, tag = "1")]
    pub plugins: Vec<Plugin>,
}

/// Head of the answer to a receive: so many delivery frames follow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Received {
    /// Delivery frames that follow.
    #[prost(uint32, tag = "1")]
    pub frames: u32,
    /// The queues that they come from.
    #[prost(message, repeated, tag = "2")]
    pub aliases: Vec<Alias>,
}

/// Head of the answer to a read: so many delivery frames follow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadDone {
    /// First offset that can be read.
    #[prost(uint64, tag = "1")]
    pub start: u64,
    /// One past the last durable message.
    #[prost(uint64, tag = "2")]
    pub next: u64,
    /// Where to read on.
    #[prost(uint64, tag = "3")]
    pub resume: u64,
    /// Delivery frames that follow, without a lease.
    #[prost(uint32, tag = "4")]
    pub frames: u32,
    /// The queue that they come from, once per shard.
    #[prost(message, repeated, tag = "5")]
    pub aliases: Vec<Alias>,
    /// What was passed over because it is damaged, by rising offset; only where it was asked for.
    #[prost(message, repeated, tag = "6")]
    pub gaps: Vec<Gap>,
}

/// Offsets of a queue that can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Gap {
    /// The first.
    #[prost(uint64, tag = "1")]
    pub from: u64,
    /// One past the last.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// Why.
    #[prost(uint32, tag = "3")]
    pub code: u32,
}

/// Head of the answer to a search: so many delivery frames follow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Found {
    /// Where to go on; empty after the last page.
    #[prost(string, tag = "1")]
    pub page: String,
    /// Damaged batches that may have held what was looked for.
    #[prost(uint64, tag = "2")]
    pub unreadable: u64,
    /// Delivery frames that follow, without a lease.
    #[prost(uint32, tag = "3")]
    pub frames: u32,
    /// The queues that they come from.
    #[prost(message, repeated, tag = "4")]
    pub aliases: Vec<Alias>,
}

/// The server as it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Server {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Milliseconds since it became ready.
    #[prost(uint64, tag = "2")]
    pub uptime_ms: u64,
    /// Shards.
    #[prost(uint32, tag = "3")]
    pub shards: u32,
}

/// A backup that was begun.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupBegun {
    /// Names it in what is asked next.
    #[prost(uint64, tag = "1")]
    pub backup: u64,
    /// The node, by the pin of its key.
    #[prost(string, tag = "2")]
    pub node: String,
    /// When it began, in ms since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub began_ms: i64,
    /// End of the log in it, exclusive.
    #[prost(uint64, tag = "4")]
    pub durable: u64,
    /// The snapshot generation in it, 0 for none.
    #[prost(uint64, tag = "5")]
    pub snapshot: u64,
    /// Position of the snapshot.
    #[prost(uint64, tag = "6")]
    pub snapshot_position: u64,
    /// Format version of the data folder.
    #[prost(uint32, tag = "7")]
    pub format: u32,
    /// Files that it consists of.
    #[prost(uint32, tag = "8")]
    pub files: u32,
    /// Damaged ranges of the log.
    #[prost(message, repeated, tag = "9")]
    pub damaged: Vec<LogRange>,
    /// Damaged ranges that are not listed.
    #[prost(uint64, tag = "10")]
    pub more_damaged: u64,
}

/// A range of a node's log.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LogRange {
    /// First position.
    #[prost(uint64, tag = "1")]
    pub from: u64,
    /// First position behind it.
    #[prost(uint64, tag = "2")]
    pub to: u64,
}

/// A page of what a backup consists of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BackupFileList {
    /// In order of number.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupFile {
    /// Bytes that it has in a data folder; those that are not kept are zero.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Bytes that are kept, from the first on.
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// Which one; `None` is a kind from the future.
    #[prost(oneof = "FileKind", tags = "3, 4, 5, 6")]
    pub kind: Option<FileKind>,
}

/// The kinds of files of a backup.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum FileKind {
    /// A segment: its base and nonce.
    #[prost(message, tag = "3")]
    Segment(FileNumber),
    /// A snapshot's manifest: its generation and CRC-32C.
    #[prost(message, tag = "4")]
    Manifest(FileNumber),
    /// A snapshot's part: its number and CRC-32C.
    #[prost(message, tag = "5")]
    Part(FileNumber),
    /// A component: its SHA-256.
    #[prost(bytes = "bytes", tag = "6")]
    Component(Bytes),
}

/// A number, and a mark by which its file is told from others of that number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FileNumber {
    /// The number.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The mark.
    #[prost(uint64, tag = "2")]
    pub mark: u64,
}

impl From<&model::BackupFile> for BackupFile {
    fn from(file: &model::BackupFile) -> Self {
        let numbered = |number, mark| FileNumber { number, mark };
        let kind = match file.id {
            FileId::Segment { base, nonce } => FileKind::Segment(numbered(base, nonce)),
            FileId::Manifest { generation, crc } => {
                FileKind::Manifest(numbered(generation, crc.into()))
            }
            FileId::Part { number, crc } => FileKind::Part(numbered(number, crc.into())),
            FileId::Component { digest } => FileKind::Component(Bytes::copy_from_slice(&digest)),
        };
        Self {
            size: file.size,
            len: file.len,
            kind: Some(kind),
        }
    }
}

impl BackupFile {
    /// The file; `None` for one that this version doesn't know, or that can't be.
    #[must_use]
    pub fn file(&self) -> Option<model::BackupFile> {
        let crc = |file: &FileNumber| u32::try_from(file.mark).ok();
        let id = match self.kind.as_ref()? {
            FileKind::Segment(file) => FileId::Segment {
                base: file.number,
                nonce: file.mark,
            },
            FileKind::Manifest(file) => FileId::Manifest {
                generation: file.number,
                crc: crc(file)?,
            },
            FileKind::Part(file) => FileId::Part {
                number: file.number,
                crc: crc(file)?,
            },
            FileKind::Component(digest) => FileId::Component {
                digest: digest.as_ref().try_into().ok()?,
            },
        };
        let file = model::BackupFile {
            id,
            size: self.size,
            len: self.len,
        };
        file.is_possible().then_some(file)
    }
}

/// A piece of a file of a backup.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupPiece {
    /// Its bytes; what can't be read is zero.
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
    /// Bytes that can't be read.
    #[prost(uint64, tag = "2")]
    pub unreadable: u64,
}

/// A token that lets a key in once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Invited {
    /// The token.
    #[prost(string, tag = "1")]
    pub token: String,
    /// Until when, in ms since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub expires_ms: i64,
}

/// A page of who is let in or invited.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Clients {
    /// Invitations first, then by rising public key.
    #[prost(message, repeated, tag = "1")]
    pub clients: Vec<Client>,
    /// More follow after the last one.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// Somebody who is, was or may be let in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Client {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Numbers of [`tidegate_model::Role`].
    #[prost(uint32, repeated, tag = "2")]
    pub roles: Vec<u32>,
    /// In which namespaces; none is all.
    #[prost(string, repeated, tag = "3")]
    pub namespaces: Vec<String>,
    /// Its Ed25519 public key, 32 bytes; absent while it is invited.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub public_key: Option<Bytes>,
    /// When it was let in, or invited, in ms since the Unix epoch.
    #[prost(int64, tag = "5")]
    pub since_ms: i64,
    /// When its key was revoked.
    #[prost(int64, optional, tag = "6")]
    pub revoked_ms: Option<i64>,
    /// When its invitation ends.
    #[prost(int64, optional, tag = "7")]
    pub expires_ms: Option<i64>,
}
