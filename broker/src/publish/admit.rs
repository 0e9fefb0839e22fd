//! Whether a publish is new, was stored before, is on its way, or can't be.

use std::collections::{BTreeMap, VecDeque};

use tidegate_model::{Code, ProducerEpoch, ProducerId, QueueId, Sequence, ShardId, code, limits};

use super::producers::{Outcome, Producer, Producers};
use super::{Admission, Appended};
use crate::catalog::{Catalog, no_topic};
use crate::limit::OUTCOMES_MAX;
use crate::refusal::Refusal;
use crate::reply::{Level, Published};
use crate::request::Publish;
use crate::shard::Shard;

/// Batches that are being appended, per producer and queue. Leader only: after a restart there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admissions {
    of: BTreeMap<(QueueId, ProducerId), VecDeque<OnItsWay>>,
}

#[derive(Clone, Copy, Debug)]
struct OnItsWay {
    epoch: ProducerEpoch,
    sequence: u64,
    count: u16,
}

impl Admissions {
    /// Judges a publish and notes it if it is to be appended.
    pub(crate) fn admit(
        &mut self,
        request: &Publish,
        keyless: Option<usize>,
        catalog: &Catalog,
        shards: &[Shard],
        level: Level,
    ) -> Admission {
        match self.judge(request, keyless, catalog, shards, level) {
            Ok(admission) => admission,
            Err(refusal) => Admission::Refuse(refusal),
        }
    }

    fn judge(
        &mut self,
        request: &Publish,
        keyless: Option<usize>,
        catalog: &Catalog,
        shards: &[Shard],
        level: Level,
    ) -> Result<Admission, Refusal> {
        let topic = catalog
            .topic(&request.topic)
            .ok_or_else(|| no_topic(&request.topic))?;
        if request.topic.topic.is_system() {
            return Err(read_only(request));
        }
        check_counts(request)?;
        let queue = usize::try_from(request.queue_index)
            .ok()
            .and_then(|index| topic.queues.get(index));
        let Some(&queue) = queue else {
            return Err(Refusal::new(
                code::QUEUE_NOT_FOUND,
                format!(
                    "topic {} has queues 0 to {}; the batch names queue {}",
                    request.topic,
                    topic.queues.len() - 1,
                    request.queue_index
                ),
            ));
        };
        let shard = catalog.shard_of(queue);
        let known = &shards[shard.0 as usize].producers;
        if request.producer != ProducerId(0)
            && let Some(admission) = self.seen(request, queue, shard, known, level)?
        {
            return Ok(admission);
        }
        if request.layout_version != topic.layout_version {
            return Err(Refusal::new(
                code::LAYOUT_CHANGED,
                format!(
                    "topic {} has layout version {}; the batch was placed by version {}",
                    request.topic, topic.layout_version, request.layout_version
                ),
            ));
        }
        if topic.settings.compact
            && let Some(record) = keyless
        {
            return Err(Refusal::new(
                code::KEY_REQUIRED,
                format!(
                    "topic {} keeps the newest message of each key; record {record} has none",
                    request.topic
                ),
            )
            .hint("give each message a key: {\"key\":\"K\",\"body\":\"...\"}, or --format raw --key K"));
        }
        if request.producer != ProducerId(0) {
            self.note(request, queue);
        }
        Ok(Admission::Append { shard, queue })
    }

    /// The answer to a batch that came before; `None` for the one that comes next.
    fn seen(
        &self,
        request: &Publish,
        queue: QueueId,
        shard: ShardId,
        known: &Producers,
        level: Level,
    ) -> Result<Option<Admission>, Refusal> {
        let stored = known.get(queue, request.producer);
        let on_their_way = self.of.get(&(queue, request.producer));
        let last = on_their_way.and_then(VecDeque::back);
        let (epoch, next) = match (last, stored) {
            (Some(last), _) => (last.epoch, last.sequence + u64::from(last.count)),
            (None, Some(stored)) => (stored.epoch, stored.next()),
            (None, None) => (request.producer_epoch, 0),
        };
        if request.producer_epoch < epoch {
            return Err(fenced(request.producer, request.producer_epoch, epoch));
        }
        let sequence = request.sequence.0;
        if request.producer_epoch > epoch {
            return if sequence == 0 {
                Ok(None)
            } else {
                Err(gap(request, 0))
            };
        }
        if sequence == next {
            return match on_their_way {
                Some(batches) if batches.len() >= OUTCOMES_MAX => Err(overloaded(request)),
                _ => Ok(None),
            };
        }
        if sequence > next {
            return Err(gap(request, next));
        }
        if let Some(batch) = on_their_way.and_then(|batches| find(batches, request)) {
            same_count(request, batch.count)?;
            return Ok(Some(Admission::InFlight { queue }));
        }
        match stored.and_then(|stored| remembered(stored, request)) {
            Some(outcome) => {
                same_count(request, outcome.count)?;
                Ok(Some(Admission::Duplicate(Published {
                    shard,
                    seq: outcome.seq,
                    base_offset: outcome.base_offset,
                    level,
                    duplicate: true,
                })))
            }
            None => Err(sequence_refusal(
                code::SEQUENCE_TOO_OLD,
                request,
                format!("the next one is {next}, and this one's outcome is no longer known"),
            )),
        }
    }

