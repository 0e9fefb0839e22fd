//! Accepting publishes: which queue, and whether it was stored before.

pub(crate) mod admit;
pub(crate) mod producers;

use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Timestamp,
};

use crate::refusal::Refusal;
use crate::reply::Published;

/// What to do with a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Append it. Until [`crate::Core::apply_appended`] or [`crate::Core::append_failed`] says how
    /// that ended, the same publish is `InFlight`.
    Append {
        /// To this shard,
        shard: ShardId,
        /// under this queue.
        queue: QueueId,
    },
    /// It was stored before; this is the answer.
    Duplicate(Published),
    /// An equal one (queue, producer, epoch, sequence) is being appended: answer both alike.
    InFlight {
        /// The queue.
        queue: QueueId,
    },
    /// No.
    Refuse(Refusal),
}

/// A data batch that became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The shard that holds it.
    pub shard: ShardId,
    /// Its queue.
    pub queue: QueueId,
    /// Its number in the shard.
    pub seq: Seq,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offsets that it covers.
    pub span: u16,
    /// Its records.
    pub count: u16,
    /// Its producer; zero for none.
    pub producer: ProducerId,
    /// The producer's epoch.
    pub epoch: ProducerEpoch,
    /// Number of its first record in (producer, queue).
    pub sequence: Sequence,
    /// When it was appended.
    pub append_time: Timestamp,
}
