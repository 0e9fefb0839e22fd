//! The record section: what producers send, and guests and consumers read.

use tidegate_model::compress::raw_bodies;
use tidegate_model::{Codec, Message, Section, SectionBuilder, Timestamp, Value};

/// Bytes before the section: count, span (u16 each, little endian), codec.
pub(super) const PREFIX_BYTES: usize = 5;

/// The section of an input, if it is one.
pub(super) fn parse(input: &[u8]) -> Option<(Section<'_>, Codec)> {
    let (prefix, bytes) = input.split_at_checked(PREFIX_BYTES)?;
    let count = usize::from(u16::from_le_bytes([prefix[0], prefix[1]]));
    let span = u32::from(u16::from_le_bytes([prefix[2], prefix[3]]));
    let codec = Codec::from_byte(prefix[4]).ok()?;
    let section = Section::parse(bytes, count, span, codec).ok()?;
    assert_eq!(section.count(), count);
    assert_eq!(section.span(), span);
    Some((section, codec))
}

/// Parses an input as a prefix and a section; reads everything of what was accepted, and writes it
/// again to the same bytes.
///
/// # Panics
/// If an accepted section contradicts itself.
pub fn run(input: &[u8]) {
    let Some((section, codec)) = parse(input) else {
        return;
    };
    let (count, span) = (section.count(), section.span());
    let Ok(raw) = raw_bodies(&section, codec) else {
        assert_eq!(codec, Codec::Lz4, "uncompressed bodies are always there");
        return;
    };
    let section = section
        .with_bodies(&raw)
        .expect("the block has its announced length");
    assert_eq!(section.records().len(), count);
    assert_eq!(section.digests().count(), count);

    let mut copied = SectionBuilder::new();
    for record in section.records() {
        assert!(record.delta() < span, "a record lies beyond the span");
        copied
            .push_record(record.delta(), &record)
            .expect("a stored record fits where it came from");
        check_record(&record.to_message());
    }
    assert_eq!(copied.tag_bits(), section.tag_bits());
    let written = copied.finish_with_span(span).expect("it has records");
    if codec == Codec::None {
        assert_eq!(
            written,
            input[PREFIX_BYTES..],
            "copying changed the section"
        );
    } else {
        let plain = Section::parse(&written, count, span, Codec::None).expect("it was valid");
        assert_eq!(plain.head_bytes(), section.head_bytes());
        assert_eq!(plain.stored_body_bytes(), raw);
    }
}

/// What was read can be sent again, and arrives as it was (a NaN excepted, which equals nothing).
fn check_record(message: &Message) {
    let mut builder = SectionBuilder::new();
    if builder.push(message).is_err() {
        return;
    }
    let bytes = builder.finish().expect("it has a record");
    let section = Section::parse(&bytes, 1, 1, Codec::None).expect("the builder writes sections");
    let has_nan = message
        .properties
        .iter()
        .any(|(_, value)| matches!(value, Value::F64(number) if number.is_nan()));
    if !has_nan {
        assert_eq!(section.record(0).to_message(), *message);
    }
}

/// Sections of each feature, and some with one thing wrong.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let flight = Message {
        create_time: Timestamp(1_373_241_600_000),
        ..Message::new("{\"carrier\":\"UA\",\"arr_delay\":75}")
            .key("1545")
            .tag("UA")
            .group("N14228")
            .property("origin", Value::String("EWR".into()))
            .property("distance", Value::I64(1400))
    };
    let typed = Message {
        due_time: Some(Timestamp(1_373_245_200_000)),
        priority: 9,
        ..Message::default()
            .key([0u8, 255])
            .key("")
            .property("null", Value::Null)
            .property("bool", Value::Bool(true))
            .property("f64", Value::F64(0.5))
            .property("bytes", Value::Bytes(vec![0, 255]))
            .property("bytes", Value::Bytes(Vec::new()))
    };
    let batch = vec![flight.clone(); 3];
    let whole = encode(std::slice::from_ref(&flight), Codec::None);
    let mut wrong_span = whole.clone();
    wrong_span[2] = 2;
    let mut unknown_type = encode(std::slice::from_ref(&typed), Codec::None);
    if let Some(at) = find(&unknown_type, b"\x04\x00\x01") {
        unknown_type[at + 2] = 77;
    }
    let mut longer_fixed = whole.clone();
    longer_fixed[PREFIX_BYTES + 24 + 4] = 48;
    let mut endless_name = whole.clone();
    if let Some(at) = find(&endless_name, b"origin") {
        endless_name[at - 8] = 0xFF;
    }
    [
        ("empty-message", encode(&[Message::default()], Codec::None)),
        ("empty-body", encode(&[Message::new("")], Codec::None)),
        ("flight", whole.clone()),
        ("typed", encode(std::slice::from_ref(&typed), Codec::None)),
        (
            "batch",
            encode(&[flight.clone(), typed, Message::default()], Codec::None),
        ),
        ("batch-lz4", encode(&batch, Codec::Lz4)),
        ("gaps", compacted(&flight)),
        ("wrong-span", wrong_span),
        ("unknown-type", unknown_type),
        ("longer-fixed-part", longer_fixed),
        ("endless-name", endless_name),
        ("cut", whole[..whole.len() / 2].to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .to_vec()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn encode(messages: &[Message], codec: Codec) -> Vec<u8> {
    let mut builder = SectionBuilder::new();
    for message in messages {
        builder.push(message).expect("a seed is small");
    }
    let section = match codec {
        Codec::None => builder.finish(),
        Codec::Lz4 => builder.finish_lz4(),
    };
    with_prefix(
        messages.len(),
        messages.len(),
        codec,
        &section.expect("it has records"),
    )
}

/// Two records with offsets 1 and 4 of a span of 6.
fn compacted(message: &Message) -> Vec<u8> {
    let one = encode(std::slice::from_ref(message), Codec::None);
    let section = Section::parse(&one[PREFIX_BYTES..], 1, 1, Codec::None).expect("just built");
    let mut builder = SectionBuilder::new();
    for delta in [1, 4] {
        builder
            .push_record(delta, &section.record(0))
            .expect("deltas rise");
    }
    let bytes = builder.finish_with_span(6).expect("it has records");
    with_prefix(2, 6, Codec::None, &bytes)
}

fn with_prefix(count: usize, span: usize, codec: Codec, section: &[u8]) -> Vec<u8> {
    let short = |n: usize| u16::try_from(n).expect("a seed is small").to_le_bytes();
    let mut out = Vec::with_capacity(PREFIX_BYTES + section.len());
    out.extend_from_slice(&short(count));
    out.extend_from_slice(&short(span));
    out.push(codec as u8);
    out.extend_from_slice(section);
    out
}
