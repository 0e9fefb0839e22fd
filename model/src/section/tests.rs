use alloc::string::{String, ToString as _};
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

/// Each refusal in words. Of heads those that a changed byte brings about.
#[test]
fn refusals_say_what_they_found() {
    let section = build(&[flight()]);
    let parse = |bytes: &[u8], count, span| {
        Section::parse(bytes, count, span, Codec::None)
            .err()
            .map(|error| error.to_string())
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = section.clone();
        bytes[at] = byte;
        parse(&bytes, 1, 1)
    };
    let built = |message: Message| {
        let refused = SectionBuilder::new().push(&message);
        refused.err().map(|error| error.to_string())
    };
    let many = |count: usize| vec![("p".into(), Value::Null); count];
    let whole = [
        parse(&[], 0, 0),
        parse(&[], BATCH_RECORDS_MAX + 1, 1),
        parse(&vec![0; SECTION_BYTES_MAX + 1], 1, 1),
        parse(&section[..8], 1, 1),
        parse(&section[..40], 1, 1),
        parse(&section[..section.len() - 1], 1, 1),
        parse(&[&section[..], b"x"].concat(), 1, 1),
        parse(&section, 1, 2),
        with(4, 1),
        with(TABLE_ENTRY_BYTES + 11, 0xff),
        Codec::from_byte(2).err().map(|error| error.to_string()),
        Section::parse(&section, 1, 1, Codec::None)
            .and_then(|section| section.with_bodies(b"x").map(drop))
            .err()
            .map(|error| error.to_string()),
        Some(SectionError::Gaps { span: 3, count: 2 }.to_string()),
        Some(SectionError::UncompressedTooLarge { len: 9_000_000 }.to_string()),
        built(Message::new(vec![0; BODY_BYTES_MAX + 1])),
        built(Message {
            keys: vec![vec![1; 1024]; 64],
            ..Message::default()
        }),
        built(Message::new("").tag("t".repeat(TAG_BYTES_MAX + 1))),
        built(Message::new("").group("g".repeat(MESSAGE_GROUP_BYTES_MAX + 1))),
        built(Message {
            keys: vec![vec![1]; KEYS_MAX + 1],
            ..Message::default()
        }),
        built(Message {
            properties: many(PROPERTIES_MAX + 1),
            ..Message::default()
        }),
        built(Message::new("").property("n".repeat(PROPERTY_NAME_BYTES_MAX + 1), Value::Null)),
        built(Message {
            priority: PRIORITY_MAX + 1,
            ..Message::default()
        }),
    ];
    let mut words: Vec<String> = whole
        .into_iter()
        .map(|refused| refused.expect("it is refused"))
        .collect();
    let heads = section.len() - flight().body.map_or(0, |body| body.len());
    let mut of_heads: Vec<String> = (table_bytes(1)..heads)
        .flat_map(|at| [0, 1, 0x7f, 0xff].map(|byte| with(at, byte)))
        .flatten()
        .collect();
    of_heads.sort();
    of_heads.dedup();
    words.extend(of_heads);
    expect_test::expect![[r#"
        a batch carries at least one record
        a batch carries at most 4096 records; this one has 4097
        a section has at most 4259840 bytes; this one has 4259841: send fewer messages in a batch
        the section ends at byte 8, before its record table does
        the section ends at byte 40, before its head block does
        the section ends at byte 139, before its body block does
        the section has 141 bytes; its record table announces 140
        the record table closes with span 1; the header says 2
        entry 0 of the record table is out of order or out of bounds
        the bodies of a batch have at most 4194304 bytes uncompressed; these have 4278190092
        codec 2 is unknown to this version (0 none, 1 lz4)
        the body block does not decompress to the 12 bytes that the table announces
        the header says span 3 for 2 records; a batch that is published has one offset per record
        a section has at most 4259840 bytes with its bodies uncompressed too; this one has 9000000: send fewer messages in a batch
        a message body has at most 4194304 bytes (4 MiB); that of record 0 has 4194305: store it elsewhere and send a reference
        tag, group, keys and properties of a message have at most 61440 bytes; those of record 0 have 65832
        the tag of record 0 has a size of 256; at most 255
        the message group of record 0 has a size of 256; at most 255
        the list of keys of record 0 has a size of 65; at most 64
        the list of properties of record 0 has a size of 257; at most 256
        the property name of record 0 has a size of 256; at most 255
        the priority of record 0 has a size of 10; at most 9
        the head of record 0 is malformed: a field ends beyond it
        the head of record 0 is malformed: a null body with bytes
        the head of record 0 is malformed: a property name is not UTF-8
        the head of record 0 is malformed: a property value does not fit its type
        the head of record 0 is malformed: a tag or group without its flag
        the head of record 0 is malformed: fixed_len is below 40 or beyond the head
        the head of record 0 is malformed: head_len and the record table disagree
        the head of record 0 is malformed: tag or group is not UTF-8
        the list of keys of record 0 has a size of 127; at most 64
        the list of keys of record 0 has a size of 255; at most 64
        the list of keys of record 0 has a size of 257; at most 64
        the list of keys of record 0 has a size of 32513; at most 64
        the list of keys of record 0 has a size of 65281; at most 64
        the list of properties of record 0 has a size of 258; at most 256
        the list of properties of record 0 has a size of 32514; at most 256
        the list of properties of record 0 has a size of 65282; at most 256
        the message group of record 0 has a size of 262; at most 255
        the message group of record 0 has a size of 32518; at most 255
        the message group of record 0 has a size of 65286; at most 255
        the priority of record 0 has a size of 127; at most 9
        the priority of record 0 has a size of 255; at most 9
        the property name of record 0 has a size of 12609; at most 255
        the property name of record 0 has a size of 16725; at most 255
        the property name of record 0 has a size of 21079; at most 255
        the property name of record 0 has a size of 22341; at most 255
        the property name of record 0 has a size of 262; at most 255
        the property name of record 0 has a size of 264; at most 255
        the property name of record 0 has a size of 26983; at most 255
        the property name of record 0 has a size of 28265; at most 255
        the property name of record 0 has a size of 32518; at most 255
        the property name of record 0 has a size of 32520; at most 255
        the property name of record 0 has a size of 65286; at most 255
        the property name of record 0 has a size of 65288; at most 255
        the tag of record 0 has a size of 258; at most 255
        the tag of record 0 has a size of 32514; at most 255
        the tag of record 0 has a size of 65282; at most 255
    "#]].assert_eq(&(words.join("\n") + "\n"));
}
