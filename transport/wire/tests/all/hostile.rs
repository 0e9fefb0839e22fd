//! What no peer should send, and what peers from the future may.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_model::limits::SECTION_BYTES_MAX;
use tidegate_model::{Code, code};
use tidegate_wire::frame::FLAG_MAY_IGNORE;
use tidegate_wire::limits::{
    CONNECTION_PARTIAL_BYTES_MAX, FIRST_FRAME_TIME_MAX, PROGRESS_TIME_MAX, REQUEST_FIELDS_MAX,
    STREAMS_MAX,
};
use tidegate_wire::{
    CONTROL, ClientEvent, ClientSession, FrameType, Output, PublishHeader, Refusal, ServerEvent,
    ServerSession, StreamId, encode_message, proto,
};

use crate::pair::{End, Net, Pair, hello, welcome};

const MS: Duration = Duration::from_millis(1);

fn bidi(index: u64) -> StreamId {
    StreamId::new(false, false, index)
}

/// A frame of a type that nobody knows.
fn future(flags: u8) -> Bytes {
    Bytes::from(vec![12, 0, 0, 0, 0x6f, flags, 0, 0, 1, 2, 3, 4])
}

fn run(pair: &mut Pair) -> Vec<ServerEvent> {
    let mut events = Vec::new();
    pair.run(&mut |_, event| events.push(event));
    events
}

#[test]
fn garbage_on_any_stream_ends_the_connection_with_protocol() {
    for stream in [CONTROL, bidi(1)] {
        let mut pair = Pair::connected(Net::default());
        pair.inject(
            End::Server,
            stream,
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        );
        let events = run(&mut pair);
        assert!(matches!(
            &events[..],
            [ServerEvent::Closing(refusal)] if refusal.code == code::PROTOCOL
        ));
        let (code, reason) = pair.closed_by(End::Server).unwrap();
        assert_eq!(*code, code::PROTOCOL);
        assert!(
            reason.starts_with(&format!("stream {}: ", stream.0)),
            "{reason}"
        );
        assert!(matches!(
            pair.told.pop_front(),
            Some(ClientEvent::Closing(refusal)) if refusal.code == code::PROTOCOL
        ));
    }
}

#[test]
fn unknown_frames_are_skipped_only_where_they_say_so() {
    let mut pair = Pair::connected(Net::default());
    pair.inject(End::Server, CONTROL, future(FLAG_MAY_IGNORE));
    pair.inject(End::Client, CONTROL, future(FLAG_MAY_IGNORE));
    pair.client.ping(4);
    assert_eq!(run(&mut pair), []);
    assert_eq!(pair.told.pop_front(), Some(ClientEvent::Pong { token: 4 }));
    pair.inject(End::Server, CONTROL, future(0));
    run(&mut pair);
    let (code, reason) = pair.closed_by(End::Server).unwrap();
    assert_eq!(*code, code::PROTOCOL);
    assert!(reason.contains("type 0x6f"), "{reason}");
}

#[test]
fn known_frames_that_come_from_the_wrong_side_are_refused() {
    for kind in [FrameType::WELCOME, FrameType::SUBSCRIBED, FrameType::HELLO] {
        let mut pair = Pair::connected(Net::default());
        let frame = encode_message(kind, FLAG_MAY_IGNORE, &proto::Ping::default()).unwrap();
        pair.inject(End::Server, CONTROL, frame);
        run(&mut pair);
        assert_eq!(pair.closed_by(End::Server).unwrap().0, code::PROTOCOL);
    }
}

#[test]
fn streams_of_an_unknown_kind_are_stopped_and_nothing_else() {
    let mut pair = Pair::connected(Net::default());
    pair.inject(End::Client, StreamId::new(true, true, 9), future(0));
    // One way to a server has no kind at all yet.
    pair.inject(End::Server, StreamId::new(false, true, 9), future(0));
    pair.inject(End::Server, bidi(7), future(FLAG_MAY_IGNORE));
    assert_eq!(run(&mut pair), []);
    assert!(pair.closed_by(End::Server).is_none());
    assert!(pair.closed_by(End::Client).is_none());
    assert!(!pair.client.wants_data(StreamId::new(true, true, 9)));
    assert!(!pair.server.wants_data(StreamId::new(false, true, 9)));
    assert!(!pair.server.wants_data(bidi(7)));
}

