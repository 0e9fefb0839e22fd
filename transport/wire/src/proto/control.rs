//! Messages of the control stream, and the rare ones of produce and consume streams.

use bytes::Bytes;

use super::{GroupRef, SourceRef, StartAt, TopicRef};

/// The client's first frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// Lowest protocol version that it speaks, inclusive.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Highest protocol version that it speaks, inclusive.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Features that it offers, a bit each; bits that the server doesn't know are ignored.
    #[prost(uint64, tag = "3")]
    pub features: u64,
    /// Program and version, for logs.
    #[prost(string, tag = "4")]
    pub agent: String,
    /// Who it is. A server refuses `None` with `auth-required`.
    #[prost(oneof = "Auth", tags = "5, 6")]
    pub auth: Option<Auth>,
}

/// How a client proves who it is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Auth {
    /// Exchanges the one-time root token for a registered key.
    #[prost(message, tag = "5")]
    Login(Login),
    /// Shows a registered key.
    #[prost(message, tag = "6")]
    Key(KeyProof),
}

/// A one-time token with the key to register.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Login {
    /// The token as printed by the server.
    #[prost(string, tag = "1")]
    pub token: String,
    /// How the client wants to be known.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Ed25519 public key, 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub public_key: Bytes,
    /// Ed25519 signature, 64 bytes, over what TLS exports under [`crate::EXPORTER_LABEL`].
    #[prost(bytes = "bytes", tag = "4")]
    pub signature: Bytes,
}

/// A registered key and the proof that the client holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProof {
    /// Ed25519 public key, 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub public_key: Bytes,
    /// Ed25519 signature, 64 bytes, over what TLS exports under [`crate::EXPORTER_LABEL`].
    #[prost(bytes = "bytes", tag = "2")]
    pub signature: Bytes,
}

/// The server's answer to [`Hello`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// The version that both speak from here on.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Features of both.
    #[prost(uint64, tag = "2")]
    pub features: u64,
    /// Name of the principal.
    #[prost(string, tag = "3")]
    pub principal: String,
    /// What the server accepts.
    #[prost(message, optional, tag = "4")]
    pub limits: Option<Limits>,
    /// Program and version, for logs.
    #[prost(string, tag = "5")]
    pub server: String,
}

/// What the server accepts of one connection; zero or missing takes the version's default.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limits {
    /// Bytes of a section.
    #[prost(uint32, tag = "1")]
    pub section_bytes_max: u32,
    /// Batches of one produce stream that wait for an answer.
    #[prost(uint32, tag = "2")]
    pub publishes_in_flight_max: u32,
    /// Live subscriptions.
    #[prost(uint32, tag = "3")]
    pub subscriptions_max: u32,
    /// Produce and request streams open at once.
    #[prost(uint32, tag = "4")]
    pub streams_max: u32,
    /// Messages granted and not yet sent, over all subscriptions.
    #[prost(uint32, tag = "5")]
    pub credit_messages_max: u32,
    /// Bytes granted and not yet sent, over all subscriptions.
    #[prost(uint32, tag = "6")]
    pub credit_bytes_max: u32,
    /// Settle frames that wait for an answer.
    #[prost(uint32, tag = "7")]
    pub settles_in_flight_max: u32,
    /// A connection that is silent this long is closed, in ms.
    #[prost(uint32, tag = "8")]
    pub idle_timeout_ms: u32,
}

/// A refusal as it travels.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refused {
    /// A [`tidegate_model::Code`].
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// The object, the limit and what was found.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What to do next; may be empty.
    #[prost(string, tag = "3")]
    pub hint: String,
}

/// Starts a subscription.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscribe {
    /// The client's number for it, rising on a connection, never reused.
    #[prost(uint32, tag = "1")]
    pub subscription: u32,
    /// The group.
    #[prost(message, optional, tag = "2")]
    pub group: Option<GroupRef>,
    /// The topic or view.
    #[prost(message, optional, tag = "3")]
    pub source: Option<SourceRef>,
    /// Where the cursor begins if the group has none on this source yet.
    #[prost(message, optional, tag = "4")]
    pub start: Option<StartAt>,
    /// How long a delivered message stays leased, in ms.
    #[prost(uint32, tag = "5")]
    pub invisible_ms: u32,
}

/// The subscription lives.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Subscribed {
    /// The client's number for it.
    #[prost(uint32, tag = "1")]
    pub subscription: u32,
}

