use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::segment::Segment;
use crate::sim::SimVfs;
use crate::vfs::Vfs;

fn segment(base: u64) -> WritableSegment {
    let vfs = Arc::new(SimVfs::new(1));
    let path = Path::new("/segment");
    let file = vfs.create(path).unwrap();
    WritableSegment {
        segment: Arc::new(Segment::new(vfs, path.to_owned(), base, 1 << 24)),
        file,
        nonce: 1,
    }
}

#[test]
fn what_is_put_is_taken_in_order_with_its_position() {
    let mut ring = Ring::new(segment(0), 4096, 1 << 20, 4 << 20);
    assert!(ring.is_empty());
    assert!(ring.reserve(10));
    ring.put(b"tide");
    ring.put_zeros(2);
    assert_eq!(ring.tail(), 4102);
    assert!(ring.reserve(4));
    ring.switch(segment(1 << 24), 9000);
    ring.put(b"gate");
    let taken = ring.take(1 << 20);
    assert!(ring.is_empty());
    let extents = taken
        .iter()
        .map(|extent| (extent.to.segment.base(), extent.position, &extent.bytes[..]))
        .collect::<Vec<_>>();
    assert_eq!(
        extents,
        [(0, 4096, &b"tide\0\0"[..]), (1 << 24, 9000, &b"gate"[..])]
    );
    assert_eq!(ring.tail(), 9004);
}

#[test]
fn it_grows_to_its_maximum_and_shrinks_when_written_out() {
    let mut ring = Ring::new(segment(0), 0, CHUNK_BYTES, 4 * CHUNK_BYTES);
    for _ in 0..4 {
        assert!(ring.reserve(CHUNK_BYTES));
        ring.put_zeros(CHUNK_BYTES);
    }
    assert!(!ring.reserve(1), "all of it waits");
    assert_eq!(ring.allocated(), 4 * CHUNK_BYTES);
    let taken = ring.take(2 * CHUNK_BYTES);
    assert_eq!(taken.len(), 2);
    assert!(!ring.reserve(1), "being written");
    drop(taken);
    assert!(ring.reserve(1));
    drop(ring.take(usize::MAX));
    drop(ring.take(usize::MAX));
    ring.shrink();
    assert!(ring.allocated() <= 2 * CHUNK_BYTES);
}

#[test]
fn a_large_unit_gets_a_chunk_of_its_own_and_stays_whole() {
    let mut ring = Ring::new(segment(0), 0, CHUNK_BYTES, 8 * CHUNK_BYTES);
    assert!(ring.reserve(100));
    ring.put_zeros(100);
    assert!(ring.reserve(5 * CHUNK_BYTES));
    ring.put_zeros(5 * CHUNK_BYTES);
    assert!(!ring.reserve(9 * CHUNK_BYTES), "can never fit");
    let first = ring.take(CHUNK_BYTES);
    assert_eq!(first.len(), 1);
    let second = ring.take(CHUNK_BYTES);
    assert_eq!(second[0].bytes.len(), 5 * CHUNK_BYTES);
}

#[test]
fn memory_is_used_again() {
    let mut ring = Ring::new(segment(0), 0, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES);
    for round in 0..20_u64 {
        assert!(ring.reserve(CHUNK_BYTES / 2 + 8), "round {round}");
        ring.put_zeros(CHUNK_BYTES / 2 + 8);
        drop(ring.take(usize::MAX));
    }
    assert!(ring.allocated() <= 2 * CHUNK_BYTES);
}
