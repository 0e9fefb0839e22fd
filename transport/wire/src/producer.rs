//! The client's half of a producer: placing, batching, sequences, retries.
//!
//! It outlives connections: what was not answered on one is sent again on the next, in order, under
//! the same queue and sequence, so that the broker can tell a repetition from something new
//! (`docs/formats/wire.md`, Producing). One that the broker opened under the id 0 is not idempotent:
//! what may have been stored is never sent again, but fails. No I/O, no clock; the driver moves batches to
//! [`crate::ClientSession::publish`] and answers back.

mod lane;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::hash::queue_for_key;
use tidegate_model::limits::BATCH_RECORDS_MAX;
use tidegate_model::{Code, Message, SectionBuilder, SectionError, code};

use crate::proto;
use crate::publish::{PublishHeader, PublishOutcome};
use crate::refusal::Refusal;

use lane::{Batch, Lane, Open};

/// First wait before a refused batch is sent again; it doubles with every refusal in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest wait before a refused batch is sent again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Empty builders that are kept for their buffers.
const SPARE_BUILDERS_MAX: usize = 8;

/// How a producer batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// How long a batch waits for more messages while others are in flight. With none in flight it
    /// never waits.
    pub linger: Duration,
    /// A batch of this many bytes or more is closed.
    pub batch_bytes: usize,
    /// A batch has at most this many records.
    pub batch_records: usize,
    /// Compress bodies where that makes a batch smaller.
    pub compress: bool,
    /// Bytes of messages that may wait for an answer.
    pub buffer_bytes_max: usize,
    /// A batch that the broker refused for now is tried again for this long.
    pub retry: Duration,
}

impl Default for ProducerConfig {
    /// 5 ms, 16 KiB, compressed; 32 MiB may wait; 30 s of retries.
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 16 * 1024,
            batch_records: BATCH_RECORDS_MAX,
            compress: true,
            buffer_bytes_max: 32 * 1024 * 1024,
            retry: Duration::from_secs(30),
        }
    }
}

/// A batch's number in a producer, the same over all attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNumber(pub u64);

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its batch.
    pub batch: BatchNumber,
    /// Index of its record in the batch.
    pub record: u16,
    /// Index of its queue in the topic.
    pub queue_index: u32,
    /// It is the first or the last of its batch: [`Producer::poll_batch`] may have something now, or
    /// [`Producer::poll_timeout`] is another.
    pub is_edge: bool,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Too much waits for an answer: push again after the next event.
    #[error("{waiting} bytes wait to be stored; at most {max} may")]
    Full {
        /// Bytes waiting.
        waiting: usize,
        /// The limit.
        max: usize,
    },
    /// The producer was never opened, so the topic's queues are not known.
    #[error("the producer isn't open yet")]
    NotOpen,
    /// The message is over a limit.
    #[error(transparent)]
    Section(#[from] SectionError),
}

/// What became of batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProducerEvent {
    /// A batch is stored.
    Stored {
        /// The batch.
        batch: BatchNumber,
        /// Messages in it.
        count: u16,
        /// Where, and how safe.
        outcome: PublishOutcome,
    },
    /// A batch is given up. Unless the code is `timeout` or `sequence-too-old`, it was not stored.
    Failed {
        /// The batch.
        batch: BatchNumber,
        /// Messages in it.
        count: u16,
        /// Why.
        refusal: Refusal,
    },
    /// The broker doesn't remember this producer: open a new one and call [`Producer::opened`].
    Forgotten,
}

/// A producer of one topic.
#[derive(Debug)]
pub struct Producer {
    config: ProducerConfig,
    identity: Option<Identity>,
    lanes: Vec<Lane>,
    /// The queue that messages without a key go to until its batch is closed.
    sticky: usize,
    /// Open batches in the order of their deadlines.
    lingering: VecDeque<(Duration, usize, BatchNumber)>,
    /// Lanes with something to send; a lane is in it at most once.
    ready: VecDeque<usize>,
    /// Lanes that wait for answers or for time before they send again.
    recovering: BTreeSet<usize>,
    /// Lane by ticket.
    in_flight: HashMap<u64, usize>,
    next_ticket: u64,
    next_batch: u64,
    buffered: usize,
    connected: bool,
    spare: Vec<SectionBuilder>,
    events: VecDeque<ProducerEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    producer: u64,
    epoch: u32,
    layout_version: u32,
}

