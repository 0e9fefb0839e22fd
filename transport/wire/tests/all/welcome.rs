//! Who gets in, and what nobody gets before.

use std::time::Duration;

use bytes::Bytes;
use tidegate_model::code;
use tidegate_wire::frame::FLAG_MAY_IGNORE;
use tidegate_wire::limits::{PREAUTH_BYTES_MAX, PREAUTH_TIME_MAX};
use tidegate_wire::{
    CONTROL, ClientEvent, FrameType, Output, Refusal, ServerEvent, ServerSession, StreamId,
    encode_message, proto,
};

use crate::pair::{End, Net, Pair, hello, let_in, welcome};

#[test]
fn a_client_is_let_in_and_learns_limits() {
    let mut pair = Pair::new(Net::default());
    let mut seen = None;
    pair.run(&mut |server, event| {
        if let ServerEvent::Hello(hello) = event {
            seen = Some(hello.agent.clone());
            server.welcome(proto::Welcome {
                limits: Some(proto::Limits {
                    streams_max: 3,
                    ..proto::Limits::default()
                }),
                ..welcome()
            });
        }
    });
    assert_eq!(seen.as_deref(), Some("pair"));
    assert!(pair.server.is_authenticated());
    assert_eq!(pair.client.limits().streams_max, 3);
    assert!(pair.client.limits().credit_bytes_max > 0);
    assert_eq!(pair.now, Duration::from_millis(1020));
}

#[test]
fn a_client_that_is_refused_learns_why() {
    let mut pair = Pair::new(Net::default());
    pair.run(&mut |server, event| {
        if let ServerEvent::Hello(_) = event {
            server.refuse(&Refusal::new(code::TOKEN_EXPIRED, "16 minutes old").hint("restart"));
        }
    });
    let Some(ClientEvent::Refused(refusal)) = pair.told.pop_front() else {
        panic!("not told");
    };
    assert_eq!(refusal.code, code::TOKEN_EXPIRED);
    assert_eq!(refusal.hint, "restart");
    assert_eq!(pair.closed_by(End::Server).unwrap().0, code::TOKEN_EXPIRED);
    assert!(pair.told.is_empty());
}

#[test]
fn peers_without_a_common_version_part() {
    let mut pair = Pair::new(Net::default());
    let future = proto::Hello {
        version_min: 2,
        version_max: 9,
        ..hello()
    };
    let frame = encode_message(FrameType::HELLO, 0, &future).unwrap();
    let mut pair_told = None;
    pair.server.handle_opened(pair.now, CONTROL);
    pair.server.handle_data(pair.now, CONTROL, frame);
    while let Some(event) = pair.server.poll_event() {
        pair_told = Some(event);
    }
    assert!(matches!(
        pair_told,
        Some(ServerEvent::Closing(refusal)) if refusal.code == code::VERSION
    ));
}

#[test]
fn before_authentication_a_peer_has_16_kib() {
    let mut server = ServerSession::new(Duration::ZERO);
    server.handle_opened(Duration::ZERO, CONTROL);
    let filler = frame_of(PREAUTH_BYTES_MAX / 4);
    for _ in 0..4 {
        server.handle_data(Duration::ZERO, CONTROL, filler.clone());
    }
    assert!(!server.is_closed());
    server.handle_data(Duration::ZERO, CONTROL, filler.slice(..1));
    let Some(ServerEvent::Closing(refusal)) = server.poll_event() else {
        panic!("not told");
    };
    assert_eq!(refusal.code, code::PREAUTH_LIMIT);
    assert!(
        refusal.message.contains("16384 bytes"),
        "{}",
        refusal.message
    );
    let outputs: Vec<Output> = std::iter::from_fn(|| server.poll_output()).collect();
    assert!(matches!(
        outputs.last(),
        Some(Output::Close { code, .. }) if *code == code::PREAUTH_LIMIT
    ));
}

#[test]
fn before_authentication_a_peer_has_one_stream() {
    let mut pair = Pair::new(Net::default());
    pair.inject(End::Server, StreamId::new(false, false, 1), vec![0x40]);
    pair.sleep(Duration::from_millis(100), &mut |_, _| {});
    let (code, reason) = pair.closed_by(End::Server).unwrap();
    assert_eq!(*code, code::PREAUTH_LIMIT);
    assert!(reason.contains("one stream"), "{reason}");
}

