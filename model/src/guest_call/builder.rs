//! Gathering a call.

use alloc::vec::Vec;
use core::ops::Range;

use super::{BATCH_PREFIX_BYTES, FLAG_BODIES, LAYOUT};
use crate::id::{Offset, Timestamp};
use crate::section::{ALIGN, Section, TABLE_ENTRY_BYTES, table_bytes};

/// Records of one stored batch that a guest is to judge.
#[derive(Clone, Debug)]
pub struct GuestBatch<'a> {
    section: Section<'a>,
    base_offset: Offset,
    append_time: Timestamp,
    records: Range<usize>,
}

impl<'a> GuestBatch<'a> {
    /// All records of a batch. A guest that reads bodies needs a section that has them uncompressed
    /// ([`Section::with_bodies`]).
    #[must_use]
    pub fn new(section: Section<'a>, base_offset: Offset, append_time: Timestamp) -> Self {
        Self {
            section,
            base_offset,
            append_time,
            records: 0..section.count(),
        }
    }

    /// The same batch, narrowed to a range of record indexes.
    ///
    /// # Panics
    /// If the range ends beyond the batch's records.
    #[must_use]
    pub fn records(self, records: Range<usize>) -> Self {
        assert!(
            records.start <= records.end && records.end <= self.section.count(),
            "records {records:?} of a batch of {}",
            self.section.count()
        );
        Self { records, ..self }
    }

    /// How many records are to be judged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Indexes in the stored batch of the records to be judged.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.records.clone()
    }

    /// Whether its bodies are at hand.
    #[must_use]
    pub fn has_bodies(&self) -> bool {
        self.section.bodies().is_some()
    }

    /// Bytes that its first `count` records after `skip` take in a call.
    #[must_use]
    pub fn call_bytes(&self, skip: usize, count: usize, with_bodies: bool) -> usize {
        let first = self.records.start + skip;
        let heads = self.section.head_start(first + count) - self.section.head_start(first);
        let bodies = match with_bodies {
            true => self.section.body_start(first + count) - self.section.body_start(first),
            false => 0,
        };
        BATCH_PREFIX_BYTES + table_bytes(count) + heads + bodies.next_multiple_of(ALIGN)
    }
}

/// Writes calls, one after another, into a buffer that it keeps.
#[derive(Debug, Default)]
pub struct CallBuilder {
    bytes: Vec<u8>,
    batches: u32,
    records: usize,
    with_bodies: bool,
}

impl CallBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a call; what the builder held is gone. `now` is the only clock a guest has.
    pub fn begin(&mut self, now: Timestamp, with_bodies: bool) {
        self.bytes.clear();
        self.batches = 0;
        self.records = 0;
        self.with_bodies = with_bodies;
        self.bytes.extend_from_slice(&LAYOUT.to_le_bytes());
        self.bytes.extend_from_slice(&0u32.to_le_bytes());
        self.bytes.extend_from_slice(&now.0.to_le_bytes());
        self.bytes.extend_from_slice(&0u32.to_le_bytes());
        let flags = if with_bodies { FLAG_BODIES } else { 0 };
        self.bytes.extend_from_slice(&flags.to_le_bytes());
    }

    /// Adds `count` of a batch's records, those after the first `skip`.
    ///
    /// # Panics
    /// If that is beyond the batch's range, or if the call carries bodies and the batch has none
    /// uncompressed.
    pub fn push(&mut self, batch: &GuestBatch<'_>, skip: usize, count: usize) {
        assert!(skip + count <= batch.count(), "records beyond the batch");
        let section = &batch.section;
        let first = batch.records.start + skip;
        let end = first + count;
        let heads = section.head_start(first)..section.head_start(end);
        let bodies = match self.with_bodies {
            true => section.body_start(first)..section.body_start(end),
            false => 0..0,
        };

        self.bytes
            .reserve(batch.call_bytes(skip, count, self.with_bodies));
        self.bytes
            .extend_from_slice(&batch.base_offset.0.to_le_bytes());
        self.bytes
            .extend_from_slice(&batch.append_time.0.to_le_bytes());
        for number in [
            first,
            count,
            heads.start,
            heads.len(),
            bodies.start,
            bodies.len(),
        ] {
            self.bytes.extend_from_slice(&to_u32(number).to_le_bytes());
        }
        let entries = first * TABLE_ENTRY_BYTES..(end + 1) * TABLE_ENTRY_BYTES;
        self.bytes
            .extend_from_slice(&section.table_bytes()[entries]);
        self.pad();
        self.bytes.extend_from_slice(&section.head_bytes()[heads]);
        if self.with_bodies {
            let block = section
                .bodies()
                .expect("a call with bodies takes batches that have them uncompressed");
            self.bytes.extend_from_slice(&block[bodies]);
            self.pad();
        }
        self.batches += 1;
        self.records += count;
    }

    /// The call as far as it is gathered.
    #[must_use]
    pub fn finish(&mut self) -> &[u8] {
        self.bytes[4..8].copy_from_slice(&self.batches.to_le_bytes());
        let records = to_u32(self.records);
        self.bytes[16..20].copy_from_slice(&records.to_le_bytes());
        &self.bytes
    }

    /// Bytes gathered so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the call has no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records gathered so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records
    }

    /// Gives memory beyond `bytes` back, after a call that was larger than usual.
    pub fn shrink_to(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            self.bytes.truncate(bytes);
            self.bytes.shrink_to(bytes);
        }
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(len, 0);
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("sizes and counts of a section are below 2^32")
}