impl Identity {
    /// Whether the broker knows again what it sends again.
    fn is_idempotent(&self) -> bool {
        self.producer != 0
    }
}

impl Producer {
    /// A producer that isn't open yet.
    #[must_use]
    pub fn new(config: ProducerConfig) -> Self {
        Self {
            config,
            identity: None,
            lanes: Vec::new(),
            sticky: 0,
            lingering: VecDeque::new(),
            ready: VecDeque::new(),
            recovering: BTreeSet::new(),
            in_flight: HashMap::new(),
            next_ticket: 1,
            next_batch: 1,
            buffered: 0,
            connected: false,
            spare: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// What to resume when opening it on another connection; `None` for a new one, and for
    /// one that is not idempotent.
    #[must_use]
    pub fn resume(&self) -> Option<proto::Resume> {
        self.identity
            .filter(Identity::is_idempotent)
            .map(|identity| proto::Resume {
                producer: identity.producer,
                epoch: identity.epoch,
            })
    }

    /// Bytes of messages that wait for an answer.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Whether every message has been answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lingering.is_empty() && self.lanes.iter().all(Lane::is_empty)
    }

    /// The producer is open on a new stream: what was not answered is sent again. Under another id
    /// or epoch, or none, the broker can't tell repetitions, so batches whose outcome is unknown fail.
    ///
    /// # Errors
    /// A [`Refusal`] if the topic has no queue.
    pub fn opened(&mut self, opened: &proto::ProducerOpened) -> Result<(), Refusal> {
        if opened.queues.is_empty() {
            return Err(Refusal::new(
                code::PROTOCOL,
                "the server opened a producer on a topic without queues",
            ));
        }
        let identity = Identity {
            producer: opened.producer,
            epoch: opened.epoch,
            layout_version: opened.layout_version,
        };
        self.disconnected();
        if let Some(before) = self.identity.replace(identity) {
            if before.layout_version != identity.layout_version {
                self.flush();
            }
            let is_another = (before.producer, before.epoch) != (identity.producer, identity.epoch);
            if is_another || !identity.is_idempotent() {
                self.begin_anew();
            }
        }
        while self.lanes.len() < opened.queues.len() {
            self.lanes.push(Lane::default());
        }
        self.connected = true;
        self.recovering.clear();
        for lane in 0..self.lanes.len() {
            self.lanes[lane].recovering = false;
            self.make_ready(lane);
        }
        Ok(())
    }

    /// The stream or its connection broke: batches in flight are undecided until it is opened again.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.in_flight.clear();
        self.ready.clear();
        for lane in &mut self.lanes {
            lane.undecided();
        }
    }

    /// Adds a message to its queue's batch: by message group, else first key, else wherever the
    /// current batch is. The time is asked for when a batch begins.
    ///
    /// # Errors
    /// [`PushError`]; nothing was taken.
    pub fn push(
        &mut self,
        now: impl Fn() -> Duration,
        message: &Message,
    ) -> Result<Placed, PushError> {
        let identity = self.identity.ok_or(PushError::NotOpen)?;
        if self.buffered >= self.config.buffer_bytes_max {
            return Err(PushError::Full {
                waiting: self.buffered,
                max: self.config.buffer_bytes_max,
            });
        }
        let queues = u32::try_from(self.lanes.len()).expect("queues of a topic are below 2^32");
        let lane = match message.placement_key() {
            Some(key) => queue_for_key(key, queues) as usize,
            None => self.sticky,
        };
        if let Err(error) = self.add(&now, lane, identity, message) {
            let full = matches!(
                error,
                SectionError::Count { .. }
                    | SectionError::TooLarge { .. }
                    | SectionError::BodyBlockTooLarge { .. }
            );
            if !full {
                return Err(error.into());
            }
            self.seal(lane);
            self.add(&now, lane, identity, message)?;
        }
        let open = self.lanes[lane].open.as_ref().expect("just added to");
        let (number, count) = (open.number, open.builder.count());
        let is_full = open.builder.len() >= self.config.batch_bytes
            || open.builder.count() >= self.config.batch_records;
        if is_full {
            self.seal(lane);
        }
        Ok(Placed {
            batch: number,
            record: u16::try_from(count - 1).expect("BATCH_RECORDS_MAX is below 2^16"),
            queue_index: u32::try_from(lane).expect("below the number of queues"),
            is_edge: is_full || count == 1,
        })
    }

