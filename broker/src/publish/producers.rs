//! What a shard remembers of its producers, so that a retry is answered as the first attempt was.

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::{Offset, ProducerEpoch, ProducerId, QueueId, Seq, Timestamp};

use super::Appended;
use crate::limit::{
    OUTCOMES_MAX, OUTCOMES_MIN, OUTCOMES_SHARD_MAX, PRODUCER_IDLE_MS, PRODUCERS_MAX,
};

/// Time between two searches for idle producers, in ms.
const SWEEP_MS: i64 = 60 * 1_000;

/// A full shard forgets one in this many of its producers.
const FORGOTTEN_SHARE: usize = 16;

/// Every producer of a shard's queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    pub(crate) of: BTreeMap<(QueueId, ProducerId), Producer>,
    /// Outcomes beyond the first [`OUTCOMES_MIN`] of each producer.
    pub(crate) extra: usize,
    pub(crate) next_sweep: Timestamp,
}

/// One producer in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    /// The sequence that comes next.
    pub(crate) next: u64,
    /// When its last batch was appended.
    pub(crate) last: Timestamp,
    /// Its last batches, sequences rising.
    pub(crate) outcomes: VecDeque<Outcome>,
}

/// A batch that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sequence: u64,
    pub(crate) count: u16,
    pub(crate) seq: Seq,
    pub(crate) base_offset: Offset,
}

impl Producer {
    /// The outcome of the batch that began at `sequence`.
    pub(crate) fn outcome(&self, sequence: u64) -> Option<&Outcome> {
        let at = self
            .outcomes
            .partition_point(|outcome| outcome.sequence < sequence);
        self.outcomes
            .get(at)
            .filter(|outcome| outcome.sequence == sequence)
    }
}

impl Producers {
    pub(crate) fn get(&self, queue: QueueId, producer: ProducerId) -> Option<&Producer> {
        self.of.get(&(queue, producer))
    }

    /// Remembers a stored batch. Time is the batch's own, so that replay forgets what live forgot.
    pub(crate) fn apply(&mut self, appended: &Appended) {
        self.sweep(appended.append_time);
        if appended.producer == ProducerId(0) {
            return;
        }
        let producer = self
            .of
            .entry((appended.queue, appended.producer))
            .or_insert_with(|| Producer {
                epoch: appended.epoch,
                next: 0,
                last: appended.append_time,
                outcomes: VecDeque::new(),
            });
        if appended.epoch < producer.epoch {
            return;
        }
        if appended.epoch > producer.epoch {
            self.extra -= producer.outcomes.len().saturating_sub(OUTCOMES_MIN);
            producer.outcomes.clear();
            producer.epoch = appended.epoch;
        }
        producer.last = appended.append_time;
        producer.next = appended.sequence.0 + u64::from(appended.count);
        let full = producer.outcomes.len() >= OUTCOMES_MAX
            || (producer.outcomes.len() >= OUTCOMES_MIN && self.extra >= OUTCOMES_SHARD_MAX);
        if full {
            producer.outcomes.pop_front();
        } else if producer.outcomes.len() >= OUTCOMES_MIN {
            self.extra += 1;
        }
        producer.outcomes.push_back(Outcome {
            sequence: appended.sequence.0,
            count: appended.count,
            seq: appended.seq,
            base_offset: appended.base_offset,
        });
        if self.of.len() > PRODUCERS_MAX {
            self.forget_idlest();
        }
    }

    /// Makes room: those without a batch for the longest time go, several at once, so that a full
    /// shard doesn't search for each new producer.
    fn forget_idlest(&mut self) {
        let mut by_age: Vec<_> = self.of.iter().map(|(key, p)| (p.last, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age.into_iter().take(PRODUCERS_MAX / FORGOTTEN_SHARE) {
            self.forget(key);
        }
    }

    /// Forgets a queue that was removed.
    pub(crate) fn drop_queue(&mut self, queue: QueueId) {
        let gone: Vec<_> = self
            .of
            .range((queue, ProducerId(0))..=(queue, ProducerId(u64::MAX)))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.forget(key);
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.plus_ms(SWEEP_MS);
        let idle: Vec<_> = self
            .of
            .iter()
            .filter(|(_, producer)| producer.last.plus_ms(PRODUCER_IDLE_MS) <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in idle {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: (QueueId, ProducerId)) {
        if let Some(producer) = self.of.remove(&key) {
            self.extra -= producer.outcomes.len().saturating_sub(OUTCOMES_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::{Sequence, ShardId};

    #[test]
    fn a_full_shard_forgets_the_idlest_and_takes_the_new() {
        let mut producers = Producers::default();
        let mut store = |producer: u64, at: i64| {
            producers.apply(&Appended {
                shard: ShardId(1),
                queue: QueueId(1),
                seq: Seq(1),
                base_offset: Offset(0),
                span: 1,
                count: 1,
                producer: ProducerId(producer),
                epoch: ProducerEpoch(0),
                sequence: Sequence(0),
                append_time: Timestamp(at),
            });
        };
        let many = u64::try_from(PRODUCERS_MAX).unwrap();
        for producer in 1..=many {
            store(producer, i64::try_from(producer).unwrap());
        }
        store(1, i64::try_from(many).unwrap() + 1);
        store(many + 1, i64::try_from(many).unwrap() + 2);
        assert!(producers.of.len() < PRODUCERS_MAX);
        assert!(producers.get(QueueId(1), ProducerId(2)).is_none());
        for kept in [1, many, many + 1] {
            assert!(
                producers.get(QueueId(1), ProducerId(kept)).is_some(),
                "{kept}"
            );
        }
    }
}
