//! The owner thread: the only one that changes the broker's state or appends to the log.
//!
//! A turn takes what has arrived, hands it to the broker, appends what must be logged, and carries
//! out what has become durable. Everything that waits while a sync runs shares the next one.

mod admin;
mod checkpoint;
mod clients;
mod consume;
mod durable;
mod effects;
mod publish;
mod trims;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tidegate_broker::effects::{DeadLetter, Effects};
use tidegate_broker::id::{RequestToken, WaiterId};
use tidegate_broker::journal::JournalEntry;
use tidegate_broker::{Core, QueueBounds};
use tidegate_model::{Offset, ProducerId, QueueId, ShardId, Timestamp};
use tidegate_session::{DeliverySink, SubscriptionId};
use tidegate_store::{Appender, LogPosition, Reader};

use crate::clock::Clock;
use crate::components::Components;
use crate::input::{Credits, Input, PublishInput};
use crate::metrics::Metrics;
use crate::node::Shared;
use crate::receipt::Receipts;
use crate::retention::Retention;
use crate::worker::Workers;

use consume::{SettleAnswer, Waiting};
use durable::Pending;

/// Inputs taken in one turn before the log and the effects have theirs.
const TURN_INPUTS_MAX: usize = 4_096;
/// A turn of at most so many inputs leaves time to wait for the sync of what it appended.
const QUIET_INPUTS_MAX: usize = 4;
/// The longest sleep: a checkpoint may be due.
const IDLE_MS: i64 = 1_000;
/// The longest sleep while the log has no mark yet of how far it is durable.
const MARK_MS: i64 = 50;

/// Everything that the owner thread owns.
pub(crate) struct Owner {
    pub(crate) core: Core,
    pub(crate) appender: Appender,
    pub(crate) reader: Reader,
    pub(crate) inputs: Receiver<Input>,
    pub(crate) credits: Credits,
    pub(crate) workers: Workers,
    pub(crate) retention: Retention,
    pub(crate) components: Arc<Components>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) shards: u32,
    pub(crate) log_epoch: u32,
    pub(crate) state: State,
}

/// What is under way.
#[derive(Default)]
pub(crate) struct State {
    effects: Effects,
    /// Appended and not yet durable, by position.
    pending: VecDeque<(LogPosition, Pending)>,
    /// Publishes that found the ring full, in order.
    backlog: VecDeque<PublishInput>,
    /// Journal entries of this turn, per shard.
    journal: BTreeMap<ShardId, Vec<(JournalEntry, Option<RequestToken>)>>,
    dead_letters: VecDeque<DeadLetter>,
    trims: trims::Trimming,
    subscriptions: HashMap<SubscriptionId, Arc<dyn DeliverySink>>,
    waiters: HashMap<WaiterId, Waiting>,
    settles: HashMap<RequestToken, SettleAnswer>,
    in_flight: publish::InFlight,
    outcomes: publish::Outcomes,
    next_number: u64,
    producers: u32,
    dirty: Vec<bool>,
    stopping: bool,
}

/// The store's index as the broker asks for it.
pub(crate) struct Bounds<'a>(pub(crate) &'a Reader);

impl QueueBounds for Bounds<'_> {
    fn bounds(&self, queue: QueueId) -> (Offset, Offset) {
        let bounds = self.0.bounds(queue);
        (bounds.start, bounds.next)
    }

    fn bytes(&self, queue: QueueId) -> u64 {
        self.0.bounds(queue).bytes
    }
}

impl State {
    /// Nothing is, and no shard is in a snapshot yet.
    pub(crate) fn new(shards: u32) -> Self {
        Self {
            dirty: vec![true; shards as usize],
            ..Self::default()
        }
    }
}

impl Owner {
    /// Runs until told to stop, or until the last way to it is gone.
    pub(crate) fn run(mut self) {
        self.appender.flush_by_hand();
        while !self.state.stopping {
            self.look_at_clock();
            let now = self.clock.now();
            let Some(inputs) = self.take_inputs(now) else {
                self.turn(false);
                break;
            };
            self.turn(inputs <= QUIET_INPUTS_MAX);
        }
        self.finish();
    }

    /// One turn with what has arrived, without waiting: for who drives the owner by hand.
    pub(crate) fn step(&mut self) {
        self.look_at_clock();
        for _ in 0..TURN_INPUTS_MAX {
            match self.inputs.try_recv() {
                Ok(input) => self.input(input),
                Err(_) => break,
            }
        }
        self.turn(false);
    }

    /// Whether something waits to be logged, or to become durable.
    pub(crate) fn is_waiting(&self) -> bool {
        let state = &self.state;
        !state.pending.is_empty() || !state.trims.is_empty()
    }

