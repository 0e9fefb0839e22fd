//! Publishes: admit, append, answer.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_broker::publish::Admission;
use tidegate_broker::reply::Published;
use tidegate_broker::request::Publish;
use tidegate_broker::{Appended, Refusal};
use tidegate_model::{
    ProducerEpoch, ProducerId, QueueId, Sequence, ShardId, Term, Timestamp, code,
};
use tidegate_session::{PublishSink, Ticket};
use tidegate_store::{AppendError, Batch, Kind};

use super::Owner;
use super::durable::Pending;
use crate::input::{Admitted, PublishInput};

/// A node without replicas stays in its first term.
pub(super) const TERM: Term = Term(1);

/// Where the outcome of a publish goes. Several, when a retry met its first try on the way.
pub(super) struct Publisher {
    ticket: Ticket,
    sink: Arc<dyn PublishSink>,
    _admitted: Admitted,
}

/// What names a publish while it is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PublishKey {
    queue: QueueId,
    producer: ProducerId,
    epoch: ProducerEpoch,
    sequence: Sequence,
}

/// Retries that joined a publish on its way. Bounded by the room that each holds.
pub(super) type InFlight = HashMap<PublishKey, Vec<Publisher>>;

type Outcome = (Ticket, Result<Published, Refusal>);

/// Outcomes of a turn, one call per sink.
#[derive(Default)]
pub(super) struct Outcomes {
    by_sink: Vec<(Arc<dyn PublishSink>, Vec<Outcome>)>,
}

impl Outcomes {
    fn add(&mut self, publisher: Publisher, outcome: Result<Published, Refusal>) {
        let Publisher { ticket, sink, .. } = publisher;
        // Outcomes of one connection mostly come in a row.
        let place = self
            .by_sink
            .iter_mut()
            .rev()
            .take(8)
            .find(|(known, _)| Arc::ptr_eq(known, &sink));
        match place {
            Some((_, outcomes)) => outcomes.push((ticket, outcome)),
            None => self.by_sink.push((sink, vec![(ticket, outcome)])),
        }
    }
}

impl Owner {
    /// A publish behind others that wait must wait as well, or it would overtake them.
    pub(super) fn publish_in_turn(&mut self, input: PublishInput) {
        if self.state.backlog.is_empty() {
            if let Some(input) = self.publish(input) {
                self.state.backlog.push_back(input);
            }
        } else {
            self.state.backlog.push_back(input);
        }
    }

    /// Tries again what found the ring full.
    pub(super) fn publish_backlog(&mut self) {
        while let Some(input) = self.state.backlog.pop_front() {
            if let Some(input) = self.publish(input) {
                self.state.backlog.push_front(input);
                return;
            }
        }
    }

    /// Gives the publish back if the ring has no room for it now.
    fn publish(&mut self, input: PublishInput) -> Option<PublishInput> {
        let key = |queue| PublishKey {
            queue,
            producer: input.publish.producer,
            epoch: input.publish.producer_epoch,
            sequence: input.publish.sequence,
        };
        match self.core.admit_with(&input.publish, input.facts.keyless) {
            Admission::Append { shard, queue } => {
                let key = key(queue);
                self.append_publish(input, shard, key)
            }
            Admission::Duplicate(published) => {
                self.metrics.published_duplicates.inc();
                let (publisher, _) = split(input);
                self.state.outcomes.add(publisher, Ok(published));
                None
            }
            Admission::InFlight { queue } => {
                let key = key(queue);
                let (publisher, _) = split(input);
                self.state.in_flight.entry(key).or_default().push(publisher);
                None
            }
            Admission::Refuse(refusal) => {
                self.metrics.refused(refusal.code);
                let (publisher, _) = split(input);
                self.state.outcomes.add(publisher, Err(refusal));
                None
            }
        }
    }

