//! What may be known of a record without its payload, in 40 bytes: made where the record is checked.

use crate::hash::hash64;
use crate::id::Timestamp;
use crate::section::Record;

/// Hashes and scheduling facts of one record. Zero hashes stand for "has none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordDigest {
    /// [`hash64`] of the message group.
    pub group_hash: u64,
    /// [`hash64`] of the tag.
    pub tag_hash: u64,
    /// [`hash64`] of the first key.
    pub key_hash: u64,
    /// When it may be delivered first; `Timestamp(0)` at once.
    pub due: Timestamp,
    /// 0 (default, lowest) to [`crate::limits::PRIORITY_MAX`].
    pub priority: u8,
}

const _: () = assert!(size_of::<RecordDigest>() == 40);

impl RecordDigest {
    /// The digest of a validated record.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Self {
        // A hash that happens to be zero would read as absent.
        let hash = |bytes: &[u8]| hash64(bytes).max(1);
        Self {
            group_hash: record.group().map_or(0, |g| hash(g.as_bytes())),
            tag_hash: record.tag().map_or(0, |t| hash(t.as_bytes())),
            key_hash: record.keys().next().map_or(0, hash),
            due: record.due_time().unwrap_or_default(),
            priority: record.priority(),
        }
    }
}
