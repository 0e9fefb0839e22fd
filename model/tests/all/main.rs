//! Black-box tests of the record section: bytes of version one stay readable.
//!
//! The fixtures were written once, by version one; a change that can't read them is a new version.

use tidegate_model::compress::raw_bodies;
use tidegate_model::{Codec, Message, Section, SectionBuilder, Timestamp, Value};

const RECORD_V1: &[u8] = include_bytes!("../fixtures/record-v1.bin");
const RECORD_V1_LZ4: &[u8] = include_bytes!("../fixtures/record-v1-lz4.bin");

/// What both fixtures hold, as (offset delta, message); the span is 6.
fn messages() -> Vec<(u32, Message)> {
    let full = Message {
        create_time: Timestamp(1_373_241_600_000),
        due_time: Some(Timestamp(1_373_245_200_000)),
        priority: 9,
        ..Message::new("{\"carrier\":\"UA\",\"arr_delay\":75,\"dest\":\"IAH\",\"origin\":\"EWR\"}")
            .key("1545")
            .key([0u8, 255])
            .tag("UA")
            .group("N14228")
            .property("origin", Value::String("EWR".into()))
            .property("distance", Value::I64(1400))
            .property("late", Value::Bool(true))
            .property("hours", Value::F64(1.25))
            .property("raw", Value::Bytes(vec![0, 1, 2, 255]))
            .property("gate", Value::Null)
            .property("origin", Value::String("JFK".into()))
    };
    let tombstone = Message::default().key("1545");
    let empty = Message {
        tag: Some(String::new()),
        group: Some(String::new()),
        ..Message::new("")
    };
    vec![
        (0, full.clone()),
        (1, tombstone),
        (3, empty),
        (
            4,
            Message {
                due_time: None,
                ..full
            },
        ),
    ]
}

#[test]
fn version_one_is_read_and_written_alike() {
    let expected = messages();
    let section = Section::parse(RECORD_V1, 4, 6, Codec::None).unwrap();
    let read: Vec<(u32, Message)> = section
        .records()
        .map(|record| (record.delta(), record.to_message()))
        .collect();
    assert_eq!(read, expected);

    let mut copied = SectionBuilder::new();
    for record in section.records() {
        copied.push_record(record.delta(), &record).unwrap();
    }
    assert_eq!(copied.finish_with_span(6).unwrap(), RECORD_V1);

    let mut encoded = SectionBuilder::new();
    for (delta, message) in &expected {
        let mut one = SectionBuilder::new();
        one.push(message).unwrap();
        let bytes = one.finish().unwrap();
        let section = Section::parse(&bytes, 1, 1, Codec::None).unwrap();
        encoded.push_record(*delta, &section.record(0)).unwrap();
    }
    assert_eq!(encoded.finish_with_span(6).unwrap(), RECORD_V1);
}

#[test]
fn version_one_is_read_when_compressed() {
    let plain = Section::parse(RECORD_V1, 4, 6, Codec::None).unwrap();
    let section = Section::parse(RECORD_V1_LZ4, 4, 6, Codec::Lz4).unwrap();
    assert_eq!(section.table_bytes(), plain.table_bytes());
    assert_eq!(section.head_bytes(), plain.head_bytes());
    let raw = raw_bodies(&section, Codec::Lz4).unwrap();
    assert_eq!(raw, plain.stored_body_bytes());
}
