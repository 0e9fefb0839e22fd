//! What a shard's log keeps of its groups: the entries of group batches, and their bytes.

use tidegate_model::varint::{self, VarintError, put, unzigzag, zigzag};
use tidegate_model::{LeaseId, Offset, QueueId, Timestamp};

use crate::id::CursorId;
use crate::range::{Range, RangeSet};

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

/// First byte of every batch.
const VERSION: u8 = 1;
const SET: u8 = 1;
const DONE: u8 = 2;
const PARK: u8 = 3;
/// No entry is longer: its ranges, and at most ten numbers around them.
const ENTRY_BYTES_MAX: usize = (2 * ENTRY_RANGES_MAX + 10) * varint::BYTES_MAX;

const _: () = assert!(ENTRY_BYTES_MAX < BATCH_BYTES_MAX);

impl JournalEntry {
    /// `offsets` are done. Helps owners and tests; the broker makes its own entries.
    #[must_use]
    pub fn done(cursor: CursorId, queue: QueueId, offsets: RangeSet) -> Self {
        Self {
            cursor,
            queue,
            change: Change::Done { offsets },
        }
    }
}

/// Encodes entries into as few batches as [`BATCH_BYTES_MAX`] allows, in order.
///
/// Layout: the version byte, then entries: kind, cursor, queue, what the kind demands. Numbers are
/// LEB128 varints, times zigzag. Ranges are a count, then per range its distance from the end of the
/// one before (the first from 0, those of a park from the batch's base) and its length.
#[must_use]
pub fn encode<'a>(entries: impl IntoIterator<Item = &'a JournalEntry>) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut entry_bytes = Vec::new();
    for entry in entries {
        let ranges = match &entry.change {
            Change::Set { .. } => [].as_slice(),
            Change::Done { offsets } | Change::Park { offsets, .. } => offsets.ranges(),
        };
        let mut pieces = ranges.chunks(ENTRY_RANGES_MAX);
        // An entry without ranges is written once all the same.
        let mut piece = pieces.next().unwrap_or(&[]);
        loop {
            entry_bytes.clear();
            encode_entry(entry, piece, &mut entry_bytes);
            if batch.len() + entry_bytes.len() > BATCH_BYTES_MAX {
                batches.push(core::mem::take(&mut batch));
            }
            if batch.is_empty() {
                batch.push(VERSION);
            }
            batch.extend_from_slice(&entry_bytes);
            match pieces.next() {
                Some(next) => piece = next,
                None => break,
            }
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn encode_entry(entry: &JournalEntry, ranges: &[Range], out: &mut Vec<u8>) {
    out.push(match entry.change {
        Change::Set { .. } => SET,
        Change::Done { .. } => DONE,
        Change::Park { .. } => PARK,
    });
    put(out, entry.cursor.0);
    put(out, entry.queue.0);
    match &entry.change {
        Change::Set { at, lease_floor } => {
            put(out, at.0);
            put(out, lease_floor.0);
        }
        Change::Done { .. } => put_ranges(out, 0, ranges),
        Change::Park { parked, .. } => {
            put(out, parked.base_offset.0);
            put(out, u64::from(parked.span));
            put(out, u64::from(parked.attempt));
            put(out, zigzag(parked.due.0));
            put(out, u64::from(parked.record_bytes));
            put(out, u64::from(parked.judge));
            put_ranges(out, parked.base_offset.0, ranges);
        }
    }
}

fn put_ranges(out: &mut Vec<u8>, mut from: u64, ranges: &[Range]) {
    put(out, ranges.len() as u64);
    for range in ranges {
        put(out, range.first - from);
        put(out, range.len());
        from = range.end;
    }
}

/// Decodes one batch.
///
/// # Errors
/// [`JournalError`] for bytes that [`encode`] doesn't write.
pub fn decode(bytes: &[u8]) -> Result<Vec<JournalEntry>, JournalError> {
    let mut reader = Reader { bytes, at: 0 };
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(reader.error("more bytes than a batch may have"));
    }
    if reader.byte()? != VERSION {
        return Err(reader.error("an unknown version"));
    }
    let mut entries = Vec::new();
    while reader.at < bytes.len() {
        entries.push(reader.entry()?);
    }
    Ok(entries)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> JournalError {
        JournalError {
            len: self.bytes.len(),
            at: self.at,
            what,
        }
    }

    fn byte(&mut self) -> Result<u8, JournalError> {
        let byte = *self
            .bytes
            .get(self.at)
            .ok_or_else(|| self.error("the end"))?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, JournalError> {
        let mut rest = &self.bytes[self.at..];
        match varint::take(&mut rest) {
            Ok(value) => {
                self.at = self.bytes.len() - rest.len();
                Ok(value)
            }
            Err(VarintError::End) => Err(self.error("the end")),
            Err(VarintError::TooLong) => Err(self.error("a number of more than 64 bits")),
        }
    }

    fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, JournalError> {
        let value = self.number()?;
        T::try_from(value).map_err(|_| self.error("a number outside its field's bounds"))
    }

    /// Ranges from `from` up to, not including, `end`.
    fn ranges(&mut self, mut from: u64, end: u64) -> Result<RangeSet, JournalError> {
        let count = self.number()?;
        if count == 0 || count > ENTRY_RANGES_MAX as u64 {
            return Err(self.error("a count of ranges outside its bounds"));
        }
        let mut set = RangeSet::new();
        for index in 0..count {
            let (gap, len) = (self.number()?, self.number()?);
            let first = from.checked_add(gap);
            let last = first.and_then(|first| first.checked_add(len));
            match (first, last) {
                (Some(first), Some(last)) if len > 0 && last <= end && (gap > 0 || index == 0) => {
                    set.push(first, last);
                    from = last;
                }
                _ => return Err(self.error("a range that is empty, out of order or too far")),
            }
        }
        Ok(set)
    }

    fn entry(&mut self) -> Result<JournalEntry, JournalError> {
        let kind = self.byte()?;
        let cursor = CursorId(self.number()?);
        let queue = QueueId(self.number()?);
        let change = match kind {
            SET => Change::Set {
                at: Offset(self.number()?),
                lease_floor: LeaseId(self.number()?),
            },
            DONE => Change::Done {
                offsets: self.ranges(0, u64::MAX)?,
            },
            PARK => {
                let parked = Parked {
                    base_offset: Offset(self.number()?),
                    span: self.narrow()?,
                    attempt: self.narrow()?,
                    due: Timestamp(unzigzag(self.number()?)),
                    record_bytes: self.narrow()?,
                    judge: match self.number()? {
                        0 => false,
                        1 => true,
                        _ => return Err(self.error("an unknown mark of a parked run")),
                    },
                };
                if parked.attempt == 0 {
                    return Err(self.error("attempt 0"));
                }
                let Some(end) = parked.base_offset.0.checked_add(u64::from(parked.span)) else {
                    return Err(self.error("a batch past the last offset"));
                };
                Change::Park {
                    offsets: self.ranges(parked.base_offset.0, end)?,
                    parked,
                }
            }
            _ => return Err(self.error("an unknown kind of entry")),
        };
        Ok(JournalEntry {
            cursor,
            queue,
            change,
        })
    }
}

#[cfg(test)]
mod tests;
