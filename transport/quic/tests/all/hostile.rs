//! Peers that don't keep to the protocol: each limit is met, and everybody else is served meanwhile.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tidegate_client::{
    Client, ClientKey, ConnectOptions, ConsumerOptions, CreateTopic, ProducerOptions, Source,
};
use tidegate_model::limits::SECTION_BYTES_MAX;
use tidegate_model::{
    Code, Message, SectionBuilder, Sequence, TopicChange, checksum::crc32c, code,
};
use tidegate_quic::{Event, QuicConfig};
use tidegate_wire::frame::FLAG_MAY_IGNORE;
use tidegate_wire::limits::{CREDIT_BYTES_MAX, PREAUTH_BYTES_MAX, PREAUTH_TIME_MAX};
use tidegate_wire::proto::{self, Auth, Hello, KeyProof};
use tidegate_wire::{
    ALPN, EXPORTER_BYTES, EXPORTER_LABEL, Frame, FrameDecoder, FrameType, Prefix, PublishHeader,
    VERSION, encode_message,
};

use crate::stage::{Stage, group, topic};

/// Time to authenticate in tests that wait for its end.
const SHORT: Duration = Duration::from_millis(300);

/// Takes any certificate.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A connection without a session: what it sends is up to the test.
struct Raw {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Raw {
    async fn connect(stage: &Stage) -> Self {
        Self::try_connect(stage, &[ALPN]).await.unwrap()
    }

    async fn try_connect(stage: &Stage, alpn: &[&[u8]]) -> Result<Self, ConnectionError> {
        Self::try_connect_from(Ipv4Addr::LOCALHOST, stage, alpn).await
    }

    async fn try_connect_from(
        own: Ipv4Addr,
        stage: &Stage,
        alpn: &[&[u8]],
    ) -> Result<Self, ConnectionError> {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client((own, 0).into()).unwrap();
        let connection = endpoint
            .connect_with(config, stage.addr, "tidegate")
            .unwrap()
            .await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Self {
            endpoint,
            connection,
            send,
            recv,
        })
    }

    /// A connection that has shown a registered key.
    async fn authenticated(stage: &Stage) -> Self {
        let mut raw = Self::connect(stage).await;
        let pair = Ed25519KeyPair::generate().unwrap();
        let public_key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        stage.mock.register(public_key, "raw");
        let mut exporter = [0; EXPORTER_BYTES];
        raw.connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .unwrap();
        let proof = KeyProof {
            public_key: Bytes::copy_from_slice(&public_key),
            signature: Bytes::copy_from_slice(pair.sign(&exporter).as_ref()),
        };
        raw.say(FrameType::HELLO, &hello(Some(Auth::Key(proof))))
            .await;
        let welcome = raw.next_frame().await;
        assert_eq!(welcome.prefix.kind, FrameType::WELCOME);
        raw
    }

    async fn say(&mut self, kind: FrameType, message: &impl prost::Message) {
        let frame = encode_message(kind, 0, message).unwrap();
        self.send.write_all(&frame).await.unwrap();
    }

    /// The next frame of the control stream.
    async fn next_frame(&mut self) -> Frame {
        next_frame(&mut self.recv).await
    }

    /// The code with which the server closes the connection.
    async fn closed_with(&self) -> Code {
        let closed = tokio::time::timeout(crate::DEADLINE, self.connection.closed());
        match closed.await.expect("the server never closes") {
            ConnectionError::ApplicationClosed(close) => {
                Code(u16::try_from(close.error_code.into_inner()).unwrap())
            }
            other => panic!("{other}"),
        }
    }
}

async fn next_frame(recv: &mut RecvStream) -> Frame {
    let mut decoder = FrameDecoder::new();
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
        // A byte at a time, so that nothing of the next frame is taken.
        let mut byte = [0];
        recv.read_exact(&mut byte).await.unwrap();
        decoder.push(Bytes::copy_from_slice(&byte));
    }
}

fn hello(auth: Option<Auth>) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        auth,
        ..Hello::default()
    }
}