    fn note(&mut self, request: &Publish, queue: QueueId) {
        self.of
            .entry((queue, request.producer))
            .or_default()
            .push_back(OnItsWay {
                epoch: request.producer_epoch,
                sequence: request.sequence.0,
                count: request.count,
            });
    }

    /// Whether batches of a producer are being appended to a queue.
    pub(crate) fn is_on_its_way(&self, queue: QueueId, producer: ProducerId) -> bool {
        self.of.contains_key(&(queue, producer))
    }

    /// A batch is durable: it and what came before it are no longer on their way.
    pub(crate) fn appended(&mut self, appended: &Appended) {
        let key = (appended.queue, appended.producer);
        if let Some(batches) = self.of.get_mut(&key) {
            let done = batches.partition_point(|batch| {
                (batch.epoch, batch.sequence) <= (appended.epoch, appended.sequence.0)
            });
            batches.drain(..done);
            if batches.is_empty() {
                self.of.remove(&key);
            }
        }
    }

    /// A batch wasn't appended: it and what came after it never were on their way.
    pub(crate) fn failed(
        &mut self,
        queue: QueueId,
        producer: ProducerId,
        epoch: ProducerEpoch,
        sequence: Sequence,
    ) {
        let key = (queue, producer);
        if let Some(batches) = self.of.get_mut(&key) {
            let kept = batches
                .partition_point(|batch| (batch.epoch, batch.sequence) < (epoch, sequence.0));
            batches.truncate(kept);
            if batches.is_empty() {
                self.of.remove(&key);
            }
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
            self.of.remove(&key);
        }
    }
}

fn find<'a>(batches: &'a VecDeque<OnItsWay>, request: &Publish) -> Option<&'a OnItsWay> {
    let wanted = (request.producer_epoch, request.sequence.0);
    let at = batches.partition_point(|batch| (batch.epoch, batch.sequence) < wanted);
    batches
        .get(at)
        .filter(|batch| (batch.epoch, batch.sequence) == wanted)
}

fn remembered<'a>(stored: &'a Producer, request: &Publish) -> Option<&'a Outcome> {
    if stored.epoch == request.producer_epoch {
        stored.outcome(request.sequence.0)
    } else {
        None
    }
}

fn check_counts(request: &Publish) -> Result<(), Refusal> {
    let count = usize::from(request.count);
    if count == 0 || count > limits::BATCH_RECORDS_MAX || request.span != request.count {
        return Err(Refusal::new(
            code::BATCH_INVALID,
            format!(
                "a batch has 1 to {} records and takes as many offsets; this one has {} and takes {}",
                limits::BATCH_RECORDS_MAX,
                request.count,
                request.span
            ),
        ));
    }
    if request
        .sequence
        .0
        .checked_add(u64::from(request.count))
        .is_none()
    {
        return Err(sequence_refusal(
            code::SEQUENCE_GAP,
            request,
            "no sequence can follow it".to_owned(),
        ));
    }
    Ok(())
}

fn same_count(request: &Publish, count: u16) -> Result<(), Refusal> {
    if request.count == count {
        return Ok(());
    }
    Err(Refusal::new(
        code::BATCH_INVALID,
        format!(
            "sequence {} of producer {} stood for a batch of {count} records; a retry repeats the batch, this one has {}",
            request.sequence, request.producer, request.count
        ),
    ))
}

pub(crate) fn fenced(producer: ProducerId, epoch: ProducerEpoch, known: ProducerEpoch) -> Refusal {
    Refusal::new(
        code::PRODUCER_FENCED,
        format!("producer {producer} is at epoch {known}; this one has epoch {epoch}"),
    )
}

fn gap(request: &Publish, next: u64) -> Refusal {
    sequence_refusal(
        code::SEQUENCE_GAP,
        request,
        format!("the next one is {next}"),
    )
}

fn sequence_refusal(code: Code, request: &Publish, what: String) -> Refusal {
    Refusal::new(
        code,
        format!(
            "queue {} of topic {} can't take sequence {} of producer {}: {what}",
            request.queue_index, request.topic, request.sequence, request.producer
        ),
    )
}

fn read_only(request: &Publish) -> Refusal {
    Refusal::new(
        code::DEAD_LETTER_READ_ONLY,
        format!("topic {} is written by the broker alone", request.topic),
    )
}

fn overloaded(request: &Publish) -> Refusal {
    Refusal::new(
        code::OVERLOADED,
        format!(
            "producer {} has {OUTCOMES_MAX} batches on their way to queue {} of topic {}, as many as it may",
            request.producer, request.queue_index, request.topic
        ),
    )
}
