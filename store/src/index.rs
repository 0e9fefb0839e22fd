//! Which batches a queue has, and where: derived from the log, never trusted, rebuilt when damaged.
//!
//! The segment that is appended to has its index in memory; each older one has a `.qix` file,
//! opened when first needed. A queue's entries of different segments are chained backwards.

mod chain;
mod lookup;
mod memory;
mod qix;
mod sealed;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use tidegate_model::{Offset, QueueId, QueueTable, Seq, ShardId, Timestamp};

use crate::batch::IndexEntry;
use crate::bytes_at::{i64_at, put, u16_at, u32_at, u64_at};
use crate::header::{ALIGN, BatchHeader, stored_bytes};
use crate::position::LogPosition;
use crate::trim::{QUEUE_REMOVED, TrimRow};

pub(crate) use chain::chain_back;
pub(crate) use lookup::Index;
pub(crate) use memory::{MemoryIndex, NO_PLACE};
pub(crate) use qix::encode as encode_qix;
pub use qix::{Qix, QixError};
pub(crate) use sealed::{OpenIndex, Run, SealedIndex};
pub(crate) use table::{SegmentRow, Table};

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

    /// Bytes that its batch takes in the log.
    pub(crate) fn stored_bytes(&self) -> u64 {
        stored_bytes(self.section_len as usize)
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

/// What checkpoints carry of the newest segment: its batches, and what was trimmed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delta {
    Batch { queue: QueueId, entry: Entry },
    Trim(TrimRow),
}

impl Delta {
    /// A trim has its start and bytes where an entry has base offset and tag bits, and no place.
    pub(crate) fn encode(&self) -> [u8; DELTA_BYTES] {
        let mut bytes = [0; DELTA_BYTES];
        match self {
            Self::Batch { queue, entry } => {
                put(&mut bytes, 0, &queue.0.to_le_bytes());
                put(&mut bytes, 8, &entry.encode());
            }
            Self::Trim(row) => {
                put(&mut bytes, 0, &row.queue.0.to_le_bytes());
                put(&mut bytes, 8, &row.start.0.to_le_bytes());
                put(&mut bytes, 16, &row.bytes.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads a delta; `bytes` has at least [`DELTA_BYTES`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let queue = QueueId(u64_at(bytes, 0));
        let entry = Entry::decode(&bytes[8..]);
        if entry.place == NO_PLACE {
            return Self::Trim(TrimRow {
                queue,
                start: Offset(entry.base_offset),
                bytes: entry.tag_bits,
            });
        }
        Self::Batch { queue, entry }
    }
}

/// What the index knows of a queue beside its entries. A node may have a million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) start: u64,
    pub(crate) next: u64,
    /// The newest sealed segment that holds entries of it.
    pub(crate) sealed_last: u64,
    /// Stored bytes of its batches from `start` on.
    pub(crate) bytes: u64,
}

const _: () = assert!(size_of::<QueueState>() <= 40);

/// First and last seq that a segment holds of a shard, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeqBounds {
    pub(crate) shard: ShardId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// First and last append time of a segment's batches, in ms, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendTimes {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl AppendTimes {
    fn add(times: &mut Option<Self>, time: i64) {
        let times = times.get_or_insert(Self {
            first: time,
            last: time,
        });
        times.first = times.first.min(time);
        times.last = times.last.max(time);
    }
}

pub(crate) struct IndexState {
    pub(crate) queues: QueueTable<QueueState>,
    /// The sum of all queues' bytes.
    pub(crate) live_bytes: u64,
    /// Trims applied since the opening.
    pub(crate) trims: u64,
    pub(crate) newest: MemoryIndex,
    pub(crate) sealed: BTreeMap<u64, Arc<SealedIndex>>,
}

impl IndexState {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            queues: QueueTable::default(),
            live_bytes: 0,
            trims: 0,
            newest: MemoryIndex::new(base),
            sealed: BTreeMap::new(),
        }
    }

    pub(crate) fn shared(self) -> Arc<RwLock<Self>> {
        Arc::new(RwLock::new(self))
    }

