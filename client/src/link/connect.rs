//! Making a connection: addresses, handshake, hello.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use tidegate_model::{Code, Name, code};
use tidegate_pump::Pump;
use tidegate_wire::proto::{Auth, Hello, KeyProof, Login, Welcome};
use tidegate_wire::{ClientSession, EXPORTER_BYTES, EXPORTER_LABEL, Refusal};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::Link;
use super::router::{Events, Router};
use crate::address::Address;
use crate::convert::name;
use crate::key::ClientKey;
use crate::tls::{self, PinVerifier};
use crate::{ConnectOptions, Error};

/// What is told to the server for its log.
const AGENT: &str = concat!("tidegate-client/", env!("CARGO_PKG_VERSION"));
/// TLS alert of a peer that shares no application protocol (RFC 7301 section 3.2), as QUIC carries it
/// (RFC 9001 section 4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
/// QUIC's code of a server that takes no connection (RFC 9000 section 20.1).
const CONNECTION_REFUSED: u64 = 0x02;

/// Makes connections to one server as one client.
pub(crate) struct Connector {
    address: Address,
    key: ClientKey,
    config: ClientConfig,
    verifier: Arc<PinVerifier>,
}

impl Connector {
    pub(crate) fn new(
        address: &Address,
        key: &ClientKey,
        options: &ConnectOptions,
    ) -> Result<Self, Error> {
        let (config, verifier) = tls::config(address.pin, options)?;
        Ok(Self {
            address: address.clone(),
            key: key.clone(),
            config,
            verifier,
        })
    }

