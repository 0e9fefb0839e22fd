//! Producers: they send, send again, and hear what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_broker::reply::Published;
use tidegate_broker::request::{EndProducer, OpenProducer, ProducerIdentity, Publish};
use tidegate_broker::{Refusal, Reply, Request};
use tidegate_model::checksum::crc32c;
use tidegate_model::{Codec, Message, ProducerEpoch, ProducerId, SectionBuilder, Sequence};
use tidegate_session::{PublishSink, Ticket};

use super::bodies::body;
use super::mailbox::Sink;
use super::{Asked, Clients, principal, topic_ref};
use crate::sim::check::Finding;
use crate::sim::facts::{Batch, Fact, Lane, Topic};
use crate::sim::run::Lie;

/// Applications that publish to every topic, each by one producer after another.
const APPLICATIONS: usize = 2;
/// Batches of a lane that may wait for their outcome.
const WAITING_MAX: usize = 4;

impl Clients<'_> {
    /// Sends a new batch, unless the lane has enough on its way.
    pub(crate) fn publish(&mut self, topic: Topic) -> Result<(), Finding> {
        let application = usize::try_from(self.random.below(APPLICATIONS as u64)).unwrap();
        let lane = Lane {
            producer: self.producer_of(application, topic),
            topic,
            queue: u32::try_from(self.random.below(u64::from(topic.queues()))).unwrap(),
        };
        if !self.open(lane)? {
            return Ok(());
        }
        let batches = self.facts.batches.get(&lane);
        let waiting = batches.into_iter().flatten();
        if waiting.filter(|batch| batch.stored.is_none()).count() >= WAITING_MAX {
            return Ok(());
        }
        let sequence = batches.and_then(|batches| batches.last());
        let sequence = sequence.map_or(0, Batch::next_sequence);
        let ids = (0..1 + self.random.below(3)).map(|_| {
            self.next_id = self.next_id.wrapping_add(1);
            self.next_id
        });
        let batch = Batch {
            sequence,
            ids: ids.collect(),
            sent: *self.now,
            stored: None,
        };
        self.learn(Fact::Sent(lane, batch.clone()));
        self.send(lane, &batch);
        Ok(())
    }

    /// The number of an application's producer that has not ended.
    fn producer_of(&self, application: usize, topic: Topic) -> usize {
        let ended = self.facts.ended.get(&(application, topic));
        application + APPLICATIONS * ended.copied().unwrap_or(0)
    }

    fn has_ended(&self, lane: &Lane) -> bool {
        lane.producer != self.producer_of(lane.producer % APPLICATIONS, lane.topic)
    }

    /// Ends a producer of which everything is answered, if there is one.
    pub(crate) fn end_one(&mut self) {
        let on_their_way = self.lanes_on_their_way();
        let is_done = |&(producer, topic): &(usize, Topic)| {
            let mut lanes = self.facts.batches.iter();
            let mine = |lane: &Lane| (lane.producer, lane.topic) == (producer, topic);
            !self.facts.removed.contains_key(&topic)
                && !on_their_way.iter().any(mine)
                && lanes.all(|(lane, batches)| {
                    !mine(lane) || batches.iter().all(|batch| batch.stored.is_some())
                })
        };
        let keys = self.facts.producers.iter();
        let mut live: Vec<_> = keys
            .map(|(key, id)| (*key, *id))
            .filter(|((producer, topic), _)| {
                *producer == self.producer_of(producer % APPLICATIONS, *topic)
            })
            .filter(|(key, _)| is_done(key))
            .collect();
        if live.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(live.len() as u64)).unwrap();
        let ((producer, topic), (id, epoch)) = live.swap_remove(at);
        self.learn(Fact::Ended(producer % APPLICATIONS, topic));
        self.node.service().end_producer(EndProducer {
            topic: topic_ref(topic),
            producer: id,
            epoch,
            queues: (0..topic.queues()).collect(),
        });
        self.ended += 1;
    }

    /// Opens or resumes a lane's producer. `false` if its topic has gone.
    fn open(&mut self, lane: Lane) -> Result<bool, Finding> {
        let key = (lane.producer, lane.topic);
        if self.facts.producers.contains_key(&key) {
            return Ok(true);
        }
        let open = OpenProducer {
            topic: topic_ref(lane.topic),
            identity: ProducerIdentity::Fresh,
        };
        match self.ask(Request::OpenProducer(open))? {
            Ok(Reply::Producer(info)) => {
                self.learn(Fact::Opened {
                    lane: key,
                    producer: (info.producer, info.epoch),
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn send(&mut self, lane: Lane, batch: &Batch) {
        let mut builder = SectionBuilder::new();
        for id in &batch.ids {
            let message = Message::new(body(*id)).key(id.to_le_bytes());
            builder.push(&message).unwrap();
        }
        let section = Bytes::from(builder.finish().unwrap());
        let count = u16::try_from(batch.ids.len()).unwrap();
        let (producer, producer_epoch) = self.facts.producers[&(lane.producer, lane.topic)];
        let publish = Publish {
            topic: topic_ref(lane.topic),
            queue_index: lane.queue,
            layout_version: 1,
            producer,
            producer_epoch,
            sequence: Sequence(batch.sequence),
            count,
            span: count,
            codec: Codec::None as u8,
            key_id: 0,
            section_crc: crc32c(&section),
            section,
        };
        let sequence = batch.sequence;
        let ticket = self.ticket(Asked::Publish { lane, sequence });
        let sink: Arc<dyn PublishSink> = Arc::new(Sink(self.mailbox.published.clone()));
        self.node
            .service()
            .publish(&principal(), publish, ticket, &sink);
    }

    /// Sends again, in order, what has no outcome and isn't on its way.
    pub(crate) fn retry(&mut self) {
        let on_their_way = self.lanes_on_their_way();
        let lanes: Vec<Lane> = self.facts.batches.keys().copied().collect();
        for lane in lanes {
            if on_their_way.contains(&lane) || self.facts.removed.contains_key(&lane.topic) {
                continue;
            }
            if self.lie == Lie::Forgetful {
                let nobody = (ProducerId(0), ProducerEpoch(0));
                let key = (lane.producer, lane.topic);
                self.facts.producers.insert(key, nobody);
            }
            let batches = self.facts.batches[&lane].clone();
            for batch in batches.iter().filter(|batch| batch.stored.is_none()) {
                self.send(lane, batch);
            }
        }
    }

    fn lanes_on_their_way(&self) -> BTreeSet<Lane> {
        let lane = |asked: &Asked| match asked {
            Asked::Publish { lane, .. } => Some(*lane),
            Asked::Settle { .. } => None,
        };
        self.tickets.values().filter_map(lane).collect()
    }

    /// Whether every batch has its outcome.
    pub(crate) fn is_resolved(&self) -> bool {
        self.facts.batches.iter().all(|(lane, batches)| {
            self.facts.removed.contains_key(&lane.topic)
                || batches.iter().all(|batch| batch.stored.is_some())
        })
    }

    /// Sends one of the last batches that are stored once more, as if its outcome had been lost.
    pub(crate) fn repeat(&mut self) {
        let on_their_way = self.lanes_on_their_way();
        let mut stored = Vec::new();
        for (lane, batches) in &self.facts.batches {
            let gone = self.facts.removed.contains_key(&lane.topic);
            if !gone && !on_their_way.contains(lane) && !self.has_ended(lane) {
                let last = batches.iter().rev().filter(|batch| batch.stored.is_some());
                stored.extend(last.take(3).map(|batch| (*lane, batch.clone())));
            }
        }
        if !stored.is_empty() && self.lie != Lie::Forgetful {
            let at = usize::try_from(self.random.below(stored.len() as u64)).unwrap();
            let (lane, batch) = stored.swap_remove(at);
            self.send(lane, &batch);
        }
    }

    pub(super) fn published(
        &mut self,
        ticket: Ticket,
        outcome: Result<Published, Refusal>,
    ) -> Result<(), Finding> {
        let Some(Asked::Publish { lane, sequence }) = self.tickets.remove(&ticket.0) else {
            return Err(Finding::Stuck(
                "an outcome that nobody waits for".to_owned(),
            ));
        };
        // Refused: not stored, or not told. It is sent again.
        let Ok(published) = outcome else {
            return Ok(());
        };
        let base = published.base_offset.0;
        let batches = &self.facts.batches[&lane];
        let batch = batches.iter().find(|b| b.sequence == sequence).unwrap();
        self.duplicates += u64::from(published.duplicate);
        match batch.stored {
            Some(known) if known != base => {
                let what = format!("{lane:?} {sequence} at {known}, then at {base}");
                return Err(Finding::Duplicate(what));
            }
            Some(_) if !published.duplicate => {
                let what = format!("{lane:?} {sequence} is stored anew");
                return Err(Finding::Duplicate(what));
            }
            Some(_) => {}
            None => self.learn(Fact::Stored {
                lane,
                sequence,
                base,
            }),
        }
        Ok(())
    }
}