    /// Takes a batch in. Where it is the first of a new segment, the one before is sealed and
    /// comes back, for its file to be written.
    pub(crate) fn push(
        &mut self,
        segment_base: u64,
        queue: QueueId,
        entry: Entry,
    ) -> Option<Arc<SealedIndex>> {
        let sealed = (self.newest.base() != segment_base).then(|| self.seal(segment_base));
        let Some(replaced) = self.put(queue, entry) else {
            return sealed;
        };
        let state = self.queues.get_or_insert_with(queue, || QueueState {
            start: entry.base_offset,
            next: entry.base_offset,
            sealed_last: NO_SEGMENT,
            bytes: 0,
        });
        state.next = entry.end_offset();
        let added = |bytes: u64| {
            bytes
                .saturating_sub(replaced)
                .saturating_add(entry.stored_bytes())
        };
        state.bytes = added(state.bytes);
        self.live_bytes = added(self.live_bytes);
        sealed
    }

    /// Puts a batch into the newest segment's index. If it is one of a queue, the bytes of those
    /// that it replaces come back.
    fn put(&mut self, queue: QueueId, entry: Entry) -> Option<u64> {
        self.newest
            .put_seq(ShardId(entry.shard), entry.seq, entry.place);
        if queue.0 == 0 || entry.span == 0 {
            return None;
        }
        let state = self.queues.get(queue);
        let previous = state.map_or(NO_SEGMENT, |state| state.sealed_last);
        Some(self.newest.put(queue, previous, entry))
    }

    /// Raises a queue's start, or forgets the queue. A row that would lower it changes nothing.
    pub(crate) fn trim(&mut self, row: TrimRow) {
        let gone = if row.start == QUEUE_REMOVED {
            self.queues.remove(row.queue).map(|state| state.bytes)
        } else {
            self.queues.get_mut(row.queue).and_then(|state| {
                let start = row.start.0.min(state.next);
                if start <= state.start {
                    return None;
                }
                // A damaged range may have kept a batch from being counted; nothing is left behind.
                let gone = if start == state.next {
                    state.bytes
                } else {
                    row.bytes.min(state.bytes)
                };
                state.start = start;
                state.bytes -= gone;
                Some(gone)
            })
        };
        self.trims += u64::from(gone.is_some());
        self.live_bytes = self.live_bytes.saturating_sub(gone.unwrap_or(0));
    }

    fn seal(&mut self, next_base: u64) -> Arc<SealedIndex> {
        let memory = {
            let next = self.newest.next(next_base);
            std::mem::replace(&mut self.newest, next)
        };
        let base = memory.base();
        for (queue, _) in memory.runs_from(QueueId(0)) {
            if let Some(state) = self.queues.get_mut(queue) {
                state.sealed_last = base;
            }
        }
        let sealed = Arc::new(SealedIndex::in_memory(memory));
        self.sealed.insert(base, sealed.clone());
        sealed
    }

    /// The bytes of the table that a checkpoint keeps, beside deltas, once a segment was sealed.
    /// `covered` deltas that go with it are in its numbers already.
    pub(crate) fn table(&self, covered: usize) -> Vec<u8> {
        let sealed = self.sealed.iter().map(|(base, sealed)| SegmentRow {
            base: *base,
            times: sealed.times(),
            seqs: sealed.seqs().to_vec(),
        });
        Table::encode(covered as u64, &self.queues, &sealed.collect::<Vec<_>>())
    }

    /// The state at a checkpoint, of its table and its deltas.
    pub(crate) fn restore(table: Table, newest_base: u64, deltas: &[Delta]) -> Self {
        let mut state = Self::new(newest_base);
        let bytes = table.queues.iter().map(|(_, queue)| queue.bytes);
        state.live_bytes = bytes.fold(0, u64::saturating_add);
        state.queues = table.queues;
        for row in table.segments {
            let sealed = Arc::new(SealedIndex::in_file(row.base, row.times, row.seqs));
            state.sealed.insert(row.base, sealed);
        }
        for (at, delta) in (0_u64..).zip(deltas) {
            match *delta {
                Delta::Batch { queue, entry } if at < table.covered => {
                    state.put(queue, entry);
                }
                Delta::Batch { queue, entry } => {
                    state.push(newest_base, queue, entry);
                }
                Delta::Trim(_) if at < table.covered => {}
                Delta::Trim(row) => state.trim(row),
            }
        }
        state
    }
}
