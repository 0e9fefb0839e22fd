//! What every front end needs and none owns: who asks, and whom to ask.
//!
//! A front end turns its protocol into [`tidegate_broker::Request`]s and hands them to a
//! [`Service`]; the server implements it once for all of them. Until it knows who asks, [`Places`]
//! bound how many may.

mod places;
mod service;

pub use places::{Place, Places, Taken};
pub use service::{
    BoxFuture, Credentials, DeliverySink, Login, PublishSink, Service, SettleOutcome, SettleSink,
    SubscriptionId, Ticket,
};
pub use tidegate_broker::{Principal, Refusal, Reply, Request};
