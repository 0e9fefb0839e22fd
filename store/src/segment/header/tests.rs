use proptest::prelude::*;

use super::*;

fn header() -> SegmentHeader {
    SegmentHeader {
        base: LogPosition(16 << 20),
        size: 32 << 20,
        nonce: 0x0123_4567_89AB_CDEF,
        created: Timestamp(1_700_000_000_123),
        class: 0,
    }
}

#[test]
fn every_field_survives() {
    assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
}

#[test]
fn damage_anywhere_in_the_page_is_seen() {
    let page = header().encode();
    for at in 0..SEGMENT_HEADER_BYTES {
        let mut page = page;
        page[at] ^= 0x20;
        assert!(SegmentHeader::decode(&page).is_err(), "byte {at}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let mut page = header().encode();
    assert_eq!(
        SegmentHeader::decode(&page[1..]),
        Err(SegmentHeaderError::Short { len: 4095 })
    );
    page[8] = 3;
    assert_eq!(
        SegmentHeader::decode(&page),
        Err(SegmentHeaderError::Version { found: 3 })
    );
    assert_eq!(
        SegmentHeader::decode(&[0; SEGMENT_HEADER_BYTES]),
        Err(SegmentHeaderError::Magic)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }

    #[test]
    fn fields_survive(base: u64, size: u64, nonce: u64, created: i64, class: u32) {
        let header = SegmentHeader { base: LogPosition(base), size, nonce, created: Timestamp(created), class };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}
