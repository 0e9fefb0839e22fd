//! What a client learns of a message that it sent or received.

use std::sync::Arc;

use tidegate_model::checksum::crc32c;
use tidegate_model::compress::raw_bodies;
use tidegate_model::{
    Code, Codec, Message, MessageId, Offset, Order, Section, Timestamp, TopicRef, code,
};
use tidegate_wire::{Delivery, Receipt};

use crate::Error;

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
    /// The run that it was leased in; a message that was read has none.
    pub(crate) run: Option<Arc<Receipt>>,
    /// Offset in the run, from its base offset.
    pub(crate) delta: u16,
}

/// Messages of one queue, read by offset.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadResult {
    /// First offset that can be read.
    pub start: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Where to read on: everything before it was returned, passed over by a view's plugins, or is part
    /// of a gap.
    pub resume: Offset,
    /// The messages, in order.
    pub messages: Vec<Received>,
    /// Where stored messages are damaged, by rising offset. None of them is among the messages.
    pub gaps: Vec<Gap>,
}

/// Offsets of a queue whose messages are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: Offset,
    /// One past the last.
    pub to: Offset,
    /// Why they can't be read: `QUARANTINED`.
    pub code: Code,
}

/// What to look for among stored messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// In this topic, all its queues.
    pub topic: TopicRef,
    /// Messages with this key; all messages if `None`.
    pub key: Option<Vec<u8>>,
    /// Appended at this instant or later.
    pub from: Timestamp,
    /// Appended before this instant.
    pub to: Timestamp,
    /// In this order of append time, queue and offset.
    pub order: Order,
    /// [`FoundPage::next`] of the page before; `None` begins.
    pub page: Option<String>,
    /// Messages at most; the server sends no more than 4,096 nor, as a rule, than 4 MiB of them.
    pub max_messages: u32,
}

impl Find {
    /// All messages of a topic, newest first, a hundred to a page.
    #[must_use]
    pub fn in_topic(topic: TopicRef) -> Self {
        Self {
            topic,
            key: None,
            from: Timestamp(i64::MIN),
            to: Timestamp(i64::MAX),
            order: Order::NewestFirst,
            page: None,
            max_messages: 100,
        }
    }
}

/// A page of what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundPage {
    /// The messages, in the order asked for.
    pub messages: Vec<Received>,
    /// The page token to go on with; `None` after the last page. A page may be empty and not the
    /// last: the server's work for one is bounded.
    pub next: Option<String>,
    /// Damaged batches that may have held what was looked for.
    pub unreadable: u64,
}

/// The messages of a delivery: checked, uncompressed, each with its handle.
pub(crate) fn unpack(delivery: &Delivery) -> Result<Vec<Received>, Error> {
    let header = &delivery.header;
    if crc32c(&delivery.section) != header.section_crc {
        return Err(Error::new(
            code::CHECKSUM,
            format!(
                "the batch at offset {} of queue {} changed on its way from the server",
                header.base_offset, delivery.origin.queue_index
            ),
        )
        .hint("its messages come again when their lease ends"));
    }
    let codec = Codec::from_byte(header.codec)?;
    let section = Section::parse(
        &delivery.section,
        header.count.into(),
        header.span.into(),
        codec,
    )?;
    let raw;
    let section = match codec {
        Codec::None => section,
        Codec::Lz4 => {
            raw = raw_bodies(&section, codec)?;
            section.with_bodies(&raw)?
        }
    };
    let run = delivery.receipt().map(Arc::new);
    Ok(section
        .records()
        .map(|record| {
            let delta = u16::try_from(record.delta()).expect("below the span of 16 bits");
            Received {
                message: record.to_message(),
                queue_index: delivery.origin.queue_index,
                offset: header.base_offset.plus(delta.into()),
                attempt: header.attempt,
                message_id: delivery.message_id(delta),
                append_time: header.append_time,
                handle: Handle {
                    run: run.clone(),
                    delta,
                },
            }
        })
        .collect())
}