    /// Connects and shows the key, or exchanges a token for the right to; who the server takes us for.
    pub(crate) async fn connect(
        &self,
        login: Option<(&str, &Name)>,
        within: Duration,
    ) -> Result<(Arc<Link>, Name), Error> {
        let attempt = self.attempt(login);
        match tokio::time::timeout(within, attempt).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no answer within {} ms", within.as_millis()))),
        }
    }

    async fn attempt(&self, login: Option<(&str, &Name)>) -> Result<(Arc<Link>, Name), Error> {
        let (endpoint, connection) = self.handshake().await?;
        let mut exporter = [0; EXPORTER_BYTES];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .map_err(|_| Error::new(code::INTERNAL, "TLS gave no keying material"))?;
        let public_key = Bytes::copy_from_slice(&self.key.public());
        let signature = Bytes::copy_from_slice(&self.key.sign(&exporter));
        let auth = match login {
            None => Auth::Key(KeyProof {
                public_key,
                signature,
            }),
            Some((token, name)) => Auth::Login(Login {
                token: token.to_owned(),
                name: name.to_string(),
                public_key,
                signature,
            }),
        };
        let hello = Hello {
            agent: AGENT.to_owned(),
            auth: Some(auth),
            ..Hello::default()
        };
        let session = ClientSession::new(Duration::ZERO, hello)
            .map_err(|error| Error::from(error.to_argument()))?;
        let (sender, answer) = oneshot::channel();
        let router = Arc::new(Router::new(sender));
        let pump = Pump::start(
            connection,
            Instant::now(),
            session,
            Box::new(Events(Arc::clone(&router))),
        );
        let (ended, lost) = watch::channel(None);
        tokio::spawn(watch_over(pump.clone(), ended));
        // Given up from here on, it closes.
        let link = Link {
            pump,
            router,
            endpoint,
            streams: Arc::new(Semaphore::new(0)),
            lost,
        };
        let welcome: Welcome = match answer.await {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(refusal)) => return Err(refusal.into()),
            Err(_) => return Err(self.unreachable("the connection was closed".to_owned())),
        };
        let streams = link.with(|session| session.limits().streams_max);
        link.streams.add_permits(streams as usize);
        Ok((Arc::new(link), name(&welcome.principal)?))
    }

    /// A connection to the first address of the host that answers.
    async fn handshake(&self) -> Result<(Endpoint, Connection), Error> {
        let host = (self.address.host.as_str(), self.address.port);
        let addresses = tokio::net::lookup_host(host)
            .await
            .map_err(|error| self.unreachable(format!("its host has no address: {error}")))?;
        let mut failure = self.unreachable("its host has no address".to_owned());
        for remote in addresses {
            match self.handshake_with(remote).await {
                Ok(connected) => return Ok(connected),
                Err(error) if error.code == code::PIN_MISMATCH => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn handshake_with(&self, remote: SocketAddr) -> Result<(Endpoint, Connection), Error> {
        let local: SocketAddr = if remote.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let endpoint = Endpoint::client(local)
            .map_err(|error| self.unreachable(format!("no UDP socket could be opened: {error}")))?;
        let connecting = endpoint
            .connect_with(self.config.clone(), remote, &self.address.host)
            .map_err(|error| Error::new(code::ADDRESS, format!("{}: {error}", self.address)))?;
        match connecting.await {
            Ok(connection) => Ok((endpoint, connection)),
            Err(error) => Err(match self.verifier.take_mismatch() {
                Some(found) => Error::new(
                    code::PIN_MISMATCH,
                    format!(
                        "the server at {}:{} has the key {found}; the address pins {}",
                        self.address.host, self.address.port, self.address.pin
                    ),
                )
                .hint("if the server was set up anew, log in with the address that it prints"),
                None => {
                    let why = refused_unproven(&error);
                    Error {
                        message: format!(
                            "{}:{}: {}",
                            self.address.host, self.address.port, why.message
                        ),
                        ..Error::from(why)
                    }
                }
            }),
        }
    }

    fn unreachable(&self, why: String) -> Error {
        Error::new(
            code::UNREACHABLE,
            format!("{}:{}: {why}", self.address.host, self.address.port),
        )
        .hint("check that the server runs, that the port is right, and that UDP may pass")
    }
}

/// Tells the session when its connection is over, and then whoever holds the link.
async fn watch_over(pump: Pump<ClientSession>, ended: watch::Sender<Option<Error>>) {
    let reason = pump.closed().await;
    let why = pump.with_now(|session, now| {
        let why = session.given_up().cloned();
        let why = why.unwrap_or_else(|| lost(&reason));
        session.handle_lost(now, &why);
        why
    });
    ended.send_replace(Some(why.into()));
}

/// Why no connection was made. Whoever answered hasn't shown its key: its code is told, its words
/// aren't.
fn refused_unproven(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(close) => Refusal::new(
            application_code(close.error_code),
            format!(
                "the connection was closed with code {} before the server showed its key",
                close.error_code
            ),
        ),
        ConnectionError::ConnectionClosed(close) => match lost(error) {
            why if why.code != code::UNREACHABLE => why,
            _ => Refusal::new(
                code::UNREACHABLE,
                format!(
                    "the connection was closed with QUIC's code {:#x} before the server showed its \
                     key",
                    u64::from(close.error_code)
                ),
            ),
        },
        error => lost(error),
    }
}

/// Text of a peer, with its control characters escaped.
fn words(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Why a connection is over.
fn lost(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::TimedOut => Refusal::new(
            code::UNREACHABLE,
            "nothing came from the server for too long",
        ),
        ConnectionError::Reset => {
            Refusal::new(code::UNREACHABLE, "the server doesn't know the connection")
                .hint("it was probably restarted")
        }
        ConnectionError::ApplicationClosed(close) => Refusal::new(
            application_code(close.error_code),
            format!("the server closed the connection: {}", words(&close.reason)),
        ),
        ConnectionError::ConnectionClosed(close) => {
            let number = u64::from(close.error_code);
            if number == NO_APPLICATION_PROTOCOL {
                Refusal::new(code::VERSION, "the server doesn't speak this protocol")
            } else if number == CONNECTION_REFUSED {
                Refusal::new(code::OVERLOADED, "the server takes no more connections now")
            } else {
                Refusal::new(code::UNREACHABLE, words(close.to_string().as_bytes()))
            }
        }
        ConnectionError::VersionMismatch => {
            Refusal::new(code::VERSION, "the server speaks another version of QUIC")
        }
        ConnectionError::LocallyClosed => {
            Refusal::new(code::CANCELLED, "the connection was closed")
        }
        ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            Refusal::new(code::UNREACHABLE, error.to_string())
        }
    }
}

fn application_code(code: VarInt) -> Code {
    match u16::try_from(code.into_inner()) {
        Ok(0) => code::CANCELLED,
        Ok(code) => Code(code),
        Err(_) => code::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::{ApplicationClose, ConnectionClose, TransportErrorCode};

    #[test]
    fn a_peer_without_a_key_has_no_words_and_any_other_no_controls() {
        let reason = Bytes::from_static(b"\x1b[2Jlog in at\xc2\x9b evil.example");
        let closes = [
            ConnectionError::ApplicationClosed(ApplicationClose {
                error_code: VarInt::from_u32(102),
                reason: reason.clone(),
            }),
            ConnectionError::ConnectionClosed(ConnectionClose {
                error_code: TransportErrorCode::INTERNAL_ERROR,
                frame_type: None,
                reason,
            }),
        ];
        for close in closes {
            let unproven = refused_unproven(&close).message;
            assert!(!unproven.contains("evil"), "{unproven}");
            let proven = lost(&close).message;
            assert!(proven.contains("evil.example"), "{proven}");
            assert!(!proven.contains(char::is_control), "{proven}");
        }
    }
}
