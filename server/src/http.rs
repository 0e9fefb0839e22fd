//! Serving HTTP to probes, scrapers, and whoever else reaches the port: a connection has a place and a
//! time, and holds up nobody else.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidegate_session::{Place, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections at once; further ones are closed.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Connections at once from one network: an IPv4 address, or a /64 of IPv6.
pub const HTTP_NETWORK_CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, from the connection's beginning or the answer before.
pub const HTTP_HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection lasts; whoever wants more makes another one.
pub const HTTP_CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
/// How long an answer may still take that is under way when its connection's time is over.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a connection couldn't be accepted: open files may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop` changes or has no sender any more, then answers what is under way.
pub(crate) async fn serve(listener: TcpListener, routes: Router, mut stop: watch::Receiver<()>) {
    let places = Places::new(HTTP_CONNECTIONS_MAX, HTTP_NETWORK_CONNECTIONS_MAX, 0);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Some(place) => {
                        let routes = routes.clone();
                        connections.spawn(connection(stream, peer, place, routes, stop.clone()));
                    }
                    // To close it costs the least.
                    None => tracing::debug!(%peer, "the admin endpoint has no place for it"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the admin endpoint can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection for as long as it may last.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    _place: Place,
    routes: Router,
    mut stop: watch::Receiver<()>,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = tokio::time::sleep(HTTP_CONNECTION_TIME_MAX) => None,
        _ = stop.changed() => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_ANSWER_TIME_MAX, served).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "an admin connection ended"),
        Err(_) => tracing::debug!(%peer, "an admin connection took too long"),
    }
}
