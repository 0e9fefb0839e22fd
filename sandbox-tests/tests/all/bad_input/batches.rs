//! Batches that no client of ours makes.

use tidegate_model::limits::{BODY_BLOCK_BYTES_MAX, HEAD_BYTES_MAX, SECTION_BYTES_MAX};
use tidegate_model::section::{HEAD_FIXED_BYTES, table_bytes};
use tidegate_model::{Codec, Message, Section, SectionBuilder, TopicChange, code, compress};

use crate::machine::Machine;

/// A message with the largest head.
fn large_head() -> Message {
    Message::default().key(vec![9; HEAD_BYTES_MAX - HEAD_FIXED_BYTES - 4])
}

/// A section of so many largest heads, whose last message has a body of so many zeroes, compressed.
/// No builder is asked whether that may be.
fn section(count: usize, body: usize) -> Vec<u8> {
    let mut builder = SectionBuilder::new();
    builder.push(&large_head()).unwrap();
    let one = builder.finish().unwrap();
    let one = Section::parse(&one, 1, 1, Codec::None).unwrap();
    let mut head = one.head_bytes().to_vec();
    // They have a body, though an empty one.
    head[6] &= !1;
    let mut out = Vec::new();
    for at in 0..=count {
        let bodies = if at == count { body } else { 0 };
        for number in [at, at * head.len(), bodies] {
            out.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
    }
    out.resize(table_bytes(count), 0);
    for _ in 0..count {
        out.extend_from_slice(&head);
    }
    out.extend(compress::lz4(&vec![0; body]));
    out
}

#[test]
fn a_batch_of_which_no_part_could_be_delivered_is_refused() {
    let mut machine = Machine::new();
    machine.create(TopicChange::default());
    let over = section(69, BODY_BLOCK_BYTES_MAX);
    assert!(over.len() <= SECTION_BYTES_MAX);
    let refused = machine.publish_section(69, Codec::Lz4, over).unwrap_err();
    assert_eq!(refused.code, code::MESSAGE_TOO_LARGE);
    assert!(refused.to_string().contains("uncompressed"), "{refused}");
    assert!(machine.take(1_000).is_empty());
}

#[test]
fn the_largest_batch_that_is_taken_is_delivered_message_by_message() {
    let mut machine = Machine::new();
    machine.create(TopicChange::default());
    let count = 40;
    let body = SECTION_BYTES_MAX - table_bytes(count) - count * HEAD_BYTES_MAX;
    let largest = section(count, body);
    let refused = section(count, body + 1);
    let count = u16::try_from(count).unwrap();
    let refused = machine.publish_section(count, Codec::Lz4, refused);
    assert_eq!(refused.unwrap_err().code, code::MESSAGE_TOO_LARGE);
    machine.publish_section(count, Codec::Lz4, largest).unwrap();
    for at in 0..u64::from(count) {
        let taken = machine.take_at_most(1, 60_000);
        assert_eq!(taken.len(), 1);
        let batch = &taken[0].batch;
        let codec = Codec::from_byte(batch.codec).unwrap();
        let part = Section::parse(
            &batch.section,
            usize::from(batch.count),
            u32::from(batch.span),
            codec,
        );
        let part = part.unwrap();
        assert_eq!(part.count(), 1);
        assert_eq!(u64::from(part.record(0).delta()), at);
    }
    assert!(machine.take(1_000).is_empty());
}
