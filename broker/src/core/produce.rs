//! Publishing.

use tidegate_model::{ProducerEpoch, ProducerId, QueueId, Sequence, code};

use super::{Core, QueueBounds};
use crate::catalog::no_topic;
use crate::publish::Admission;
use crate::publish::admit::fenced;
use crate::refusal::Refusal;
use crate::reply::ProducerInfo;
use crate::request::{EndProducer, OpenProducer, ProducerIdentity, Publish};

impl Core {
    /// Opens a producer: `fresh` is an id never given before, for one that is new.
    ///
    /// A producer that resumes keeps its id and epoch, so that it can repeat what wasn't answered. One
    /// that is not idempotent has the id 0.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `DEAD_LETTER_READ_ONLY`, `INVALID_ARGUMENT` for a resumed id of zero,
    /// `PRODUCER_FENCED` for a resumed epoch below the one known.
    pub fn open_producer(
        &self,
        request: &OpenProducer,
        fresh: ProducerId,
        bounds: &dyn QueueBounds,
    ) -> Result<ProducerInfo, Refusal> {
        let name = &request.topic;
        let topic = self.catalog.topic(name).ok_or_else(|| no_topic(name))?;
        if name.topic.is_system() {
            return Err(Refusal::new(
                code::DEAD_LETTER_READ_ONLY,
                format!("topic {name} is written by the broker alone"),
            ));
        }
        let (producer, epoch) = match request.identity {
            ProducerIdentity::Fresh => (fresh, ProducerEpoch(0)),
            ProducerIdentity::NonIdempotent => (ProducerId(0), ProducerEpoch(0)),
            ProducerIdentity::Resumed(ProducerId(0), _) => {
                return Err(Refusal::new(
                    code::INVALID_ARGUMENT,
                    format!("producer 0 of topic {name} can't be resumed: 0 is no producer"),
                ));
            }
            ProducerIdentity::Resumed(producer, epoch) => {
                for &queue in &topic.queues {
                    if let Some(known) = self.shard_of(queue).producers.get(queue, producer)
                        && known.epoch > epoch
                    {
                        return Err(fenced(producer, epoch, known.epoch));
                    }
                }
                (producer, epoch)
            }
        };
        Ok(ProducerInfo {
            producer,
            epoch,
            layout_version: topic.layout_version,
            queues: self.queue_infos(topic, bounds),
        })
    }

    /// Forgets a producer in the queues that it names, unless it has batches on their way there, or
    /// has begun another life.
    ///
    /// Nothing is logged of it: what is replayed, or snapshotted elsewhere, may remember it for the rest of
    /// its time. That does no harm, as nobody sends anything again under its id.
    pub fn end_producer(&mut self, ended: &EndProducer) {
        let Some(topic) = self.catalog.topic(&ended.topic) else {
            return;
        };
        for index in &ended.queues {
            let queue = usize::try_from(*index)
                .ok()
                .and_then(|index| topic.queues.get(index));
            let Some(&queue) = queue else {
                continue;
            };
            if !self.admissions.is_on_its_way(queue, ended.producer) {
                let shard = self.catalog.shard_of(queue).0 as usize;
                let producers = &mut self.shards[shard].producers;
                producers.end(queue, ended.producer, ended.epoch);
            }
        }
    }

    /// Pairs of a producer and a queue of which the last batches are remembered, so that they are
    /// stored once.
    #[must_use]
    pub fn remembered_producers(&self) -> usize {
        let producers = self.shards.iter().map(|shard| shard.producers.of.len());
        producers.sum()
    }

    /// What to do with a publish whose records all have keys, or whose topic needs none. The section
    /// is the owner's to check, before this.
    pub fn admit(&mut self, request: &Publish) -> Admission {
        self.admit_with(request, None)
    }

    /// The same for any publish; `keyless` is the first of its records without a key.
    pub fn admit_with(&mut self, request: &Publish, keyless: Option<usize>) -> Admission {
        let level = self.settings.level;
        self.admissions
            .admit(request, keyless, &self.catalog, &self.shards, level)
    }

    /// Takes back an admission that was not appended, and with it all later ones of the same
    /// producer and queue, which could only leave a gap: call it before the next [`Core::admit`],
    /// or for all of them.
    pub fn append_failed(
        &mut self,
        queue: QueueId,
        producer: ProducerId,
        epoch: ProducerEpoch,
        sequence: Sequence,
    ) {
        self.admissions.failed(queue, producer, epoch, sequence);
    }
}