/// Adds to what the server may send to a subscription.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Credit {
    /// The client's number for it.
    #[prost(uint32, tag = "1")]
    pub subscription: u32,
    /// Messages to add.
    #[prost(uint32, tag = "2")]
    pub messages: u32,
    /// Bytes of sections to add.
    #[prost(uint32, tag = "3")]
    pub bytes: u32,
}

/// The outcome of a settle frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Settled {
    /// The ticket of the settle frame.
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
    /// A [`tidegate_model::Code`] per run in its order, 0 where it took effect; empty if refused.
    #[prost(uint32, repeated, tag = "2")]
    pub results: Vec<u32>,
    /// Why nothing of it took effect.
    #[prost(message, optional, tag = "3")]
    pub refused: Option<Refused>,
}

/// Ends a subscription; leases run on.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Unsubscribe {
    /// The client's number for it.
    #[prost(uint32, tag = "1")]
    pub subscription: u32,
}

/// A subscription is over, or never began; nothing follows for it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ended {
    /// The client's number for it.
    #[prost(uint32, tag = "1")]
    pub subscription: u32,
    /// Why; `None` if the client unsubscribed.
    #[prost(message, optional, tag = "2")]
    pub refused: Option<Refused>,
}

/// Asks for a sign of life.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ping {
    /// Comes back unchanged.
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// Answers [`Ping`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pong {
    /// As in the ping.
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// The server takes nothing new; what is in flight is still answered.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GoAway {
    /// Why.
    #[prost(message, optional, tag = "1")]
    pub reason: Option<Refused>,
    /// When the connection closes at the latest, in ms from now.
    #[prost(uint32, tag = "2")]
    pub drain_ms: u32,
}

/// The server reads more slowly; for the client's display.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Throttle {
    /// Why.
    #[prost(message, optional, tag = "1")]
    pub reason: Option<Refused>,
    /// A good time to try again, in ms from now.
    #[prost(uint32, tag = "2")]
    pub retry_ms: u32,
}

/// First frame of a produce stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenProducer {
    /// The topic.
    #[prost(message, optional, tag = "1")]
    pub topic: Option<TopicRef>,
    /// Id and epoch given earlier.
    #[prost(message, optional, tag = "2")]
    pub resume: Option<Resume>,
    /// Nothing is to be remembered of it: it has no id, and what it sends again is stored again. Not
    /// together with `resume`.
    #[prost(bool, tag = "3")]
    pub non_idempotent: bool,
}

/// A producer as it was opened earlier.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Resume {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub producer: u64,
    /// Its epoch, below 2^16.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
}

/// The producer is open; publish frames may follow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProducerOpened {
    /// Its id; 0 for one that is not idempotent.
    #[prost(uint64, tag = "1")]
    pub producer: u64,
    /// Its epoch, below 2^16.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// The topic's layout.
    #[prost(uint32, tag = "3")]
    pub layout_version: u32,
    /// The topic's queues in index order.
    #[prost(message, repeated, tag = "4")]
    pub queues: Vec<Queue>,
}

/// A queue.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Queue {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub queue: u64,
    /// The shard that holds it.
    #[prost(uint32, tag = "2")]
    pub shard: u32,
    /// First offset that can be read.
    #[prost(uint64, tag = "3")]
    pub start: u64,
    /// One past the last durable message.
    #[prost(uint64, tag = "4")]
    pub next: u64,
    /// Stored bytes of the batches between.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
    /// When its first message was stored, in ms since the Unix epoch; absent if it has none, and in all
    /// answers but that to a description of the topic.
    #[prost(int64, optional, tag = "6")]
    pub oldest_ms: Option<i64>,
}

/// One batch was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PublishRefused {
    /// The ticket of its publish frame.
    #[prost(uint64, tag = "1")]
    pub ticket: u64,
    /// Why.
    #[prost(message, optional, tag = "2")]
    pub refused: Option<Refused>,
}

/// Gives a short number to (subscription, queue, shard) for the delivery frames that follow on the
/// same stream. Announcing a number again replaces what it stood for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Alias {
    /// The number, unique on its stream.
    #[prost(uint32, tag = "1")]
    pub alias: u32,
    /// The client's number of the subscription; 0 in replies, which belong to none.
    #[prost(uint32, tag = "2")]
    pub subscription: u32,
    /// Index of the queue in its topic, from 0.
    #[prost(uint32, tag = "3")]
    pub queue_index: u32,
    /// The queue.
    #[prost(uint64, tag = "4")]
    pub queue: u64,
    /// The shard that numbered the batches.
    #[prost(uint32, tag = "5")]
    pub shard: u32,
}
