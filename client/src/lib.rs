//! The Rust SDK: connect, publish, consume, find, manage.
//!
//! ```no_run
//! use tidegate_client::{ClientConfig, Error, Message, ProducerOptions};
//!
//! # async fn run() -> Result<(), Error> {
//! // TIDEGATE_ADDRESS, and TIDEGATE_KEY_FILE or TIDEGATE_KEY.
//! let client = ClientConfig::from_env()?.connect().await?;
//! let producer = client.producer(&"orders".parse()?, ProducerOptions::default()).await?;
//! let sent = producer.send(Message::new("hello")).await?.await?;
//! println!("stored at {} of queue {}", sent.offset, sent.queue_index);
//! producer.close().await?;
//! client.close().await;
//! # Ok(()) }
//! ```
//!
//! All that an application needs is here: the types of [`tidegate_model`] that it meets are exported
//! again. `docs/client-rust.md` is the page for applications, `client/examples` has three that run.
//!
//! Every future needs a tokio runtime; a current-thread one will do.

// What applications hold.
mod client;
mod consumer;
mod producer;

// What they say and get.
mod backup;
mod catalog;
mod clients;
mod error;
mod message;

// Whom they reach, and who they are.
mod address;
mod config;
mod key;

// The connection below.
mod convert;
mod link;
mod tls;

pub use address::{Address, Pin};
pub use backup::{BACKUP_PIECE_BYTES_MAX, BackupBegun, BackupPiece};
pub use catalog::{
    BindingSpec, CreateGroup, CreateTopic, CreateView, CursorInfo, CursorMove, DeployPlugin,
    GroupInfo, GroupRef, OnError, PluginFailure, PluginInfo, PluginRef, QueueInfo, ResetGroup,
    RetryPolicy, ServerInfo, Source, StartAt, SubscriptionInfo, TopicInfo, ViewInfo, ViewRef,
};
pub use client::{Client, ConnectOptions, Connection, Identity};
pub use clients::{ClientInfo, InviteClient, Invited};
pub use config::{ADDRESS_VARIABLE, ClientConfig, KEY_FILE_VARIABLE, KEY_VARIABLE};
pub use consumer::{Consumer, ConsumerOptions, RefusedSettle, Settled};
pub use error::Error;
pub use key::ClientKey;
pub use message::{Find, FoundPage, Gap, Handle, Level, ReadResult, Received, Sent};
pub use producer::{Compression, PendingSend, Producer, ProducerOptions};

// What an application meets of the vocabulary that all crates share.
pub use bytes::Bytes;
pub use tidegate_model::{
    Code, Keep, Message, MessageId, Name, NameError, Offset, Order, QueueId, Role, Roles, Seq,
    ShardId, Timestamp, TopicChange, TopicRef, TopicSettings, Value, code,
};
