//! Publishes, deliveries and settlements: what travels in fixed layouts.

use bytes::Bytes;
use tidegate_broker::Refusal;
use tidegate_broker::reply::{DeliveredBatch, Delivery, Gap, Published};
use tidegate_broker::request::{EndProducer, Outcome, Publish, Receipt, SettleRun};
use tidegate_model::limits::TOPIC_QUEUES_MAX;
use tidegate_model::{LeaseId, ProducerEpoch, ProducerId, QueueId, TopicRef, code};
use tidegate_wire::{DeliveryHeader, Origin, PublishHeader, PublishOutcome, proto, settle};

/// Words of a set of queues of a topic.
const QUEUE_WORDS: usize = TOPIC_QUEUES_MAX.div_ceil(u64::BITS) as usize;

/// What a produce stream publishes to, as its producer was opened.
#[derive(Clone, Debug)]
pub(crate) struct OpenedProducer {
    topic: TopicRef,
    producer: ProducerId,
    epoch: ProducerEpoch,
    /// A bit for each queue that it published to.
    queues: [u64; QUEUE_WORDS],
}

impl OpenedProducer {
    pub(crate) fn new(topic: TopicRef, producer: ProducerId, epoch: ProducerEpoch) -> Self {
        Self {
            topic,
            producer,
            epoch,
            queues: [0; QUEUE_WORDS],
        }
    }

    fn publishes_to(&mut self, queue_index: u32) {
        // One that no topic has is refused by the broker.
        if let Some(word) = self.queues.get_mut((queue_index / u64::BITS) as usize) {
            *word |= 1 << (queue_index % u64::BITS);
        }
    }

    /// What to tell the broker when it has ended; `None` if it remembers nothing of it.
    pub(crate) fn end(self) -> Option<EndProducer> {
        let is_set =
            |index: &u32| self.queues[(index / u64::BITS) as usize] >> (index % u64::BITS) & 1 == 1;
        let queues: Vec<u32> = (0..TOPIC_QUEUES_MAX).filter(is_set).collect();
        (self.producer.0 != 0 && !queues.is_empty()).then_some(EndProducer {
            topic: self.topic,
            producer: self.producer,
            epoch: self.epoch,
            queues,
        })
    }
}

/// The broker's request for a publish frame.
pub(crate) fn publish(
    opened: &mut OpenedProducer,
    header: PublishHeader,
    section: Bytes,
) -> Publish {
    opened.publishes_to(header.queue_index);
    Publish {
        topic: opened.topic.clone(),
        queue_index: header.queue_index,
        layout_version: header.layout_version,
        producer: opened.producer,
        producer_epoch: opened.epoch,
        sequence: header.sequence,
        count: header.count,
        span: header.span,
        codec: header.codec,
        key_id: header.key_id,
        section_crc: header.section_crc,
        section,
    }
}

/// Where a batch was stored, as it travels.
pub(crate) fn published(ticket: u64, published: &Published) -> PublishOutcome {
    PublishOutcome {
        ticket,
        seq: published.seq,
        base_offset: published.base_offset,
        shard: published.shard,
        level: published.level as u8,
        duplicate: published.duplicate,
    }
}

/// A lease run on its way to a client.
pub(crate) fn delivery(run: Delivery) -> tidegate_wire::Delivery {
    debug_assert_eq!(
        (run.receipt.base_offset, run.receipt.span),
        (run.batch.base_offset, run.batch.span),
        "the client rebuilds the receipt from the frame"
    );
    tidegate_wire::Delivery {
        origin: Origin {
            queue_index: run.queue_index,
            queue: run.receipt.queue,
            shard: run.batch.shard,
        },
        header: DeliveryHeader {
            lease: run.receipt.lease,
            attempt: run.receipt.attempt,
            mac: run.receipt.mac,
            ..header(&run.batch)
        },
        section: run.batch.section,
    }
}

/// A batch that was read without a lease.
pub(crate) fn read(queue_index: u32, batch: DeliveredBatch) -> tidegate_wire::Delivery {
    tidegate_wire::Delivery {
        origin: Origin {
            queue_index,
            queue: QueueId(0),
            shard: batch.shard,
        },
        header: header(&batch),
        section: batch.section,
    }
}

/// What a read passed over.
pub(crate) fn gap(gap: Gap) -> proto::Gap {
    proto::Gap {
        from: gap.from.0,
        to: gap.to.0,
        code: gap.code.0.into(),
    }
}

/// The alias is the session's to fill in.
fn header(batch: &DeliveredBatch) -> DeliveryHeader {
    DeliveryHeader {
        alias: 0,
        section_crc: batch.section_crc,
        base_offset: batch.base_offset,
        append_time: batch.append_time,
        lease: LeaseId(0),
        count: batch.count,
        span: batch.span,
        attempt: 0,
        key_id: batch.key_id,
        mac: [0; 16],
        seq: batch.seq,
        codec: batch.codec,
        compacted: batch.compacted,
    }
}

/// Runs of a settle frame as the broker takes them.
pub(crate) fn runs(runs: Vec<settle::SettleRun>) -> Vec<SettleRun> {
    runs.into_iter()
        .map(|run| SettleRun {
            receipt: Receipt {
                queue: run.receipt.queue,
                base_offset: run.receipt.base_offset,
                span: run.receipt.span,
                attempt: run.receipt.attempt,
                lease: run.receipt.lease,
                mac: run.receipt.mac,
            },
            records: run.records,
            outcome: match run.outcome {
                settle::Outcome::Ack => Outcome::Ack,
                settle::Outcome::Nack { delay_ms } => Outcome::Nack { delay_ms },
                settle::Outcome::Extend { invisible_ms } => Outcome::Extend { invisible_ms },
            },
        })
        .collect()
}

/// The same, still encoded.
pub(super) fn encoded_runs(bytes: &[u8]) -> Result<Vec<SettleRun>, Refusal> {
    settle::decode_runs(bytes)
        .map(runs)
        .map_err(|error| Refusal::new(code::PROTOCOL, error.to_string()))
}