#[test]
fn before_authentication_a_peer_has_five_seconds() {
    // Once without a hello, once with one that the application never answers.
    for half in [true, false] {
        let mut pair = Pair::new(Net::default());
        let start = pair.now;
        if half {
            let frame = encode_message(FrameType::HELLO, 0, &hello()).unwrap();
            pair.server.handle_opened(start, CONTROL);
            pair.server
                .handle_data(start, CONTROL, frame.slice(..frame.len() - 1));
            assert_eq!(pair.server.poll_timeout(), Some(start + PREAUTH_TIME_MAX));
            pair.server.handle_timeout(start + PREAUTH_TIME_MAX);
            assert!(matches!(
                pair.server.poll_event(),
                Some(ServerEvent::Closing(refusal)) if refusal.code == code::AUTH_TIMEOUT
            ));
        } else {
            pair.sleep(PREAUTH_TIME_MAX - Duration::from_millis(1), &mut |_, _| {});
            assert!(pair.closed_by(End::Server).is_none());
            pair.sleep(Duration::from_millis(1), &mut |_, _| {});
            let (code, _) = pair.closed_by(End::Server).unwrap();
            assert_eq!(*code, code::AUTH_TIMEOUT);
            pair.sleep(Duration::from_secs(1), &mut |_, _| {});
            assert!(matches!(
                pair.told.pop_front(),
                Some(ClientEvent::Refused(refusal)) if refusal.code == code::AUTH_TIMEOUT
            ));
        }
    }
}

#[test]
fn nothing_but_a_hello_comes_first() {
    let mut pair = Pair::new(Net::default());
    let ping = encode_message(FrameType::PING, 0, &proto::Ping { token: 1 }).unwrap();
    pair.server.handle_opened(pair.now, CONTROL);
    pair.server.handle_data(pair.now, CONTROL, ping);
    assert!(matches!(
        pair.server.poll_event(),
        Some(ServerEvent::Closing(refusal)) if refusal.code == code::AUTH_REQUIRED
    ));
}

#[test]
fn control_frames_wait_while_the_application_authenticates() {
    let mut pair = Pair::new(Net::default());
    pair.client.ping(5);
    let mut asked = false;
    pair.run(&mut |_, event| asked |= matches!(event, ServerEvent::Hello(_)));
    assert!(asked);
    pair.server.welcome(welcome());
    pair.run(&mut |server, event| let_in(server, &event));
    assert!(matches!(
        pair.told.pop_front(),
        Some(ClientEvent::Welcome(_))
    ));
    assert_eq!(pair.told.pop_front(), Some(ClientEvent::Pong { token: 5 }));
}

#[test]
fn a_server_that_goes_away_answers_what_is_in_flight() {
    let mut pair = Pair::connected(Net::default());
    let first = pair
        .client
        .request(proto::RequestKind::DescribeServer(proto::Empty {}))
        .unwrap();
    let mut asked = None;
    pair.run(&mut |_, event| {
        if let ServerEvent::Request { stream, .. } = event {
            asked = Some(stream);
        }
    });
    assert_eq!(asked, Some(first));
    let why = Refusal::new(code::SHUTTING_DOWN, "restart");
    pair.server.go_away(&why, Duration::from_secs(3));
    assert!(!pair.server.is_idle());
    let late = pair
        .client
        .request(proto::RequestKind::DescribeServer(proto::Empty {}))
        .unwrap();
    pair.run(&mut |_, event| panic!("{event:?} while going away"));
    pair.server
        .reply(first, proto::ReplyKind::Done(proto::Empty {}), Vec::new());
    pair.run(&mut |_, event| panic!("{event:?} while going away"));
    assert!(pair.server.is_idle());
    let told: Vec<ClientEvent> = pair.told.drain(..).collect();
    assert!(told.contains(&ClientEvent::GoAway {
        refusal: why.clone(),
        drain_ms: 3000
    }));
    assert!(told.contains(&ClientEvent::RequestRefused {
        stream: late,
        refusal: why.clone()
    }));
    assert!(
        told.iter()
            .any(|event| matches!(event, ClientEvent::Replied { stream, .. } if *stream == first))
    );
    let refused = pair
        .client
        .request(proto::RequestKind::DescribeServer(proto::Empty {}));
    assert_eq!(refused, Err(why));
}

/// A frame from the future of `len` bytes.
fn frame_of(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[4] = 0x7f;
    bytes[5] = FLAG_MAY_IGNORE;
    bytes.into()
}
