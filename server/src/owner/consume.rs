//! Subscriptions, long polls, settlements.

use std::sync::Arc;

use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::effects::WaiterDone;
use tidegate_broker::id::{RequestToken, WaiterId};
use tidegate_broker::reply::{Delivery, Reply};
use tidegate_broker::request::{Receive, ResetGroup, Settle, StartAt, Subscribe};
use tidegate_broker::{GroupRef, Refusal, SourceRef};
use tidegate_model::{Code, Offset, QueueId, code};
use tidegate_session::{DeliverySink, SettleSink, SubscriptionId, Ticket};

use super::Owner;
use super::admin::Then;
use crate::input::{Admitted, Answer, Credit};

/// A long poll that isn't answered yet.
pub(super) struct Waiting {
    answer: Answer<Reply>,
    _admitted: Admitted,
    deliveries: Vec<Delivery>,
    /// Grants that a worker still reads.
    pub(super) reading: usize,
    done: bool,
}

/// Where the outcome of a settle or reset goes.
pub(super) enum SettleAnswer {
    Sink {
        ticket: Ticket,
        sink: Arc<dyn SettleSink>,
        _admitted: Admitted,
    },
    Call {
        answer: Answer<Reply>,
        _admitted: Admitted,
    },
}

impl SettleAnswer {
    fn settled(self, outcome: Result<Vec<Result<(), Code>>, Refusal>) {
        match self {
            Self::Sink { ticket, sink, .. } => sink.settled(vec![(ticket, outcome)]),
            // The caller may have gone away.
            Self::Call { answer, .. } => drop(answer.send(outcome.map(Reply::Settled))),
        }
    }

    fn reply(self, reply: Reply) {
        match self {
            Self::Call { answer, .. } => drop(answer.send(Ok(reply))),
            Self::Sink { .. } => unreachable!("resets come as calls"),
        }
    }
}

