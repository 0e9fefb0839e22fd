//! A segment's index in memory, while the segment is appended to and until its file is written.

use std::collections::BTreeMap;

use tidegate_model::{QueueId, ShardId};

use super::{AppendTimes, Entry, SeqBounds};
use crate::id_map::QueueMap;

/// A gap in seq, which only damage leaves, is filled up to this many numbers: more than a segment
/// of the largest size has batches.
const SEQ_GAP_MAX: u64 = 1 << 23;
/// A place that no batch has: the header page lies there.
pub(crate) const NO_PLACE: u32 = 0;

/// The entries that a segment holds of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRun {
    pub(crate) previous: u64,
    pub(crate) entries: Vec<Entry>,
}

/// The places of a shard's batches in a segment, by seq from `first` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqRun {
    pub(crate) first: u64,
    pub(crate) places: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryIndex {
    base: u64,
    pub(crate) queues: QueueMap<MemoryRun>,
    /// The queues as they came, so that they can be visited piece by piece.
    order: Vec<QueueId>,
    /// First and last append time of all entries.
    times: Option<AppendTimes>,
    pub(crate) seqs: BTreeMap<ShardId, SeqRun>,
}

impl MemoryIndex {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            queues: QueueMap::default(),
            order: Vec::new(),
            times: None,
            seqs: BTreeMap::new(),
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The queues in the order in which they came.
    pub(crate) fn queue_ids(&self) -> &[QueueId] {
        &self.order
    }

    pub(crate) fn times(&self) -> Option<AppendTimes> {
        self.times
    }

    /// Adds a queue's entry. One that a higher term put at offsets already taken replaces them;
    /// their stored bytes come back.
    pub(crate) fn put(&mut self, queue: QueueId, previous: u64, entry: Entry) -> u64 {
        let run = self.queues.entry(queue).or_insert_with(|| {
            self.order.push(queue);
            MemoryRun {
                previous,
                entries: Vec::new(),
            }
        });
        let mut replaced = 0;
        while let Some(last) = run
            .entries
            .pop_if(|last| last.base_offset >= entry.base_offset)
        {
            replaced += last.stored_bytes();
        }
        if run.entries.len() == run.entries.capacity() {
            // A million queues may have an entry or two each: a vector's usual first four would be
            // most of the index.
            run.entries.reserve_exact(run.entries.len() / 2 + 1);
        }
        run.entries.push(entry);
        AppendTimes::add(&mut self.times, entry.append_time);
        replaced
    }

    /// Notes where a shard's batch is. A seq that a higher term took again discards what followed.
    pub(crate) fn put_seq(&mut self, shard: ShardId, seq: u64, place: u32) {
        let run = self.seqs.entry(shard).or_default();
        if run.places.is_empty() || seq < run.first {
            run.first = seq;
            run.places.clear();
        }
        let at = seq - run.first;
        if at > run.places.len() as u64 + SEQ_GAP_MAX {
            return;
        }
        let at = usize::try_from(at).expect("bounded by the gap");
        run.places.resize(at, NO_PLACE);
        run.places.push(place);
    }

    pub(crate) fn place(&self, shard: ShardId, seq: u64) -> Option<u32> {
        let run = self.seqs.get(&shard)?;
        let at = usize::try_from(seq.checked_sub(run.first)?).ok()?;
        run.places.get(at).copied().filter(|at| *at != NO_PLACE)
    }

    pub(crate) fn seq_bounds(&self) -> Vec<SeqBounds> {
        self.seqs
            .iter()
            .filter(|(_, run)| !run.places.is_empty())
            .map(|(shard, run)| SeqBounds {
                shard: *shard,
                first: run.first,
                last: run.first + run.places.len() as u64 - 1,
            })
            .collect()
    }
}
