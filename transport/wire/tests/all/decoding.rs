//! Frames out of any bytes, in any pieces.

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_model::{Code, LeaseId, Offset, QueueId, Seq, Sequence, ShardId, Timestamp, code};
use tidegate_wire::frame::{FLAG_MAY_IGNORE, PREFIX_BYTES};
use tidegate_wire::limits::{
    CONTROL_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX, SECTION_FRAME_BYTES_MAX, SETTLE_RUNS_MAX,
};
use tidegate_wire::publish::{decode_outcomes, encode_outcomes};
use tidegate_wire::settle::{decode_runs, encode_runs};
use tidegate_wire::{
    DeliveryHeader, Frame, FrameDecoder, FrameType, Outcome, Prefix, PublishHeader, PublishOutcome,
    Receipt, Refusal, SettleFrame, SettleRun, WireError, encode_message, proto,
};

fn prefix(len: u32, kind: u8) -> [u8; PREFIX_BYTES] {
    Prefix {
        len,
        kind: FrameType(kind),
        flags: FLAG_MAY_IGNORE,
        codec: 0,
        extra: 0,
    }
    .encode()
}

fn frames(decoder: &mut FrameDecoder) -> Result<Vec<Frame>, WireError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn four_gigabytes_are_refused_before_anything_is_allocated() {
    for kind in (0..=255).map(FrameType) {
        let mut decoder = FrameDecoder::new();
        decoder.push(Bytes::copy_from_slice(&prefix(u32::MAX, kind.0)));
        assert_eq!(
            decoder.next_frame(),
            Err(WireError::FrameTooLong {
                kind,
                len: u32::MAX,
                max: kind.bytes_max()
            })
        );
        // It has lost its place: nothing more comes, nothing more is held.
        decoder.push(Bytes::from(vec![0; 100]));
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.partial_len(), 0);
    }
}

#[test]
fn every_type_has_its_own_limit() {
    for (kind, max) in [
        (FrameType::PUBLISH, SECTION_FRAME_BYTES_MAX),
        (FrameType::DELIVERY, SECTION_FRAME_BYTES_MAX),
        (FrameType::REQUEST, REQUEST_FRAME_BYTES_MAX),
        (FrameType::SETTLE, CONTROL_FRAME_BYTES_MAX),
        (FrameType(0x77), CONTROL_FRAME_BYTES_MAX),
    ] {
        let max = u32::try_from(max).unwrap();
        assert!(Prefix::decode(prefix(max, kind.0)).is_ok());
        assert!(matches!(
            Prefix::decode(prefix(max + 1, kind.0)),
            Err(WireError::FrameTooLong { .. })
        ));
    }
    for kind in FrameType::ALL {
        let short = u32::try_from(kind.header_bytes()).unwrap() - 1;
        assert!(matches!(
            Prefix::decode(prefix(short, kind.0)),
            Err(WireError::FrameTooShort { .. })
        ));
    }
}

#[test]
fn a_frame_in_one_chunk_is_a_slice_of_it() {
    let ping = encode_message(FrameType::PING, 0, &proto::Ping { token: 3 }).unwrap();
    let chunk = Bytes::from([&ping[..], &ping[..]].concat());
    let mut decoder = FrameDecoder::new();
    decoder.push(chunk.clone());
    let got = frames(&mut decoder).unwrap();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].bytes.as_ptr(), chunk.as_ptr());
    assert_eq!(got[1].bytes.as_ptr(), chunk[ping.len()..].as_ptr());
    assert_eq!(decoder.missing_len(), 0);
    decoder.push(chunk.slice(..ping.len() - 1));
    assert_eq!(decoder.next_frame(), Ok(None));
    assert_eq!(decoder.missing_len(), 1);
}

#[test]
fn words_that_this_version_does_not_know_are_skipped() {
    let header = DeliveryHeader {
        seq: Seq(9),
        count: 1,
        ..DeliveryHeader::default()
    };
    let known = header.encode(5 + 16).unwrap();
    let mut bytes = known.to_vec();
    bytes[7] = 3;
    bytes.extend_from_slice(&[0xee; 16]);
    bytes.extend_from_slice(b"bytes");
    let frame = Frame::parse(bytes.into()).unwrap();
    let (read, section) = DeliveryHeader::decode(&frame).unwrap();
    assert_eq!((read, &section[..]), (header, &b"bytes"[..]));
    // Without the word there is no seq.
    let mut bytes = known[..64].to_vec();
    bytes[..4].copy_from_slice(&64u32.to_le_bytes());
    bytes[7] = 0;
    let frame = Frame::parse(bytes.into()).unwrap();
    assert_eq!(DeliveryHeader::decode(&frame).unwrap().0.seq, Seq(0));
}

