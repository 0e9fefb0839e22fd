//! Reading what is durable, from any thread.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};

use crate::batch::{IndexEntry, MappedBatch, QueueBounds, StoredBatch};
use crate::commit::Commit;
use crate::error::ReadError;
use crate::files::Files;
use crate::header::{ALIGN, BatchHeader, HEADER_BYTES};
use crate::index::Index;
use crate::keys::Keys;
use crate::position::LogPosition;
use crate::scrub::Scrubber;
use crate::segment::Segment;
use crate::segments::Segments;
use crate::space::{Compaction, Expiry, Nudge, Reserve, Rule, SpaceStats, Trims};
use crate::stats::Stats;
use crate::sync::lock;
use crate::trim::TrimRow;

/// A batch moves when its segment is rewritten, which takes far longer than reading it.
const MOVES_MAX: u32 = 8;

/// Reads batches and indexes. Cheap to clone.
///
/// Only what [`crate::Appender::settle`] made visible is found through the index. Calls that can
/// touch a disk say so; run those on a thread that may wait.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) commit: Arc<Commit>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) files: Arc<Files>,
    pub(crate) index: Index,
    pub(crate) keys: Keys,
    pub(crate) space: SpaceStats,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) nudge: Arc<Nudge>,
    pub(crate) scrubber: Arc<Scrubber>,
    pub(crate) compaction: Mutex<Compaction>,
    pub(crate) recovery_bytes_read: u64,
}

/// Whether a section is copied out of its map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    Copy,
    Map,
}

impl Reader {
    /// The offsets of a queue; both 0 for one that nothing was ever appended to.
    #[must_use]
    pub fn bounds(&self, queue: QueueId) -> QueueBounds {
        self.shared.index.bounds(queue)
    }

    /// Adds up to `max` index entries to `out`: the one that holds `from`, else the first after
    /// it, and those that follow in offset order. May open an older segment's index, and so wait.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt.
    pub fn entries(
        &self,
        queue: QueueId,
        from: Offset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), ReadError> {
        self.shared.index.entries(queue, from, max, out)
    }

    /// The offsets from `from` up to a later batch's that the index doesn't have, if a damaged range
    /// that is known lies where their batches would be. May open an older segment's index, and so wait.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt.
    pub fn damaged_before(
        &self,
        queue: QueueId,
        from: Offset,
        later: &IndexEntry,
    ) -> Result<Option<(Offset, Offset)>, ReadError> {
        let from = from.max(self.bounds(queue).start);
        if from >= later.base_offset || self.shared.segments.quarantined_count() == 0 {
            return Ok(None);
        }
        let mut before = Vec::with_capacity(1);
        if let Some(last) = from.0.checked_sub(1) {
            self.entries(queue, Offset(last), 1, &mut before)?;
        }
        let before = before.first().filter(|entry| entry.next_offset() == from);
        let begin = before.map_or(0, |entry| entry.position.0);
        let ranges = self.shared.segments.quarantined_below(later.position.0);
        let is_damaged = ranges.iter().any(|(_, end)| *end > begin);
        Ok(is_damaged.then_some((from, later.base_offset)))
    }

    /// The first offset of a batch appended at or after `time`, else the queue's next offset.
    /// May open an older segment's index, and so wait.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt.
    pub fn offset_at(&self, queue: QueueId, time: Timestamp) -> Result<Offset, ReadError> {
        self.shared.index.offset_at(queue, time)
    }

    /// Carries a pass over the log on, and gives what may go by `rule`: a bounded piece of the log
    /// per call, at most [`crate::TRIM_ROWS_MAX`] rows per shard. Queues without a rule keep
    /// everything. Reads older segments' indexes, and so waits.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt; the next call goes on behind
    /// its segment.
    pub fn expire(
        &self,
        pass: &mut Expiry,
        rule: &dyn Fn(QueueId) -> Option<Rule>,
    ) -> Result<Trims, ReadError> {
        self.shared.index.expire(pass, rule)
    }

    /// What may go of one queue, with the shard that it belongs to. Costs next to nothing where
    /// the queue's bounds show that nothing can; else it may read older segments' indexes, and so
    /// wait.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt.
    pub fn expire_queue(
        &self,
        queue: QueueId,
        rule: &Rule,
    ) -> Result<Option<(ShardId, TrimRow)>, ReadError> {
        self.shared.index.expire_queue(queue, rule)
    }