#[test]
fn a_half_sent_frame_has_to_make_progress() {
    let mut pair = Pair::connected(Net::default());
    let open = encode_message(FrameType::OPEN_PRODUCER, 0, &proto::OpenProducer::default());
    let stream = bidi(1);
    pair.inject(End::Server, stream, open.unwrap());
    pair.run(&mut |server, event| {
        if let ServerEvent::OpenProducer { stream, .. } = event {
            server.producer_opened(stream, &proto::ProducerOpened::default());
        }
    });
    let header = PublishHeader::default().encode(1 << 20).unwrap();
    pair.inject(End::Server, stream, header.to_vec());
    // Enough every ten seconds: it may go on.
    for _ in 0..5 {
        pair.inject(End::Server, stream, vec![0; 12 * 1024]);
        pair.sleep(PROGRESS_TIME_MAX, &mut |_, event| panic!("{event:?}"));
        assert!(pair.server.wants_data(stream));
    }
    // A byte every second is not enough.
    let mut events = Vec::new();
    for _ in 0..21 {
        pair.inject(End::Server, stream, vec![0]);
        pair.sleep(1000 * MS, &mut |_, event| events.push(event));
    }
    let is_done = false;
    assert_eq!(events, [ServerEvent::ProducerClosed { stream, is_done }]);
    assert!(!pair.server.wants_data(stream));
    assert!(pair.closed_by(End::Server).is_none());
}

#[test]
fn half_sent_frames_of_a_connection_have_a_budget() {
    let mut pair = Pair::connected(Net::default());
    let section = SECTION_BYTES_MAX - 1;
    let header = PublishHeader {
        ticket: 1,
        ..PublishHeader::default()
    };
    let header = header.encode(section).unwrap();
    let streams = CONNECTION_PARTIAL_BYTES_MAX / section;
    let mut ended = Vec::new();
    for index in 1..=streams as u64 + 2 {
        let open = encode_message(FrameType::OPEN_PRODUCER, 0, &proto::OpenProducer::default());
        pair.inject(End::Server, bidi(index), open.unwrap());
        pair.run(&mut |server, event| {
            if let ServerEvent::OpenProducer { stream, .. } = event {
                server.producer_opened(stream, &proto::ProducerOpened::default());
            }
        });
        pair.inject(End::Server, bidi(index), header.to_vec());
        for at in (1..section).step_by(64 * 1024) {
            let len = (section - at).min(64 * 1024);
            pair.inject(End::Server, bidi(index), vec![0; len]);
        }
        ended.extend(run(&mut pair));
    }
    // Those that had room go on; the ones behind were told that there is none.
    let beyond = streams as u64 + 1..=streams as u64 + 2;
    let closed = beyond.map(|index| ServerEvent::ProducerClosed {
        stream: bidi(index),
        is_done: false,
    });
    assert_eq!(ended, closed.collect::<Vec<_>>());
    assert!(pair.closed_by(End::Server).is_none());
    pair.inject(End::Server, bidi(1), vec![0]);
    assert!(matches!(
        run(&mut pair)[..],
        [ServerEvent::Publish { stream, .. }] if stream == bidi(1)
    ));
    // What is whole counts no more.
    pair.inject(End::Server, bidi(2), vec![0]);
    assert_eq!(run(&mut pair).len(), 1);
    assert!(pair.closed_by(End::Server).is_none());
}

