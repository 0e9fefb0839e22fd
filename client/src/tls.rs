//! TLS 1.3 to a server that is known by its key and nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use tidegate_model::code;
use tidegate_wire::limits::{ALPN, CONSUME_STREAMS_MAX};

use crate::address::Pin;
use crate::{ConnectOptions, Error};

/// Smallest and largest UDP payload to probe for, inclusive, in bytes.
const MTU_BOUNDS: core::ops::RangeInclusive<u16> = 1200..=6500;
/// A connection on which nothing arrives for this long is gone.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// How often a silent client shows that it lives: address translators often forget a UDP flow after
/// 30 s. A client that expects something asks more often, by pings of its session: quinn can't change
/// this on a live connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Guess of the round trip before it is known: the first packet is repeated after three times as long.
/// A server that is just starting misses it, and quinn's guess would wait a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Unread bytes that the server may have under way on one stream.
const STREAM_RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// The same over all streams.
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;
/// Bytes under way to the server, not yet confirmed.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// Takes a server by the key of its certificate; name and dates of the certificate don't matter.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    /// The pin of the last server that had another key.
    mismatch: Mutex<Option<Pin>>,
}

impl PinVerifier {
    /// The pin that the last server showed, if it wasn't the expected one.
    pub(crate) fn take_mismatch(&self) -> Option<Pin> {
        self.mismatch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        let mut found = Pin([0; 32]);
        found.0.copy_from_slice(digest.as_ref());
        if found == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        *self.mismatch.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        let reason = Error::new(code::PIN_MISMATCH, "another key than the pinned one");
        Err(CertificateError::Other(OtherError(Arc::new(reason))).into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// quinn's settings for connections to the server with this pin, and the verifier in them.
pub(crate) fn config(
    pin: Pin,
    options: &ConnectOptions,
) -> Result<(ClientConfig, Arc<PinVerifier>), Error> {
    if !MTU_BOUNDS.contains(&options.mtu_upper_bound) {
        return Err(Error::new(
            code::INVALID_ARGUMENT,
            format!(
                "mtu_upper_bound is {}; it must be {} to {}",
                options.mtu_upper_bound,
                MTU_BOUNDS.start(),
                MTU_BOUNDS.end()
            ),
        ));
    }
    let internal = |error: &dyn core::fmt::Display| {
        Error::new(code::INTERNAL, format!("TLS can't be set up: {error}"))
    };
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    });
    let verifier = Arc::new(PinVerifier {
        pin,
        provider: Arc::clone(&provider),
        mismatch: Mutex::new(None),
    });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| internal(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| internal(&error))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(options)));
    Ok((config, verifier))
}

fn transport(options: &ConnectOptions) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.mtu_upper_bound);
    let consume_streams = u32::try_from(CONSUME_STREAMS_MAX).expect("a small number");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(consume_streams))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(discovery))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    transport
}
