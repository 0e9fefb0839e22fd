//! The index of a segment that nothing is appended to any more.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tidegate_model::{QueueId, ShardId, Timestamp};

use super::memory::MemoryIndex;
use super::qix::{self, Qix};
use super::{AppendTimes, ENTRY_BYTES, Entry, SeqBounds};
use crate::folder::{Folder, QUEUE_INDEX, file_name, write_durably};
use crate::sync::lock;
use crate::vfs::{Vfs, VfsMap};

pub(crate) struct SealedIndex {
    base: u64,
    /// First and last append time; `None` without a batch of a queue.
    times: Option<AppendTimes>,
    seqs: Vec<SeqBounds>,
    /// See [`SealedIndex::is_quiet`].
    quiet: Mutex<Option<Quiet>>,
    source: Mutex<Source>,
}

#[derive(Clone, Copy)]
struct Quiet {
    rules: u64,
    until: Timestamp,
}

#[derive(Clone)]
enum Source {
    /// Its file isn't durable yet.
    Memory(Arc<MemoryIndex>),
    /// Its file was not opened yet.
    Closed,
    Open(Arc<QixFile>),
}

/// An index file that is open.
struct QixFile {
    qix: Arc<Qix>,
    map: Box<dyn VfsMap>,
    /// The generation in which all of it was last brought into memory.
    brought_in: AtomicU32,
}

impl QixFile {
    /// Whether it can be touched: the kernel may have taken its pages away since the last
    /// generation, and one that can't be read any more reads as zeros.
    fn is_in_memory(&self, generation: u32) -> bool {
        if !self.map.is_whole() {
            return false;
        }
        if self.brought_in.load(Ordering::Relaxed) == generation {
            return true;
        }
        let is_in = self.map.populate(0..self.qix.len()).is_ok();
        if is_in {
            self.brought_in.store(generation, Ordering::Relaxed);
        }
        is_in
    }
}

/// An index that can be read without touching a file.
pub(crate) enum OpenIndex {
    Memory(Arc<MemoryIndex>),
    File(Arc<Qix>),
}

