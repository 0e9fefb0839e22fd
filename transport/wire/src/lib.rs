//! The native protocol without I/O: frames, messages, and what both ends of a connection do with them.
//!
//! No socket, no clock, no runtime: a driver moves bytes between streams and a session and passes the
//! time in. The layouts are described in `docs/formats/wire.md`.

// Bounds and words that both ends share.
pub mod limits;
pub mod refusal;
pub mod stream;

// Bytes: frames, and what they carry.
mod bytes_at;
pub mod delivery;
pub mod frame;
pub mod proto;
pub mod publish;
pub mod settle;

// What both sessions stand on.
pub mod event;
mod link;
mod output;

// The two ends.
pub mod client;
pub mod server;

// The client's half of idempotence, which outlives connections.
pub mod producer;

pub use client::ClientSession;
pub use delivery::DeliveryHeader;
pub use event::{ClientEvent, Delivery, Origin, ServerEvent};
pub use frame::{Frame, FrameDecoder, FrameType, Prefix, encode_message};
pub use limits::{ALPN, EXPORTER_BYTES, EXPORTER_LABEL, VERSION};
pub use producer::{BatchNumber, Placed, Producer, ProducerConfig, ProducerEvent, PushError};
pub use publish::{PublishHeader, PublishOutcome};
pub use refusal::{Refusal, WireError};
pub use server::ServerSession;
pub use settle::{Outcome, Receipt, SettleFrame, SettleRun};
pub use stream::{CONTROL, Output, StreamId, Transmit};
