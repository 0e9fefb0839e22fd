//! Taking connections, and stopping.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::udp::UdpSocketState;
use quinn::{Endpoint, Incoming, TokioRuntime, VarInt};
use tidegate_model::code;
use tidegate_session::{Places, Service};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::connection;
use crate::{Error, Event, Observer, QuicConfig, ServerIdentity};

/// Bytes of packets that the system is asked to keep, in each direction.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Of the places of peers that haven't authenticated, what is kept for networks of clients: one part in…
const KEPT_SHARE: usize = 4;
/// Of the time to shut down, what is kept for closing connections that didn't drain: one part in…
const CLOSING_SHARE: u32 = 5;

/// A UDP port on which the native protocol is spoken. Dropping it closes all connections at once;
/// [`Listener::shutdown`] lets them finish.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    stop: watch::Sender<Option<Instant>>,
    accepting: JoinHandle<()>,
}

/// What all connections of a listener share.
pub(crate) struct Shared {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) config: QuicConfig,
    /// When everything must be over, once the listener stops.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    /// For peers that have not authenticated yet.
    places: Places,
    /// Authenticated connections.
    connections: Arc<AtomicUsize>,
}

/// An authenticated connection's place, until it is dropped.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// A place for a connection that has authenticated. Peers that haven't take none of these.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let max = self.config.connections_max;
        let taken = self
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < max).then_some(open + 1)
            });
        taken.ok().map(|_| Seat(Arc::clone(&self.connections)))
    }
}

impl Listener {
    /// Binds `addr` (port 0 takes a free one) and begins to accept. Called within a tokio runtime,
    /// on which all its connections run.
    ///
    /// # Errors
    /// [`Error`] if the address can't be bound, or identity or settings are unusable.
    pub fn bind(
        addr: SocketAddr,
        identity: ServerIdentity,
        service: Arc<dyn Service>,
        config: QuicConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let server = config.server(identity)?;
        let bound = |source| Error::Bind { addr, source };
        let socket = UdpSocket::bind(addr).map_err(bound)?;
        enlarge_buffers(&socket).map_err(bound)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            Endpoint::new(config.endpoint(), Some(server), socket, runtime).map_err(bound)?;
        let local_addr = endpoint.local_addr().map_err(bound)?;
        let (stop, stopped) = watch::channel(None);
        let places = Places::new(
            config.preauth_max,
            config.preauth_network_max,
            config.preauth_max / KEPT_SHARE,
        );
        let shared = Arc::new(Shared {
            service,
            observer,
            config,
            stop: stopped,
            places,
            connections: Arc::default(),
        });
        let accepting = tokio::spawn(accept(endpoint.clone(), shared));
        Ok(Self {
            endpoint,
            local_addr,
            stop,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open, those in their handshake included.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Tells all clients to go, answers what is in flight, then closes. Returns when all is over, at
    /// the latest `within` from now; whether everything was answered by then.
    pub async fn shutdown(mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        self.stop.send_replace(Some(end - within / CLOSING_SHARE));
        let drained = tokio::time::timeout_at(end, &mut self.accepting)
            .await
            .is_ok();
        self.endpoint.close(
            VarInt::from_u32(u32::from(code::SHUTTING_DOWN.0)),
            b"the server is stopping",
        );
        let idle = tokio::time::timeout_at(end, self.endpoint.wait_idle()).await;
        drained && idle.is_ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        self.endpoint.close(
            VarInt::from_u32(u32::from(code::SHUTTING_DOWN.0)),
            b"the server is stopping",
        );
    }
}

/// All peers share the socket's buffers. The system gives what it is configured to allow.
fn enlarge_buffers(socket: &UdpSocket) -> io::Result<()> {
    let state = UdpSocketState::new(socket.into())?;
    state.set_recv_buffer_size(socket.into(), SOCKET_BUFFER_BYTES)?;
    state.set_send_buffer_size(socket.into(), SOCKET_BUFFER_BYTES)
}

/// Accepts until told to stop, then waits for the connections to end.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &shared, &mut connections),
                None => break,
            },
            Some(ended) = connections.join_next() => log_panic(ended),
            _ = stop.changed() => {
                endpoint.set_server_config(None);
                break;
            }
        }
    }
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

fn admit(incoming: Incoming, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    let peer = incoming.remote_address().ip();
    let taken = shared.places.taken(peer);
    let config = &shared.config;
    let is_busy =
        taken.all >= config.preauth_retry || taken.network >= config.preauth_network_retry;
    if is_busy && !incoming.remote_address_validated() {
        shared.observer.event(Event::Retried);
        // It can only fail for an address that is validated already.
        let _ = incoming.retry();
    } else if let Some(place) = shared.places.take(peer) {
        connections.spawn(connection::serve(incoming, place, Arc::clone(shared)));
    } else {
        shared.observer.event(Event::Refused);
        incoming.refuse();
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
