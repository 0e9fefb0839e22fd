//! Where everything lands that the node says unasked.

use std::sync::{Arc, Mutex};

use tidegate_broker::Refusal;
use tidegate_broker::reply::{Delivery, Published};
use tidegate_session::{
    DeliverySink, PublishSink, SettleOutcome, SettleSink, SubscriptionId, Ticket,
};

pub(super) type Slot<T> = Arc<Mutex<Vec<T>>>;

/// Where everything lands that the node says unasked.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) published: Slot<(Ticket, Result<Published, Refusal>)>,
    pub(super) settled: Slot<(Ticket, SettleOutcome)>,
    pub(super) delivered: Slot<(SubscriptionId, Delivery)>,
}

pub(super) struct Sink<T>(pub(super) Slot<T>);

impl PublishSink for Sink<(Ticket, Result<Published, Refusal>)> {
    fn published(&self, outcomes: Vec<(Ticket, Result<Published, Refusal>)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

impl SettleSink for Sink<(Ticket, SettleOutcome)> {
    fn settled(&self, outcomes: Vec<(Ticket, SettleOutcome)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

impl DeliverySink for Sink<(SubscriptionId, Delivery)> {
    fn deliver(&self, subscription: SubscriptionId, runs: Vec<Delivery>) {
        let runs = runs.into_iter().map(|run| (subscription, run));
        self.0.lock().unwrap().extend(runs);
    }

    fn ended(&self, _: SubscriptionId, _: Refusal) {}
}
