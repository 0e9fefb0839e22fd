//! What a shard's log keeps of its groups: the entries of group batches, and their bytes.

use tidegate_model::{LeaseId, Offset, QueueId, Timestamp};

use crate::id::CursorId;
use crate::range::RangeSet;

/// A change of a cursor on one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The cursor.
    pub cursor: CursorId,
    /// The queue.
    pub queue: QueueId,
    /// What happened.
    pub change: Change,
}

/// What happened to a cursor on one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It begins anew at an offset; acks, parked messages and leases from before are void.
    Set {
        /// The first message to deliver.
        at: Offset,
        /// Receipts of lower leases are void.
        lease_floor: LeaseId,
    },
    /// These messages never come again: acked, passed over by a filter, or dead-lettered.
    Done {
        /// Their offsets.
        offsets: RangeSet,
    },
    /// These messages wait for another attempt.
    Park {
        /// Their offsets, all in one batch.
        offsets: RangeSet,
        /// What is common to them.
        parked: Parked,
    },
}

/// Messages of one batch that wait for another attempt together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// Offsets that the batch covers.
    pub span: u16,
    /// Which delivery comes next, from 1.
    pub attempt: u16,
    /// Not before this instant.
    pub due: Timestamp,
    /// Mean bytes of a message, by which credit is taken.
    pub record_bytes: u32,
    /// A filter failed on them: they are judged again before that delivery.
    pub judge: bool,
}

/// Bytes of one encoded batch of entries, at most.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Ranges in one entry, at most; the broker splits what has more.
pub const ENTRY_RANGES_MAX: usize = 4_096;

/// The bytes can't be what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group batch of {len} bytes is damaged or of another version: {what} at byte {at}")]
pub struct JournalError {
    /// Bytes in all.
    pub len: usize,
    /// Where reading stopped.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Encodes entries into as few batches as [`BATCH_BYTES_MAX`] allows, in order.
#[must_use]
pub fn encode<'a>(entries: impl IntoIterator<Item = &'a JournalEntry>) -> Vec<Vec<u8>> {
    let _ = entries;
    unimplemented!()
}

/// Decodes one batch.
///
/// # Errors
/// [`JournalError`] for bytes that [`encode`] doesn't write.
pub fn decode(bytes: &[u8]) -> Result<Vec<JournalEntry>, JournalError> {
    let _ = bytes;
    unimplemented!()
}