    fn append_publish(
        &mut self,
        input: PublishInput,
        shard: ShardId,
        key: PublishKey,
    ) -> Option<PublishInput> {
        let now = self.clock.now();
        let batch = data_batch(&input, shard, key.queue, now);
        let appended = match self.appender.append(&[batch]) {
            Ok(appended) => appended[0],
            Err(error) => {
                self.core
                    .append_failed(key.queue, key.producer, key.epoch, key.sequence);
                if matches!(error, AppendError::Full) {
                    return Some(input);
                }
                let refusal = self.append_refusal(&error);
                self.metrics.refused(refusal.code);
                let (publisher, _) = split(input);
                self.state.outcomes.add(publisher, Err(refusal));
                return None;
            }
        };
        self.shared.set_disk_full(false);
        let (publisher, publish) = split(input);
        let appended_fact = Appended {
            shard,
            queue: key.queue,
            seq: appended.seq,
            base_offset: appended.base_offset,
            span: publish.span,
            count: publish.count,
            producer: key.producer,
            epoch: key.epoch,
            sequence: key.sequence,
            append_time: now,
        };
        let bytes = publish.section.len();
        let pending = Pending::Publish {
            appended: appended_fact,
            publisher,
            key,
            bytes,
        };
        self.state.pending.push_back((appended.end, pending));
        None
    }

    /// The batch and all retries that joined it are stored.
    pub(super) fn published(
        &mut self,
        publisher: Publisher,
        key: PublishKey,
        appended: &Appended,
        bytes: usize,
    ) {
        let published = Published {
            shard: appended.shard,
            seq: appended.seq,
            base_offset: appended.base_offset,
            level: tidegate_broker::reply::Level::Disk,
            duplicate: false,
        };
        self.metrics
            .published_messages
            .inc_by(u64::from(appended.count));
        self.metrics.published_bytes.inc_by(bytes as u64);
        self.state.outcomes.add(publisher, Ok(published));
        if self.state.in_flight.is_empty() {
            return;
        }
        for joined in self.state.in_flight.remove(&key).unwrap_or_default() {
            self.metrics.published_duplicates.inc();
            self.state.outcomes.add(
                joined,
                Ok(Published {
                    duplicate: true,
                    ..published
                }),
            );
        }
    }

    /// The batch may or may not be on disk: the log failed before it could tell.
    pub(super) fn publish_lost(
        &mut self,
        publisher: Publisher,
        key: PublishKey,
        refusal: &Refusal,
    ) {
        for one in
            std::iter::once(publisher).chain(self.state.in_flight.remove(&key).unwrap_or_default())
        {
            self.state.outcomes.add(one, Err(refusal.clone()));
        }
    }

    pub(super) fn send_outcomes(&mut self) {
        for (sink, outcomes) in self.state.outcomes.by_sink.drain(..) {
            sink.published(outcomes);
        }
    }

    /// What a client is told when its batch can't be appended.
    pub(super) fn append_refusal(&mut self, error: &AppendError) -> Refusal {
        let code = match error {
            AppendError::Full => code::OVERLOADED,
            AppendError::NoSpace => {
                self.shared.set_disk_full(true);
                code::DISK_FULL
            }
            AppendError::Fenced(fenced) => {
                self.fenced(fenced);
                code::LOG_FENCED
            }
            AppendError::TooLarge { .. } => code::MESSAGE_TOO_LARGE,
            _ => code::INTERNAL,
        };
        Refusal::new(code, error.to_string())
    }
}

fn split(input: PublishInput) -> (Publisher, Publish) {
    let PublishInput {
        publish,
        ticket,
        sink,
        admitted,
        ..
    } = input;
    (
        Publisher {
            ticket,
            sink,
            _admitted: admitted,
        },
        publish,
    )
}

fn data_batch(input: &PublishInput, shard: ShardId, queue: QueueId, now: Timestamp) -> Batch<'_> {
    let publish = &input.publish;
    Batch {
        shard,
        term: TERM,
        queue,
        kind: Kind::Data,
        codec: publish.codec,
        key_id: publish.key_id,
        flags: 0,
        producer: publish.producer,
        producer_epoch: publish.producer_epoch,
        sequence: publish.sequence,
        append_time: now,
        base_create_time: input.facts.earliest_create,
        tag_bits: input.facts.tag_bits,
        count: publish.count,
        span: publish.span,
        section: &publish.section,
        section_crc: publish.section_crc,
    }
}
