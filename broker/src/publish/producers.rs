//! What a shard remembers of its producers, so that a retry is answered as the first attempt was.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};

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

/// One producer in one queue. A shard may have [`PRODUCERS_MAX`] of them, and most have sent one batch and
/// no more: that takes no allocation of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    /// When its last batch was appended.
    pub(crate) last: Timestamp,
    /// Its last batch.
    pub(crate) newest: Outcome,
    /// The batches before it, sequences rising; `None` if there are none.
    #[expect(
        clippy::box_collection,
        reason = "mostly there are none, and this is 24 bytes less"
    )]
    earlier: Option<Box<VecDeque<Outcome>>>,
}

const _: () = assert!(size_of::<((QueueId, ProducerId), Producer)>() <= 72);

/// A batch that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sequence: u64,
    pub(crate) count: u16,
    pub(crate) seq: Seq,
    pub(crate) base_offset: Offset,
}

impl Producer {
    /// One whose last batches, sequences rising, are `earlier` and then `newest`.
    pub(crate) fn new(
        epoch: ProducerEpoch,
        last: Timestamp,
        newest: Outcome,
        earlier: VecDeque<Outcome>,
    ) -> Self {
        Self {
            epoch,
            last,
            newest,
            earlier: Some(earlier).filter(|e| !e.is_empty()).map(Box::new),
        }
    }

    fn earlier(&self) -> impl Iterator<Item = &Outcome> {
        self.earlier.iter().flat_map(|earlier| earlier.iter())
    }

    /// The sequence that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.newest.sequence + u64::from(self.newest.count)
    }

    /// Its last batches, sequences rising.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.earlier().chain([&self.newest])
    }

    /// The outcome of the batch that began at `sequence`.
    pub(crate) fn outcome(&self, sequence: u64) -> Option<&Outcome> {
        let earlier = self.earlier.as_ref().and_then(|earlier| {
            earlier.get(earlier.partition_point(|outcome| outcome.sequence < sequence))
        });
        earlier
            .or(Some(&self.newest))
            .filter(|outcome| outcome.sequence == sequence)
    }

    /// Its outcomes beyond the first [`OUTCOMES_MIN`].
    pub(crate) fn extra(&self) -> usize {
        self.known().saturating_sub(OUTCOMES_MIN)
    }

    /// Outcomes that are known of it.
    fn known(&self) -> usize {
        1 + self.earlier.as_ref().map_or(0, |earlier| earlier.len())
    }
}

impl Producers {
    pub(crate) fn get(&self, queue: QueueId, producer: ProducerId) -> Option<&Producer> {
        self.of.get(&(queue, producer))
    }

    /// Remembers a stored batch. Time is the batch's own, so that replay forgets what live forgot, but
    /// for producers that have ended.
    pub(crate) fn apply(&mut self, appended: &Appended) {
        self.sweep(appended.append_time);
        if appended.producer == ProducerId(0) {
            return;
        }
        let newest = Outcome {
            sequence: appended.sequence.0,
            count: appended.count,
            seq: appended.seq,
            base_offset: appended.base_offset,
        };
        match self.of.entry((appended.queue, appended.producer)) {
            Entry::Vacant(place) => {
                let (epoch, last) = (appended.epoch, appended.append_time);
                place.insert(Producer::new(epoch, last, newest, VecDeque::new()));
            }
            Entry::Occupied(mut place) => {
                let producer = place.get_mut();
                if appended.epoch < producer.epoch {
                    return;
                }
                self.extra -= producer.extra();
                producer.last = appended.append_time;
                if appended.epoch > producer.epoch {
                    producer.epoch = appended.epoch;
                    producer.earlier = None;
                } else {
                    let known = producer.known();
                    let shard_is_full = self.extra + producer.extra() >= OUTCOMES_SHARD_MAX;
                    let earlier = producer.earlier.get_or_insert_default();
                    if known >= OUTCOMES_MAX || (known >= OUTCOMES_MIN && shard_is_full) {
                        earlier.pop_front();
                    }
                    earlier.push_back(producer.newest);
                }
                producer.newest = newest;
                self.extra += producer.extra();
            }
        }
        if self.of.len() > PRODUCERS_MAX {
            self.forget_idlest();
        }
    }

    /// Forgets a producer in a queue, unless it has another epoch there.
    pub(crate) fn end(&mut self, queue: QueueId, producer: ProducerId, epoch: ProducerEpoch) {
        let known = self.get(queue, producer);
        if known.is_some_and(|known| known.epoch == epoch) {
            self.forget((queue, producer));
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
            self.extra -= producer.extra();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::{Sequence, ShardId};

    fn appended(producer: u64, epoch: u16, sequence: u64, at: i64) -> Appended {
        Appended {
            shard: ShardId(1),
            queue: QueueId(1),
            seq: Seq(1),
            base_offset: Offset(0),
            span: 1,
            count: 1,
            producer: ProducerId(producer),
            epoch: ProducerEpoch(epoch),
            sequence: Sequence(sequence),
            append_time: Timestamp(at),
        }
    }

    #[test]
    fn the_last_outcomes_of_the_newest_epoch_are_known() {
        let mut producers = Producers::default();
        let many = OUTCOMES_MAX as u64 + 7;
        for sequence in 0..many {
            producers.apply(&appended(1, 0, sequence, 0));
            producers.apply(&appended(2, 0, sequence, 0));
        }
        producers.apply(&appended(2, 1, 0, 0));
        producers.apply(&appended(2, 0, many, 0));
        let known = |producer: u64| {
            let producer = &producers.of[&(QueueId(1), ProducerId(producer))];
            let outcomes: Vec<_> = producer
                .outcomes()
                .map(|outcome| outcome.sequence)
                .collect();
            for sequence in 0..=producer.next() {
                let found = producer.outcome(sequence).map(|outcome| outcome.sequence);
                assert_eq!(found, outcomes.contains(&sequence).then_some(sequence));
            }
            (outcomes, producer.next())
        };
        assert_eq!(known(1), ((7..many).collect(), many));
        assert_eq!(known(2), (vec![0], 1));
        assert_eq!(producers.extra, OUTCOMES_MAX - OUTCOMES_MIN);
        producers.drop_queue(QueueId(1));
        assert_eq!(producers.extra, 0);
    }

    #[test]
    fn a_full_shard_forgets_the_idlest_and_takes_the_new() {
        let mut producers = Producers::default();
        let mut store = |producer, at| producers.apply(&appended(producer, 0, 0, at));
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
