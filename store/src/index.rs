//! Which batches a queue has, and where: derived from the log, never trusted, rebuilt when damaged.
//!
//! The segment that is appended to has its index in memory; each older one has a `.qix` file,
//! opened when first needed. A queue's entries of different segments are chained backwards.

mod lookup;
mod memory;
mod qix;
mod sealed;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};

use crate::batch::IndexEntry;
use crate::bytes_at::{i64_at, put, u16_at, u32_at, u64_at};
use crate::header::{ALIGN, BatchHeader};
use crate::id_map::QueueMap;
use crate::position::LogPosition;

pub(crate) use lookup::Index;
pub(crate) use memory::MemoryIndex;
pub use qix::{Qix, QixError};
pub(crate) use sealed::SealedIndex;
pub(crate) use table::Table;

/// Stands where there is no earlier segment.
pub(crate) const NO_SEGMENT: u64 = u64::MAX;

/// Bytes of an entry in index files.
pub(crate) const ENTRY_BYTES: usize = 48;
/// Bytes of a queue number and its entry in delta parts.
pub(crate) const DELTA_BYTES: usize = 8 + ENTRY_BYTES;

/// An index entry as it is kept: positions relative to their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) base_offset: u64,
    pub(crate) tag_bits: u64,
    pub(crate) append_time: i64,
    pub(crate) seq: u64,
    /// Position relative to the segment, in units of 8 bytes.
    pub(crate) place: u32,
    pub(crate) section_len: u32,
    pub(crate) shard: u32,
    pub(crate) count: u16,
    pub(crate) span: u16,
}

impl Entry {
    pub(crate) fn of(header: &BatchHeader, segment_base: u64) -> Self {
        let place = (header.position.0 - segment_base) / ALIGN as u64;
        Self {
            base_offset: header.base_offset.0,
            tag_bits: header.tag_bits,
            append_time: header.append_time.0,
            seq: header.seq.0,
            place: u32::try_from(place).expect("segments end at 1 GiB"),
            section_len: header.section_len,
            shard: header.shard.0,
            count: header.count,
            span: header.span,
        }
    }

    pub(crate) fn end_offset(&self) -> u64 {
        self.base_offset.saturating_add(u64::from(self.span))
    }

    pub(crate) fn public(&self, segment_base: u64) -> IndexEntry {
        IndexEntry {
            base_offset: Offset(self.base_offset),
            span: self.span,
            count: self.count,
            position: position_of(segment_base, self.place),
            shard: ShardId(self.shard),
            seq: Seq(self.seq),
            tag_bits: self.tag_bits,
            section_len: self.section_len,
            append_time: Timestamp(self.append_time),
        }
    }

    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        put(&mut bytes, 0, &self.base_offset.to_le_bytes());
        put(&mut bytes, 8, &self.tag_bits.to_le_bytes());
        put(&mut bytes, 16, &self.append_time.to_le_bytes());
        put(&mut bytes, 24, &self.seq.to_le_bytes());
        put(&mut bytes, 32, &self.place.to_le_bytes());
        put(&mut bytes, 36, &self.section_len.to_le_bytes());
        put(&mut bytes, 40, &self.shard.to_le_bytes());
        put(&mut bytes, 44, &self.count.to_le_bytes());
        put(&mut bytes, 46, &self.span.to_le_bytes());
        bytes
    }

    /// Reads an entry; `bytes` has at least [`ENTRY_BYTES`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            base_offset: u64_at(bytes, 0),
            tag_bits: u64_at(bytes, 8),
            append_time: i64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            place: u32_at(bytes, 32),
            section_len: u32_at(bytes, 36),
            shard: u32_at(bytes, 40),
            count: u16_at(bytes, 44),
            span: u16_at(bytes, 46),
        }
    }
}

/// The position of a place in a segment.
pub(crate) fn position_of(segment_base: u64, place: u32) -> LogPosition {
    LogPosition(segment_base + u64::from(place) * ALIGN as u64)
}

/// A settled batch: what checkpoints carry of the newest segment's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) queue: QueueId,
    pub(crate) entry: Entry,
}

impl Delta {
    pub(crate) fn encode(&self) -> [u8; DELTA_BYTES] {
        let mut bytes = [0; DELTA_BYTES];
        put(&mut bytes, 0, &self.queue.0.to_le_bytes());
        put(&mut bytes, 8, &self.entry.encode());
        bytes
    }

    /// Reads a delta; `bytes` has at least [`DELTA_BYTES`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            queue: QueueId(u64_at(bytes, 0)),
            entry: Entry::decode(&bytes[8..]),
        }
    }
}

/// What the index knows of a queue beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) start: u64,
    pub(crate) next: u64,
    /// The newest sealed segment that holds entries of it.
    pub(crate) sealed_last: u64,
}

/// First and last seq that a segment holds of a shard, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeqBounds {
    pub(crate) shard: ShardId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

pub(crate) struct IndexState {
    pub(crate) queues: QueueMap<QueueState>,
    pub(crate) newest: MemoryIndex,
    pub(crate) sealed: BTreeMap<u64, Arc<SealedIndex>>,
}

impl IndexState {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            queues: QueueMap::default(),
            newest: MemoryIndex::new(base),
            sealed: BTreeMap::new(),
        }
    }

    pub(crate) fn shared(self) -> Arc<RwLock<Self>> {
        Arc::new(RwLock::new(self))
    }

    /// Takes a batch in. Where it is the first of a new segment, the one before is sealed and
    /// comes back, for its file to be written.
    pub(crate) fn push(&mut self, segment_base: u64, delta: Delta) -> Option<Arc<SealedIndex>> {
        let sealed = (self.newest.base() != segment_base).then(|| self.seal(segment_base));
        let Delta { queue, entry } = delta;
        self.newest
            .put_seq(ShardId(entry.shard), entry.seq, entry.place);
        if queue.0 != 0 && entry.span > 0 {
            let state = self.queues.entry(queue).or_insert(QueueState {
                start: entry.base_offset,
                next: entry.base_offset,
                sealed_last: NO_SEGMENT,
            });
            self.newest.put(queue, state.sealed_last, entry);
            state.next = entry.end_offset();
        }
        sealed
    }

    fn seal(&mut self, next_base: u64) -> Arc<SealedIndex> {
        let memory = std::mem::replace(&mut self.newest, MemoryIndex::new(next_base));
        let base = memory.base();
        for queue in memory.queue_ids() {
            if let Some(state) = self.queues.get_mut(&queue) {
                state.sealed_last = base;
            }
        }
        let sealed = Arc::new(SealedIndex::in_memory(memory));
        self.sealed.insert(base, sealed.clone());
        sealed
    }

    /// What a checkpoint keeps, beside deltas, once a segment was sealed.
    pub(crate) fn table(&self) -> Table {
        Table {
            queues: self
                .queues
                .iter()
                .map(|(id, state)| (*id, *state))
                .collect(),
            segments: self
                .sealed
                .iter()
                .map(|(base, sealed)| (*base, sealed.seqs().to_vec()))
                .collect(),
        }
    }

    /// The state at a checkpoint: its table, then its deltas pushed one by one.
    pub(crate) fn from_table(table: Table, newest_base: u64) -> Self {
        let mut state = Self::new(newest_base);
        state.queues = table.queues.into_iter().collect();
        for (base, seqs) in table.segments {
            let sealed = Arc::new(SealedIndex::in_file(base, seqs));
            state.sealed.insert(base, sealed);
        }
        state
    }
}