#[test]
fn a_frame_of_another_type_is_not_read_as_this_one() {
    let frame =
        Frame::parse(encode_message(FrameType::PING, 0, &proto::Ping { token: 3 }).unwrap())
            .unwrap();
    assert!(PublishHeader::decode(&frame).is_err());
    assert!(DeliveryHeader::decode(&frame).is_err());
    assert!(SettleFrame::decode(&frame).is_err());
    assert!(decode_outcomes(&frame).is_err());
}

#[test]
fn settle_runs_are_bounded() {
    let runs = vec![
        SettleRun {
            receipt: Receipt::default(),
            records: Vec::new(),
            outcome: Outcome::Ack,
        };
        SETTLE_RUNS_MAX + 1
    ];
    assert!(decode_runs(&encode_runs(&runs[1..])).is_ok());
    assert!(matches!(
        decode_runs(&encode_runs(&runs)),
        Err(WireError::Exceeded { .. })
    ));
    let frame = SettleFrame {
        ticket: 1,
        subscription: 1,
        runs,
    };
    assert!(frame.encode().is_err());
}

#[test]
fn codes_that_this_version_does_not_know_get_through() {
    let refusal = Refusal::new(Code(59_999), "from the future").hint("upgrade");
    assert_eq!(Refusal::from_proto(refusal.to_proto()), refusal);
    assert_eq!(refusal.code.name(), "unknown");
    let absurd = proto::Refused {
        code: 1 << 20,
        ..proto::Refused::default()
    };
    assert_eq!(Refusal::from_proto(absurd).code, code::INTERNAL);
}

#[test]
fn long_texts_are_cut_between_characters() {
    let refusal = Refusal::new(code::INTERNAL, "é".repeat(5000));
    let proto = refusal.to_proto();
    assert_eq!(proto.message.len(), 4096);
    let odd = Refusal::new(code::INTERNAL, format!("x{}", "é".repeat(5000)));
    assert_eq!(odd.to_proto().message.len(), 4095);
}

#[test]
fn outcomes_are_split_over_frames() {
    let outcomes: Vec<PublishOutcome> = (0..5000)
        .map(|ticket| PublishOutcome {
            ticket,
            ..PublishOutcome::default()
        })
        .collect();
    let (mut rest, mut read) = (&outcomes[..], Vec::new());
    while !rest.is_empty() {
        let (frame, later) = encode_outcomes(rest);
        assert!(frame.len() <= CONTROL_FRAME_BYTES_MAX);
        read.extend(decode_outcomes(&Frame::parse(frame).unwrap()).unwrap());
        rest = later;
    }
    assert_eq!(read, outcomes);
}

prop_compose! {
    fn any_publish()(
        numbers in any::<(u64, u32, u32, u64, u32)>(),
        shorts in any::<(u16, u16, u16)>(),
        codec in any::<u8>(),
    ) -> PublishHeader {
        PublishHeader {
            ticket: numbers.0,
            queue_index: numbers.1,
            layout_version: numbers.2,
            sequence: Sequence(numbers.3),
            section_crc: numbers.4,
            count: shorts.0,
            span: shorts.1,
            key_id: shorts.2,
            codec,
        }
    }
}

prop_compose! {
    fn any_delivery()(
        numbers in any::<(u32, u32, u64, i64, u64, u64)>(),
        shorts in any::<(u16, u16, u16, u16)>(),
        mac in any::<[u8; 16]>(),
        codec in any::<u8>(),
        compacted in any::<bool>(),
    ) -> DeliveryHeader {
        DeliveryHeader {
            alias: numbers.0,
            section_crc: numbers.1,
            base_offset: Offset(numbers.2),
            append_time: Timestamp(numbers.3),
            lease: LeaseId(numbers.4),
            seq: Seq(numbers.5),
            count: shorts.0,
            span: shorts.1,
            attempt: shorts.2,
            key_id: shorts.3,
            mac,
            codec,
            compacted,
        }
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Ack),
        prop::option::of(any::<u32>()).prop_map(|delay_ms| Outcome::Nack { delay_ms }),
        any::<u32>().prop_map(|invisible_ms| Outcome::Extend { invisible_ms }),
    ]
}