/// A queue's entries in one segment.
#[derive(Clone, Copy)]
pub(crate) enum Run<'a> {
    Memory { previous: u64, entries: &'a [Entry] },
    File { previous: u64, bytes: &'a [u8] },
}

impl SealedIndex {
    pub(crate) fn in_memory(memory: MemoryIndex) -> Self {
        Self {
            base: memory.base(),
            times: memory.times(),
            seqs: memory.seq_bounds(),
            quiet: Mutex::new(None),
            source: Mutex::new(Source::Memory(Arc::new(memory))),
        }
    }

    pub(crate) fn in_file(base: u64, times: Option<AppendTimes>, seqs: Vec<SeqBounds>) -> Self {
        Self {
            base,
            times,
            seqs,
            quiet: Mutex::new(None),
            source: Mutex::new(Source::Closed),
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    pub(crate) fn times(&self) -> Option<AppendTimes> {
        self.times
    }

    /// Whether nothing in it expires by time before `now`, as [`SealedIndex::set_quiet`] noted
    /// under the same rules.
    pub(crate) fn is_quiet(&self, rules: u64, now: Timestamp) -> bool {
        lock(&self.quiet).is_some_and(|quiet| quiet.rules == rules && now < quiet.until)
    }

    pub(crate) fn set_quiet(&self, rules: u64, until: Timestamp) {
        *lock(&self.quiet) = Some(Quiet { rules, until });
    }

    pub(crate) fn seqs(&self) -> &[SeqBounds] {
        &self.seqs
    }

    /// The index, if it can be read without opening a file. A file that was open and can't be read
    /// any more is closed.
    pub(crate) fn opened(&self, generation: u32) -> Option<OpenIndex> {
        let source = lock(&self.source).clone();
        match source {
            Source::Memory(memory) => Some(OpenIndex::Memory(memory)),
            Source::Open(file) if file.is_in_memory(generation) => {
                Some(OpenIndex::File(file.qix.clone()))
            }
            Source::Open(file) => {
                let mut source = lock(&self.source);
                if matches!(&*source, Source::Open(now) if Arc::ptr_eq(now, &file)) {
                    *source = Source::Closed;
                }
                None
            }
            Source::Closed => None,
        }
    }

    /// Whether its file is still to be written.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(*lock(&self.source), Source::Memory(_))
    }

    /// Opens the index of the segment with this `nonce`; `rebuild` makes it from its segment if the file is missing or damaged.
    ///
    /// Says also whether it was rebuilt, so that its file can be written again.
    pub(crate) fn open<E>(
        &self,
        vfs: &dyn Vfs,
        folder: &Folder,
        nonce: u64,
        generation: u32,
        rebuild: impl FnOnce() -> Result<MemoryIndex, E>,
    ) -> Result<(OpenIndex, bool), E> {
        if let Some(open) = self.opened(generation) {
            return Ok((open, false));
        }
        match self.open_file(vfs, folder, nonce) {
            Ok((qix, map)) => {
                let qix = Arc::new(qix);
                *lock(&self.source) = Source::Open(Arc::new(QixFile {
                    qix: qix.clone(),
                    map,
                    brought_in: AtomicU32::new(generation),
                }));
                Ok((OpenIndex::File(qix), false))
            }
            Err(error) => {
                tracing::warn!(segment = self.base, %error, "rebuilding a queue index");
                let memory = Arc::new(rebuild()?);
                *lock(&self.source) = Source::Memory(memory.clone());
                Ok((OpenIndex::Memory(memory), true))
            }
        }
    }

    fn open_file(
        &self,
        vfs: &dyn Vfs,
        folder: &Folder,
        nonce: u64,
    ) -> io::Result<(Qix, Box<dyn VfsMap>)> {
        let file = vfs.open(&folder.log_file(self.base, QUEUE_INDEX))?;
        let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let map = file.map(len)?;
        map.populate(0..len)?;
        let qix = Qix::decode(map.bytes(0..len)).map_err(io::Error::other)?;
        if qix.base() != self.base || qix.nonce() != nonce {
            return Err(io::Error::other(
                "the queue index belongs to another segment or an earlier file of it",
            ));
        }
        Ok((qix, map))
    }

    /// Writes the file for the segment with this `nonce` durably, then reads from it instead of
    /// memory.
    pub(crate) fn write(&self, vfs: &dyn Vfs, folder: &Folder, nonce: u64) -> io::Result<()> {
        let Source::Memory(memory) = lock(&self.source).clone() else {
            return Ok(());
        };
        let bytes = qix::encode(&memory, nonce);
        write_durably(vfs, &folder.log, &file_name(self.base, QUEUE_INDEX), &bytes)?;
        // The pages just written are cached: the next reader maps them, this memory is given back.
        *lock(&self.source) = Source::Closed;
        Ok(())
    }
}

impl OpenIndex {
    pub(crate) fn run(&self, queue: QueueId) -> Option<Run<'_>> {
        match self {
            Self::Memory(memory) => memory.run(queue),
            Self::File(qix) => {
                let (previous, bytes) = qix.run(queue)?;
                Some(Run::File { previous, bytes })
            }
        }
    }

    /// The queues from `first` on, inclusive, ids rising, and their runs.
    pub(crate) fn runs_from(
        &self,
        first: QueueId,
    ) -> Box<dyn Iterator<Item = (QueueId, Run<'_>)> + '_> {
        match self {
            Self::Memory(memory) => Box::new(memory.runs_from(first)),
            Self::File(qix) => Box::new(
                qix.runs_from(first)
                    .map(|(queue, previous, bytes)| (queue, Run::File { previous, bytes })),
            ),
        }
    }

    pub(crate) fn place(&self, shard: ShardId, seq: u64) -> Option<u32> {
        match self {
            Self::Memory(memory) => memory.place(shard, seq),
            Self::File(qix) => qix.place(shard, seq),
        }
    }
}

impl Run<'_> {
    pub(crate) fn previous(&self) -> u64 {
        match self {
            Self::Memory { previous, .. } | Self::File { previous, .. } => *previous,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory { entries, .. } => entries.len(),
            Self::File { bytes, .. } => bytes.len() / ENTRY_BYTES,
        }
    }

    /// The entry at `at`, below the length.
    pub(crate) fn entry(&self, at: usize) -> Entry {
        match self {
            Self::Memory { entries, .. } => entries[at],
            Self::File { bytes, .. } => Entry::decode(&bytes[at * ENTRY_BYTES..]),
        }
    }

    /// Stored bytes of the batches that end behind offset `start`.
    pub(crate) fn stored_bytes(&self, start: u64) -> u64 {
        let first = self.partition_point(|entry| entry.end_offset() <= start);
        let entries = (first..self.len()).map(|at| self.entry(at));
        entries.map(|entry| entry.stored_bytes()).sum()
    }

    /// How many leading entries fulfil `is_before`, which holds for a prefix of them.
    pub(crate) fn partition_point(&self, is_before: impl Fn(&Entry) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(&self.entry(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
