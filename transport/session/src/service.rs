//! The broker as front ends see it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tidegate_broker::reply::{Delivery, Published};
use tidegate_broker::request::{EndProducer, Publish, Settle, Subscribe};
use tidegate_broker::{Principal, Refusal, Reply, Request};
use tidegate_model::{Code, Name};

/// A future that can cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Number that a connection gives to what it awaits; unique on that connection, meaningless outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A live subscription; unique on the server until it restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u64);

/// How a client proves who it is: an Ed25519 signature over keying material that TLS exports for
/// this connection alone (RFC 8446 section 7.5), so that it can't be replayed on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The client's public key, 32 bytes.
    pub public_key: [u8; 32],
    /// Signature over `exporter`.
    pub signature: [u8; 64],
    /// What TLS exported on the server's side, with the label of the protocol.
    pub exporter: [u8; 32],
}

/// Exchanges a one-time token for a registered key.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The root token as a start printed it, or that of an invitation.
    pub token: String,
    /// How the client wants to be known; an invitation has a name of its own.
    pub name: Name,
    /// Key and proof that the client holds it.
    pub credentials: Credentials,
}

impl fmt::Debug for Login {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Where the outcomes of pipelined publishes go. Called in batches, from the broker's thread:
/// implementations hand over and return at once.
pub trait PublishSink: Send + Sync {
    /// Outcomes in the order of completion.
    fn published(&self, outcomes: Vec<(Ticket, Result<Published, Refusal>)>);
}

/// Where pushed messages go. Called from the broker's threads: implementations hand over and return
/// at once; what they may hold is bounded by the credit they granted.
pub trait DeliverySink: Send + Sync {
    /// Lease runs within the credit granted.
    fn deliver(&self, subscription: SubscriptionId, runs: Vec<Delivery>);
    /// The subscription is over; nothing follows.
    fn ended(&self, subscription: SubscriptionId, why: Refusal);
}

/// The outcome of a settlement: one result per run, or why all of it was refused.
pub type SettleOutcome = Result<Vec<Result<(), Code>>, Refusal>;

/// Where the outcomes of pipelined settlements go, like [`PublishSink`].
pub trait SettleSink: Send + Sync {
    /// For each ticket one result per run of its [`Settle`], durable when told.
    fn settled(&self, outcomes: Vec<(Ticket, SettleOutcome)>);
}

/// The broker, with authorization in front of everything that takes a [`Principal`].
pub trait Service: Send + Sync + 'static {
    /// Finds out who a connection belongs to.
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Principal, Refusal>>;

    /// Registers a client key against a one-time token.
    fn login(&self, login: Login) -> BoxFuture<'_, Result<Principal, Refusal>>;

    /// Waits until a key that was let in is so no more, and says why: whoever is connected under it must
    /// go at once. From then on every request of its principal is refused.
    fn revoked(&self, public_key: &[u8; 32]) -> BoxFuture<'static, Refusal>;

    /// Carries out one request. Publish, subscribe and settle have pipelined ways of their own below;
    /// through here they work one at a time (subscribe is refused).
    fn call(
        &self,
        principal: &Principal,
        request: Request,
    ) -> BoxFuture<'static, Result<Reply, Refusal>>;

    /// Publishes one batch; its outcome reaches `sink` under `ticket`, also when it is refused.
    fn publish(
        &self,
        principal: &Principal,
        publish: Publish,
        ticket: Ticket,
        sink: &Arc<dyn PublishSink>,
    );

    /// A producer has ended: its client sends nothing again under its id, so nothing need be remembered
    /// of it.
    fn end_producer(&self, ended: EndProducer);

    /// Starts pushing messages to `sink`, none before credit is granted.
    fn subscribe(
        &self,
        principal: &Principal,
        subscribe: Subscribe,
        sink: Arc<dyn DeliverySink>,
    ) -> BoxFuture<'static, Result<SubscriptionId, Refusal>>;

    /// Adds to what may be sent. A message of any size goes out while both are above zero.
    fn credit(&self, subscription: SubscriptionId, messages: u32, bytes: u32);

    /// Ends a subscription. Its leases run on until settled or lapsed: another connection of the
    /// same client may still acknowledge them.
    fn unsubscribe(&self, subscription: SubscriptionId);

    /// Settles leases; the outcome reaches `sink` under `ticket` when it is durable.
    fn settle(
        &self,
        principal: &Principal,
        settle: Settle,
        ticket: Ticket,
        sink: &Arc<dyn SettleSink>,
    );
}
