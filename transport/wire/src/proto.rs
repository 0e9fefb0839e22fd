//! Protobuf messages: what is rare, and must be able to grow.
//!
//! Field numbers are for ever. Names travel as text and are checked by whoever turns a message into
//! a request; a missing sub-message reads as `None` and is refused there. The layouts are listed in
//! `docs/formats/wire.md`.

mod control;
mod reply;
mod request;

pub use control::{
    Alias, Auth, Credit, Ended, GoAway, Hello, KeyProof, Limits, Login, OpenProducer, Ping, Pong,
    ProducerOpened, PublishRefused, Queue, Refused, Resume, Settled, Subscribe, Subscribed,
    Throttle, Unsubscribe, Welcome,
};
pub use reply::{
    BackupBegun, BackupFile, BackupFileList, BackupPiece, Client, Clients, Cursor, CursorMove,
    CursorMoves, FileKind, FileNumber, Found, Gap, Group, Groups, Invited, LogRange, Plugin,
    PluginFailure, Plugins, ReadDone, Received, Reply, ReplyKind, Server, Subscription, Topic,
    Topics, View, Views,
};
pub use request::{
    BackupEnd, BackupFiles, BackupRead, Bind, BindingSpec, CreateGroup, CreateTopic, CreateView,
    DeployPlugin, Empty, FindMessages, GetMessage, GroupRef, InviteClient, ListClients, Namespace,
    OnError, PluginRef, Read, Receive, Request, RequestKind, ResetGroup, RetryPolicy, RevokeClient,
    Settle, SourceRef, StartAt, StartKind, TopicRef, TopicSettings, Unbind, UpdateTopic, ViewRef,
};