impl Owner {
    pub(super) fn subscribe(
        &mut self,
        request: Subscribe,
        sink: Arc<dyn DeliverySink>,
        answer: Answer<SubscriptionId>,
    ) {
        match self.cursor_command(&request.group, &request.source, request.start) {
            Ok(None) => self.start_subscription(request, sink, answer),
            Ok(Some(command)) => {
                let then = Then::Subscribe {
                    request,
                    sink,
                    answer,
                };
                self.append_catalog(command, then);
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }

    pub(super) fn start_subscription(
        &mut self,
        request: Subscribe,
        sink: Arc<dyn DeliverySink>,
        answer: Answer<SubscriptionId>,
    ) {
        let id = self.number();
        let now = self.clock.now();
        let subscription = tidegate_broker::id::SubscriptionId(id);
        let started = self
            .core
            .subscribe(now, subscription, &request, &mut self.state.effects);
        let outcome = started.map(|()| {
            self.state.subscriptions.insert(SubscriptionId(id), sink);
            SubscriptionId(id)
        });
        if let Err(Ok(unheard)) = answer.send(outcome) {
            self.unsubscribe(unheard);
        }
    }

    pub(super) fn credit(&mut self, id: SubscriptionId) {
        let Credit { messages, bytes } = self.credits.take(id);
        let now = self.clock.now();
        self.core.credit(
            now,
            tidegate_broker::id::SubscriptionId(id.0),
            messages,
            bytes,
            &mut self.state.effects,
        );
    }

    pub(super) fn unsubscribe(&mut self, id: SubscriptionId) {
        self.state.subscriptions.remove(&id);
        self.core
            .unsubscribe(tidegate_broker::id::SubscriptionId(id.0));
    }

    pub(super) fn receive(&mut self, request: Receive, answer: Answer<Reply>, admitted: Admitted) {
        match self.cursor_command(&request.group, &request.source, request.start) {
            Ok(None) => self.start_receive(&request, answer, admitted),
            Ok(Some(command)) => {
                self.append_catalog(
                    command,
                    Then::Receive {
                        request,
                        answer,
                        admitted,
                    },
                );
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }

    pub(super) fn start_receive(
        &mut self,
        request: &Receive,
        answer: Answer<Reply>,
        admitted: Admitted,
    ) {
        let waiter = WaiterId(self.number());
        let now = self.clock.now();
        let waiting = Waiting {
            answer,
            _admitted: admitted,
            deliveries: Vec::new(),
            reading: 0,
            done: false,
        };
        self.state.waiters.insert(waiter, waiting);
        let started = self
            .core
            .receive(now, waiter, request, &mut self.state.effects);
        if let Err(refusal) = started
            && let Some(waiting) = self.state.waiters.remove(&waiter)
        {
            drop(waiting.answer.send(Err(refusal)));
        }
    }

    pub(super) fn waiter_done(&mut self, done: WaiterDone) {
        let Some(mut waiting) = self.state.waiters.remove(&done.waiter) else {
            return;
        };
        match done.outcome {
            Err(refusal) => drop(waiting.answer.send(Err(refusal))),
            Ok(()) => {
                waiting.done = true;
                self.answer_or_keep(done.waiter, waiting);
            }
        }
    }

    pub(super) fn waiter_read(&mut self, waiter: WaiterId, delivery: Option<Delivery>) {
        let Some(mut waiting) = self.state.waiters.remove(&waiter) else {
            return;
        };
        waiting.reading -= 1;
        waiting.deliveries.extend(delivery);
        self.answer_or_keep(waiter, waiting);
    }

    fn answer_or_keep(&mut self, waiter: WaiterId, waiting: Waiting) {
        if waiting.done && waiting.reading == 0 {
            // Whoever went away lets its leases lapse.
            drop(waiting.answer.send(Ok(Reply::Received(waiting.deliveries))));
        } else {
            self.state.waiters.insert(waiter, waiting);
        }
    }

    pub(super) fn settle(&mut self, request: &Settle, answer: SettleAnswer) {
        let token = RequestToken(self.number());
        if let Err(refusal) = self.start_settle(token, request) {
            self.metrics.refused(refusal.code);
            answer.settled(Err(refusal));
        } else {
            self.metrics.settled_runs.inc_by(request.runs.len() as u64);
            self.state.settles.insert(token, answer);
        }
    }

    fn start_settle(&mut self, token: RequestToken, request: &Settle) -> Result<(), Refusal> {
        let cursor = self
            .core
            .cursor(&request.group, &request.source)?
            .ok_or_else(|| {
                Refusal::new(
                    code::SUBSCRIPTION_NOT_FOUND,
                    format!(
                        "group {} has never consumed {}",
                        request.group, request.source
                    ),
                )
            })?;
        if let Some(forged) = request
            .runs
            .iter()
            .find(|run| !self.receipts.is_genuine(cursor, &run.receipt))
        {
            return Err(Refusal::new(
                code::LEASE_INVALID,
                format!(
                    "the receipt for offset {} of queue {} was not given to group {} for {}",
                    forged.receipt.base_offset, forged.receipt.queue, request.group, request.source
                ),
            ));
        }
        let now = self.clock.now();
        self.core
            .settle(now, token, request, &mut self.state.effects)
    }

    pub(super) fn settled(&mut self, token: RequestToken, results: Vec<Result<(), Code>>) {
        if let Some(answer) = self.state.settles.remove(&token) {
            answer.settled(Ok(results));
        }
    }

    pub(super) fn settle_lost(&mut self, token: RequestToken, refusal: &Refusal) {
        if let Some(answer) = self.state.settles.remove(&token) {
            answer.settled(Err(refusal.clone()));
        }
    }

    pub(super) fn reset(&mut self, request: &ResetGroup, answer: SettleAnswer) {
        let token = RequestToken(self.number());
        let now = self.clock.now();
        let outcome = self.starts(&request.source, request.to).and_then(|to| {
            self.core
                .reset(now, token, request, &to, &mut self.state.effects)
        });
        match outcome {
            Ok(()) => {
                self.state.settles.insert(token, answer);
            }
            Err(refusal) => answer.settled(Err(refusal)),
        }
    }

    pub(super) fn reset_done(&mut self, token: RequestToken, reply: Reply) {
        if let Some(answer) = self.state.settles.remove(&token) {
            answer.reply(reply);
        }
    }

    /// What must be logged before a group can consume a source for the first time.
    fn cursor_command(
        &self,
        group: &GroupRef,
        source: &SourceRef,
        start: StartAt,
    ) -> Result<Option<CatalogCommand>, Refusal> {
        if self.core.cursor(group, source)?.is_some() {
            return Ok(None);
        }
        let starts = self.starts(source, start)?;
        Ok(Some(CatalogCommand::OpenCursor {
            group: group.clone(),
            source: source.clone(),
            starts,
        }))
    }

    /// The offset at which each queue of a source begins.
    fn starts(
        &self,
        source: &SourceRef,
        start: StartAt,
    ) -> Result<Vec<(QueueId, Offset)>, Refusal> {
        self.core
            .resolve(source)?
            .queues
            .iter()
            .map(|place| Ok((place.queue, self.start(place.queue, start)?)))
            .collect()
    }

    /// Where `start` lies in a queue, within what the queue holds.
    pub(super) fn start(&self, queue: QueueId, start: StartAt) -> Result<Offset, Refusal> {
        let bounds = self.reader.bounds(queue);
        Ok(match start {
            StartAt::Earliest => bounds.start,
            StartAt::Latest => bounds.next,
            StartAt::Offset(offset) => offset.clamp(bounds.start, bounds.next),
            StartAt::Time(time) => self
                .reader
                .offset_at(queue, time)
                .map_err(|error| Refusal::new(code::DATA_CORRUPT, error.to_string()))?,
        })
    }
}
