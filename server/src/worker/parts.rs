//! Whatever a server takes, it can deliver in any parts.

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_broker::range::RangeSet;
use tidegate_broker::request::Publish;
use tidegate_model::checksum::crc32c;
use tidegate_model::limits::{BODY_BLOCK_BYTES_MAX, HEAD_BYTES_MAX, SECTION_BYTES_MAX};
use tidegate_model::section::{HEAD_FIXED_BYTES, table_bytes};
use tidegate_model::{
    Codec, Message, Name, Offset, ProducerEpoch, ProducerId, QueueId, Section, SectionBuilder, Seq,
    Sequence, ShardId, Term, Timestamp, TopicRef, code,
};
use tidegate_store::{BatchHeader, Kind, LogPosition, StoredBatch};

use super::send::prepare;
use crate::validate::validate;

const BASE: u64 = 1000;
/// Bytes of a head beside its only key.
const HEAD_REST_BYTES: usize = HEAD_FIXED_BYTES + 4;

/// A section as somebody makes it who knows the format and no limit.
fn section(messages: &[Message], codec: Codec) -> Vec<u8> {
    let (mut table, mut heads, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    let mut entry = |delta: usize, heads: &[u8], bodies: &[u8]| {
        for number in [delta, heads.len(), bodies.len()] {
            table.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
    };
    for (delta, message) in messages.iter().enumerate() {
        entry(delta, &heads, &bodies);
        let mut builder = SectionBuilder::new();
        builder.push(message).unwrap();
        let one = builder.finish().unwrap();
        let one = Section::parse(&one, 1, 1, Codec::None).unwrap();
        heads.extend_from_slice(one.head_bytes());
        bodies.extend_from_slice(one.stored_body_bytes());
    }
    entry(messages.len(), &heads, &bodies);
    table.resize(table_bytes(messages.len()), 0);
    let bodies = match codec {
        Codec::None => bodies,
        Codec::Lz4 => tidegate_model::compress::lz4(&bodies),
    };
    [table, heads, bodies].concat()
}

fn publish(messages: &[Message], codec: Codec) -> Publish {
    let section = Bytes::from(section(messages, codec));
    let count = u16::try_from(messages.len()).unwrap();
    Publish {
        topic: TopicRef {
            namespace: Name::default_namespace(),
            topic: Name::new("flights").unwrap(),
        },
        queue_index: 0,
        layout_version: 1,
        producer: ProducerId(1),
        producer_epoch: ProducerEpoch(0),
        sequence: Sequence(0),
        count,
        span: count,
        codec: codec as u8,
        key_id: 0,
        section_crc: crc32c(&section),
        section,
    }
}

fn stored(publish: &Publish) -> StoredBatch {
    let header = BatchHeader {
        position: LogPosition(0),
        durable_mark: LogPosition(0),
        log_epoch: 1,
        section_crc: publish.section_crc,
        seq: Seq(1),
        queue: QueueId(1),
        base_offset: Offset(BASE),
        producer: publish.producer,
        sequence: publish.sequence,
        append_time: Timestamp(1),
        base_create_time: Timestamp(1),
        tag_bits: 0,
        shard: ShardId(0),
        term: Term(1),
        section_len: u32::try_from(publish.section.len()).unwrap(),
        key_id: 0,
        flags: 0,
        count: publish.count,
        span: publish.span,
        producer_epoch: publish.producer_epoch,
        kind: Kind::Data,
        codec: publish.codec,
    };
    StoredBatch {
        header,
        section: publish.section.clone(),
    }
}

/// A message with a key and a body of so many bytes that compress well.
fn message(key: usize, body: usize) -> Message {
    Message::new(vec![7; body]).key(vec![9; key])
}

#[test]
fn a_batch_that_fits_by_compression_alone_is_refused() {
    let head = HEAD_BYTES_MAX - HEAD_REST_BYTES;
    let mut messages = vec![message(head, 0); 68];
    messages.push(message(head, BODY_BLOCK_BYTES_MAX));
    let publish = publish(&messages, Codec::Lz4);
    assert!(publish.section.len() <= SECTION_BYTES_MAX);
    let refused = validate(&publish).unwrap_err();
    assert_eq!(refused.code, code::MESSAGE_TOO_LARGE);
    let text = refused.to_string();
    assert!(text.contains("uncompressed"), "{text}");
    assert!(text.contains("send fewer messages"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_batch_that_is_taken_can_be_delivered_in_any_part(
        sizes in prop::collection::vec((0..HEAD_BYTES_MAX - HEAD_REST_BYTES, 0_usize..200_000), 1..60),
        wanted in prop::collection::vec(any::<bool>(), 60),
        compressed: bool,
    ) {
        let codec = if compressed { Codec::Lz4 } else { Codec::None };
        let messages: Vec<_> = sizes.iter().map(|(key, body)| message(*key, *body)).collect();
        let publish = publish(&messages, codec);
        if validate(&publish).is_ok() {
            let mut offsets = RangeSet::new();
            let some = (BASE..).zip(&wanted).take(messages.len());
            for (offset, _) in some.filter(|(_, wanted)| **wanted) {
                offsets.push(offset, offset + 1);
            }
            // Nobody is granted nothing.
            if offsets.is_empty() {
                offsets.push(BASE, BASE + 1);
            }
            let part = prepare(stored(&publish), &offsets).unwrap();
            prop_assert!(part.section.len() <= SECTION_BYTES_MAX);
            prop_assert_eq!(u64::from(part.count), offsets.count());
            let codec = Codec::from_byte(part.codec).unwrap();
            let span = u32::from(part.span);
            let parsed = Section::parse(&part.section, usize::from(part.count), span, codec);
            prop_assert!(parsed.is_ok(), "{:?}", parsed.err());
        }
    }
}
