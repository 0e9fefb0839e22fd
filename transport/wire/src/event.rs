//! What sessions tell their drivers.

use bytes::Bytes;
use tidegate_model::{BatchId, Code, MessageId, QueueId, ShardId};

use crate::delivery::DeliveryHeader;
use crate::proto;
use crate::publish::{PublishHeader, PublishOutcome};
use crate::refusal::Refusal;
use crate::settle::{Receipt, SettleFrame};
use crate::stream::StreamId;

/// The queue that a delivery comes from, and the shard that numbered its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Index of the queue in its topic, from 0.
    pub queue_index: u32,
    /// The queue.
    pub queue: QueueId,
    /// The shard.
    pub shard: ShardId,
}

impl Origin {
    /// As announced on the wire.
    pub(crate) fn to_alias(self, alias: u32, subscription: u32) -> proto::Alias {
        proto::Alias {
            alias,
            subscription,
            queue_index: self.queue_index,
            queue: self.queue.0,
            shard: self.shard.0,
        }
    }

    /// As announced by the server.
    pub(crate) fn from_alias(alias: &proto::Alias) -> Self {
        Self {
            queue_index: alias.queue_index,
            queue: QueueId(alias.queue),
            shard: ShardId(alias.shard),
        }
    }
}

/// Records of one stored batch on their way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where they come from.
    pub origin: Origin,
    /// What the frame says; the alias is filled in by the sending session.
    pub header: DeliveryHeader,
    /// Record table, head block, body block.
    pub section: Bytes,
}

impl Delivery {
    /// The receipt handle of the run; `None` for messages that were read and not leased.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        let header = &self.header;
        (header.lease.0 != 0).then_some(Receipt {
            queue: self.origin.queue,
            base_offset: header.base_offset,
            span: header.span,
            attempt: header.attempt,
            lease: header.lease,
            mac: header.mac,
        })
    }

    /// The id of the record at this offset delta.
    #[must_use]
    pub fn message_id(&self, delta: u16) -> MessageId {
        MessageId {
            batch: BatchId {
                shard: self.origin.shard,
                seq: self.header.seq,
            },
            record: delta,
        }
    }
}

/// What a server session tells.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// The client says who it is; answer with `welcome` or `refuse`. Versions have been compared.
    Hello(proto::Hello),
    /// A client wants a subscription; answer with `subscribed` or `end_subscription`.
    Subscribe(proto::Subscribe),
    /// More may be sent to a subscription that lives.
    Credit {
        /// The client's number for it.
        subscription: u32,
        /// Messages to add.
        messages: u32,
        /// Bytes to add.
        bytes: u32,
    },
    /// A subscription that was asked for or lives is to end. It is gone from the session already.
    Unsubscribe {
        /// The client's number for it.
        subscription: u32,
    },
    /// Leases are settled; answer with `settled`. The subscription may have ended, but was known once.
    Settle(SettleFrame),
    /// A produce stream opened; answer with `producer_opened` or `refuse_producer`.
    OpenProducer {
        /// The stream.
        stream: StreamId,
        /// What is asked.
        open: proto::OpenProducer,
    },
    /// A batch arrived on a produce stream; answer with `published` or `publish_refused`.
    Publish {
        /// The stream.
        stream: StreamId,
        /// What the frame says of the section.
        header: PublishHeader,
        /// Record table, head block, body block, unchecked.
        section: Bytes,
    },
    /// A produce stream is over; outcomes of its batches go nowhere.
    ProducerClosed {
        /// The stream.
        stream: StreamId,
        /// The client ended it when everything was answered: it doesn't resume the producer.
        is_done: bool,
    },
    /// A request; answer with `reply` or `refuse_request`.
    Request {
        /// The stream.
        stream: StreamId,
        /// What is asked.
        request: proto::RequestKind,
    },
    /// The client takes no interest in the answer any more.
    RequestCancelled {
        /// The stream.
        stream: StreamId,
    },
    /// The session ends the connection, because of what the peer did: for the log.
    Closing(Refusal),
}

/// What a client session tells.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The server knows us.
    Welcome(proto::Welcome),
    /// The server refused the hello.
    Refused(Refusal),
    /// A subscription lives.
    Subscribed {
        /// Our number for it.
        subscription: u32,
    },
    /// A subscription is over, or was refused.
    Ended {
        /// Our number for it.
        subscription: u32,
        /// Why; `None` if we unsubscribed.
        refusal: Option<Refusal>,
    },
    /// Messages for a subscription, within the credit granted.
    Delivery {
        /// Our number for it.
        subscription: u32,
        /// The messages.
        delivery: Delivery,
    },
    /// The outcome of `settle`.
    Settled {
        /// As returned by `settle`.
        ticket: u64,
        /// One result per run, or why nothing took effect.
        outcome: Result<Vec<Result<(), Code>>, Refusal>,
    },
    /// A producer is open: `publish` may be called.
    ProducerOpened {
        /// Its stream.
        stream: StreamId,
        /// What the server says.
        opened: proto::ProducerOpened,
    },
    /// A producer was refused or its stream broke; batches without an outcome are undecided.
    ProducerClosed {
        /// Its stream.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// Batches are stored.
    Published {
        /// Their stream.
        stream: StreamId,
        /// In the order of completion.
        outcomes: Vec<PublishOutcome>,
    },
    /// A batch was refused.
    PublishRefused {
        /// Its stream.
        stream: StreamId,
        /// The ticket of its publish.
        ticket: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to a request.
    Replied {
        /// Its stream.
        stream: StreamId,
        /// The answer.
        reply: proto::ReplyKind,
        /// What came with it, for a receive or a read.
        deliveries: Vec<Delivery>,
    },
    /// A request was refused, or its stream broke.
    RequestRefused {
        /// Its stream.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// The server takes nothing new; reconnect elsewhere or later.
    GoAway {
        /// Why.
        refusal: Refusal,
        /// When it closes at the latest, in ms.
        drain_ms: u32,
    },
    /// The server reads more slowly.
    Throttle {
        /// Why.
        refusal: Refusal,
        /// A good time to try again, in ms.
        retry_ms: u32,
    },
    /// The answer to a ping.
    Pong {
        /// As in the ping.
        token: u64,
    },
    /// The session ends the connection, because of what the server did or because it is silent.
    Closing(Refusal),
}
