//! What both ends' sessions have in common for whoever drives them.

use std::time::Duration;

use bytes::Bytes;
use tidegate_model::Code;
use tidegate_wire::{
    ClientEvent, ClientSession, Output, ServerEvent, ServerSession, StreamId, Transmit,
};

/// A session as a driver sees it; each method is the session's own of the same name.
#[expect(missing_docs, reason = "documented at the sessions")]
pub trait Session: Send + 'static {
    /// What it tells the application.
    type Event: Send;

    fn handle_opened(&mut self, now: Duration, stream: StreamId);
    fn handle_data(&mut self, now: Duration, stream: StreamId, chunk: Bytes);
    fn handle_finished(&mut self, now: Duration, stream: StreamId);
    fn handle_reset(&mut self, now: Duration, stream: StreamId, code: Code);
    fn handle_stopped(&mut self, now: Duration, stream: StreamId, code: Code);
    /// The carrier heard something of its peer since the last timeout.
    fn handle_carrier_heard(&mut self, now: Duration);
    fn handle_timeout(&mut self, now: Duration);
    fn poll_event(&mut self) -> Option<Self::Event>;
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_timeout(&self) -> Option<Duration>;
    fn transmit(&mut self, stream: StreamId) -> Option<Transmit>;
    fn wants_data(&self, stream: StreamId) -> bool;
    /// Whether all that was asked is answered, as far as this end can tell, and handed over.
    fn is_idle(&self) -> bool;
}

macro_rules! session {
    ($session:ty, $event:ty, $heard:expr, $idle:expr) => {
        impl Session for $session {
            type Event = $event;

            fn handle_opened(&mut self, now: Duration, stream: StreamId) {
                self.handle_opened(now, stream);
            }
            fn handle_data(&mut self, now: Duration, stream: StreamId, chunk: Bytes) {
                self.handle_data(now, stream, chunk);
            }
            fn handle_finished(&mut self, now: Duration, stream: StreamId) {
                self.handle_finished(now, stream);
            }
            fn handle_reset(&mut self, now: Duration, stream: StreamId, code: Code) {
                self.handle_reset(now, stream, code);
            }
            fn handle_stopped(&mut self, now: Duration, stream: StreamId, code: Code) {
                self.handle_stopped(now, stream, code);
            }
            fn handle_carrier_heard(&mut self, now: Duration) {
                $heard(self, now);
            }
            fn handle_timeout(&mut self, now: Duration) {
                self.handle_timeout(now);
            }
            fn poll_event(&mut self) -> Option<$event> {
                self.poll_event()
            }
            fn poll_output(&mut self) -> Option<Output> {
                self.poll_output()
            }
            fn poll_timeout(&self) -> Option<Duration> {
                self.poll_timeout()
            }
            fn transmit(&mut self, stream: StreamId) -> Option<Transmit> {
                self.transmit(stream)
            }
            fn wants_data(&self, stream: StreamId) -> bool {
                self.wants_data(stream)
            }
            fn is_idle(&self) -> bool {
                $idle(self)
            }
        }
    };
}

session!(
    ServerSession,
    ServerEvent,
    |_: &ServerSession, _: Duration| (),
    ServerSession::is_idle
);
session!(
    ClientSession,
    ClientEvent,
    ClientSession::handle_carrier_heard,
    |session: &ClientSession| session.queued_bytes() == 0
);