#[test]
fn a_request_has_a_bound_on_its_lists() {
    let view = |bindings| proto::Request {
        kind: Some(proto::RequestKind::CreateView(proto::CreateView {
            dry_run: false,
            view: None,
            bindings: vec![proto::BindingSpec::default(); bindings],
        })),
    };
    for (bindings, is_taken) in [
        (REQUEST_FIELDS_MAX - 1, true),
        (REQUEST_FIELDS_MAX, false),
        (1_000_000, false),
    ] {
        let mut pair = Pair::connected(Net::default());
        let frame = encode_message(FrameType::REQUEST, 0, &view(bindings)).unwrap();
        pair.inject(End::Server, bidi(1), frame);
        let events = run(&mut pair);
        let taken = matches!(events[..], [ServerEvent::Request { .. }]);
        assert_eq!(taken, is_taken, "{bindings}");
        assert_eq!(pair.closed_by(End::Server).is_none(), is_taken);
    }
}

#[test]
fn a_half_sent_control_frame_ends_the_connection() {
    let mut pair = Pair::connected(Net::default());
    pair.inject(End::Server, CONTROL, vec![200, 0, 0, 0, 4, 0]);
    pair.sleep(PROGRESS_TIME_MAX + 20 * MS, &mut |_, _| {});
    assert_eq!(pair.closed_by(End::Server).unwrap().0, code::TIMEOUT);
}

#[test]
fn a_stream_has_five_seconds_for_its_first_frame() {
    let mut pair = Pair::connected(Net::default());
    pair.inject(End::Server, bidi(1), vec![9]);
    pair.sleep(FIRST_FRAME_TIME_MAX - 100 * MS, &mut |_, _| {});
    assert!(pair.server.wants_data(bidi(1)));
    pair.sleep(200 * MS, &mut |_, _| {});
    assert!(!pair.server.wants_data(bidi(1)));
    assert!(pair.closed_by(End::Server).is_none());
    assert_eq!(pair.server.poll_timeout(), None);
}

