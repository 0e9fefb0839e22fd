//! What a client learns of a message that it sent or received.

use std::sync::Arc;

use tidegate_model::{LeaseId, Message, MessageId, Offset, QueueId, Timestamp};

/// What an acknowledgement survives; the ack names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Memory,
    /// A crash of the process.
    Os,
    /// A power cut.
    Disk,
    /// The loss of a minority of nodes.
    Quorum,
}

/// A stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Index of its queue in the topic, from 0.
    pub queue_index: u32,
    /// Its offset there.
    pub offset: Offset,
    /// Its id.
    pub message_id: MessageId,
    /// What the acknowledgement survives.
    pub level: Level,
    /// Whether an earlier attempt had stored it.
    pub duplicate: bool,
}

/// A message that was delivered, or read.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Index of its queue in the topic, from 0.
    pub queue_index: u32,
    /// Its offset there.
    pub offset: Offset,
    /// Which delivery this is, from 1; 0 for a message that was read without a group.
    pub attempt: u16,
    /// Its id.
    pub message_id: MessageId,
    /// When the server appended it.
    pub append_time: Timestamp,
    /// What to acknowledge it by.
    pub handle: Handle,
}

/// The receipt handle of one delivered message. Only the server can make one; it survives
/// reconnects and restarts, and ends with its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub(crate) run: Option<Arc<Receipt>>,
    /// Offset in the run, from its base offset.
    pub(crate) delta: u16,
}

/// The receipt of a lease run as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Receipt {
    pub(crate) queue: QueueId,
    pub(crate) base_offset: Offset,
    pub(crate) span: u16,
    pub(crate) attempt: u16,
    pub(crate) lease: LeaseId,
    pub(crate) mac: [u8; 16],
}

/// Messages of one queue, read by offset.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadResult {
    /// First offset that can be read.
    pub start: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Where to read on: everything before it was returned, or passed over by a view's plugins.
    pub resume: Offset,
    /// The messages, in order.
    pub messages: Vec<Received>,
}
