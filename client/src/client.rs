//! A connection to a server, and the requests that are answered once.

mod connection;
mod requests;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{Name, TopicRef, code};
use tidegate_wire::proto::RequestKind;
use tokio::sync::watch;

use crate::Error;
use crate::address::Address;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::key::ClientKey;
use crate::link::{Answer, Connector, Link};
use crate::producer::{Producer, ProducerOptions};

pub use connection::Connection;
pub(crate) use requests::unfitting;
use supervise::LinkState;

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long an attempt to connect may take, handshake and authentication included.
    pub connect_timeout: Duration,
    /// How long a request may take before it fails with `TIMEOUT`; a long poll adds its own wait.
    pub request_timeout: Duration,
    /// How long a broken connection is tried to be made anew before everything fails with the last
    /// attempt's error. [`Duration::MAX`] is for ever.
    pub reconnect_timeout: Duration,
    /// Largest UDP payload to probe for, in bytes, 1,200 to 6,500. 1,452 suits the Internet; on a
    /// LAN with jumbo frames or on loopback 6,000 halves the work.
    pub mtu_upper_bound: u16,
}

impl Default for ConnectOptions {
    /// 5 s to connect, 30 s for a request, 2 min to reconnect, 1,452 bytes.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            reconnect_timeout: Duration::from_secs(120),
            mtu_upper_bound: 1452,
        }
    }
}

/// Who the server takes the client for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name given at login.
    pub principal: Name,
}

/// A connection to a server. Clones share it; it ends with the last clone, producer and consumer.
///
/// A broken connection is made anew in the background: producers and consumers carry on, a request
/// that was under way fails with `CANCELLED`, a later one waits for the new connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    options: ConnectOptions,
    link: watch::Receiver<LinkState>,
    /// Set, or dropped with the last clone, to end the connection.
    stop: watch::Sender<bool>,
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.inner.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Exchanges a one-time token for the right to connect with `key`.
    ///
    /// # Errors
    /// `UNREACHABLE`, `PIN_MISMATCH`, `TOKEN_INVALID`, `TOKEN_EXPIRED`, `INVALID_NAME`,
    /// `CLIENT_EXISTS`.
    pub async fn login(
        address: &Address,
        token: &str,
        name: &Name,
        key: &ClientKey,
    ) -> Result<Identity, Error> {
        let options = ConnectOptions::default();
        let connector = Connector::new(address, key, &options)?;
        let login = Some((token, name));
        let (link, principal) = connector.connect(login, options.connect_timeout).await?;
        link.close().await;
        Ok(Identity { principal })
    }

    /// Connects and authenticates. Fails if the first attempt does.
    ///
    /// # Errors
    /// `UNREACHABLE`, `PIN_MISMATCH`, `AUTH_FAILED`, `VERSION`.
    pub async fn connect(
        address: &Address,
        key: &ClientKey,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let connector = Connector::new(address, key, &options)?;
        let (first, principal) = connector.connect(None, options.connect_timeout).await?;
        let (up, link) = watch::channel(LinkState::Up(Arc::clone(&first)));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(supervise::supervise(connector, options, first, up, stopped));
        Ok(Self {
            inner: Arc::new(Inner {
                identity: Identity { principal },
                options,
                link,
                stop,
            }),
        })
    }

    /// Who the server takes this client for.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity.clone()
    }

    /// Whether it is connected, to look at and wait for.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection::new(self.inner.link.clone())
    }

    /// Opens a producer on a topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `DEAD_LETTER_READ_ONLY`, `INVALID_ARGUMENT` for options out of bounds.
    pub async fn producer(
        &self,
        topic: &TopicRef,
        options: ProducerOptions,
    ) -> Result<Producer, Error> {
        Producer::open(self, topic, options).await
    }

    /// Subscribes as a member of a group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `INVALID_ARGUMENT` for options out of
    /// bounds.
    pub async fn consumer(&self, options: &ConsumerOptions) -> Result<Consumer, Error> {
        Consumer::open(self, options).await
    }

    /// Closes the connection under all clones, and waits until the server knows. Producers and
    /// consumers end; what they haven't flushed or settled is not waited for.
    pub async fn close(self) {
        self.inner.stop.send_replace(true);
        let mut link = self.inner.link.clone();
        // An error says that the supervisor has gone, which is just as well.
        let _ = link
            .wait_for(|state| matches!(state, LinkState::Ended(_)))
            .await;
    }

    /// The connection, once there is one.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut link = self.inner.link.clone();
        let state = link
            .wait_for(|state| !matches!(state, LinkState::Down))
            .await;
        match state.as_deref() {
            Ok(LinkState::Up(link)) => Ok(Arc::clone(link)),
            Ok(LinkState::Ended(error)) => Err(error.clone()),
            Ok(LinkState::Down) | Err(_) => Err(closed()),
        }
    }

    /// Bounds what a caller waits for by the request timeout.
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.within(self.inner.options.request_timeout, work).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(time, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                code::TIMEOUT,
                format!("no answer within {} ms", time.as_millis()),
            )),
        }
    }

    pub(crate) async fn ask(&self, kind: RequestKind) -> Result<Answer, Error> {
        self.ask_within(self.inner.options.request_timeout, kind)
            .await
    }

    async fn ask_within(&self, time: Duration, kind: RequestKind) -> Result<Answer, Error> {
        let work = async { self.link().await?.request(kind).await };
        self.within(time, work).await
    }
}

fn closed() -> Error {
    Error::new(code::CANCELLED, "the client is closed")
}
