//! What reaches the owner thread, and the bound on what may wait there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use tidegate_broker::effects::{Fetched, Gone, Member};
use tidegate_broker::id::{FetchToken, WaiterId};
use tidegate_broker::reply::Delivery;
use tidegate_broker::request::{EndProducer, Publish, Settle, Subscribe};
use tidegate_broker::{PluginFacts, Principal, Refusal, Reply, Request};
use tidegate_model::{Name, code};
use tidegate_session::{DeliverySink, PublishSink, SettleSink, SubscriptionId, Ticket};
use tokio::sync::oneshot;

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
    Credit {
        subscription: SubscriptionId,
        messages: u32,
        bytes: u32,
    },
    Unsubscribe(SubscriptionId),
    Settle {
        request: Settle,
        ticket: Ticket,
        sink: Arc<dyn SettleSink>,
        admitted: Admitted,
    },
    Call {
        request: Request,
        /// What compiling found out, for a deploy.
        facts: Option<PluginFacts>,
        answer: Answer<Reply>,
        admitted: Admitted,
    },
    Register {
        public_key: [u8; 32],
        name: Name,
        answer: Answer<Principal>,
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

pub(crate) struct PublishInput {
    pub(crate) publish: Publish,
    pub(crate) facts: Facts,
    pub(crate) ticket: Ticket,
    pub(crate) sink: Arc<dyn PublishSink>,
    pub(crate) admitted: Admitted,
}

/// The way to the owner.
#[derive(Clone)]
pub(crate) struct Inputs {
    sender: Sender<Input>,
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
