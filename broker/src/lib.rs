//! Messaging semantics without I/O: what a topic, a group, a view and a lease are.
//!
//! No clock, file, socket, thread or random number lives here; time comes in as an argument and
//! work goes out as effects. Front ends translate into [`Request`]; the server carries out effects.

pub mod authorize;
pub mod principal;
pub mod reference;
pub mod refusal;
pub mod reply;
pub mod request;

pub use authorize::{Action, Resource, authorize};
pub use principal::{Principal, Role};
pub use reference::{GroupRef, PluginRef, SourceRef, ViewRef};
pub use refusal::Refusal;
pub use reply::Reply;
pub use request::Request;
