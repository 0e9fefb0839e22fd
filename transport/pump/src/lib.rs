//! Moves bytes between a quinn connection and a session of `tidegate-wire`, at either end.
//!
//! One task per direction of a stream and one per connection; the session is behind a mutex that is
//! held for as long as one call into it takes. What waits in between is bounded by the session (it
//! says when to read) and by quinn's windows (they say when to write).

mod pump;
mod session;
mod signals;
mod stream;

pub use pump::{Handler, Pump};
pub use session::Session;