/// A frame that a receiver skips.
fn ignorable(len: u32) -> Vec<u8> {
    let prefix = Prefix {
        len,
        kind: FrameType(0x7f),
        flags: FLAG_MAY_IGNORE,
        codec: 0,
        extra: 0,
    };
    let mut frame = prefix.encode().to_vec();
    frame.resize(len as usize, 0);
    frame
}

/// Somebody who does no harm is still served.
async fn healthy(stage: &Stage) {
    let client = stage.client().await;
    assert_eq!(client.server_info().await.unwrap().shards, 8);
    client.close().await;
}

async fn create(client: &Client, text: &str) {
    let create = CreateTopic {
        topic: topic(text),
        queues: 1,
        settings: TopicChange::default(),
    };
    client.create_topic(&create).await.unwrap();
}

#[tokio::test]
async fn sixteen_kibibytes_before_authentication() {
    let stage = Stage::new();
    let mut raw = Raw::connect(&stage).await;
    let frame = ignorable(4096);
    for _ in 0..PREAUTH_BYTES_MAX / frame.len() {
        raw.send.write_all(&frame).await.unwrap();
    }
    raw.say(FrameType::HELLO, &hello(None)).await;
    let refused = raw.next_frame().await;
    assert_eq!(refused.prefix.kind, FrameType::REFUSED);
    let refused: proto::Refused = refused.message().unwrap();
    assert_eq!(refused.code, u32::from(code::PREAUTH_LIMIT.0));
    assert_eq!(raw.closed_with().await, code::PREAUTH_LIMIT);
    assert!(stage.saw(Event::TurnedAway(code::PREAUTH_LIMIT)));
    healthy(&stage).await;
}

#[tokio::test]
async fn one_stream_before_authentication() {
    let stage = Stage::with(|config| config.preauth_time = SHORT);
    let raw = Raw::connect(&stage).await;
    // quinn keeps to the limits that it is given: a second stream can't be opened at all.
    tokio::select! {
        Ok(_) = raw.connection.open_bi() => panic!("a second stream was opened"),
        Ok(_) = raw.connection.open_uni() => panic!("a one-way stream was opened"),
        code = raw.closed_with() => assert_eq!(code, code::AUTH_TIMEOUT),
    }
    let authenticated = Raw::authenticated(&stage).await;
    authenticated.connection.open_bi().await.unwrap();
}

