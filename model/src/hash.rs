//! The hashes that client, broker and index must compute alike: XXH3, 64 bit, seed 0 unless said.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::QueueId;

/// Hash of a tag, key or message group.
#[must_use]
pub fn hash64(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Hash by which a key is found in a queue: the seed is the queue's id, so that one index serves all
/// queues of a segment.
#[must_use]
pub fn key_hash(queue: QueueId, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, queue.0)
}

/// The one bit that stands for a tag in a batch's tag bits.
///
/// A batch whose bits lack it has no such tag; one whose bits hold it may have.
#[must_use]
pub fn tag_bit(tag: &str) -> u64 {
    1 << (hash64(tag.as_bytes()) & 63)
}

/// The queue (index, below `queue_count`) of a message with a message group or key.
///
/// # Panics
/// If `queue_count` is zero: a topic has at least one queue.
#[must_use]
pub fn queue_for_key(key: &[u8], queue_count: u32) -> u32 {
    assert!(queue_count > 0, "a topic has at least one queue");
    u32::try_from(hash64(key) % u64::from(queue_count)).expect("below a u32")
}
