//! The index file of a sealed segment. Byte table: `docs/formats/segment.md`.

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{QueueId, ShardId};

use super::ENTRY_BYTES;
#[cfg(test)]
use super::SeqBounds;
use super::memory::{MemoryIndex, NO_PLACE};
use crate::bytes_at::{put, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"TGQIX\0\0\x02";
const HEADER_BYTES: usize = 40;
const QUEUE_BYTES: usize = 24;
const SHARD_BYTES: usize = 16;
const FOOTER_BYTES: usize = 8;
/// Looks at the directory as if it had every id, before it is halved.
const GUESSES_MAX: usize = 2;

/// Why bytes are no queue index. It is rebuilt from its segment then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QixError {
    /// Something else, or of another version.
    #[error("this is no queue index of version 2")]
    Magic,
    /// The checksum over all of it is wrong.
    #[error("the queue index's checksum is wrong")]
    Crc,
    /// Counts that the length contradicts.
    #[error("the queue index ends before its tables do")]
    Truncated,
    /// A directory that isn't sorted, or entries that it doesn't cover.
    #[error("the queue index's directory contradicts itself")]
    Directory,
}

/// An index file, checked once and then read in place.
///
/// A page of it that is lost later reads as zeros ([`crate::vfs::Vfs::broken_maps`]). Rows with such a
/// zero are taken for no rows, entries for what they say: nothing of that is out of bounds, and who has
/// looked asks afterwards whether anything was lost.
#[derive(Clone, Debug)]
pub struct Qix {
    bytes: Bytes,
    queues: usize,
    shards: usize,
    entries_at: usize,
    places_at: usize,
}

/// A row of the queue directory.
#[derive(Clone, Copy)]
struct QueueRow {
    queue: u64,
    previous: u64,
    first: u32,
    count: u32,
}

impl Qix {
    /// Checks all of `bytes`, so that later reads can't fail.
    ///
    /// # Errors
    /// [`QixError`] says what is wrong.
    pub fn decode(bytes: Bytes) -> Result<Self, QixError> {
        if bytes.len() < HEADER_BYTES + FOOTER_BYTES {
            return Err(QixError::Truncated);
        }
        if bytes[..8] != MAGIC {
            return Err(QixError::Magic);
        }
        let body = bytes.len() - FOOTER_BYTES;
        if u32_at(&bytes, body) != crc32c(&bytes[..body]) {
            return Err(QixError::Crc);
        }
        let count = |at| usize::try_from(u32_at(&bytes, at)).unwrap_or(usize::MAX);
        let (queues, shards, entries, places) = (count(16), count(20), count(24), count(28));
        let after = |at: usize, count: usize, each: usize| {
            count.checked_mul(each).and_then(|len| at.checked_add(len))
        };
        let sections = after(HEADER_BYTES, queues, QUEUE_BYTES).and_then(|shards_at| {
            let entries_at = after(shards_at, shards, SHARD_BYTES)?;
            let places_at = after(entries_at, entries, ENTRY_BYTES)?;
            let end = after(places_at, places, 4)?;
            (end.next_multiple_of(8) == body).then_some((entries_at, places_at))
        });
        let Some((entries_at, places_at)) = sections else {
            return Err(QixError::Truncated);
        };
        let qix = Self {
            bytes,
            queues,
            shards,
            entries_at,
            places_at,
        };
        qix.check_directories(entries, places)?;
        Ok(qix)
    }

    fn check_directories(&self, entries: usize, places: usize) -> Result<(), QixError> {
        let (mut last, mut covered) = (None, 0);
        for at in 0..self.queues {
            let row = self.queue_row(at);
            if last.is_some_and(|last| row.queue <= last) || row.first as usize != covered {
                return Err(QixError::Directory);
            }
            last = Some(row.queue);
            covered = covered
                .checked_add(row.count as usize)
                .filter(|covered| row.count > 0 && *covered <= entries)
                .ok_or(QixError::Directory)?;
        }
        let mut placed = 0usize;
        for at in 0..self.shards {
            let (_, count, _) = self.shard_row(at);
            placed = placed
                .checked_add(count as usize)
                .filter(|placed| *placed <= places)
                .ok_or(QixError::Directory)?;
        }
        if covered != entries || placed != places {
            return Err(QixError::Directory);
        }
        Ok(())
    }

    fn queue_row(&self, at: usize) -> QueueRow {
        let at = HEADER_BYTES + at * QUEUE_BYTES;
        QueueRow {
            queue: u64_at(&self.bytes, at),
            previous: u64_at(&self.bytes, at + 8),
            first: u32_at(&self.bytes, at + 16),
            count: u32_at(&self.bytes, at + 20),
        }
    }