#[tokio::test]
async fn five_seconds_to_authenticate() {
    assert_eq!(QuicConfig::new([0; 32]).preauth_time, PREAUTH_TIME_MAX);
    assert_eq!(PREAUTH_TIME_MAX, Duration::from_secs(5));
    let stage = Stage::with(|config| config.preauth_time = SHORT);
    let silent = Raw::connect(&stage).await;
    let mut dripping = Raw::connect(&stage).await;
    let frame = encode_message(FrameType::HELLO, 0, &hello(None)).unwrap();
    let half = frame.len() / 2;
    dripping.send.write_all(&frame[..half]).await.unwrap();
    assert_eq!(silent.closed_with().await, code::AUTH_TIMEOUT);
    assert_eq!(dripping.closed_with().await, code::AUTH_TIMEOUT);
    healthy(&stage).await;
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_is_forgotten() {
    let stage = Stage::with(|config| config.preauth_time = SHORT);
    // A first packet as quinn sends it, from a socket that never answers the server's.
    let relay = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint
        .connect_with(config, relay.local_addr().unwrap(), "tidegate")
        .unwrap();
    relay.set_nonblocking(true).unwrap();
    let relay = tokio::net::UdpSocket::from_std(relay).unwrap();
    let mut packet = [0; 2048];
    let len = relay.recv(&mut packet).await.unwrap();
    relay.send_to(&packet[..len], stage.addr).await.unwrap();
    stage.until_seen(Event::HandshakeFailed).await;
    drop(connecting);
    healthy(&stage).await;
}

#[tokio::test]
async fn who_shows_no_key_or_a_wrong_one_is_told_so() {
    let stage = Stage::new();
    let proof = |key: &[u8], signature: &[u8]| {
        Some(Auth::Key(KeyProof {
            public_key: Bytes::copy_from_slice(key),
            signature: Bytes::copy_from_slice(signature),
        }))
    };
    for (auth, expected) in [
        (None, code::AUTH_REQUIRED),
        (proof(&[1; 32], &[2; 64]), code::AUTH_FAILED),
        (proof(&[1; 31], &[2; 64]), code::AUTH_FAILED),
        (proof(&[1; 32], &[]), code::AUTH_FAILED),
    ] {
        let mut raw = Raw::connect(&stage).await;
        raw.say(FrameType::HELLO, &hello(auth)).await;
        let refused: proto::Refused = raw.next_frame().await.message().unwrap();
        assert_eq!(refused.code, u32::from(expected.0));
        assert_eq!(raw.closed_with().await, expected);
    }
    let mut raw = Raw::connect(&stage).await;
    let old = Hello {
        version_min: 90,
        version_max: 99,
        ..Hello::default()
    };
    raw.say(FrameType::HELLO, &old).await;
    assert_eq!(raw.closed_with().await, code::VERSION);
    let mut raw = Raw::connect(&stage).await;
    raw.say(FrameType::PING, &proto::Ping { token: 1 }).await;
    assert_eq!(raw.closed_with().await, code::AUTH_REQUIRED);
    assert_eq!(stage.mock.calls(), 0);
}

#[tokio::test]
async fn a_proof_from_another_connection_is_worth_nothing() {
    let stage = Stage::new();
    let pair = Ed25519KeyPair::generate().unwrap();
    let public_key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    stage.mock.register(public_key, "raw");
    let overheard = Raw::connect(&stage).await;
    let mut exporter = [0; EXPORTER_BYTES];
    overheard
        .connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
        .unwrap();
    let proof = KeyProof {
        public_key: Bytes::copy_from_slice(&public_key),
        signature: Bytes::copy_from_slice(pair.sign(&exporter).as_ref()),
    };
    let mut raw = Raw::connect(&stage).await;
    raw.say(FrameType::HELLO, &hello(Some(Auth::Key(proof))))
        .await;
    assert_eq!(raw.closed_with().await, code::AUTH_FAILED);
}

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let stage = Stage::new();
    let bystander = stage.client().await;
    let garbage: Vec<u8> = (0..2000u32).map(|i| ((i * 7919) >> 3) as u8 | 1).collect();
    let mut before = Raw::connect(&stage).await;
    before.send.write_all(&garbage).await.unwrap();
    assert_eq!(before.closed_with().await, code::PROTOCOL);
    let mut control = Raw::authenticated(&stage).await;
    control.send.write_all(&garbage).await.unwrap();
    assert_eq!(control.closed_with().await, code::PROTOCOL);
    let stream = Raw::authenticated(&stage).await;
    let (mut send, _recv) = stream.connection.open_bi().await.unwrap();
    send.write_all(&garbage).await.unwrap();
    assert_eq!(stream.closed_with().await, code::PROTOCOL);
    // A length of four gigabytes costs nothing but the connection.
    let huge = Raw::authenticated(&stage).await;
    let (mut send, _recv) = huge.connection.open_bi().await.unwrap();
    let prefix = Prefix {
        len: u32::MAX,
        kind: FrameType::REQUEST,
        flags: 0,
        codec: 0,
        extra: 0,
    };
    send.write_all(&prefix.encode()).await.unwrap();
    assert_eq!(huge.closed_with().await, code::PROTOCOL);
    assert_eq!(bystander.server_info().await.unwrap().shards, 8);
}

#[tokio::test]
async fn a_producer_is_resumed_or_non_idempotent() {
    let stage = Stage::new();
    create(&stage.client().await, "flights").await;
    let raw = Raw::authenticated(&stage).await;
    for (resume, non_idempotent, answer) in [
        (None, true, FrameType::PRODUCER_OPENED),
        (
            Some(proto::Resume {
                producer: 7,
                epoch: 0,
            }),
            true,
            FrameType::REFUSED,
        ),
        (
            Some(proto::Resume {
                producer: 7,
                epoch: 1 << 16,
            }),
            false,
            FrameType::REFUSED,
        ),
    ] {
        let (mut send, mut recv) = raw.connection.open_bi().await.unwrap();
        let open = proto::OpenProducer {
            topic: Some(proto::TopicRef {
                namespace: "default".to_owned(),
                topic: "flights".to_owned(),
            }),
            resume,
            non_idempotent,
        };
        let frame = encode_message(FrameType::OPEN_PRODUCER, 0, &open).unwrap();
        send.write_all(&frame).await.unwrap();
        let answered = next_frame(&mut recv).await;
        assert_eq!(answered.prefix.kind, answer, "{open:?}");
        if answer == FrameType::REFUSED {
            let refused: proto::Refused = answered.message().unwrap();
            assert_eq!(refused.code, u32::from(code::INVALID_ARGUMENT.0));
        } else {
            let opened: proto::ProducerOpened = answered.message().unwrap();
            assert_eq!(opened.producer, 0);
        }
    }
}