    /// Waits for the first input, then takes what else has arrived. How many; `None` if nobody can
    /// send.
    fn take_inputs(&mut self, now: Timestamp) -> Option<usize> {
        let wait = self
            .idle_until(now)
            .0
            .saturating_sub(now.0)
            .clamp(0, IDLE_MS);
        let wait = Duration::from_millis(u64::try_from(wait).expect("clamped"));
        match self.inputs.recv_timeout(wait) {
            Ok(input) => self.input(input),
            Err(RecvTimeoutError::Timeout) => return Some(0),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        for taken in 1..TURN_INPUTS_MAX {
            match self.inputs.try_recv() {
                Ok(input) => self.input(input),
                Err(_) => return Some(taken),
            }
        }
        Some(TURN_INPUTS_MAX)
    }

    /// Between two of these the log's time goes on by itself, so the broker sees no leap.
    fn look_at_clock(&mut self) {
        if let Some(by_ms) = self.clock.look() {
            self.core.set_ahead(by_ms);
        }
    }

    fn idle_until(&self, now: Timestamp) -> Timestamp {
        let idle = now.plus_ms(if self.appender.needs_tick() {
            MARK_MS
        } else {
            IDLE_MS
        });
        self.core
            .next_deadline()
            .map_or(idle, |deadline| deadline.min(idle))
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Publish(input) => self.publish_in_turn(input),
            Input::Subscribe {
                request,
                sink,
                answer,
                admitted,
            } => {
                self.subscribe(request, sink, answer);
                drop(admitted);
            }
            Input::Credit(subscription) => self.credit(subscription),
            Input::EndProducer(ended) => self.core.end_producer(&ended),
            Input::Unsubscribe(subscription) => self.unsubscribe(subscription),
            Input::Settle {
                request,
                ticket,
                sink,
                admitted,
            } => {
                self.settle(
                    &request,
                    SettleAnswer::Sink {
                        ticket,
                        sink,
                        _admitted: admitted,
                    },
                );
            }
            Input::Call {
                request,
                deploy,
                answer,
                admitted,
            } => {
                self.call(request, deploy, answer, admitted);
            }
            Input::Look {
                request,
                facts,
                answer,
                admitted,
            } => {
                // Whoever went away doesn't hear it.
                let _ = answer.send(self.look(&request, facts.as_ref()));
                drop(admitted);
            }
            Input::Unclaimed(digest) => self.unclaimed(digest),
            Input::Register {
                public_key,
                by,
                answer,
                admitted,
            } => {
                self.register(public_key, by, answer);
                drop(admitted);
            }
            Input::Invite {
                request,
                token,
                answer,
                admitted,
            } => {
                self.invite(request, token, answer);
                drop(admitted);
            }
            Input::Fetched(token, fetched) => {
                let now = self.clock.now();
                self.core
                    .fetched(now, token, fetched, &mut self.state.effects);
            }
            Input::Gone(gone) => {
                let now = self.clock.now();
                self.core.gone(now, &gone, &mut self.state.effects);
            }
            Input::Refund {
                to,
                messages,
                bytes,
            } => {
                let now = self.clock.now();
                let effects = &mut self.state.effects;
                self.core.refund(now, to, messages, bytes, effects);
            }
            Input::Read(waiter, delivery) => self.waiter_read(waiter, delivery),
            Input::Retention(ask) => self.retention_asks(ask),
            Input::Durable => {}
            Input::Stop => self.state.stopping = true,
        }
    }

    /// What a turn does after its inputs. After few of them it may wait for a sync itself.
    fn turn(&mut self, may_wait: bool) {
        let now = self.clock.now();
        self.complete_durable();
        self.publish_backlog();
        if self
            .core
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.core.tick(now, &mut self.state.effects);
        }
        self.carry_out_effects();
        self.append_rest();
        self.appender.tick(now);
        self.send_outcomes();
        if self.appender.flush(may_wait) {
            self.complete_durable();
            self.carry_out_effects();
            self.append_rest();
            self.appender.flush(false);
        }
        // Who looks at readiness may send no publish that could find it out.
        if self.shared.health().disk_full && !self.appender.is_out_of_space() {
            self.shared.set_disk_full(false);
        }
        let remembered = i64::try_from(self.core.remembered_producers());
        self.metrics
            .remembered_producers
            .set(remembered.unwrap_or(i64::MAX));
        self.send_outcomes();
        self.checkpoint_if_due(now);
    }

    /// Appends what inputs and effects left to be logged.
    fn append_rest(&mut self) {
        self.append_journal();
        self.append_dead_letters();
        self.append_trims();
    }

    /// The last turn: nothing new is taken, what is logged becomes durable and is answered.
    fn finish(mut self) {
        while !self.state.pending.is_empty() && !self.shared.health().log_fenced {
            // The flush thread wakes the owner; other inputs are dropped, and with them answered.
            drop(
                self.inputs
                    .recv_timeout(Duration::from_millis(IDLE_MS.unsigned_abs())),
            );
            self.complete_durable();
            self.carry_out_effects();
            self.append_journal();
            self.appender.flush(false);
        }
        self.send_outcomes();
        self.checkpoint_now();
        let Self {
            workers,
            appender,
            inputs,
            retention,
            state,
            ..
        } = self;
        // Workers may still send: their last words go nowhere.
        drop(inputs);
        drop(state);
        retention.stop();
        workers.stop();
        drop(appender);
    }

    /// A number never given before in the life of the process.
    fn number(&mut self) -> u64 {
        self.state.next_number += 1;
        self.state.next_number
    }

    /// A producer id never given before: the log's epoch is raised durably at each start.
    fn fresh_producer(&mut self) -> ProducerId {
        self.state.producers += 1;
        ProducerId(u64::from(self.log_epoch) << 32 | u64::from(self.state.producers))
    }

    fn fenced(&mut self, fenced: &tidegate_store::Fenced) {
        if self.shared.set_log_fenced() {
            tracing::error!(%fenced, "the log takes nothing more");
        }
    }
}
