use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::id::Timestamp;
use crate::message::Message;
use crate::property::Value;

fn build(messages: &[Message]) -> Vec<u8> {
    let mut builder = SectionBuilder::new();
    for message in messages {
        builder.push(message).unwrap();
    }
    builder.finish().unwrap()
}

fn read(bytes: &[u8], count: usize) -> Vec<Message> {
    let span = u32::try_from(count).unwrap();
    let section = Section::parse(bytes, count, span, Codec::None).unwrap();
    section
        .records()
        .map(|record| record.to_message())
        .collect()
}

fn flight() -> Message {
    Message::new("{\"delay\":75}")
        .key("UA1545")
        .tag("UA")
        .group("N14228")
        .property("origin", Value::String("EWR".into()))
        .property("distance", Value::I64(1400))
}

#[test]
fn an_empty_message_and_a_full_one_come_back_as_they_went() {
    let messages = [Message::default(), Message::new(""), flight()];
    assert_eq!(read(&build(&messages), 3), messages);
}

#[test]
fn too_large_a_body_is_refused_and_spoils_nothing() {
    let mut builder = SectionBuilder::new();
    builder.push(&flight()).unwrap();
    let huge = Message::new(vec![0; BODY_BYTES_MAX + 1]);
    assert!(matches!(
        builder.push(&huge),
        Err(SectionError::BodyTooLarge { record: 1, .. })
    ));
    let many = Message {
        keys: vec![vec![1; 1024]; 64],
        ..Message::default()
    };
    assert!(matches!(
        builder.push(&many),
        Err(SectionError::HeadTooLarge { record: 1, .. })
    ));
    assert_eq!(read(&builder.finish().unwrap(), 1), [flight()]);
}

#[test]
fn the_largest_message_fits() {
    let message = Message::new(vec![7; BODY_BYTES_MAX]);
    assert_eq!(read(&build(core::slice::from_ref(&message)), 1), [message]);
}

#[test]
fn compressed_bodies_come_back() {
    let mut builder = SectionBuilder::new();
    for _ in 0..50 {
        builder.push(&flight()).unwrap();
    }
    let bytes = builder.finish_lz4().unwrap();
    assert!(bytes.len() < builder.len());
    let section = Section::parse(&bytes, 50, 50, Codec::Lz4).unwrap();
    let raw = crate::compress::raw_bodies(&section, Codec::Lz4).unwrap();
    let whole = section.with_bodies(&raw).unwrap();
    assert!(
        whole
            .records()
            .all(|record| record.to_message() == flight())
    );
}

#[test]
fn copied_records_keep_their_place() {
    let bytes = build(&[flight(), Message::new("b"), Message::new("c")]);
    let section = Section::parse(&bytes, 3, 3, Codec::None).unwrap();
    let mut compacted = SectionBuilder::new();
    compacted.push_record(0, &section.record(0)).unwrap();
    compacted.push_record(2, &section.record(2)).unwrap();
    let bytes = compacted.finish_with_span(3).unwrap();
    let section = Section::parse(&bytes, 2, 3, Codec::None).unwrap();
    assert_eq!(
        section.records().map(|r| r.delta()).collect::<Vec<_>>(),
        [0, 2]
    );
    assert_eq!(section.record(1).body(), Some(&b"c"[..]));
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        (-1e9..1e9).prop_map(Value::F64),
        ".{0,20}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ]
}

prop_compose! {
    fn any_message()(
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
        tag in prop::option::of(".{0,10}"),
        group in prop::option::of(".{0,10}"),
        properties in prop::collection::vec((".{0,10}", any_value()), 0..5),
        create in any::<i64>(),
        due in prop::option::of(1..i64::MAX),
        priority in 0..=PRIORITY_MAX,
    ) -> Message {
        Message {
            body, keys, tag, group, properties, priority,
            create_time: Timestamp(create),
            due_time: due.map(Timestamp),
        }
    }
}

proptest! {
    #[test]
    fn any_messages_round_trip(messages in prop::collection::vec(any_message(), 1..20)) {
        prop_assert_eq!(read(&build(&messages), messages.len()), messages);
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_without_panic(
        messages in prop::collection::vec(any_message(), 1..5),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = build(&messages);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(section) = Section::parse(&bytes, messages.len(), messages.len() as u32, Codec::None) {
            let read: Vec<Message> = section.records().map(|record| record.to_message()).collect();
            prop_assert_eq!(read.len(), messages.len());
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        count in 0usize..6,
        span in 0u32..8,
    ) {
        if let Ok(section) = Section::parse(&bytes, count, span, Codec::None) {
            let tags: Vec<String> = section.records().filter_map(|r| r.tag().map(Into::into)).collect();
            prop_assert!(tags.len() <= count);
        }
    }
}