#[tokio::test]
async fn a_client_that_disappears_within_a_batch_leaves_nothing() {
    let stage = Stage::new();
    let bystander = stage.client().await;
    create(&bystander, "flights").await;
    let raw = Raw::authenticated(&stage).await;
    let (mut send, mut recv) = raw.connection.open_bi().await.unwrap();
    let open = proto::OpenProducer {
        topic: Some(proto::TopicRef {
            namespace: "default".to_owned(),
            topic: "flights".to_owned(),
        }),
        resume: None,
        non_idempotent: false,
    };
    let frame = encode_message(FrameType::OPEN_PRODUCER, 0, &open).unwrap();
    send.write_all(&frame).await.unwrap();
    let opened = next_frame(&mut recv).await;
    assert_eq!(opened.prefix.kind, FrameType::PRODUCER_OPENED);

    let mut builder = SectionBuilder::new();
    builder.push(&Message::new(vec![1; 10_000])).unwrap();
    let section = builder.finish().unwrap();
    let publish = |ticket: u64| {
        let header = PublishHeader {
            ticket,
            layout_version: 1,
            sequence: Sequence(ticket),
            section_crc: crc32c(&section),
            count: 1,
            span: 1,
            ..PublishHeader::default()
        };
        let header = header.encode(section.len()).unwrap();
        [&header[..], &section].concat()
    };
    send.write_all(&publish(0)).await.unwrap();
    let stored = next_frame(&mut recv).await;
    assert_eq!(stored.prefix.kind, FrameType::PUBLISHED);
    let whole = publish(1);
    send.write_all(&whole[..whole.len() / 2]).await.unwrap();
    raw.connection.close(0u32.into(), b"");
    raw.endpoint.wait_idle().await;
    stage.until_seen(Event::Closed).await;

    let producer = bystander
        .producer(&topic("flights"), ProducerOptions::default())
        .await
        .unwrap();
    let sent = producer.send(Message::new("after")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset.0, 1);
    assert_eq!(stage.mock.bodies(&topic("flights"), 0).len(), 2);
}

#[tokio::test]
async fn a_reader_that_never_reads_holds_no_more_than_its_credit() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights").await;
    let producer = client
        .producer(
            &topic("flights"),
            ProducerOptions {
                batch_bytes: 1000,
                ..ProducerOptions::default()
            },
        )
        .await
        .unwrap();
    for _ in 0..2000 {
        drop(
            producer
                .send(Message::new(vec![7; 1000]).key("k"))
                .await
                .unwrap(),
        );
    }
    producer.flush().await.unwrap();
    let options = ConsumerOptions {
        credit_messages: 1000,
        credit_bytes: 100_000,
        ..ConsumerOptions::new(group("sleepers"), Source::Topic(topic("flights")))
    };
    let mut idle = client.consumer(&options).await.unwrap();
    stage.mock.until(|mock| mock.given() >= 80).await;
    // Another one reads to the end meanwhile: the idle one got what its credit allowed, once.
    let options = ConsumerOptions::new(group("workers"), Source::Topic(topic("flights")));
    let mut busy = client.consumer(&options).await.unwrap();
    for _ in 0..2000 {
        busy.next().await.unwrap();
    }
    let given_to_idle = stage.mock.given() - 2000;
    assert!((80..=100).contains(&given_to_idle), "{given_to_idle}");
    idle.next().await.unwrap();
}

