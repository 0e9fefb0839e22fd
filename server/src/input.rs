//! What reaches the owner thread, and the bound on what may wait there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use tidegate_broker::effects::{Fetched, Gone, Member};
use tidegate_broker::id::{FetchToken, WaiterId};
use tidegate_broker::reply::Delivery;
use tidegate_broker::request::{EndProducer, InviteClient, Publish, Settle, Subscribe};
use tidegate_broker::{PluginFacts, Principal, Refusal, Reply, Request};
use tidegate_model::{Name, Timestamp, code};
use tidegate_runtime::PluginDigest;
use tidegate_session::{DeliverySink, PublishSink, SettleSink, SubscriptionId, Ticket};
use tokio::sync::oneshot;

use crate::components::Claim;
use crate::retention::Ask;
use crate::validate::Facts;

/// Requests of clients that may wait for the owner at a time.
pub const REQUESTS_WAITING_MAX: usize = 65_536;
/// Bytes of sections that may wait for the owner or the disk at a time.
pub const BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;

/// How a request is answered.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// One thing for the owner to do. What clients ask holds an [`Admitted`]; everything else is bounded
/// by what the owner itself has asked for.
pub(crate) enum Input {
    Publish(PublishInput),
    EndProducer(EndProducer),
    Subscribe {
        request: Subscribe,
        sink: Arc<dyn DeliverySink>,
        answer: Answer<SubscriptionId>,
        admitted: Admitted,
    },
    /// There is credit for it in the [`Credits`].
    Credit(SubscriptionId),
    Unsubscribe(SubscriptionId),
    Settle {
        request: Settle,
        ticket: Ticket,
        sink: Arc<dyn SettleSink>,
        admitted: Admitted,
    },
    Call {
        request: Request,
        deploy: Option<Deploying>,
        answer: Answer<Reply>,
        admitted: Admitted,
    },
    /// Whether a request would be carried out now. Nothing is done.
    Look {
        request: Request,
        /// With a deploy.
        facts: Option<PluginFacts>,
        answer: Answer<Looked>,
        admitted: Admitted,
    },
    /// No deploy of this component is under way any more.
    Unclaimed(PluginDigest),
    Register {
        public_key: [u8; 32],
        by: Token,
        answer: Answer<Principal>,
        admitted: Admitted,
    },
    Invite {
        request: InviteClient,
        /// SHA-256 of the token.
        token: [u8; 32],
        /// Until when the token is good.
        answer: Answer<Timestamp>,
        admitted: Admitted,
    },
    /// A worker looked into a queue.
    Fetched(FetchToken, Fetched),
    /// Granted messages are gone: compaction has taken them.
    Gone(Gone),
    /// Credit that a grant took beyond what was sent.
    Refund {
        to: Member,
        messages: u64,
        bytes: i64,
    },
    /// A worker has read what was granted to a long poll; `None` where it could not be read.
    Read(WaiterId, Option<Delivery>),
    /// Retention wants to know something, or has found something.
    Retention(Ask),
    /// The log became durable further on, or failed.
    Durable,
    /// Write a last checkpoint and end.
    Stop,
}

/// What lets a new key in.
pub(crate) enum Token {
    /// The root token, which was taken; the client gave this name.
    Root(Name),
    /// An invitation's, by its SHA-256.
    Invitation([u8; 32]),
}

/// What comes with a deploy whose component is compiled and kept.
pub(crate) struct Deploying {
    pub(crate) facts: PluginFacts,
    /// Keeps the component's files until the request is answered.
    pub(crate) claim: Arc<Claim>,
}

/// What a look at a request found.
pub(crate) enum Looked {
    /// It asks for what is there already.
    Done(Reply),
    /// It would be carried out. The components of its bindings, in their order.
    Free(Vec<PluginDigest>),
}

pub(crate) struct PublishInput {
    pub(crate) publish: Publish,
    pub(crate) facts: Facts,
    pub(crate) ticket: Ticket,
    pub(crate) sink: Arc<dyn PublishSink>,
    pub(crate) admitted: Admitted,
}