    /// Closes all open batches, so that they are sent without waiting for more.
    pub fn flush(&mut self) {
        for (_, lane, number) in std::mem::take(&mut self.lingering) {
            if self.is_open(lane, number) {
                self.seal(lane);
            }
        }
    }

    /// The next batch to publish, if the session can take one. A batch that lingers is closed when
    /// its time is up, or when nothing else is in flight.
    pub fn poll_batch(&mut self, now: Duration) -> Option<(PublishHeader, Bytes)> {
        if !self.connected {
            return None;
        }
        self.end_lingering(now);
        self.end_recovery(now);
        if self.ready.is_empty() && self.in_flight.is_empty() && self.recovering.is_empty() {
            self.flush();
        }
        let lane = self.ready.pop_front()?;
        let ticket = self.next_ticket;
        let queue_index = u32::try_from(lane).expect("queues of a topic are below 2^32");
        self.lanes[lane].queued = false;
        let (header, section) = self.lanes[lane].send(ticket, queue_index)?;
        self.next_ticket += 1;
        self.in_flight.insert(ticket, lane);
        self.make_ready(lane);
        Some((header, section))
    }

    /// When [`Self::poll_batch`] may have something that it hasn't now.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if !self.connected {
            return None;
        }
        let linger = self.lingering.front().map(|(deadline, _, _)| *deadline);
        let recovery = self
            .recovering
            .iter()
            .map(|lane| &self.lanes[*lane])
            .filter(|lane| lane.sent == 0)
            .map(|lane| lane.retry_at)
            .min();
        linger.into_iter().chain(recovery).min()
    }

    /// What became of batches.
    pub fn poll_event(&mut self) -> Option<ProducerEvent> {
        self.events.pop_front()
    }

    /// The broker stored a batch.
    pub fn published(&mut self, outcome: &PublishOutcome) {
        let Some(lane) = self.in_flight.remove(&outcome.ticket) else {
            return;
        };
        if let Some(batch) = self.lanes[lane].take(outcome.ticket) {
            self.buffered -= batch.section.len();
            self.lanes[lane].backoff = Duration::ZERO;
            self.events.push_back(ProducerEvent::Stored {
                batch: batch.number,
                count: batch.count,
                outcome: *outcome,
            });
        }
        self.make_ready(lane);
    }

    /// The broker refused a batch: it is sent again if that can help, else it fails.
    pub fn refused(&mut self, now: Duration, ticket: u64, refusal: &Refusal) {
        let Some(index) = self.in_flight.remove(&ticket) else {
            return;
        };
        let lane = &mut self.lanes[index];
        let recovering = lane.recovering;
        let Some((at, batch)) = lane.find(ticket) else {
            return;
        };
        let first = at == 0 && !recovering;
        let gap = refusal.code == code::SEQUENCE_GAP;
        let refused_at = *batch.first_refused.get_or_insert(now);
        if gap && first {
            // Nothing before it is missing, so the broker has lost track of this producer.
            self.events.push_back(ProducerEvent::Forgotten);
        }
        let in_time = now < refused_at + self.config.retry;
        let may_be_twice = refusal.code == code::TIMEOUT
            && !self.identity.as_ref().is_some_and(Identity::is_idempotent);
        if in_time && !may_be_twice && (gap || may_help_to_retry(refusal.code)) {
            lane.put_back(at, refusal.code == code::TIMEOUT);
            if !gap {
                lane.backoff = (lane.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
            }
            lane.retry_at = lane.retry_at.max(now + lane.backoff);
        } else if let Some(batch) = lane.remove(at) {
            if batch.was_never_stored(refusal.code) {
                lane.close_gap(at, batch.count);
            }
            self.buffered -= batch.section.len();
            self.events.push_back(ProducerEvent::Failed {
                batch: batch.number,
                count: batch.count,
                refusal: refusal.clone(),
            });
        }
        let lane = &mut self.lanes[index];
        lane.recovering = true;
        self.recovering.insert(index);
    }

    /// Gives up everything that waits.
    pub fn fail_all(&mut self, refusal: &Refusal) {
        self.flush();
        self.disconnected();
        for lane in &mut self.lanes {
            for batch in lane.batches.drain(..) {
                self.buffered -= batch.section.len();
                self.events.push_back(ProducerEvent::Failed {
                    batch: batch.number,
                    count: batch.count,
                    refusal: refusal.clone(),
                });
            }
        }
    }

    /// Numbers everything from 0 for a producer that the broker hasn't seen.
    fn begin_anew(&mut self) {
        let unknown = Refusal::new(
            code::TIMEOUT,
            "the connection was lost before the answer came, and the producer could not be resumed",
        );
        for lane in &mut self.lanes {
            let mut kept = VecDeque::new();
            let mut next = 0;
            for mut batch in lane.batches.drain(..) {
                if batch.undecided {
                    self.buffered -= batch.section.len();
                    self.events.push_back(ProducerEvent::Failed {
                        batch: batch.number,
                        count: batch.count,
                        refusal: unknown.clone(),
                    });
                } else {
                    batch.sequence = next;
                    next += u64::from(batch.count);
                    kept.push_back(batch);
                }
            }
            lane.batches = kept;
            lane.next_sequence = next;
        }
    }

    fn add(
        &mut self,
        now: impl Fn() -> Duration,
        lane: usize,
        identity: Identity,
        message: &Message,
    ) -> Result<(), SectionError> {
        if let Some(open) = &mut self.lanes[lane].open {
            let before = open.builder.len();
            open.builder.push(message)?;
            self.buffered += open.builder.len() - before;
            return Ok(());
        }
        let mut builder = self.spare.pop().unwrap_or_default();
        if let Err(error) = builder.push(message) {
            self.keep(builder);
            return Err(error);
        }
        self.buffered += builder.len();
        let number = BatchNumber(self.next_batch);
        self.next_batch += 1;
        self.lingering
            .push_back((now() + self.config.linger, lane, number));
        self.lanes[lane].open = Some(Open {
            number,
            layout_version: identity.layout_version,
            builder,
        });
        Ok(())
    }

    /// Closes the open batch of a lane.
    fn seal(&mut self, lane: usize) {
        let Some(open) = self.lanes[lane].open.take() else {
            return;
        };
        self.buffered -= open.builder.len();
        let batch = Batch::seal(&open, self.lanes[lane].next_sequence, self.config.compress);
        self.buffered += batch.section.len();
        self.lanes[lane].next_sequence += u64::from(batch.count);
        self.lanes[lane].batches.push_back(batch);
        self.keep(open.builder);
        if lane == self.sticky {
            self.sticky = (lane + 1) % self.lanes.len();
        }
        self.make_ready(lane);
    }

    fn keep(&mut self, mut builder: SectionBuilder) {
        if self.spare.len() < SPARE_BUILDERS_MAX {
            builder.clear();
            self.spare.push(builder);
        }
    }

    fn is_open(&self, lane: usize, number: BatchNumber) -> bool {
        self.lanes[lane]
            .open
            .as_ref()
            .is_some_and(|open| open.number == number)
    }

    fn end_lingering(&mut self, now: Duration) {
        while let Some(&(deadline, lane, number)) = self.lingering.front() {
            let open = self.is_open(lane, number);
            if open && deadline > now {
                break;
            }
            self.lingering.pop_front();
            if open {
                self.seal(lane);
            }
        }
    }

    fn end_recovery(&mut self, now: Duration) {
        let over: Vec<usize> = self
            .recovering
            .iter()
            .copied()
            .filter(|lane| self.lanes[*lane].sent == 0 && self.lanes[*lane].retry_at <= now)
            .collect();
        for lane in over {
            self.recovering.remove(&lane);
            self.lanes[lane].recovering = false;
            self.make_ready(lane);
        }
    }

    fn make_ready(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if self.connected && !lane.queued && lane.can_send() {
            lane.queued = true;
            self.ready.push_back(index);
        }
    }
}

/// Whether sending the same batch again can succeed. A new layout places its messages elsewhere, so
/// that batch is the application's to publish again.
fn may_help_to_retry(code: Code) -> bool {
    code.remedy() == code::Remedy::Retry && code != code::LAYOUT_CHANGED
}
