//! A segment's index in memory, while the segment is appended to and until its file is written.

use std::collections::BTreeMap;

use tidegate_model::{QueueId, QueueTable, ShardId};

use super::sealed::Run;
use super::{AppendTimes, Entry, SeqBounds};

/// A gap in seq, which only damage leaves, is filled up to this many numbers: more than a segment
/// of the largest size has batches.
const SEQ_GAP_MAX: u64 = 1 << 23;
/// A place that no batch has: the header page lies there.
pub(crate) const NO_PLACE: u32 = 0;

/// The places of a shard's batches in a segment, by seq from `first` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqRun {
    pub(crate) first: u64,
    pub(crate) places: Vec<u32>,
}

/// Where a queue's entries are. With a million queues most have one: it takes no allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    None,
    /// Index of its only entry.
    One(u32),
    /// Index of its run.
    Many(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    previous: u64,
    entry: Entry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Many {
    previous: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryIndex {
    base: u64,
    queues: QueueTable<Slot>,
    ones: Vec<One>,
    /// Indexes of `ones` whose queue has a run by now.
    free_ones: Vec<u32>,
    runs: Vec<Many>,
    batches: usize,
    /// First and last append time of all entries.
    times: Option<AppendTimes>,
    pub(crate) seqs: BTreeMap<ShardId, SeqRun>,
}

impl MemoryIndex {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            base,
            queues: QueueTable::default(),
            ones: Vec::new(),
            free_ones: Vec::new(),
            runs: Vec::new(),
            batches: 0,
            times: None,
            seqs: BTreeMap::new(),
        }
    }

    /// The index of the next segment, with room for as many queues as this one has.
    pub(crate) fn next(&self, base: u64) -> Self {
        Self {
            ones: Vec::with_capacity(self.ones.len()),
            runs: Vec::with_capacity(self.runs.len()),
            ..Self::new(base)
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Queues that it has entries of.
    pub(crate) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Entries of all queues.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    pub(crate) fn times(&self) -> Option<AppendTimes> {
        self.times
    }

    /// Adds a queue's entry. One that a higher term put at offsets already taken replaces them;
    /// their stored bytes come back.
    pub(crate) fn put(&mut self, queue: QueueId, previous: u64, entry: Entry) -> u64 {
        AppendTimes::add(&mut self.times, entry.append_time);
        self.batches += 1;
        let slot = self.queues.get_or_insert_with(queue, Slot::default);
        match *slot {
            Slot::None => {
                let one = One { previous, entry };
                let at = match self.free_ones.pop() {
                    Some(at) => {
                        self.ones[at as usize] = one;
                        at
                    }
                    None => {
                        self.ones.push(one);
                        index_of(self.ones.len() - 1)
                    }
                };
                *slot = Slot::One(at);
                0
            }
            Slot::One(at) => {
                let one = &mut self.ones[at as usize];
                if one.entry.base_offset >= entry.base_offset {
                    let replaced = std::mem::replace(&mut one.entry, entry);
                    self.batches -= 1;
                    return replaced.stored_bytes();
                }
                self.runs.push(Many {
                    previous: one.previous,
                    entries: vec![one.entry, entry],
                });
                *slot = Slot::Many(index_of(self.runs.len() - 1));
                self.free_ones.push(at);
                0
            }
            Slot::Many(at) => {
                let run = &mut self.runs[at as usize];
                let mut replaced = 0;
                while let Some(last) = run
                    .entries
                    .pop_if(|last| last.base_offset >= entry.base_offset)
                {
                    self.batches -= 1;
                    replaced += last.stored_bytes();
                }
                if run.entries.len() == run.entries.capacity() {
                    // With many queues a vector's usual doubling would be half of the index.
                    run.entries.reserve_exact(run.entries.len() / 2 + 1);
                }
                run.entries.push(entry);
                replaced
            }
        }
    }

    fn run_at(&self, slot: Slot) -> Option<Run<'_>> {
        let (previous, entries) = match slot {
            Slot::None => return None,
            Slot::One(at) => {
                let one = &self.ones[at as usize];
                (one.previous, std::slice::from_ref(&one.entry))
            }
            Slot::Many(at) => {
                let run = &self.runs[at as usize];
                (run.previous, &run.entries[..])
            }
        };
        Some(Run::Memory { previous, entries })
    }

    /// A queue's entries.
    pub(crate) fn run(&self, queue: QueueId) -> Option<Run<'_>> {
        self.run_at(*self.queues.get(queue)?)
    }

    /// The queues from `first` on, inclusive, ids rising, and their entries.
    pub(crate) fn runs_from(&self, first: QueueId) -> impl Iterator<Item = (QueueId, Run<'_>)> {
        let queues = self.queues.from(first);
        queues.filter_map(|(queue, slot)| Some((queue, self.run_at(*slot)?)))
    }

    /// Says which segment holds the queue's earlier entries at the latest.
    pub(crate) fn set_previous(&mut self, queue: QueueId, previous: u64) {
        match self.queues.get(queue) {
            Some(Slot::One(at)) => self.ones[*at as usize].previous = previous,
            Some(Slot::Many(at)) => self.runs[*at as usize].previous = previous,
            Some(Slot::None) | None => {}
        }
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

fn index_of(at: usize) -> u32 {
    u32::try_from(at).expect("a segment has under 2^32 batches")
}
