//! Carrying out what the broker wants done.

use std::sync::Arc;

use tidegate_broker::effects::{DeadLetter, DeadLetterReason, Effects, Member};
use tidegate_broker::publish::Appended;
use tidegate_broker::{DeadLetterTarget, reply::Reply};
use tidegate_model::{
    BatchId, Codec, Message, MessageId, Offset, ProducerEpoch, ProducerId, QueueId, Section,
    SectionBuilder, Sequence, Timestamp, Value,
};
use tidegate_session::SubscriptionId;
use tidegate_store::{AppendError, Batch, IndexEntry, Kind, ReadError, StoredBatch};

use super::Owner;
use super::admin::Then;
use super::durable::Pending;
use super::publish::TERM;
use crate::worker::{Grant, Job, Target};

/// Rounds of effects that a turn carries out at most; what is left waits for the next turn.
const ROUNDS_MAX: usize = 16;
/// Properties of a dead-letter copy: where it comes from and why it is here.
const ORIGIN_TOPIC: &str = "dlq.origin.topic";
const ORIGIN_QUEUE: &str = "dlq.origin.queue";
const ORIGIN_OFFSET: &str = "dlq.origin.offset";
const ORIGIN_ID: &str = "dlq.origin.id";
const ATTEMPTS: &str = "dlq.attempts";
const REASON: &str = "dlq.reason";
/// What the plugin said, where one failed.
const DETAIL: &str = "dlq.detail";

