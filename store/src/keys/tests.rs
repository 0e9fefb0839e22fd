use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::kix::{COVERS_ALL, Kix, KixError, KixInfo, KixRow, PAGE_BYTES};

const NONCE: u64 = 77;

fn info() -> KixInfo {
    KixInfo {
        base: 4096,
        nonce: NONCE,
        covered: COVERS_ALL,
        unreadable: 2,
    }
}

/// Rows of spread hashes, a few places each.
fn rows(count: u64) -> Vec<KixRow> {
    let row = |number: u64| {
        let hash = (number / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash, 512 + u32::try_from(number).unwrap())
    };
    (0..count).map(row).collect()
}

fn places(bytes: &Bytes, hash: u64) -> Vec<u32> {
    let kix = Kix::open(bytes, NONCE).unwrap();
    kix.places(bytes, hash).unwrap()
}

fn check_against_a_map(rows: &[KixRow], others: &[u64]) {
    let mut map: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for (hash, place) in rows {
        map.entry(*hash).or_default().insert(*place);
    }
    let bytes = Bytes::from(Kix::encode(&info(), rows.to_vec()));
    let kix = Kix::check(&bytes, NONCE).unwrap();
    assert_eq!(kix.info(), &info());
    assert_eq!(
        kix.rows() as usize,
        map.values().map(BTreeSet::len).sum::<usize>()
    );
    for (hash, expected) in &map {
        let found = kix.places(&bytes, *hash).unwrap();
        assert_eq!(found, expected.iter().copied().collect::<Vec<_>>());
    }
    let filter = kix.filter(&bytes).unwrap();
    for hash in others.iter().filter(|hash| !map.contains_key(hash)) {
        assert_eq!(kix.places(&bytes, *hash).unwrap(), []);
    }
    assert!(map.keys().all(|hash| kix.may_hold(&filter, *hash)));
}

#[test]
fn an_index_answers_as_a_map_does() {
    for count in [0, 1, 339, 340, 341, 680, 5000] {
        let rows = rows(count);
        let others: Vec<u64> = rows.iter().map(|row| row.0.wrapping_add(1)).collect();
        check_against_a_map(&rows, &others);
    }
}

#[test]
fn rows_of_one_hash_fill_pages() {
    let mut same: Vec<KixRow> = (0..2000).map(|place| (1 << 60, place)).collect();
    same.extend([(3, 9), (u64::MAX, 1), ((1 << 60) + 1, 4)]);
    check_against_a_map(&same, &[0, 4, u64::MAX - 1]);
}

#[test]
fn order_and_repetition_of_rows_make_no_difference() {
    let forward = rows(1000);
    let mut backward: Vec<KixRow> = forward.iter().rev().copied().collect();
    backward.extend_from_slice(&forward[..100]);
    assert_eq!(
        Kix::encode(&info(), forward),
        Kix::encode(&info(), backward)
    );
}

#[test]
fn each_flipped_bit_is_seen() {
    let bytes = Kix::encode(&info(), rows(600));
    for at in 0..bytes.len() {
        if at % PAGE_BYTES >= PAGE_BYTES - 4 {
            // Behind a page's checksum there are four bytes without a meaning.
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let damaged = Bytes::from(damaged);
        assert!(Kix::check(&damaged, NONCE).is_err(), "byte {at}");
    }
    for len in (0..bytes.len()).step_by(97) {
        let cut = Bytes::copy_from_slice(&bytes[..len]);
        assert!(Kix::check(&cut, NONCE).is_err(), "{len} bytes");
    }
}

#[test]
fn pages_in_the_wrong_place_are_damage() {
    let bytes = Kix::encode(&info(), rows(1500));
    let pages = bytes.len() / PAGE_BYTES;
    let mut swapped = bytes[..(pages - 2) * PAGE_BYTES].to_vec();
    swapped.extend_from_slice(&bytes[(pages - 1) * PAGE_BYTES..]);
    swapped.extend_from_slice(&bytes[(pages - 2) * PAGE_BYTES..(pages - 1) * PAGE_BYTES]);
    let error = Kix::check(&swapped.into(), NONCE).unwrap_err();
    assert!(matches!(error, KixError::Page { .. }), "{error}");
}

#[test]
fn another_segments_index_is_told_apart() {
    let bytes = Bytes::from(Kix::encode(&info(), rows(10)));
    let error = Kix::check(&bytes, NONCE + 1).unwrap_err();
    assert!(matches!(error, KixError::Segment), "{error}");
    let error = Kix::check(&Bytes::from(vec![0; PAGE_BYTES]), NONCE).unwrap_err();
    assert!(matches!(error, KixError::Magic), "{error}");
}

#[test]
fn a_question_reads_two_pages_at_most_nearly_always() {
    let rows: Vec<KixRow> = (0..100_000_u32)
        .map(|number| {
            let hash = tidegate_model::hash::hash64(&number.to_le_bytes());
            (hash, 512 + number)
        })
        .collect();
    let counted = Counted {
        bytes: Kix::encode(&info(), rows.clone()).into(),
        pages: std::cell::Cell::new(0),
    };
    let kix = Kix::open(&counted, NONCE).unwrap();
    counted.pages.set(0);
    for row in rows.iter().step_by(100) {
        assert_eq!(kix.places(&counted, row.0).unwrap(), [row.1]);
    }
    let pages = counted.pages.get();
    assert!(pages < 2000, "{pages} pages for 1000 questions");
}

struct Counted {
    bytes: Bytes,
    pages: std::cell::Cell<usize>,
}

impl super::kix::Pages for Counted {
    fn size(&self) -> std::io::Result<u64> {
        self.bytes.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.pages.set(self.pages.get() + 1);
        self.bytes.read_exact_at(buf, offset)
    }
}

proptest! {
    #[test]
    fn any_rows_are_found(
        rows in vec((0u64..500, 0u32..2000), 0..3000),
        spread in any::<bool>(),
    ) {
        let spread = |hash: u64| if spread { hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { hash };
        let rows: Vec<KixRow> = rows.iter().map(|(hash, place)| (spread(*hash), *place)).collect();
        let others: Vec<u64> = (0..520).map(spread).collect();
        check_against_a_map(&rows, &others);
    }

    #[test]
    fn any_bytes_are_an_index_or_an_error(bytes in vec(any::<u8>(), 0..9000)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(Kix::check(&bytes, NONCE).is_err());
    }
}

#[test]
fn what_is_found_is_told_once() {
    let bytes = Bytes::from(Kix::encode(&info(), vec![(5, 9), (5, 9), (5, 4)]));
    assert_eq!(places(&bytes, 5), [4, 9]);
}
