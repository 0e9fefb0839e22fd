//! Reading a call in place, on the guest's side.

use super::{BATCH_PREFIX_BYTES, CALL_HEADER_BYTES, FLAG_BODIES, LAYOUT};
use crate::id::{Offset, Timestamp};
use crate::section::{ALIGN, Record, TABLE_ENTRY_BYTES, i64_at, table_bytes, u32_at};

/// A call as a guest gets it.
#[derive(Clone, Copy, Debug)]
pub struct GuestCall<'a> {
    now: Timestamp,
    batches: u32,
    records: usize,
    has_bodies: bool,
    rest: &'a [u8],
}

/// Why bytes are no call that this guest can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestCallError {
    /// A layout of another version.
    #[error("the call has layout {found}; this guest reads layout {LAYOUT}")]
    Layout {
        /// The version in the call.
        found: u32,
    },
    /// The bytes end too early.
    #[error("the call ends before its batches do")]
    Truncated,
}

impl<'a> GuestCall<'a> {
    /// Reads the header of a call.
    ///
    /// # Errors
    /// [`GuestCallError`] for another layout, or fewer bytes than a header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GuestCallError> {
        let (header, rest) = bytes
            .split_at_checked(CALL_HEADER_BYTES)
            .ok_or(GuestCallError::Truncated)?;
        let found = u32_at(header, 0);
        if found != LAYOUT {
            return Err(GuestCallError::Layout { found });
        }
        Ok(Self {
            now: Timestamp(i64_at(header, 8)),
            batches: u32_at(header, 4),
            records: u32_at(header, 16) as usize,
            has_bodies: u32_at(header, 20) & FLAG_BODIES != 0,
            rest,
        })
    }

    /// When the broker made the call: the only clock a guest has.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Records in all batches together: the bits of the verdict.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether bodies are in the call. If not, every body reads empty.
    #[must_use]
    pub fn has_bodies(&self) -> bool {
        self.has_bodies
    }

    /// The batches in order.
    #[must_use]
    pub fn batches(&self) -> Batches<'a> {
        Batches {
            left: self.batches,
            rest: self.rest,
        }
    }
}

/// Iterator over the batches of a call; after an error it ends.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<CallBatch<'a>, GuestCallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let read = self.read();
        if read.is_none() {
            self.left = 0;
        }
        Some(read.ok_or(GuestCallError::Truncated))
    }
}

impl<'a> Batches<'a> {
    fn read(&mut self) -> Option<CallBatch<'a>> {
        let (prefix, rest) = self.rest.split_at_checked(BATCH_PREFIX_BYTES)?;
        let count = u32_at(prefix, 20) as usize;
        let (table, rest) = rest.split_at_checked(table_bytes(count))?;
        let (heads, rest) = rest.split_at_checked(u32_at(prefix, 28) as usize)?;
        let body_len = u32_at(prefix, 36) as usize;
        let (padded, rest) = rest.split_at_checked(body_len.next_multiple_of(ALIGN))?;
        self.rest = rest;
        Some(CallBatch {
            base_offset: Offset(u64::from_le_bytes(prefix[..8].try_into().ok()?)),
            append_time: Timestamp(i64_at(prefix, 8)),
            first_record: u32_at(prefix, 16),
            count,
            table,
            heads,
            bodies: &padded[..body_len],
        })
    }
}

/// The records of one batch in a call.
#[derive(Clone, Copy, Debug)]
pub struct CallBatch<'a> {
    base_offset: Offset,
    append_time: Timestamp,
    first_record: u32,
    count: usize,
    table: &'a [u8],
    heads: &'a [u8],
    bodies: &'a [u8],
}

impl<'a> CallBatch<'a> {
    /// Offset of the batch in its queue; a record's offset is this plus its delta.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// When the broker appended the batch.
    #[must_use]
    pub fn append_time(&self) -> Timestamp {
        self.append_time
    }

    /// Index in the stored batch of the first record here.
    #[must_use]
    pub fn first_record(&self) -> u32 {
        self.first_record
    }

    /// How many records are here.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The table entries as stored, one more than records, with padding.
    #[must_use]
    pub fn table_bytes(&self) -> &'a [u8] {
        self.table
    }

    /// The window of the head block as stored.
    #[must_use]
    pub fn head_bytes(&self) -> &'a [u8] {
        self.heads
    }

    /// The window of the uncompressed body block; empty where bodies are left out.
    #[must_use]
    pub fn body_bytes(&self) -> &'a [u8] {
        self.bodies
    }

    /// All records here, in order; ends early on tables that contradict the prefix.
    #[must_use]
    pub fn records(&self) -> CallRecords<'a> {
        let (first, rest) = match self.table.split_first_chunk() {
            Some((first, rest)) => (Entry::read(first), rest),
            None => (Entry::default(), &[][..]),
        };
        CallRecords {
            left: self.count,
            entry: first,
            entries: rest,
            heads: self.heads,
            bodies: self.bodies,
        }
    }
}

/// Iterator over the records of a batch in a call.
#[derive(Clone, Debug)]
pub struct CallRecords<'a> {
    left: usize,
    /// The entry of the record that is next.
    entry: Entry,
    /// Behind it.
    entries: &'a [u8],
    /// From that record on.
    heads: &'a [u8],
    bodies: &'a [u8],
}

impl<'a> Iterator for CallRecords<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (entry, entries) = self.entries.split_first_chunk()?;
        let next = Entry::read(entry);
        let this = core::mem::replace(&mut self.entry, next);
        self.entries = entries;
        // What wraps here is too long below.
        let head_len = next.head.wrapping_sub(this.head) as usize;
        let (head, heads) = self.heads.split_at_checked(head_len)?;
        self.heads = heads;
        let body_len = match self.bodies {
            [] => 0,
            _ => next.body.wrapping_sub(this.body) as usize,
        };
        let (body, bodies) = self.bodies.split_at_checked(body_len)?;
        self.bodies = bodies;
        Some(Record::new(this.delta, head, body))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    delta: u32,
    head: u32,
    body: u32,
}

impl Entry {
    fn read(bytes: &[u8; TABLE_ENTRY_BYTES]) -> Self {
        Self {
            delta: u32_at(bytes, 0),
            head: u32_at(bytes, 4),
            body: u32_at(bytes, 8),
        }
    }
}
