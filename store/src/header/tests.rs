use proptest::prelude::*;

use super::*;

fn header() -> BatchHeader {
    BatchHeader {
        position: LogPosition(0x1000),
        durable_mark: LogPosition(0x0FF8),
        log_epoch: 3,
        section_crc: 0xE306_9283,
        seq: Seq(41),
        queue: QueueId(7),
        base_offset: Offset(1000),
        producer: ProducerId(99),
        sequence: Sequence(500),
        append_time: Timestamp(1_700_000_000_123),
        base_create_time: Timestamp(-5),
        tag_bits: 1 << 63 | 1,
        shard: ShardId(2),
        term: Term(1),
        section_len: 9,
        key_id: 17,
        flags: flags::MORE | flags::SERVER_MADE,
        count: 3,
        span: 4,
        producer_epoch: ProducerEpoch(6),
        kind: Kind::Data,
        codec: 1,
    }
}

#[test]
fn every_field_survives() {
    let bytes = header().encode(5);
    assert_eq!(BatchHeader::decode(&bytes, 5), Ok(header()));
}

#[test]
fn the_logical_part_is_the_same_in_every_copy() {
    let here = header().encode(5);
    let mut elsewhere = header();
    elsewhere.position = LogPosition(0x777_000);
    elsewhere.durable_mark = LogPosition(1);
    elsewhere.log_epoch = 9;
    let there = elsewhere.encode(6);
    assert_eq!(here[LOGICAL_AT..], there[LOGICAL_AT..]);
    assert_ne!(here[..LOGICAL_AT], there[..LOGICAL_AT]);
}

#[test]
fn any_flipped_bit_is_seen() {
    let bytes = header().encode(5);
    for bit in 0..HEADER_BYTES * 8 {
        let mut bytes = bytes;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(BatchHeader::decode(&bytes, 5).is_err(), "bit {bit}");
    }
}

#[test]
fn another_segments_bytes_do_not_verify() {
    let bytes = header().encode(5);
    assert_eq!(BatchHeader::decode(&bytes, 6), Err(HeaderError::LocalCrc));
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = header().encode(5);
    assert_eq!(
        BatchHeader::decode(&bytes[..127], 5),
        Err(HeaderError::Short { len: 127 })
    );
    assert_eq!(
        BatchHeader::decode(&[0; HEADER_BYTES], 5),
        Err(HeaderError::Magic { found: 0 })
    );
    let mut newer = bytes;
    newer[126] = 77;
    let logical = crc32c(&newer[LOGICAL_AT + 4..]);
    put(&mut newer, LOGICAL_AT, &logical.to_le_bytes());
    let local = local_crc(&newer, 5);
    put(&mut newer, 4, &local.to_le_bytes());
    assert_eq!(
        BatchHeader::decode(&newer, 5),
        Err(HeaderError::Kind { kind: 77 })
    );
}

#[test]
fn kinds_keep_their_numbers() {
    for (kind, number) in [
        (Kind::Data, 0),
        (Kind::Outcome, 1),
        (Kind::Refs, 2),
        (Kind::Group, 3),
        (Kind::Catalog, 4),
        (Kind::Producer, 5),
        (Kind::Pad, 128),
        (Kind::DurableMark, 129),
        (Kind::Open, 130),
    ] {
        assert_eq!(kind as u8, number);
        assert_eq!(Kind::from_byte(number), Ok(kind));
        assert_eq!(kind.is_local(), number >= 128);
    }
}

#[test]
fn sections_are_padded_to_eight_bytes() {
    assert_eq!(stored_bytes(0), 128);
    assert_eq!(stored_bytes(1), 136);
    assert_eq!(stored_bytes(8), 136);
    assert_eq!(header().end(), LogPosition(0x1000 + 144));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), nonce: u64) {
        prop_assert!(BatchHeader::decode(&bytes, nonce).is_err());
    }

    #[test]
    fn bytes_with_valid_checksums_reencode_to_themselves(
        mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..=HEADER_BYTES),
        nonce: u64,
    ) {
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        // Flags and the zero word of the local part follow from the kind.
        let local = u8::from(bytes[126] >= 128);
        put(&mut bytes, 28, &[local, 0, 0, 0]);
        let logical = crc32c(&bytes[LOGICAL_AT + 4..]);
        put(&mut bytes, LOGICAL_AT, &logical.to_le_bytes());
        let local = local_crc(&bytes, nonce);
        put(&mut bytes, 4, &local.to_le_bytes());
        match BatchHeader::decode(&bytes, nonce) {
            Ok(header) => prop_assert_eq!(&header.encode(nonce)[..], &bytes[..]),
            Err(error) => prop_assert_eq!(error, HeaderError::Kind { kind: bytes[126] }),
        }
    }
}