    /// Shard, number of places, first seq.
    fn shard_row(&self, at: usize) -> (u32, u32, u64) {
        let at = HEADER_BYTES + self.queues * QUEUE_BYTES + at * SHARD_BYTES;
        (
            u32_at(&self.bytes, at),
            u32_at(&self.bytes, at + 4),
            u64_at(&self.bytes, at + 8),
        )
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Base of the segment that it indexes.
    #[must_use]
    pub fn base(&self) -> u64 {
        u64_at(&self.bytes, 8)
    }

    /// Nonce of the file that it indexes: a segment may be written anew under its base.
    pub(crate) fn nonce(&self) -> u64 {
        u64_at(&self.bytes, 32)
    }

    /// The segment that holds the queue's earlier entries at the latest, and its entries' bytes.
    pub(crate) fn run(&self, queue: QueueId) -> Option<(u64, &[u8])> {
        let at = self.row_from(queue);
        let row = (at < self.queues).then(|| self.queue_row(at))?;
        (row.queue == queue.0 && row.count > 0).then(|| (row.previous, self.entries_of(row)))
    }

    /// The queues from `first` on, inclusive, ids rising, each with what [`Qix::run`] gives for it.
    pub(crate) fn runs_from(&self, first: QueueId) -> impl Iterator<Item = (QueueId, u64, &[u8])> {
        let rows = (self.row_from(first)..self.queues).map(|at| self.queue_row(at));
        rows.filter(|row| row.count > 0)
            .map(|row| (QueueId(row.queue), row.previous, self.entries_of(row)))
    }

    /// The first row of the directory whose queue is `queue` or a later one.
    fn row_from(&self, queue: QueueId) -> usize {
        let (mut low, mut high) = (0, self.queues);
        let mut guesses = 0;
        while low < high {
            // Ids are mostly dense: where one would lie if they were is nearly always right, and
            // needs one look at memory that is in no cache.
            let at = if guesses < GUESSES_MAX {
                guesses += 1;
                let first = u64_at(&self.bytes, HEADER_BYTES + low * QUEUE_BYTES);
                let ahead = usize::try_from(queue.0.saturating_sub(first)).unwrap_or(usize::MAX);
                low.saturating_add(ahead).min(high - 1)
            } else {
                usize::midpoint(low, high)
            };
            match self.queue_row(at).queue.cmp(&queue.0) {
                std::cmp::Ordering::Less => low = at + 1,
                std::cmp::Ordering::Greater => high = at,
                std::cmp::Ordering::Equal => return at,
            }
        }
        low
    }

    fn entries_of(&self, row: QueueRow) -> &[u8] {
        let at = self.entries_at + row.first as usize * ENTRY_BYTES;
        &self.bytes[at..at + row.count as usize * ENTRY_BYTES]
    }

    pub(crate) fn place(&self, shard: ShardId, seq: u64) -> Option<u32> {
        let mut at = self.places_at;
        for row in 0..self.shards {
            let (found, count, first) = self.shard_row(row);
            if found == shard.0 {
                let index = seq
                    .checked_sub(first)
                    .filter(|index| *index < u64::from(count))?;
                let index = usize::try_from(index).expect("below a u32");
                return Some(u32_at(&self.bytes, at + index * 4)).filter(|at| *at != NO_PLACE);
            }
            at += count as usize * 4;
        }
        None
    }

    /// First and last seq of each shard, as [`MemoryIndex::seq_bounds`].
    #[cfg(test)]
    pub(crate) fn seq_bounds(&self) -> Vec<SeqBounds> {
        (0..self.shards)
            .map(|at| self.shard_row(at))
            .filter(|(_, count, _)| *count > 0)
            .map(|(shard, count, first)| SeqBounds {
                shard: ShardId(shard),
                first,
                last: first.saturating_add(u64::from(count) - 1),
            })
            .collect()
    }
}

/// The bytes of the index file of the segment with this `nonce`.
pub(crate) fn encode(index: &MemoryIndex, nonce: u64) -> Vec<u8> {
    let queues = index.queue_count();
    let entries = index.batches();
    let places: usize = index.seqs.values().map(|run| run.places.len()).sum();
    let len = HEADER_BYTES
        + queues * QUEUE_BYTES
        + index.seqs.len() * SHARD_BYTES
        + entries * ENTRY_BYTES
        + places * 4;
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8) + FOOTER_BYTES);
    let count = |count: usize| u32::try_from(count).expect("a segment has under 2^32 batches");

    let mut header = [0; HEADER_BYTES];
    put(&mut header, 0, &MAGIC);
    put(&mut header, 8, &index.base().to_le_bytes());
    put(&mut header, 16, &count(queues).to_le_bytes());
    put(&mut header, 20, &count(index.seqs.len()).to_le_bytes());
    put(&mut header, 24, &count(entries).to_le_bytes());
    put(&mut header, 28, &count(places).to_le_bytes());
    put(&mut header, 32, &nonce.to_le_bytes());
    bytes.extend_from_slice(&header);

    let mut first = 0;
    for (id, run) in index.runs_from(QueueId(0)) {
        bytes.extend_from_slice(&id.0.to_le_bytes());
        bytes.extend_from_slice(&run.previous().to_le_bytes());
        bytes.extend_from_slice(&count(first).to_le_bytes());
        bytes.extend_from_slice(&count(run.len()).to_le_bytes());
        first += run.len();
    }
    for (shard, run) in &index.seqs {
        bytes.extend_from_slice(&shard.0.to_le_bytes());
        bytes.extend_from_slice(&count(run.places.len()).to_le_bytes());
        bytes.extend_from_slice(&run.first.to_le_bytes());
    }
    for (_, run) in index.runs_from(QueueId(0)) {
        for at in 0..run.len() {
            bytes.extend_from_slice(&run.entry(at).encode());
        }
    }
    for run in index.seqs.values() {
        for place in &run.places {
            bytes.extend_from_slice(&place.to_le_bytes());
        }
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}
