//! Messaging semantics without I/O: what a topic, a group, a view and a lease are.
//!
//! No clock, file, socket, thread or random number lives here; time comes in as an argument and
//! work goes out as effects. Front ends translate into [`Request`]; the server carries out effects.
//!
//! An owner drives one [`Core`]. What became durable goes to its `apply_` methods, in log order, at
//! replay as when live; from that alone the replicated state follows. Requests and deadlines go to
//! the other methods. Each call writes what is to be done into [`Effects`].

// What is asked, by whom, and what is answered.
pub mod authorize;
pub mod principal;
pub mod reference;
pub mod refusal;
pub mod reply;
pub mod request;
// The way in and the way out.
pub mod core;
pub mod effects;
pub mod id;
pub mod limit;
pub mod range;
// Replicated state.
pub mod catalog;
mod cursor;
pub mod journal;
pub mod publish;
mod shard;
// The leader's own.
mod delivery;

pub use self::core::{
    ConsumedPage, Core, DeadLetterTarget, Place, Plan, PluginFacts, QueueBounds, Resolved,
    RulesPage, Settings, SnapshotError, TopicRules,
};
pub use authorize::{Action, Resource, authorize};
pub use catalog::{Binding, Catalog, CatalogCommand};
pub use effects::{
    DeadLetter, DeadLetterReason, Effects, Failed, Fetch, Fetched, FetchedBatch, Gone, Grant,
    Journaled, Member, WaiterDone,
};
pub use id::{BindingId, CursorId, FetchToken, RequestToken, SourceId, SubscriptionId, WaiterId};
pub use journal::JournalEntry;
pub use principal::{Access, Principal};
pub use publish::{Admission, Appended};
pub use range::{Range, RangeSet};
pub use reference::{GroupRef, PluginRef, SourceRef, ViewRef};
pub use refusal::Refusal;
pub use reply::Reply;
pub use request::Request;
