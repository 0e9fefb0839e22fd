//! Bytes that no client of ours sends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tidegate_server::HTTP_NETWORK_CONNECTIONS_MAX;

use super::{assert_unharmed, sandbox_with_a_message};
use crate::sandbox::Sandbox;
use crate::sdk::soon;

/// As in docs/formats/wire.md.
const ALPN: &[u8] = b"tidegate/1";
const DATAGRAMS: u64 = 2000;
/// Above what one address may have before it says who it is.
const SILENT: usize = 200;

/// Bytes that repeat from run to run and mean nothing.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn listen_addr(sandbox: &mut Sandbox) -> SocketAddr {
    sandbox.broker().listen().parse().unwrap()
}

#[test]
fn datagrams_of_noise_are_passed_over() {
    let mut sandbox = sandbox_with_a_message();
    let to = listen_addr(&mut sandbox);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..DATAGRAMS {
        let len = usize::try_from(number % 1400).unwrap();
        let mut datagram = noise(number + 1, len);
        if let Some(first) = datagram.first_mut() {
            // Half of them look like long headers of QUIC version 1 (RFC 9000, section 17.2).
            *first |= if number % 2 == 0 { 0xc0 } else { 0x40 };
            if number % 4 == 0 && datagram.len() >= 5 {
                datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
        }
        socket.send_to(&datagram, to).unwrap();
    }
    assert_unharmed(&mut sandbox);
}

/// Takes any certificate: what it sends is worth no protection.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(to: SocketAddr, alpn: &[u8]) -> Result<(Endpoint, Connection), ConnectionError> {
    let endpoint = endpoint("127.0.0.1:0", alpn);
    let connecting = endpoint.connect(to, "tidegate").unwrap();
    let connection = soon("a handshake", connecting).await?;
    Ok((endpoint, connection))
}

/// An end that connects to anybody, from the address `own`.
fn endpoint(own: &str, alpn: &[u8]) -> Endpoint {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = Endpoint::client(own.parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_one_address_lock_nobody_out() {
    let mut sandbox = sandbox_with_a_message();
    let to = listen_addr(&mut sandbox);
    let client = sandbox.client().await;
    let endpoint = endpoint("127.0.0.2:0", ALPN);
    // None of them says who it is.
    let connecting: Vec<_> = (0..SILENT)
        .map(|_| tokio::spawn(endpoint.connect(to, "tidegate").unwrap()))
        .collect();
    let mut silent = Vec::new();
    let mut refused = 0;
    for one in connecting {
        match soon("an answer to a handshake", one).await.unwrap() {
            Ok(connection) => silent.push(connection),
            Err(ConnectionError::ConnectionClosed(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "{SILENT} connections were taken");
    assert!(!silent.is_empty());
    soon("an answer", client.server_info()).await.unwrap();
    drop(sandbox.client().await);
    assert_unharmed(&mut sandbox);
}

async fn http_from(own: &str, to: SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(own.parse().unwrap()).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_connections_that_send_half_a_head_lock_nobody_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut sandbox = sandbox_with_a_message();
    let to = sandbox.broker().admin;
    let mut slow = Vec::new();
    for _ in 0..HTTP_NETWORK_CONNECTIONS_MAX {
        let mut stream = http_from("127.0.0.2:0", to).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        slow.push(stream);
    }
    // For one more from there is no place, for others there is.
    let mut one_more = http_from("127.0.0.2:0", to).await;
    let read = soon("its end", one_more.read(&mut [0; 64])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let mut other = http_from("127.0.0.1:0", to).await;
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    other.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon("an answer", other.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Their time ends, and with it their places.
    for mut stream in slow {
        let mut rest = Vec::new();
        soon(
            "the end of a head that never comes",
            stream.read_to_end(&mut rest),
        )
        .await
        .ok();
    }
    let mut again = http_from("127.0.0.2:0", to).await;
    again.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon("an answer", again.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_noise_end_their_connection_and_no_other() {
    let mut sandbox = sandbox_with_a_message();
    let to = listen_addr(&mut sandbox);
    let client = sandbox.client().await;
    for seed in 1..=8 {
        let (_endpoint, connection) = connect(to, ALPN).await.unwrap();
        let (mut control, _answers) = connection.open_bi().await.unwrap();
        // The broker may have closed it before all of this was sent.
        drop(control.write_all(&noise(seed, 4000)).await);
        let end = soon("the broker to close", connection.closed()).await;
        let ConnectionError::ApplicationClosed(close) = end else {
            panic!("the connection ended with {end}");
        };
        assert!(!close.reason.is_empty(), "{close}");
    }
    soon("an answer", client.server_info()).await.unwrap();
    assert_unharmed(&mut sandbox);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_refused_in_the_handshake() {
    let mut sandbox = sandbox_with_a_message();
    let to = listen_addr(&mut sandbox);
    let refused = connect(to, b"h3").await.unwrap_err();
    assert!(
        matches!(refused, ConnectionError::ConnectionClosed(_)),
        "{refused}"
    );
    assert_unharmed(&mut sandbox);
}
