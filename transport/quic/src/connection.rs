//! One connection: from its handshake to its end.

mod handler;

use std::sync::Arc;
use std::time::Duration;

use quinn::{Incoming, VarInt};
use tidegate_model::code;
use tidegate_pump::Pump;
use tidegate_session::Place;
use tidegate_wire::ServerSession;
use tidegate_wire::limits::PREAUTH_TIME_MAX;
use tokio::time::Instant;

use crate::Event;
use crate::listener::Shared;
use handler::{Connection, Events};

/// Serves a peer until it leaves or the listener stops.
///
/// Its `place` is that of a peer that hasn't authenticated.
pub(crate) async fn serve(incoming: Incoming, place: Place, shared: Arc<Shared>) {
    let remote = incoming.remote_address();
    let started = Instant::now();
    let handshake = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(shared.config.preauth_time, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "a handshake failed");
            shared.observer.event(Event::HandshakeFailed);
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "a handshake took too long");
            shared.observer.event(Event::HandshakeFailed);
            return;
        }
    };
    shared.observer.event(Event::Connected);

    // The session knows the protocol's time to authenticate and counts from its zero: a shorter time,
    // and what the handshake took, are spent before it begins.
    let ahead = PREAUTH_TIME_MAX.saturating_sub(shared.config.preauth_time);
    let origin = started.checked_sub(ahead).unwrap_or(started);
    let handler = Connection::new(Arc::clone(&shared), remote, place);
    let pump = Pump::start(
        connection,
        origin,
        ServerSession::new(Duration::ZERO),
        Box::new(Events(Arc::clone(&handler))),
    );
    let mut stop = shared.stop.clone();
    let stopped = async {
        match stop.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    };
    tokio::select! {
        reason = pump.closed() => tracing::debug!(%remote, %reason, "connection closed"),
        () = handler.deliver(&pump) => {}
        end = stopped => drain(&handler, &pump, end).await,
    }
    handler.leave();
    shared.observer.event(Event::Closed);
}

/// Lets the client finish what is in flight.
async fn drain(handler: &Arc<Connection>, pump: &Pump<ServerSession>, end: Instant) {
    handler.go_away(pump, end.saturating_duration_since(Instant::now()));
    let answered = async {
        tokio::select! {
            () = pump.idle() => {}
            () = handler.deliver(pump) => {}
        }
        handler.close(pump);
        pump.closed().await;
    };
    if tokio::time::timeout_at(end, answered).await.is_err() {
        pump.connection().close(
            VarInt::from_u32(u32::from(code::SHUTTING_DOWN.0)),
            b"the server is stopping",
        );
    }
}
