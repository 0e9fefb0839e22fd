//! Frames of the native protocol, as they come off a stream.

use bytes::Bytes;
use prost::Message;
use tidegate_model::{LeaseId, Offset, QueueId, Seq, Sequence, ShardId, Timestamp};
use tidegate_wire::frame::{FLAG_MAY_IGNORE, PREFIX_BYTES};
use tidegate_wire::publish::{decode_outcomes, encode_outcomes};
use tidegate_wire::{
    DeliveryHeader, Frame, FrameDecoder, FrameType, Outcome, Prefix, PublishHeader, PublishOutcome,
    Receipt, SettleFrame, SettleRun, WireError, encode_message, proto,
};

/// Cuts an input into chunks (its first byte says how long), and the chunks into frames; what was
/// accepted is written and read again. However the bytes are cut, the frames are the same.
///
/// # Panics
/// If cutting changes the frames, or a frame doesn't survive being written.
pub fn run(input: &[u8]) {
    let Some((&chunk_bytes, stream)) = input.split_first() else {
        return;
    };
    let whole = frames(&[Bytes::copy_from_slice(stream)]);
    let chunks: Vec<Bytes> = stream
        .chunks(usize::from(chunk_bytes) + 1)
        .map(Bytes::copy_from_slice)
        .collect();
    assert_eq!(frames(&chunks), whole, "the cut changed the frames");
    for frame in &whole.0 {
        assert_eq!(frame.bytes.len(), frame.prefix.len as usize);
        assert_eq!(Frame::parse(frame.bytes.clone()).as_ref(), Ok(frame));
        check(frame);
    }
}

fn frames(chunks: &[Bytes]) -> (Vec<Frame>, Option<WireError>) {
    let mut decoder = FrameDecoder::new();
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.push(chunk.clone());
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn check(frame: &Frame) {
    match frame.prefix.kind {
        FrameType::PUBLISH => {
            let (header, section) = PublishHeader::decode(frame).expect("any bytes are a header");
            let mut again = header.encode(section.len()).expect("it fit").to_vec();
            again.extend_from_slice(&section);
            assert_eq!(PublishHeader::decode(&reread(again)), Ok((header, section)));
        }
        FrameType::DELIVERY => {
            let (header, section) = DeliveryHeader::decode(frame).expect("any bytes are a header");
            let Ok(again) = header.encode(section.len()) else {
                return;
            };
            let mut again = again.to_vec();
            again.extend_from_slice(&section);
            assert_eq!(
                DeliveryHeader::decode(&reread(again)),
                Ok((header, section))
            );
        }
        FrameType::PUBLISHED => {
            let Ok(outcomes) = decode_outcomes(frame) else {
                return;
            };
            let (again, rest) = encode_outcomes(&outcomes);
            assert!(rest.is_empty(), "one frame's outcomes fit into one frame");
            assert_eq!(decode_outcomes(&reread(again.to_vec())), Ok(outcomes));
        }
        FrameType::SETTLE => {
            let Ok(settle) = SettleFrame::decode(frame) else {
                return;
            };
            let again = settle.encode().expect("it fit");
            assert_eq!(SettleFrame::decode(&reread(again.to_vec())), Ok(settle));
        }
        FrameType::HELLO => check_message::<proto::Hello>(frame),
        FrameType::WELCOME => check_message::<proto::Welcome>(frame),
        FrameType::REFUSED => check_message::<proto::Refused>(frame),
        FrameType::SUBSCRIBE => check_message::<proto::Subscribe>(frame),
        FrameType::SUBSCRIBED => check_message::<proto::Subscribed>(frame),
        FrameType::CREDIT => check_message::<proto::Credit>(frame),
        FrameType::SETTLED => check_message::<proto::Settled>(frame),
        FrameType::UNSUBSCRIBE => check_message::<proto::Unsubscribe>(frame),
        FrameType::ENDED => check_message::<proto::Ended>(frame),
        FrameType::PING => check_message::<proto::Ping>(frame),
        FrameType::PONG => check_message::<proto::Pong>(frame),
        FrameType::GOAWAY => check_message::<proto::GoAway>(frame),
        FrameType::THROTTLE => check_message::<proto::Throttle>(frame),
        FrameType::OPEN_PRODUCER => check_message::<proto::OpenProducer>(frame),
        FrameType::PRODUCER_OPENED => check_message::<proto::ProducerOpened>(frame),
        FrameType::PUBLISH_REFUSED => check_message::<proto::PublishRefused>(frame),
        FrameType::ALIAS => check_message::<proto::Alias>(frame),
        FrameType::REQUEST => check_message::<proto::Request>(frame),
        FrameType::REPLY => check_message::<proto::Reply>(frame),
        _ => {}
    }
}

fn reread(bytes: Vec<u8>) -> Frame {
    Frame::parse(bytes.into()).expect("what was written is a frame")
}

fn check_message<M: Message + Default + PartialEq + Clone>(frame: &Frame) {
    let Ok(message) = frame.message::<M>() else {
        return;
    };
    let bytes = message.encode_to_vec();
    let again = M::decode(&bytes[..]).expect("what was written is a message");
    assert!(again == message, "a message changed when it was written");
}

/// A stream per feature, and some with one thing wrong.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let hello = proto::Hello {
        version_min: 1,
        version_max: 1,
        features: 3,
        agent: "tidegate 0.1.0".to_owned(),
        auth: Some(proto::Auth::Key(proto::KeyProof {
            public_key: vec![7; 32].into(),
            signature: vec![9; 64].into(),
        })),
    };
    let request = proto::Request {
        kind: Some(proto::RequestKind::DescribeTopic(proto::TopicRef {
            namespace: String::new(),
            topic: "flights".to_owned(),
        })),
    };
    let ping = proto::Ping::default();
    let hello = message(FrameType::HELLO, &hello);
    let mut ignored = Prefix {
        len: 16,
        kind: FrameType(0x7F),
        flags: FLAG_MAY_IGNORE,
        codec: 0,
        extra: 1,
    }
    .encode()
    .to_vec();
    ignored.extend_from_slice(&[1; 8]);
    let mut too_long = hello.clone();
    too_long[3] = 0xFF;
    let mut too_short = hello.clone();
    too_short[0] = 7;
    let several = [
        &hello[..],
        &message(FrameType::PING, &ping),
        &publish(),
        &delivery(),
    ]
    .concat();
    [
        ("hello", 255, hello.clone()),
        ("hello-by-bytes", 0, hello.clone()),
        ("request", 255, message(FrameType::REQUEST, &request)),
        ("publish", 255, publish()),
        ("published", 255, published()),
        ("delivery", 255, delivery()),
        ("settle", 255, settle()),
        ("several", 10, several),
        ("from-the-future", 255, ignored),
        ("too-long", 255, too_long),
        ("too-short", 255, too_short),
        ("cut", 255, hello[..PREFIX_BYTES + 3].to_vec()),
    ]
    .map(|(name, chunk_bytes, stream)| (name.to_owned(), [&[chunk_bytes], &stream[..]].concat()))
    .to_vec()
}

