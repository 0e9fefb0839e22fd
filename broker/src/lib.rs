//! Messaging semantics without I/O: what a topic, a group, a view and a lease are.
//!
//! No clock, file, socket, thread or random number lives here; time comes in as an argument and
//! work goes out as effects. Front ends translate into [`Request`]; the server carries out effects.

pub mod authorize;
pub mod catalog;
pub mod core;
pub mod effects;
pub mod id;
pub mod journal;
pub mod limit;
pub mod principal;
pub mod publish;
pub mod range;
pub mod reference;
pub mod refusal;
pub mod reply;
pub mod request;

pub use self::core::{
    Core, DeadLetterTarget, Place, Plan, PluginFacts, QueueBounds, Resolved, Settings,
    SnapshotError,
};
pub use authorize::{Action, Resource, authorize};
pub use catalog::{Binding, Catalog, CatalogCommand};
pub use effects::{Effects, Fetch, Fetched, FetchedBatch, Grant, Member};
pub use id::{BindingId, CursorId, FetchToken, RequestToken, SourceId, SubscriptionId, WaiterId};
pub use journal::JournalEntry;
pub use principal::{Principal, Role};
pub use publish::{Admission, Appended};
pub use range::{Range, RangeSet};
pub use reference::{GroupRef, PluginRef, SourceRef, ViewRef};
pub use refusal::Refusal;
pub use reply::Reply;
pub use request::Request;