prop_compose! {
    fn any_run()(
        numbers in any::<(u64, u64, u64)>(),
        shorts in any::<(u16, u16)>(),
        mac in any::<[u8; 16]>(),
        records in prop::collection::vec(any::<(u16, u16)>(), 0..6),
        outcome in any_outcome(),
    ) -> SettleRun {
        SettleRun {
            receipt: Receipt {
                queue: QueueId(numbers.0),
                base_offset: Offset(numbers.1),
                lease: LeaseId(numbers.2),
                span: shorts.0,
                attempt: shorts.1,
                mac,
            },
            records,
            outcome,
        }
    }
}

proptest! {
    #[test]
    fn headers_round_trip(
        publish in any_publish(),
        delivery in any_delivery(),
        section in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&publish.encode(section.len()).unwrap()[..], &section].concat();
        let frame = Frame::parse(bytes.into()).unwrap();
        prop_assert_eq!(PublishHeader::decode(&frame).unwrap(), (publish, section.clone().into()));
        let bytes = [&delivery.encode(section.len()).unwrap()[..], &section].concat();
        let frame = Frame::parse(bytes.into()).unwrap();
        prop_assert_eq!(DeliveryHeader::decode(&frame).unwrap(), (delivery, section.into()));
    }

    #[test]
    fn settlements_round_trip(
        ticket in any::<u64>(),
        subscription in any::<u32>(),
        runs in prop::collection::vec(any_run(), 0..20),
    ) {
        let settle = SettleFrame { ticket, subscription, runs };
        let frame = Frame::parse(settle.encode().unwrap()).unwrap();
        prop_assert_eq!(SettleFrame::decode(&frame).unwrap(), settle);
    }

    #[test]
    fn published_batches_round_trip(
        numbers in prop::collection::vec(any::<(u64, u64, u64, u32, u8, bool)>(), 0..50),
    ) {
        let outcomes: Vec<PublishOutcome> = numbers
            .into_iter()
            .map(|n| PublishOutcome {
                ticket: n.0,
                seq: Seq(n.1),
                base_offset: Offset(n.2),
                shard: ShardId(n.3),
                level: n.4,
                duplicate: n.5,
            })
            .collect();
        let (frame, rest) = encode_outcomes(&outcomes);
        prop_assert!(rest.is_empty());
        prop_assert_eq!(decode_outcomes(&Frame::parse(frame).unwrap()).unwrap(), outcomes);
    }

    #[test]
    fn any_pieces_give_the_same_frames(
        sizes in prop::collection::vec(0usize..3000, 1..30),
        cuts in prop::collection::vec(1usize..2000, 1..40),
        late in any::<bool>(),
    ) {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let header = PublishHeader { ticket: i as u64, ..PublishHeader::default() };
            let frame = [&header.encode(*size).unwrap()[..], &vec![i as u8; *size]].concat();
            stream.extend_from_slice(&frame);
            sent.push(Bytes::from(frame));
        }
        let mut decoder = FrameDecoder::new();
        let mut got = Vec::new();
        let mut rest = Bytes::from(stream);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            decoder.push(rest.split_to((*cut).min(rest.len())));
            if !late {
                got.extend(frames(&mut decoder).unwrap());
            }
        }
        got.extend(frames(&mut decoder).unwrap());
        let got: Vec<Bytes> = got.into_iter().map(|frame| frame.bytes).collect();
        prop_assert_eq!(got, sent);
        prop_assert_eq!(decoder.missing_len(), 0);
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(
        kind in any::<u8>(),
        extra in 0u8..6,
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let len = u32::try_from(PREFIX_BYTES + payload.len()).unwrap();
        let mut bytes = prefix(len, kind).to_vec();
        bytes[7] = extra;
        bytes.extend_from_slice(&payload);
        if let Ok(frame) = Frame::parse(bytes.into()) {
            let _ = PublishHeader::decode(&frame);
            let _ = DeliveryHeader::decode(&frame);
            let _ = SettleFrame::decode(&frame);
            let _ = decode_outcomes(&frame);
            let _ = frame.message::<proto::Hello>();
            let _ = frame.message::<proto::Request>();
            let _ = frame.message::<proto::Reply>();
        }
        let _ = decode_runs(&payload);
    }
}
