//! What a listener counts.

use tidegate_model::Code;

/// Something that happened on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer was turned away before its handshake: too many connections or handshakes.
    Refused,
    /// A peer was asked to show that it receives at its address.
    Retried,
    /// A handshake failed or took too long.
    HandshakeFailed,
    /// A handshake succeeded; [`Event::Closed`] follows.
    Connected,
    /// A connection proved who it is.
    Authenticated,
    /// A connection was turned away, or broke the protocol.
    TurnedAway(Code),
    /// A connection is over.
    Closed,
}

/// Where events go, to be counted. Called from network tasks: returns at once.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: Event);
}

/// Counts nothing.
impl Observer for () {
    fn event(&self, _: Event) {}
}