/// Credit that the owner has not taken yet, by subscription. Clones share it.
///
/// However often a client grants some, one input per subscription waits for the owner.
#[derive(Clone, Default)]
pub(crate) struct Credits(Arc<Mutex<HashMap<SubscriptionId, Credit>>>);

/// What may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Credits {
    /// Adds to what waits for a subscription; whether nothing did.
    fn add(&self, subscription: SubscriptionId, messages: u32, bytes: u32) -> bool {
        let mut waiting = self.0.lock().expect("no holder of this lock panics");
        let is_first = !waiting.contains_key(&subscription);
        let credit = waiting.entry(subscription).or_default();
        credit.messages = credit.messages.saturating_add(messages.into());
        credit.bytes = credit.bytes.saturating_add(bytes.into());
        is_first
    }

    /// Takes what waits for a subscription.
    pub(crate) fn take(&self, subscription: SubscriptionId) -> Credit {
        let mut waiting = self.0.lock().expect("no holder of this lock panics");
        waiting.remove(&subscription).unwrap_or_default()
    }
}

/// The way to the owner.
#[derive(Clone)]
pub(crate) struct Inputs {
    sender: Sender<Input>,
    credits: Credits,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Room taken by one request until it is answered.
pub(crate) struct Admitted {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Inputs {
    pub(crate) fn new(sender: Sender<Input>) -> Self {
        Self {
            sender,
            credits: Credits::default(),
            waiting: Arc::default(),
        }
    }

    /// Takes room for a request with this many bytes of sections.
    ///
    /// # Errors
    /// `OVERLOADED` if there is none.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Admitted, Refusal> {
        let requests = self.waiting.requests.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admitted = Admitted {
            waiting: Arc::clone(&self.waiting),
            bytes,
        };
        if requests >= REQUESTS_WAITING_MAX || waiting + bytes > BYTES_WAITING_MAX {
            return Err(Refusal::new(
                code::OVERLOADED,
                format!(
                    "{requests} requests and {waiting} bytes wait already, of at most {REQUESTS_WAITING_MAX} and {BYTES_WAITING_MAX}"
                ),
            ));
        }
        Ok(admitted)
    }

    /// Lets a subscription be sent more. Nothing is no credit.
    pub(crate) fn credit(&self, subscription: SubscriptionId, messages: u32, bytes: u32) {
        let is_something = messages > 0 || bytes > 0;
        if is_something && self.credits.add(subscription, messages, bytes) {
            self.send(Input::Credit(subscription));
        }
    }

    /// What the owner takes credit from.
    pub(crate) fn credits(&self) -> Credits {
        self.credits.clone()
    }

    /// Hands over. A server that has stopped drops it, and with it every answer channel inside.
    pub(crate) fn send(&self, input: Input) {
        let _ = self.sender.send(input);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.waiting.requests.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a client is told when the server goes away before it answers.
pub(crate) fn stopped() -> Refusal {
    Refusal::new(code::SHUTTING_DOWN, "the server stopped before it answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_input_waits_however_often_credit_is_granted() {
        let (sender, received) = std::sync::mpsc::channel();
        let inputs = Inputs::new(sender);
        let (one, other) = (SubscriptionId(1), SubscriptionId(2));
        for _ in 0..10_000 {
            inputs.credit(one, 0, 0);
            inputs.credit(other, 1, 3);
        }
        let waiting: Vec<Input> = received.try_iter().collect();
        assert!(matches!(waiting[..], [Input::Credit(id)] if id == other));
        let credits = inputs.credits();
        let granted = Credit {
            messages: 10_000,
            bytes: 30_000,
        };
        assert_eq!(credits.take(other), granted);
        assert_eq!(credits.take(one), Credit::default());
        inputs.credit(other, 1, 0);
        assert_eq!(received.try_iter().count(), 1);
    }

    #[test]
    fn room_comes_back_when_a_request_is_answered() {
        let (sender, _receiver) = std::sync::mpsc::channel();
        let inputs = Inputs::new(sender);
        let all = inputs.admit(BYTES_WAITING_MAX).unwrap();
        assert_eq!(inputs.admit(1).err().unwrap().code, code::OVERLOADED);
        assert!(inputs.admit(0).is_ok());
        drop(all);
        assert!(inputs.admit(1).is_ok());
    }
}
