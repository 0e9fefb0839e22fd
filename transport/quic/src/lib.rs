//! The native protocol over QUIC: the server's front end.
//!
//! A [`Listener`] takes connections, finds out who they belong to and turns what they ask into the
//! broker's requests. Frames and what they mean for each other are the business of `tidegate-wire`,
//! moving bytes is that of `tidegate-pump`; here the session meets a
//! [`Service`](tidegate_session::Service).

// Connections, and what becomes of what they say.
mod connection;
mod inbox;
mod listener;
mod map;

// What a listener is given and tells.
mod config;
mod error;
mod identity;
mod observer;

pub use config::{MTU_MAX, MTU_MIN, QuicConfig};
pub use error::Error;
pub use identity::ServerIdentity;
pub use listener::Listener;
pub use observer::{Event, Observer};