    /// Says which queues keep the newest message of each key alone, from now on. Superseded ones go in
    /// the background, some time after their segment was full.
    ///
    /// Stored bytes of queues that were not among them are counted anew: that reads older segments'
    /// indexes, and so waits.
    pub fn compact(&self, queues: Compaction) {
        let before = {
            let mut known = lock(&self.shared.compaction);
            if known.runs == queues.runs {
                known.now = queues.now;
                return;
            }
            std::mem::replace(&mut *known, queues.clone())
        };
        let ids = queues.runs.iter().flat_map(|run| run.first.0..=run.last.0);
        let is_new = |queue: &QueueId| before.run(*queue).is_none();
        let new: Vec<QueueId> = ids.map(QueueId).filter(is_new).collect();
        if !new.is_empty() {
            self.shared.index.recount(&new);
        }
    }

    /// Where the batch of that number lies now, if it is settled and not gone; see
    /// [`Reader::batch`] to read it. May open an older segment's
    /// index, and so wait.
    ///
    /// # Errors
    /// [`ReadError`] if an older index neither can be read nor rebuilt.
    pub fn position_of(&self, shard: ShardId, seq: Seq) -> Result<Option<LogPosition>, ReadError> {
        self.shared.index.position_of(shard, seq)
    }

    /// End of what survives a power cut, exclusive.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.shared.commit.durable()
    }

    /// Whether `len` bytes from `position` on are in memory, so that reading them doesn't wait.
    ///
    /// For a batch, `len` is header and section: [`crate::header::stored_bytes`] of the section's
    /// length.
    #[must_use]
    pub fn is_hot(&self, position: LogPosition, len: u64) -> bool {
        let from = position.0;
        self.shared.segments.at(from).is_some_and(|segment| {
            let range = from..from.saturating_add(len.max(1)).min(segment.end());
            segment.is_hot(&range, self.shared.commit.generation())
        })
    }

    /// The batch of an index entry. Waits for the disk unless it is hot.
    ///
    /// Like [`Reader::read`], but finds the batch also where it was moved to since the entry was
    /// looked up.
    ///
    /// # Errors
    /// As [`Reader::read`]; [`ReadError::NotFound`] also where the batch has expired meanwhile.
    pub fn read_entry(&self, entry: &IndexEntry) -> Result<StoredBatch, ReadError> {
        self.read_moved(entry.shard, entry.seq, entry.position, Take::Copy)
    }

    /// Like [`Reader::read_entry`], but the section is not copied.
    ///
    /// # Errors
    /// As [`Reader::read_entry`].
    pub fn map_entry(&self, entry: &IndexEntry) -> Result<MappedBatch, ReadError> {
        self.read_moved(entry.shard, entry.seq, entry.position, Take::Map)
            .map(MappedBatch)
    }

    /// The batch of that number, if it is settled and kept. May open an older segment's index, and
    /// waits for the disk.
    ///
    /// # Errors
    /// As [`Reader::read`], where there is such a batch.
    pub fn batch(&self, shard: ShardId, seq: Seq) -> Result<Option<StoredBatch>, ReadError> {
        let Some(position) = self.position_of(shard, seq)? else {
            return Ok(None);
        };
        match self.read_moved(shard, seq, position, Take::Copy) {
            Err(ReadError::NotFound { .. }) => Ok(None),
            Ok(batch) => Ok(Some(batch).filter(|batch| self.is_kept(&batch.header))),
            Err(error) => Err(error),
        }
    }

    /// Whether a batch is not below its queue's start.
    fn is_kept(&self, header: &BatchHeader) -> bool {
        let end = header.base_offset.0.saturating_add(header.span.into());
        header.queue.0 == 0 || header.span == 0 || end > self.bounds(header.queue).start.0
    }

    fn read_moved(
        &self,
        shard: ShardId,
        seq: Seq,
        mut position: LogPosition,
        take: Take,
    ) -> Result<StoredBatch, ReadError> {
        let mut tries = 0;
        loop {
            let found = self.read_at(position, take);
            let is_it =
                |batch: &StoredBatch| batch.header.shard == shard && batch.header.seq == seq;
            if found.as_ref().is_ok_and(is_it) {
                return found;
            }
            // Its segment may have been rewritten or removed since the position was looked up.
            let now = self.position_of(shard, seq)?;
            tries += 1;
            match now.filter(|_| tries < MOVES_MAX) {
                Some(now) if now != position => position = now,
                Some(_) if found.is_err() => {
                    // The index says that a batch begins there, so it is that batch's header.
                    if let Err(ReadError::Quarantined { from, to }) = &found {
                        self.shared.segments.quarantine(from.0, to.0);
                    }
                    return found;
                }
                _ => return Err(ReadError::NotFound { position }),
            }
        }
    }

    /// The batch at `position`. Waits for the disk unless it is hot.
    ///
    /// Its checksums are verified each time: at the speed of CRC-32C that costs an eighth of reading
    /// the bytes, and no damage gets past it. They are those of the copy that is given out: what lies in
    /// a map may be lost after it was verified ([`crate::vfs::Vfs::broken_maps`]).
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if no batch of the log begins there or it isn't durable yet;
    /// [`ReadError::Quarantined`] if it is damaged or unreadable; [`ReadError::Io`] if its segment
    /// can't be opened.
    pub fn read(&self, position: LogPosition) -> Result<StoredBatch, ReadError> {
        self.read_at(position, Take::Copy)
    }

    fn read_at(&self, position: LogPosition, take: Take) -> Result<StoredBatch, ReadError> {
        let not_found = || ReadError::NotFound { position };
        let from = position.0;
        let durable = self.durable().0;
        let segments = &self.shared.segments;
        let segment = segments.at(from).ok_or_else(not_found)?;
        let header_end = from.saturating_add(HEADER_BYTES as u64);
        if header_end > durable.min(segment.end())
            || from < segment.first()
            || !from.is_multiple_of(ALIGN as u64)
        {
            return Err(not_found());
        }
        segments.check(from)?;
        let generation = self.shared.commit.generation();
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&segment.bytes(from..header_end, generation)?);
        let header = BatchHeader::decode(&bytes, segment.nonce()?)
            .ok()
            .filter(|header| header.position == position && header.end().0 <= segment.end())
            .ok_or_else(|| segment.quarantined(from, header_end))?;
        if header.kind.is_local() || header.end().0 > durable {
            return Err(not_found());
        }
        match self.section(&segment, &header, generation, take) {
            Ok(section) => Ok(StoredBatch { header, section }),
            Err(ReadError::Quarantined { .. }) => {
                segments.quarantine(from, header.end().0);
                Err(segment.quarantined(from, header.end().0))
            }
            Err(error) => Err(error),
        }
    }

    fn section(
        &self,
        segment: &Segment,
        header: &BatchHeader,
        generation: u32,
        take: Take,
    ) -> Result<Bytes, ReadError> {
        let start = header.position.0 + HEADER_BYTES as u64;
        let range = start..start + u64::from(header.section_len);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut section = segment.bytes(range, generation)?;
        if take == Take::Copy {
            section = Bytes::copy_from_slice(&section);
        }
        if crc32c(&section) != header.section_crc {
            return Err(segment.quarantined(header.position.0, header.end().0));
        }
        Ok(section)
    }

    /// For how long the oldest append that isn't durable has waited; zero if there is none. Where
    /// this grows, the disk is slow or stuck.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        self.shared.commit.latency().oldest_wait()
    }

    /// How the store stands.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let (tail, ring_bytes) = shared
            .commit
            .with_ring(|ring| (ring.tail(), ring.allocated()));
        Stats {
            durable: shared.commit.durable(),
            written: shared.commit.written(),
            tail: LogPosition(tail),
            syncs: shared.commit.syncs(),
            ring_bytes: ring_bytes as u64,
            segments: shared.segments.len() as u64,
            live_bytes: crate::sync::read(&shared.index.state).live_bytes,
            checkpoints: shared.files.checkpoints(),
            file_failures: shared.files.failures(),
            quarantined: shared.segments.quarantined_count() as u64,
            log_bytes: shared.segments.bytes(),
            reserve_bytes: shared.reserve.bytes(),
            reserve_broken: shared.reserve.is_broken(),
            segments_removed: shared.space.removed.load(Ordering::Relaxed),
            segments_rewritten: shared.space.rewritten.load(Ordering::Relaxed),
            moved_bytes: shared.space.moved_bytes.load(Ordering::Relaxed),
            compacted_bytes: shared.space.compacted_bytes.load(Ordering::Relaxed),
            compaction_rounds: shared.space.compaction_rounds.load(Ordering::Relaxed),
            recovery_bytes_read: shared.recovery_bytes_read,
            sync_times: shared.commit.latency().times(),
            scrub: shared.scrubber.stats(),
        }
    }
}