impl Owner {
    pub(super) fn carry_out_effects(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.state.effects.is_empty() {
                return;
            }
            let mut effects = std::mem::take(&mut self.state.effects);
            self.carry_out(&mut effects);
            if self.state.effects.is_empty() {
                effects.clear();
                self.state.effects = effects;
            }
        }
    }

    fn carry_out(&mut self, effects: &mut Effects) {
        for journaled in effects.journal.drain(..) {
            let waiting = self.state.journal.entry(journaled.shard).or_default();
            waiting.push((journaled.entry, journaled.token));
        }
        for fetch in effects.fetches.drain(..) {
            self.workers.give(fetch.queue, Job::Fetch(fetch));
        }
        for grant in effects.grants.drain(..) {
            let to = match grant.to {
                Member::Subscription(id) => {
                    let id = SubscriptionId(id.0);
                    // Gone since: the lease lapses, or its holder settles it elsewhere.
                    let Some(sink) = self.state.subscriptions.get(&id) else {
                        continue;
                    };
                    Target::Subscription(id, Arc::clone(sink))
                }
                Member::Waiter(waiter) => {
                    let Some(waiting) = self.state.waiters.get_mut(&waiter) else {
                        continue;
                    };
                    waiting.reading += 1;
                    Target::Waiter(waiter)
                }
            };
            self.workers
                .give(grant.queue, Job::Send(Grant { grant, to }));
        }
        for done in effects.waiters_done.drain(..) {
            self.waiter_done(done);
        }
        self.state
            .dead_letters
            .extend(effects.dead_letters.drain(..));
        for (token, results) in effects.settled.drain(..) {
            self.settled(token, results);
        }
        for (token, moves) in effects.resets.drain(..) {
            self.reset_done(token, Reply::Reset(moves));
        }
        for (subscription, why) in effects.ended.drain(..) {
            let id = SubscriptionId(subscription.0);
            if let Some(sink) = self.state.subscriptions.remove(&id) {
                sink.ended(id, why);
            }
        }
    }

    /// Copies records to their group's dead-letter topic: copy and journal entry are one unit.
    pub(super) fn append_dead_letters(&mut self) {
        let mut later = Vec::new();
        while let Some(letter) = self.state.dead_letters.pop_front() {
            match self.core.dead_letter_target(letter.group, letter.shard) {
                DeadLetterTarget::Queue(queue) => {
                    if !self.append_dead_letter(&letter, queue) {
                        later.push(letter);
                        break;
                    }
                }
                DeadLetterTarget::Create(command) => {
                    let then = Then::DeadLetter(Box::new(letter));
                    self.append_catalog(command, then);
                }
                DeadLetterTarget::Gone => {}
            }
        }
        for letter in later.into_iter().rev() {
            self.state.dead_letters.push_front(letter);
        }
    }

    /// False if the log has no room now.
    fn append_dead_letter(&mut self, letter: &DeadLetter, queue: QueueId) -> bool {
        let now = self.clock.now();
        let (copies, damaged) = match self.dead_letter_batch(letter) {
            Ok(batch) => {
                let copies = batch.and_then(|batch| self.copies(letter, &batch, queue));
                (copies, 0)
            }
            Err(error) => {
                tracing::error!(queue = %letter.queue, offset = %letter.base_offset, %error,
                    "messages that a group gave up can't be read, so there is no copy of them");
                (None, letter.offsets.count())
            }
        };
        let entry = tidegate_broker::journal::encode(std::iter::once(&letter.entry));
        let mut unit: Vec<Batch<'_>> = Vec::with_capacity(2);
        if let Some((section, count, tag_bits, created)) = &copies {
            unit.push(Batch {
                queue,
                codec: Codec::None as u8,
                base_create_time: *created,
                tag_bits: *tag_bits,
                count: *count,
                span: *count,
                ..Batch::control(Kind::Data, letter.shard, TERM, now, section)
            });
        }
        unit.extend(
            entry
                .iter()
                .map(|e| Batch::control(Kind::Group, letter.shard, TERM, now, e)),
        );
        let appended = match self.appender.append(&unit) {
            Ok(appended) => appended.to_vec(),
            Err(AppendError::Fenced(fenced)) => {
                self.fenced(&fenced);
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "dead letters wait for the log");
                return false;
            }
        };
        let copy = copies.map(|(_, count, ..)| Appended {
            shard: letter.shard,
            queue,
            seq: appended[0].seq,
            base_offset: appended[0].base_offset,
            span: count,
            count,
            producer: ProducerId(0),
            epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            append_time: now,
        });
        let end = appended.last().expect("a unit has a batch").end;
        let pending = Pending::DeadLetter {
            copies: copy,
            damaged,
            shard: letter.shard,
            entry: letter.entry.clone(),
        };
        self.state.pending.push_back((end, pending));
        true
    }

    /// The batch that holds the records; `None` if it expired, or was compacted away.
    fn dead_letter_batch(&self, letter: &DeadLetter) -> Result<Option<StoredBatch>, ReadError> {
        let mut entries = Vec::with_capacity(1);
        self.reader
            .entries(letter.queue, letter.base_offset, 1, &mut entries)?;
        let is_it = |entry: &&IndexEntry| entry.base_offset == letter.base_offset;
        let Some(entry) = entries.first().filter(is_it) else {
            return Ok(None);
        };
        match self.reader.read_entry(entry) {
            Err(ReadError::NotFound { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The records with properties that tell where they come from, as a section, and their count, tag
    /// bits and earliest time. `None` if all of them were compacted away.
    fn copies(
        &self,
        letter: &DeadLetter,
        batch: &StoredBatch,
        target: QueueId,
    ) -> Option<(Vec<u8>, u16, u64, Timestamp)> {
        let target = self.topic_of(target);
        let is_from_there = self.topic_of(letter.queue) == target;
        let mut stay = 0u64;
        let codec = Codec::from_byte(batch.header.codec).ok()?;
        let count = usize::from(batch.header.count);
        let section = Section::parse_trusted(&batch.section, count, codec).ok()?;
        let raw = tidegate_model::compress::raw_bodies(&section, codec).ok()?;
        let section = section.with_bodies(&raw).ok()?;
        let mut builder = SectionBuilder::new();
        for record in section.records() {
            let offset = letter.base_offset.0 + u64::from(record.delta());
            if !letter.offsets.contains(offset) {
                continue;
            }
            let message = record.to_message();
            // A copy in the topic that it came from would come here again, without an end.
            if is_from_there || came_from(&message, &target) {
                stay += 1;
                continue;
            }
            let id = MessageId {
                batch: BatchId {
                    shard: batch.header.shard,
                    seq: batch.header.seq,
                },
                record: u16::try_from(record.delta()).expect("a span has 16 bits"),
            };
            let annotated = self.annotated(message, letter, offset, id);
            // A head that has no room for the annotation goes without it.
            if builder.push(&annotated).is_err() && builder.push(&record.to_message()).is_err() {
                tracing::error!(queue = %letter.queue, offset, "a dead letter doesn't fit a batch");
            }
        }
        if stay > 0 {
            self.metrics.dead_letters_kept.inc_by(stay);
            tracing::warn!(queue = %letter.queue, offset = %letter.base_offset, messages = stay,
                topic = target, "messages that a group gave up came from its dead-letter topic, so \
                they aren't copied there again; they stay where they are");
        }
        if builder.count() == 0 {
            return None;
        }
        let count = u16::try_from(builder.count()).expect("at most those of one batch");
        let created = Timestamp(builder.earliest_create_ms());
        Some((builder.finish().ok()?, count, builder.tag_bits(), created))
    }

    /// The name of the topic that a queue belongs to; empty if it is gone.
    fn topic_of(&self, queue: QueueId) -> String {
        self.place_of(queue).0
    }

    /// The same, and the queue's index in the topic.
    fn place_of(&self, queue: QueueId) -> (String, u64) {
        let place = self.core.catalog().topics().find_map(|topic| {
            let index = topic.queues.iter().position(|at| *at == queue)?;
            Some((topic.name.to_string(), index as u64))
        });
        place.unwrap_or_default()
    }

    fn annotated(
        &self,
        message: Message,
        letter: &DeadLetter,
        offset: u64,
        id: MessageId,
    ) -> Message {
        let reason = match letter.reason {
            DeadLetterReason::Attempts => "attempts".to_owned(),
            DeadLetterReason::Plugin(code) => code.to_string(),
        };
        let (topic, index) = self.place_of(letter.queue);
        let number = |n: u64| Value::I64(i64::try_from(n).unwrap_or(i64::MAX));
        let annotated = message
            .property(ORIGIN_TOPIC, Value::String(topic))
            .property(ORIGIN_QUEUE, number(index))
            .property(ORIGIN_OFFSET, number(offset))
            .property(ORIGIN_ID, Value::String(id.to_string()))
            .property(ATTEMPTS, number(u64::from(letter.attempts)))
            .property(REASON, Value::String(reason));
        let DeadLetterReason::Plugin(code) = letter.reason else {
            return annotated;
        };
        // Gone where the plugin failed on many others since.
        match self
            .components
            .failures()
            .words(letter.queue, Offset(offset), code)
        {
            Some(words) => annotated.property(DETAIL, Value::String(words)),
            None => annotated,
        }
    }
}

/// Whether a message is a dead letter that was in the topic before.
fn came_from(message: &Message, topic: &str) -> bool {
    let is_it = |value: &Value| matches!(value, Value::String(name) if name == topic);
    let mut properties = message.properties.iter();
    properties.any(|(name, value)| name == ORIGIN_TOPIC && is_it(value))
}