#[tokio::test]
async fn more_credit_than_is_allowed_ends_the_connection() {
    let stage = Stage::new();
    let bystander = stage.client().await;
    create(&bystander, "flights").await;
    let mut raw = Raw::authenticated(&stage).await;
    let subscribe = proto::Subscribe {
        subscription: 1,
        group: Some(proto::GroupRef {
            namespace: String::new(),
            group: "greedy".to_owned(),
        }),
        source: Some(proto::SourceRef {
            topic: Some(proto::TopicRef {
                namespace: String::new(),
                topic: "flights".to_owned(),
            }),
            view: String::new(),
        }),
        start: None,
        invisible_ms: 1000,
    };
    raw.say(FrameType::SUBSCRIBE, &subscribe).await;
    let credit = proto::Credit {
        subscription: 1,
        messages: 1,
        bytes: CREDIT_BYTES_MAX,
    };
    raw.say(FrameType::CREDIT, &credit).await;
    raw.say(FrameType::CREDIT, &credit).await;
    assert_eq!(raw.closed_with().await, code::PROTOCOL);
    stage.mock.until(|mock| mock.subscriptions() == 0).await;
}

#[tokio::test]
async fn a_list_that_would_take_sixty_times_its_bytes_ends_the_connection() {
    let stage = Stage::new();
    let bystander = stage.client().await;
    let raw = Raw::authenticated(&stage).await;
    let request = proto::Request {
        kind: Some(proto::RequestKind::CreateView(proto::CreateView {
            dry_run: false,
            view: None,
            bindings: vec![proto::BindingSpec::default(); 1_000_000],
        })),
    };
    let frame = encode_message(FrameType::REQUEST, 0, &request).unwrap();
    let (mut send, _recv) = raw.connection.open_bi().await.unwrap();
    // It may be closed before all of it was sent.
    drop(send.write_all(&frame).await);
    assert_eq!(raw.closed_with().await, code::PROTOCOL);
    bystander.server_info().await.unwrap();
    healthy(&stage).await;
}

#[tokio::test]
async fn frames_that_are_never_finished_take_no_more_than_their_budget() {
    let stage = Stage::new();
    let client = stage.client().await;
    create(&client, "flights").await;
    let raw = Raw::authenticated(&stage).await;
    let open = proto::OpenProducer {
        topic: Some(proto::TopicRef {
            namespace: String::new(),
            topic: "flights".to_owned(),
        }),
        ..proto::OpenProducer::default()
    };
    let open = encode_message(FrameType::OPEN_PRODUCER, 0, &open).unwrap();
    let section = vec![0; SECTION_BYTES_MAX];
    let header = PublishHeader {
        ticket: 1,
        ..PublishHeader::default()
    };
    let header = header.encode(section.len()).unwrap();
    let mut ends = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (mut send, mut recv) = raw.connection.open_bi().await.unwrap();
        send.write_all(&open).await.unwrap();
        assert_eq!(
            next_frame(&mut recv).await.prefix.kind,
            FrameType::PRODUCER_OPENED
        );
        send.write_all(&header).await.unwrap();
        // Whoever is beyond the budget is told while it writes, or soon after.
        drop(send.write_all(&section[1..]).await);
        ends.spawn(async move {
            let _recv = recv;
            send.stopped().await
        });
    }
    // Eight sections of this size are too much by a little.
    for _ in 0..4 {
        let end = tokio::time::timeout(crate::DEADLINE, ends.join_next());
        let end = end.await.expect("a stream beyond the budget is ended");
        let code = end.unwrap().unwrap().unwrap();
        assert_eq!(code, Some(u32::from(code::OVERLOADED.0).into()));
    }
    client.server_info().await.unwrap();
    healthy(&stage).await;
}

