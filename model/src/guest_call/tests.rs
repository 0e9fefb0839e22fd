use alloc::format;
use alloc::vec::Vec;

use super::*;
use crate::id::{Offset, Timestamp};
use crate::message::Message;
use crate::property::Value;
use crate::section::{Codec, Section, SectionBuilder};

fn section_bytes(records: usize) -> Vec<u8> {
    let mut builder = SectionBuilder::new();
    for n in 0..records {
        let message = Message::new(format!("body {n}"))
            .tag(format!("t{n}"))
            .property("n", Value::I64(n as i64));
        builder.push(&message).unwrap();
    }
    builder.finish().unwrap()
}

fn parse(bytes: &[u8], records: usize) -> Section<'_> {
    Section::parse(bytes, records, records as u32, Codec::None).unwrap()
}

#[test]
fn a_whole_batch_is_the_stored_bytes() {
    let bytes = section_bytes(6);
    let section = parse(&bytes, 6);
    let batch = GuestBatch::new(section, Offset(40), Timestamp(7));
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(99), true);
    builder.push(&batch, 0, 6);

    let call = GuestCall::parse(builder.finish()).unwrap();
    assert_eq!((call.now(), call.records()), (Timestamp(99), 6));
    let batches: Vec<_> = call.batches().map(Result::unwrap).collect();
    let [read] = batches.as_slice() else {
        panic!("one batch, not {}", batches.len());
    };
    assert_eq!(read.base_offset(), Offset(40));
    assert_eq!(read.append_time(), Timestamp(7));
    assert_eq!(read.table_bytes(), section.table_bytes());
    assert_eq!(read.head_bytes(), section.head_bytes());
    assert_eq!(read.body_bytes(), section.stored_body_bytes());
}

#[test]
fn windows_of_several_batches_read_as_their_records() {
    let (first, second) = (section_bytes(9), section_bytes(4));
    let batches = [
        GuestBatch::new(parse(&first, 9), Offset(0), Timestamp(1)).records(2..8),
        GuestBatch::new(parse(&second, 4), Offset(9), Timestamp(2)),
    ];
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(0), true);
    builder.push(&batches[0], 1, 5);
    builder.push(&batches[1], 0, 2);
    let expected =
        CALL_HEADER_BYTES + batches[0].call_bytes(1, 5, true) + batches[1].call_bytes(0, 2, true);
    assert_eq!(builder.len(), expected);

    let call = GuestCall::parse(builder.finish()).unwrap();
    assert_eq!(call.records(), 7);
    let read: Vec<_> = call
        .batches()
        .map(Result::unwrap)
        .flat_map(|batch| {
            let base = batch.base_offset().0;
            batch
                .records()
                .map(move |record| (base + u64::from(record.delta()), record.to_message()))
                .collect::<Vec<_>>()
        })
        .collect();
    let offsets: Vec<_> = read.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [3, 4, 5, 6, 7, 9, 10]);
    assert_eq!(read[0].1, parse(&first, 9).record(3).to_message());
    assert_eq!(read[6].1, parse(&second, 4).record(1).to_message());
}

#[test]
fn heads_only_has_windows_of_length_zero() {
    let bytes = section_bytes(3);
    let batch = GuestBatch::new(parse(&bytes, 3).without_bodies(), Offset(0), Timestamp(0));
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(0), false);
    builder.push(&batch, 0, 3);
    let call = GuestCall::parse(builder.finish()).unwrap();
    assert!(!call.has_bodies());
    let read = call.batches().next().unwrap().unwrap();
    assert_eq!(read.body_bytes(), b"");
    let last = read.records().nth(2).unwrap();
    assert_eq!((last.tag(), last.body()), (Some("t2"), Some(&b""[..])));
    assert_eq!(read.records().count(), 3);
}

#[test]
fn bad_calls_are_refused() {
    assert_eq!(
        GuestCall::parse(&[0; 8]).unwrap_err(),
        GuestCallError::Truncated
    );
    assert_eq!(
        GuestCall::parse(&[9; CALL_HEADER_BYTES]).unwrap_err(),
        GuestCallError::Layout { found: 0x0909_0909 }
    );
    let bytes = section_bytes(3);
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(0), true);
    builder.push(
        &GuestBatch::new(parse(&bytes, 3), Offset(0), Timestamp(0)),
        0,
        3,
    );
    let whole = builder.finish();
    for len in CALL_HEADER_BYTES..whole.len() {
        let call = GuestCall::parse(&whole[..len]).unwrap();
        assert_eq!(
            call.batches().next().unwrap().unwrap_err(),
            GuestCallError::Truncated
        );
    }
}

#[test]
fn tables_that_contradict_the_prefix_end_the_records() {
    let bytes = section_bytes(3);
    let mut builder = CallBuilder::new();
    builder.begin(Timestamp(0), true);
    let batch = GuestBatch::new(parse(&bytes, 3), Offset(0), Timestamp(0));
    builder.push(&batch, 0, 3);
    let good = builder.finish().to_vec();
    let table = CALL_HEADER_BYTES + BATCH_PREFIX_BYTES;
    for (at, left) in [(table + 12 + 4, 0), (table + 24 + 8, 1)] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let call = GuestCall::parse(&bad).unwrap();
        let read = call.batches().next().unwrap().unwrap();
        assert_eq!(read.records().count(), left);
    }
}

#[test]
fn verdicts_have_a_bit_per_record() {
    assert_eq!([0, 1, 8, 9, 256].map(verdict_bytes), [0, 1, 1, 2, 32]);
}