fn message(kind: FrameType, message: &impl Message) -> Vec<u8> {
    encode_message(kind, 0, message)
        .expect("a seed is small")
        .to_vec()
}

fn publish() -> Vec<u8> {
    let header = PublishHeader {
        ticket: 1,
        queue_index: 2,
        layout_version: 1,
        sequence: Sequence(40),
        count: 1,
        span: 1,
        ..PublishHeader::default()
    };
    let section = [0u8; 16];
    let mut out = header
        .encode(section.len())
        .expect("a seed is small")
        .to_vec();
    out.extend_from_slice(&section);
    out
}

fn published() -> Vec<u8> {
    let outcome = PublishOutcome {
        ticket: 1,
        seq: Seq(9),
        base_offset: Offset(100),
        shard: ShardId(3),
        level: 2,
        duplicate: true,
    };
    encode_outcomes(&[outcome, PublishOutcome::default()])
        .0
        .to_vec()
}

fn delivery() -> Vec<u8> {
    let header = DeliveryHeader {
        alias: 1,
        base_offset: Offset(100),
        append_time: Timestamp(1_373_241_600_000),
        lease: LeaseId(5),
        count: 1,
        span: 1,
        attempt: 1,
        seq: Seq(9),
        ..DeliveryHeader::default()
    };
    let section = [0u8; 24];
    let mut out = header
        .encode(section.len())
        .expect("a seed is small")
        .to_vec();
    out.extend_from_slice(&section);
    out
}

fn settle() -> Vec<u8> {
    let receipt = Receipt {
        queue: QueueId(4),
        base_offset: Offset(100),
        span: 8,
        attempt: 1,
        lease: LeaseId(5),
        mac: [3; 16],
    };
    let run = |records, outcome| SettleRun {
        receipt,
        records,
        outcome,
    };
    let frame = SettleFrame {
        ticket: 2,
        subscription: 1,
        runs: vec![
            run(vec![(0, 3)], Outcome::Ack),
            run(vec![(3, 4), (6, 8)], Outcome::Nack { delay_ms: Some(50) }),
            run(Vec::new(), Outcome::Nack { delay_ms: None }),
            run(vec![(4, 5)], Outcome::Extend { invisible_ms: 1000 }),
        ],
    };
    frame.encode().expect("a seed is small").to_vec()
}