#[test]
fn more_streams_than_allowed_are_reset() {
    let now = Duration::ZERO;
    let mut server = ready(now);
    for i in 1..=STREAMS_MAX as u64 + 3 {
        server.handle_opened(now, bidi(i));
    }
    let reset: Vec<StreamId> = std::iter::from_fn(|| server.poll_output())
        .filter_map(|output| match output {
            Output::Reset { stream, code } if code == code::OVERLOADED => Some(stream),
            _ => None,
        })
        .collect();
    let most = STREAMS_MAX as u64;
    assert_eq!(reset, [bidi(most + 1), bidi(most + 2), bidi(most + 3)]);
    assert!(!server.is_closed());
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error() {
    let mut pair = Pair::connected(Net::default());
    pair.inject(End::Server, bidi(1), vec![100, 0, 0, 0, 0x40, 0, 0, 0, 1]);
    pair.finish(End::Server, bidi(1));
    run(&mut pair);
    let (code, reason) = pair.closed_by(End::Server).unwrap();
    assert_eq!(*code, code::PROTOCOL);
    assert!(reason.contains("91 bytes"), "{reason}");
}

#[test]
fn codes_of_resets_and_closes_need_not_be_known() {
    let mut pair = Pair::connected(Net::default());
    let stream = pair
        .client
        .request(proto::RequestKind::DescribeServer(proto::Empty {}))
        .unwrap();
    run(&mut pair);
    pair.client.handle_reset(pair.now, stream, Code(61_000));
    run(&mut pair);
    assert!(matches!(
        pair.told.pop_front(),
        Some(ClientEvent::RequestRefused { refusal, .. }) if refusal.code == Code(61_000)
    ));
    let other = pair
        .client
        .request(proto::RequestKind::DescribeServer(proto::Empty {}))
        .unwrap();
    pair.client
        .handle_lost(pair.now, &Refusal::new(Code(61_001), "?"));
    assert_eq!(
        pair.client.poll_event(),
        Some(ClientEvent::RequestRefused {
            stream: other,
            refusal: Refusal::new(Code(61_001), "?")
        })
    );
    pair.server.handle_reset(pair.now, stream, Code(61_002));
    pair.server.handle_stopped(pair.now, CONTROL, Code(61_003));
    assert!(pair.server.is_closed());
}

#[test]
fn a_client_whose_control_stream_breaks_says_so() {
    let breaks: [fn(&mut Pair); 2] = [
        |pair| pair.client.handle_reset(pair.now, CONTROL, Code(62_000)),
        |pair| pair.client.handle_stopped(pair.now, CONTROL, Code(62_000)),
    ];
    for break_it in breaks {
        let mut pair = Pair::connected(Net::default());
        break_it(&mut pair);
        assert!(pair.client.is_closed());
        assert!(matches!(
            pair.client.poll_event(),
            Some(ClientEvent::Closing(refusal)) if refusal.code == Code(62_000)
        ));
    }
}

#[test]
fn a_producer_that_is_reset_drops_its_answers() {
    let mut pair = Pair::connected(Net::default());
    let open = encode_message(FrameType::OPEN_PRODUCER, 0, &proto::OpenProducer::default());
    let stream = bidi(1);
    pair.inject(End::Server, stream, open.unwrap());
    pair.run(&mut |server, event| {
        if let ServerEvent::OpenProducer { stream, .. } = event {
            server.producer_opened(stream, &proto::ProducerOpened::default());
        }
    });
    pair.server.handle_reset(pair.now, stream, code::CANCELLED);
    assert_eq!(
        pair.server.poll_event(),
        Some(ServerEvent::ProducerClosed {
            stream,
            is_done: false
        })
    );
    pair.server.published(stream, &[]);
    pair.server
        .publish_refused(stream, 1, &Refusal::new(code::INTERNAL, "late"));
    assert!(pair.server.is_idle());
}

/// A session whose client was let in.
fn ready(now: Duration) -> ServerSession {
    let mut server = ServerSession::new(now);
    server.handle_opened(now, CONTROL);
    let frame = encode_message(
        FrameType::HELLO,
        0,
        &proto::Hello {
            version_min: 1,
            version_max: 1,
            ..hello()
        },
    );
    server.handle_data(now, CONTROL, frame.unwrap());
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    server.welcome(welcome());
    server
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(8 + payload.len()).unwrap();
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, flags, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Something that a transport could report.
#[derive(Clone, Debug)]
enum Step {
    Data(u64, Vec<u8>),
    Fin(u64),
    Reset(u64),
    Stop(u64),
    Pass(u64),
    Answer,
    Transmit(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let stream = prop_oneof![Just(0u64), 0u64..16];
    let kinds: Vec<u8> = FrameType::ALL.iter().map(|kind| kind.0).collect();
    let kind = prop_oneof![prop::sample::select(kinds), any::<u8>()];
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        (
            kind,
            any::<u8>(),
            prop::collection::vec(any::<u8>(), 0..100)
        )
            .prop_map(|(kind, flags, payload)| frame(kind, flags, &payload)),
        (1u32..4, 0u32..100, 0u32..1000).prop_map(|(subscription, messages, bytes)| {
            let subscribe = proto::Subscribe {
                subscription,
                ..proto::Subscribe::default()
            };
            let credit = proto::Credit {
                subscription,
                messages,
                bytes,
            };
            let mut out = encode_message(FrameType::SUBSCRIBE, 0, &subscribe)
                .unwrap()
                .to_vec();
            out.extend_from_slice(&encode_message(FrameType::CREDIT, 0, &credit).unwrap());
            out
        }),
        (any::<u64>(), 0usize..50).prop_map(|(ticket, len)| {
            let mut out =
                encode_message(FrameType::OPEN_PRODUCER, 0, &proto::OpenProducer::default())
                    .unwrap()
                    .to_vec();
            let header = PublishHeader {
                ticket,
                ..PublishHeader::default()
            };
            out.extend_from_slice(&header.encode(len).unwrap());
            out.resize(out.len() + len, 0);
            out
        }),
    ];
    prop_oneof![
        6 => (stream.clone(), bytes).prop_map(|(stream, bytes)| Step::Data(stream, bytes)),
        1 => stream.clone().prop_map(Step::Fin),
        1 => stream.clone().prop_map(Step::Reset),
        1 => stream.clone().prop_map(Step::Stop),
        1 => (0u64..8000).prop_map(Step::Pass),
        3 => Just(Step::Answer),
        2 => stream.prop_map(Step::Transmit),
    ]
}

/// Answers what can be answered, as an application would.
fn answer(server: &mut ServerSession) {
    let why = Refusal::new(code::UNSUPPORTED, "no");
    while let Some(event) = server.poll_event() {
        match event {
            ServerEvent::Hello(_) => server.welcome(welcome()),
            ServerEvent::Subscribe(subscribe) => server.subscribed(subscribe.subscription),
            ServerEvent::Settle(settle) => server.settled(settle.ticket, Err(&why)),
            ServerEvent::OpenProducer { stream, .. } => {
                server.producer_opened(stream, &proto::ProducerOpened::default());
            }
            ServerEvent::Publish { stream, header, .. } => {
                server.publish_refused(stream, header.ticket, &why);
            }
            ServerEvent::Request { stream, .. } => server.refuse_request(stream, &why),
            ServerEvent::Credit { .. }
            | ServerEvent::Unsubscribe { .. }
            | ServerEvent::ProducerClosed { .. }
            | ServerEvent::RequestCancelled { .. }
            | ServerEvent::Closing(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn no_sequence_of_events_upsets_a_server(
        authenticated in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut now = Duration::from_secs(1);
        let mut server = if authenticated { ready(now) } else { ServerSession::new(now) };
        for step in steps {
            match step {
                Step::Data(stream, bytes) => {
                    server.handle_opened(now, StreamId(stream));
                    server.handle_data(now, StreamId(stream), bytes.into());
                }
                Step::Fin(stream) => server.handle_finished(now, StreamId(stream)),
                Step::Reset(stream) => server.handle_reset(now, StreamId(stream), code::CANCELLED),
                Step::Stop(stream) => server.handle_stopped(now, StreamId(stream), code::CANCELLED),
                Step::Pass(ms) => {
                    now += ms as u32 * MS;
                    server.handle_timeout(now);
                }
                Step::Answer => answer(&mut server),
                Step::Transmit(stream) => while server.transmit(StreamId(stream)).is_some() {},
            }
            while server.poll_output().is_some() {}
        }
        answer(&mut server);
        server.handle_lost(now);
        answer(&mut server);
        for stream in 0..400 {
            while server.transmit(StreamId(stream)).is_some() {}
        }
        prop_assert!(server.is_closed());
        prop_assert_eq!(server.poll_timeout(), None);
    }

    #[test]
    fn no_sequence_of_events_upsets_a_client(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut now = Duration::from_secs(1);
        let mut client = ClientSession::new(now, hello()).unwrap();
        let frame = encode_message(FrameType::WELCOME, 0, &proto::Welcome { version: 1, ..welcome() });
        client.handle_data(now, CONTROL, frame.unwrap());
        prop_assert!(client.is_welcomed());
        let subscription = client.subscribe(proto::Subscribe::default()).unwrap();
        client.grant(subscription, 10, 100);
        client.open_producer(&proto::OpenProducer::default()).unwrap();
        client.request(proto::RequestKind::DescribeServer(proto::Empty {})).unwrap();
        for step in steps {
            match step {
                Step::Data(stream, bytes) => {
                    client.handle_opened(now, StreamId(stream));
                    client.handle_data(now, StreamId(stream), bytes.into());
                }
                Step::Fin(stream) => client.handle_finished(now, StreamId(stream)),
                Step::Reset(stream) => client.handle_reset(now, StreamId(stream), code::CANCELLED),
                Step::Stop(stream) => client.handle_stopped(now, StreamId(stream), code::CANCELLED),
                Step::Pass(ms) => {
                    now += ms as u32 * MS;
                    client.handle_timeout(now);
                }
                Step::Answer => while client.poll_event().is_some() {},
                Step::Transmit(stream) => while client.transmit(StreamId(stream)).is_some() {},
            }
            while client.poll_output().is_some() {}
        }
        client.handle_lost(now, &Refusal::new(code::UNREACHABLE, "cut"));
        prop_assert!(client.is_closed());
        prop_assert_eq!(client.credit_left(subscription), (0, 0));
    }
}
