//! A segment's index in memory, while the segment is appended to and until its file is written.

use std::collections::BTreeMap;

use tidegate_model::{QueueId, ShardId};

use super::{Entry, SeqBounds};
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
    pub(crate) seqs: BTreeMap<ShardId, SeqRun>,
}

impl MemoryIndex {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            queues: QueueMap::default(),
            seqs: BTreeMap::new(),
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn queue_ids(&self) -> impl Iterator<Item = QueueId> {
        self.queues.keys().copied()
    }

    /// Adds a queue's entry. One that a higher term put at offsets already taken replaces them.
    pub(crate) fn put(&mut self, queue: QueueId, previous: u64, entry: Entry) {
        let run = self.queues.entry(queue).or_insert(MemoryRun {
            previous,
            entries: Vec::new(),
        });
        while run
            .entries
            .last()
            .is_some_and(|last| last.base_offset >= entry.base_offset)
        {
            run.entries.pop();
        }
        run.entries.push(entry);
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
