//! The native protocol over QUIC: the server's front end.
//!
//! A [`Listener`] takes connections, finds out who they belong to and turns what they ask into the
//! broker's requests. Frames and what they mean for each other are the business of `tidegate-wire`,
//! moving bytes is that of `tidegate-pump`; here the session meets a
//! [`Service`](tidegate_session::Service).

mod listener;

mod connection;

mod inbox;
mod map;

mod config;
mod identity;
mod observer;

mod error;

pub use config::{MTU_MAX, MTU_MIN, QuicConfig};
pub use error::Error;
pub use identity::ServerIdentity;
pub use listener::Listener;
pub use observer::{Event, Observer};