#[tokio::test]
async fn names_of_every_wrong_kind_are_refused_before_the_broker_hears_of_them() {
    let stage = Stage::new();
    let raw = Raw::authenticated(&stage).await;
    let long = "n".repeat(128);
    for bad in ["", "a/b", "..", "a..b", "%DLQ%g", "%x", "é", "a b", &long] {
        let (mut send, mut recv) = raw.connection.open_bi().await.unwrap();
        let request = proto::Request {
            kind: Some(proto::RequestKind::CreateTopic(proto::CreateTopic {
                topic: Some(proto::TopicRef {
                    namespace: "default".to_owned(),
                    topic: bad.to_owned(),
                }),
                queues: 1,
                settings: None,
            })),
        };
        let frame = encode_message(FrameType::REQUEST, 0, &request).unwrap();
        send.write_all(&frame).await.unwrap();
        let refused = next_frame(&mut recv).await;
        assert_eq!(refused.prefix.kind, FrameType::REFUSED, "{bad:?}");
        let refused: proto::Refused = refused.message().unwrap();
        assert_eq!(refused.code, u32::from(code::INVALID_NAME.0), "{bad:?}");
    }
    assert_eq!(stage.mock.calls(), 0);
}

#[tokio::test]
async fn another_protocol_gets_no_connection() {
    let stage = Stage::new();
    for alpn in [&[b"h3".as_slice()][..], &[]] {
        assert!(Raw::try_connect(&stage, alpn).await.is_err());
    }
    stage.until_seen(Event::HandshakeFailed).await;
    healthy(&stage).await;
}

#[tokio::test]
async fn a_full_server_refuses_and_a_busy_one_asks_for_proof_of_address() {
    let full = Stage::with(|config| config.connections_max = 1);
    let first = full.client().await;
    let key = ClientKey::generate().unwrap();
    full.mock.register(key.public(), "second");
    let error = Client::connect(&full.address(), &key, ConnectOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, code::OVERLOADED);
    assert!(error.to_string().contains("1 clients"), "{error}");
    full.until_seen(Event::TurnedAway(code::OVERLOADED)).await;
    first.server_info().await.unwrap();

    let changes: [fn(&mut QuicConfig); 2] = [
        |config| config.preauth_retry = 0,
        |config| config.preauth_network_retry = 0,
    ];
    for change in changes {
        let busy = Stage::with(change);
        healthy(&busy).await;
        assert!(busy.saw(Event::Retried));
    }
}

#[tokio::test]
async fn silent_peers_take_the_places_of_their_network_and_of_no_client() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let stage = Stage::with(|config| {
        config.connections_max = 2;
        config.preauth_network_max = 3;
    });
    let first = stage.client().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let raw = Raw::try_connect_from(OTHER, &stage, &[ALPN]).await;
        silent.push(raw.unwrap());
    }
    let refused = Raw::try_connect_from(OTHER, &stage, &[ALPN]).await;
    assert!(
        matches!(refused, Err(ConnectionError::ConnectionClosed(_))),
        "{:?}",
        refused.err()
    );
    assert!(stage.saw(Event::Refused));
    // More are connected than may be clients, and a client still gets in.
    let second = stage.client().await;
    first.server_info().await.unwrap();
    second.server_info().await.unwrap();
    // Whoever leaves makes room.
    silent.clear();
    let again = async {
        while Raw::try_connect_from(OTHER, &stage, &[ALPN]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn strangers_leave_the_places_that_are_kept_for_networks_of_clients() {
    let stage = Stage::with(|config| {
        config.preauth_max = 4;
        config.preauth_network_max = 4;
    });
    // The network of the tests is known from now on.
    stage.client().await.server_info().await.unwrap();
    let mut silent = Vec::new();
    for last in 2..5 {
        let own = Ipv4Addr::new(127, 0, 0, last);
        silent.push(Raw::try_connect_from(own, &stage, &[ALPN]).await.unwrap());
    }
    let own = Ipv4Addr::new(127, 0, 0, 9);
    let refused = Raw::try_connect_from(own, &stage, &[ALPN]).await;
    assert!(refused.is_err(), "the last place is kept");
    healthy(&stage).await;
}

#[tokio::test]
async fn settings_out_of_bounds_are_refused_with_their_bounds() {
    let changes: [fn(&mut QuicConfig); 5] = [
        |config| config.preauth_network_max = 0,
        |config| config.mtu_upper_bound = 9000,
        |config| config.streams_max = 0,
        |config| config.receive_window = 1,
        |config| config.preauth_time = Duration::from_secs(60),
    ];
    for change in changes {
        let error = Stage::try_with(change).err().unwrap();
        assert_eq!(error.code(), code::INVALID_ARGUMENT);
        assert!(error.to_string().contains("must be"), "{error}");
    }
}
