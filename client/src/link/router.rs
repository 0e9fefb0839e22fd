//! From a session's events to whoever waits for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_model::code;
use tidegate_pump::{Handler, Pump};
use tidegate_wire::proto::Welcome;
use tidegate_wire::{ClientEvent, ClientSession, Refusal, StreamId};
use tokio::sync::oneshot;

use super::Answer;
use crate::consumer::Member;
use crate::producer::Outbox;

/// Who waits for what on one connection.
///
/// Its lock is taken while the session is locked, never the other way round; the same holds for the
/// locks of outboxes and members.
#[derive(Default)]
pub(crate) struct Router {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    welcome: Option<oneshot::Sender<Result<Welcome, Refusal>>>,
    answers: HashMap<StreamId, oneshot::Sender<Result<Answer, Refusal>>>,
    producers: HashMap<StreamId, Arc<Outbox>>,
    members: HashMap<u32, Arc<Member>>,
    settles: HashMap<u64, Arc<Member>>,
}

impl Router {
    /// A router whose first event is the server's answer to the hello.
    pub(super) fn new(welcome: oneshot::Sender<Result<Welcome, Refusal>>) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                welcome: Some(welcome),
                ..Waiting::default()
            }),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect_answer(
        &self,
        stream: StreamId,
        sender: oneshot::Sender<Result<Answer, Refusal>>,
    ) {
        self.waiting().answers.insert(stream, sender);
    }

    /// Whether an answer was still expected.
    pub(super) fn forget_answer(&self, stream: StreamId) -> bool {
        self.waiting().answers.remove(&stream).is_some()
    }

    pub(crate) fn add_producer(&self, stream: StreamId, outbox: &Arc<Outbox>) {
        self.waiting().producers.insert(stream, Arc::clone(outbox));
    }

    pub(crate) fn add_member(&self, subscription: u32, member: &Arc<Member>) {
        self.waiting()
            .members
            .insert(subscription, Arc::clone(member));
    }

    pub(crate) fn add_settle(&self, ticket: u64, member: &Arc<Member>) {
        self.waiting().settles.insert(ticket, Arc::clone(member));
    }

    fn greet(&self, answer: Result<Welcome, Refusal>) {
        let welcome = self.waiting().welcome.take();
        if let Some(sender) = welcome {
            // Nobody waits for it any more: the connection ends by itself.
            let _ = sender.send(answer);
        }
    }

    fn answer(&self, stream: StreamId, answer: Result<Answer, Refusal>) {
        let sender = self.waiting().answers.remove(&stream);
        if let Some(sender) = sender {
            // Who asked has gone since; the answer is nobody's.
            let _ = sender.send(answer);
        }
    }

    fn producer(&self, stream: StreamId) -> Option<Arc<Outbox>> {
        self.waiting().producers.get(&stream).cloned()
    }

    fn member(&self, subscription: u32) -> Option<Arc<Member>> {
        self.waiting().members.get(&subscription).cloned()
    }

    fn route(&self, event: ClientEvent) {
        match event {
            ClientEvent::Welcome(welcome) => self.greet(Ok(welcome)),
            ClientEvent::Refused(refusal) => self.greet(Err(refusal)),
            ClientEvent::Subscribed { subscription } => {
                if let Some(member) = self.member(subscription) {
                    member.subscribed(subscription);
                }
            }
            ClientEvent::Ended {
                subscription,
                refusal,
            } => {
                let member = self.waiting().members.remove(&subscription);
                if let Some(member) = member {
                    let why = refusal.unwrap_or_else(|| {
                        Refusal::new(code::CANCELLED, "the subscription was ended")
                    });
                    member.ended(subscription, why);
                }
            }
            ClientEvent::Delivery {
                subscription,
                delivery,
            } => {
                if let Some(member) = self.member(subscription) {
                    member.delivered(delivery);
                }
            }
            ClientEvent::Settled { ticket, outcome } => {
                let member = self.waiting().settles.remove(&ticket);
                if let Some(member) = member {
                    member.settled(ticket, outcome);
                }
            }
            ClientEvent::ProducerOpened { stream, opened } => {
                if let Some(outbox) = self.producer(stream) {
                    outbox.opened(stream, &opened);
                }
            }
            ClientEvent::ProducerClosed { stream, refusal } => {
                let outbox = self.waiting().producers.remove(&stream);
                if let Some(outbox) = outbox {
                    outbox.closed(stream, refusal);
                }
            }
            ClientEvent::Published { stream, outcomes } => {
                if let Some(outbox) = self.producer(stream) {
                    outbox.published(&outcomes);
                }
            }
            ClientEvent::PublishRefused {
                stream,
                ticket,
                refusal,
            } => {
                if let Some(outbox) = self.producer(stream) {
                    outbox.refused(ticket, &refusal);
                }
            }
            ClientEvent::Replied {
                stream,
                reply,
                deliveries,
            } => self.answer(stream, Ok((reply, deliveries))),
            ClientEvent::RequestRefused { stream, refusal } => self.answer(stream, Err(refusal)),
            ClientEvent::GoAway { refusal, drain_ms } => {
                tracing::debug!(%refusal, drain_ms, "the server goes away");
            }
            ClientEvent::Throttle { refusal, retry_ms } => {
                tracing::debug!(%refusal, retry_ms, "the server reads more slowly");
            }
            ClientEvent::Pong { .. } => {}
            ClientEvent::Closing(refusal) => {
                tracing::warn!(%refusal, "leaving the server");
            }
        }
    }
}

/// A router, as the pump calls it.
pub(super) struct Events(pub(super) Arc<Router>);

impl Handler<ClientSession> for Events {
    fn handle(&self, _: &Pump<ClientSession>, _: &mut ClientSession, event: ClientEvent) {
        self.0.route(event);
    }

    fn transmitted(&self, stream: StreamId) {
        if let Some(outbox) = self.0.producer(stream) {
            outbox.wake();
        }
    }
}
