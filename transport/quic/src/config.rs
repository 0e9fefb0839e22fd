//! Settings of a listener, and what they make of quinn's.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{hkdf, hmac};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, VarInt,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use tidegate_wire::limits::{ALPN, PREAUTH_BYTES_MAX, PREAUTH_TIME_MAX, STREAMS_MAX};

use crate::{Error, ServerIdentity};

/// Smallest UDP payload that QUIC may count on (RFC 9000 section 14), in bytes.
pub const MTU_MIN: u16 = 1200;
/// Largest UDP payload to probe for, in bytes. Ten segments of a larger one don't fit into a send with
/// segmentation offload, which then fails without a word.
pub const MTU_MAX: u16 = 6500;

/// Settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicConfig {
    /// Secret out of which the keys of reset and retry tokens are made. Kept over restarts,
    /// it lets clients of the old process notice within a round trip that it is gone.
    pub secret: [u8; 32],
    /// Largest UDP payload to probe for, in bytes, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu_upper_bound: u16,
    /// Whether the system cuts large sends into packets (generic segmentation offload): a quarter of the
    /// work where kernel and card do it well, for some cards ruin.
    pub segmentation_offload: bool,
    /// A connection on which nothing arrives for this long is gone.
    pub idle_timeout: Duration,
    /// How long a peer may take from its first packet until it is authenticated; at most
    /// [`PREAUTH_TIME_MAX`].
    pub preauth_time: Duration,
    /// Authenticated connections at once; further ones are turned away.
    pub connections_max: usize,
    /// Peers at once that have not authenticated yet; further ones are refused, of networks from which
    /// nobody was authenticated already beyond three quarters of it.
    pub preauth_max: usize,
    /// The same for one network: an IPv4 address, or a /64 of IPv6.
    pub preauth_network_max: usize,
    /// Such peers in all beyond which a new one must first show that it receives at its address (Retry,
    /// RFC 9000 section 8.1.2).
    pub preauth_retry: usize,
    /// The same for one network, whose places others could else take in its name.
    pub preauth_network_retry: usize,
    /// Unread bytes that a peer may have under way on one stream, once authenticated.
    pub stream_receive_window: u32,
    /// The same over all streams of a connection.
    pub receive_window: u32,
    /// Bytes under way to a peer, not yet confirmed by it.
    pub send_window: u32,
    /// Produce and request streams that an authenticated peer may have open; at most [`STREAMS_MAX`].
    /// quinn reserves 67 bytes for each, open or not.
    pub streams_max: u16,
}

impl QuicConfig {
    /// Settings for the Internet.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            mtu_upper_bound: 1452,
            segmentation_offload: true,
            idle_timeout: Duration::from_secs(30),
            preauth_time: PREAUTH_TIME_MAX,
            connections_max: 10_000,
            preauth_max: 2048,
            preauth_network_max: 128,
            preauth_retry: 64,
            preauth_network_retry: 16,
            stream_receive_window: 4 * 1024 * 1024,
            receive_window: 8 * 1024 * 1024,
            send_window: 8 * 1024 * 1024,
            streams_max: 64,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let bound = |name, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::Config {
                    name,
                    value,
                    min,
                    max,
                })
            }
        };
        let places = |name, value: usize| bound(name, value as u64, 1, u64::from(u32::MAX));
        places("connections_max", self.connections_max)?;
        places("preauth_max", self.preauth_max)?;
        places("preauth_network_max", self.preauth_network_max)?;
        let windows = u64::try_from(PREAUTH_BYTES_MAX).expect("a small number")..=1 << 30;
        let (low, high) = (*windows.start(), *windows.end());
        bound(
            "mtu_upper_bound",
            self.mtu_upper_bound.into(),
            MTU_MIN.into(),
            MTU_MAX.into(),
        )?;
        bound(
            "streams_max",
            self.streams_max.into(),
            1,
            u64::try_from(STREAMS_MAX).expect("a small number"),
        )?;
        bound(
            "stream_receive_window",
            self.stream_receive_window.into(),
            low,
            high,
        )?;
        bound("receive_window", self.receive_window.into(), low, high)?;
        bound("send_window", self.send_window.into(), low, high)?;
        bound(
            "preauth_time in ms",
            millis(self.preauth_time),
            1,
            millis(PREAUTH_TIME_MAX),
        )?;
        bound(
            "idle_timeout in ms",
            millis(self.idle_timeout),
            1000,
            3_600_000,
        )
    }

    /// quinn's settings of the endpoint.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("reset"));
        let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
        endpoint.cid_generator(|| Box::new(RandomIds));
        endpoint
    }

    /// quinn's settings of the server side.
    pub(crate) fn server(&self, identity: ServerIdentity) -> Result<ServerConfig, Error> {
        self.check()?;
        let identity_error = |error: &dyn core::fmt::Display| Error::Identity(error.to_string());
        let (chain, key) = identity.into_parts();
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| identity_error(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| identity_error(&error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would save a client a sixth of the handshake's work and cost the server
        // a ticket per connection.
        tls.send_tls13_tickets = 0;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| identity_error(&error))?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.derive("token"));
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        server
            .transport_config(Arc::new(self.transport()))
            .max_incoming(self.preauth_max)
            .incoming_buffer_size(INCOMING_BUFFER_BYTES)
            .incoming_buffer_size_total(INCOMING_BUFFER_BYTES_TOTAL);
        Ok(server)
    }

    /// The transport as it is before authentication; [`crate::connection`] widens it afterwards.
    fn transport(&self) -> TransportConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_upper_bound);
        let preauth = u32::try_from(PREAUTH_BYTES_MAX).expect("a small number");
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(self.stream_receive_window))
            .receive_window(VarInt::from_u32(preauth))
            .send_window(self.send_window.into())
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(Some(discovery))
            .enable_segmentation_offload(self.segmentation_offload)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok());
        transport
    }

    fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let tag = hmac::sign(&key, purpose.as_bytes());
        let mut derived = [0; 32];
        derived.copy_from_slice(tag.as_ref());
        derived
    }
}

/// Connection ids that say nothing. quinn's own generator signs them with a key of the process, so that
/// a restarted server would drop packets for the old process instead of answering with a reset.
struct RandomIds;

/// Bytes of a connection id.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        aws_lc_rs::rand::fill(&mut bytes)
            .expect("the system has randomness: TLS depends on it too");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Bytes of early packets kept for one peer whose handshake waits to be accepted.
const INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
/// The same over all such peers.
const INCOMING_BUFFER_BYTES_TOTAL: u64 = 16 * 1024 * 1024;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// aws-lc-rs with AES-128-GCM first: it costs the least per byte.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    }
}
