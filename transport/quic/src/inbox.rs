//! What the broker's threads hand to a connection.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_broker::Refusal;
use tidegate_broker::reply::{Delivery, Published};
use tidegate_session::{
    DeliverySink, PublishSink, SettleOutcome, SettleSink, SubscriptionId, Ticket,
};
use tokio::sync::Notify;

/// An outcome or a delivery on its way to the session.
pub(crate) enum Item {
    Published(Ticket, Result<Published, Refusal>),
    Settled(Ticket, SettleOutcome),
    /// For the subscription with this number on the connection.
    Delivered(u32, Vec<Delivery>),
    Ended(u32, Refusal),
}

/// Gathers items until the connection takes them all at once. What it may hold is bounded by the
/// session: publishes and settlements in flight, and credit granted.
#[derive(Default)]
pub(crate) struct Inbox {
    items: Mutex<Vec<Item>>,
    filled: Notify,
}

impl Inbox {
    fn add(&self, items: impl IntoIterator<Item = Item>) {
        self.items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(items);
        self.filled.notify_one();
    }

    /// Everything there is; waits for something.
    pub(crate) async fn take(&self) -> Vec<Item> {
        loop {
            let items =
                std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner));
            if !items.is_empty() {
                return items;
            }
            self.filled.notified().await;
        }
    }
}

impl PublishSink for Inbox {
    fn published(&self, outcomes: Vec<(Ticket, Result<Published, Refusal>)>) {
        self.add(
            outcomes
                .into_iter()
                .map(|(ticket, outcome)| Item::Published(ticket, outcome)),
        );
    }
}

impl SettleSink for Inbox {
    fn settled(&self, outcomes: Vec<(Ticket, SettleOutcome)>) {
        self.add(
            outcomes
                .into_iter()
                .map(|(ticket, outcome)| Item::Settled(ticket, outcome)),
        );
    }
}

/// The sink of one subscription.
pub(crate) struct SubscriptionInbox {
    pub(crate) subscription: u32,
    pub(crate) inbox: Arc<Inbox>,
}

impl DeliverySink for SubscriptionInbox {
    fn deliver(&self, _: SubscriptionId, runs: Vec<Delivery>) {
        self.inbox.add([Item::Delivered(self.subscription, runs)]);
    }

    fn ended(&self, _: SubscriptionId, why: Refusal) {
        self.inbox.add([Item::Ended(self.subscription, why)]);
    }
}
