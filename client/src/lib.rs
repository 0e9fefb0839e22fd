//! The Rust SDK: log in, connect, manage, publish, consume.
//!
//! ```no_run
//! # use tidegate_client::{Client, ClientKey, ConnectOptions, ProducerOptions};
//! # use tidegate_model::{Message, Name, TopicRef};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let address = "tidegate://127.0.0.1:4433?pin=sha256:…".parse()?;
//! let key = ClientKey::generate()?;
//! Client::login(&address, "the token that the server printed", &"me".parse()?, &key).await?;
//! let client = Client::connect(&address, &key, ConnectOptions::default()).await?;
//! let topic = TopicRef { namespace: Name::default_namespace(), topic: "orders".parse()? };
//! let producer = client.producer(&topic, ProducerOptions::default()).await?;
//! let sent = producer.send(Message::new("hello")).await?.await?;
//! println!("stored at {} of queue {}", sent.offset, sent.queue_index);
//! # Ok(()) }
//! ```
//!
//! Every future needs a tokio runtime; a current-thread one will do.

// What applications hold.
mod client;
mod consumer;
mod producer;

// What they say and get.
mod backup;
mod catalog;
mod error;
mod message;

// Whom they reach, and who they are.
mod address;
mod key;

// The connection below.
mod convert;
mod link;
mod tls;

pub use address::{Address, Pin};
pub use backup::{BACKUP_PIECE_BYTES_MAX, BackupBegun, BackupPiece};
pub use catalog::{
    BindingSpec, CreateGroup, CreateTopic, CreateView, CursorInfo, CursorMove, DeployPlugin,
    GroupInfo, GroupRef, OnError, PluginInfo, PluginRef, QueueInfo, ResetGroup, RetryPolicy,
    ServerInfo, Source, StartAt, SubscriptionInfo, TopicInfo, ViewInfo, ViewRef,
};
pub use client::{Client, ConnectOptions, Identity};
pub use consumer::{Consumer, ConsumerOptions, RefusedSettle, Settled};
pub use error::Error;
pub use key::ClientKey;
pub use message::{Find, FoundPage, Gap, Handle, Level, ReadResult, Received, Sent};
pub use producer::{Compression, PendingSend, Producer, ProducerOptions};
