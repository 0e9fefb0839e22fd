//! Appending: one owner numbers batches, places them and hands them to the flush thread.

mod claim;
mod marks;
mod trims;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Seq, ShardId, Term, Timestamp};

use crate::batch::{Appended, Batch, Kind, flags};
use crate::commit::OnDurable;
use crate::config::StoreConfig;
use crate::error::{AppendError, Fenced};
use crate::files::Job;
use crate::header::{ALIGN, BatchHeader, HEADER_BYTES, stored_bytes};
use crate::id_map::QueueMap;
use crate::index::{Delta, Entry};
use crate::position::LogPosition;
use crate::reader::Shared;
use crate::recovery::{Tails, next_size};
use crate::ring::Ring;
use crate::segment::{Preparer, Spare, Wanted, WritableSegment};
use crate::snapshot::Checkpoint;
use crate::sync::write;
use crate::threads::Threads;
use crate::trim::{QUEUE_REMOVED, TrimRow};
use crate::vfs::LockGuard;
use claim::Claim;
use marks::Marks;
use trims::trims_of;

/// Segments are made no larger than for so many batches of the size that they had lately: indexes
/// of a segment are in memory as a whole, while it is appended to and when its files are written.
const SEGMENT_BATCHES_MAX: u64 = 1 << 18;
/// Such a size is a multiple of this.
const SEGMENT_STEP_BYTES: u64 = 1 << 20;
/// Most log between two checkpoints because of what they write: a start reads up to twice as much.
const INTERVAL_BYTES_MAX: u64 = 1 << 30;
/// A checkpoint is due after this time on a full disk, in milliseconds, while it may free segments.
const FULL_INTERVAL_MS: u64 = 200;

/// The log's one owner. Dropping it writes out what was appended, ends the store's threads and
/// gives the folder's lock back.
pub struct Appender {
    pub(crate) shared: Arc<Shared>,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) config: StoreConfig,
    pub(crate) active: WritableSegment,
    pub(crate) tail: u64,
    /// Batches in the active segment.
    pub(crate) segment_batches: u64,
    pub(crate) log_epoch: u32,
    /// Last batch of each shard, in flight included.
    pub(crate) tails: Vec<(Term, u64)>,
    pub(crate) settled_tails: Vec<(Term, u64)>,
    /// Next offsets of the queues that have batches in flight.
    pub(crate) queue_tails: QueueMap<u64>,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) appended: Vec<Appended>,
    pub(crate) settled: u64,
    /// Base of the newest segment with settled batches.
    pub(crate) newest_base: u64,
    pub(crate) deltas: Vec<Delta>,
    pub(crate) table_due: bool,
    pub(crate) last_checkpoint: LastCheckpoint,
    pub(crate) marks: Marks,
    pub(crate) now: Timestamp,
    /// Ends before the lock is given back.
    pub(crate) threads: Option<Threads>,
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) lock: LockGuard,
}

/// An appended batch that isn't settled yet.
pub(crate) struct InFlight {
    end: u64,
    segment_base: u64,
    term: Term,
    queue: QueueId,
    entry: Entry,
    /// The rows of a trim record.
    trims: Vec<TrimRow>,
}

pub(crate) struct LastCheckpoint {
    pub(crate) position: u64,
    pub(crate) at: Timestamp,
    /// Batches were settled since.
    pub(crate) stale: bool,
    /// Log after which the next one is due.
    pub(crate) interval_bytes: u64,
}

/// What [`Appender::new`] is made of.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) config: StoreConfig,
    pub(crate) active: WritableSegment,
    pub(crate) tail: u64,
    pub(crate) log_epoch: u32,
    pub(crate) tails: Tails,
    pub(crate) deltas: Vec<Delta>,
    pub(crate) checkpointed: LogPosition,
    pub(crate) replayed: bool,
    pub(crate) now: Timestamp,
    pub(crate) threads: Option<Threads>,
    pub(crate) lock: LockGuard,
}

impl Appender {
    pub(crate) fn new(start: Start) -> Self {
        let shards = start
            .tails
            .keys()
            .map(|shard| shard.0 + 1)
            .max()
            .unwrap_or(0)
            .max(start.config.shards);
        let (newest_base, newest_batches) = {
            let index = crate::sync::read(&start.shared.index.state);
            (index.newest.base(), index.newest.batches())
        };
        let tails = (0..shards)
            .map(|shard| {
                start
                    .tails
                    .get(&ShardId(shard))
                    .copied()
                    .unwrap_or_default()
            })
            .collect::<Vec<_>>();
        Self {
            shared: start.shared,
            preparer: start.preparer,
            active: start.active,
            tail: start.tail,
            segment_batches: newest_batches as u64,
            log_epoch: start.log_epoch,
            settled_tails: tails.clone(),
            tails,
            queue_tails: QueueMap::default(),
            in_flight: VecDeque::new(),
            appended: Vec::new(),
            settled: start.tail,
            newest_base,
            deltas: start.deltas,
            table_due: true,
            last_checkpoint: LastCheckpoint {
                position: start.checkpointed.0,
                at: start.now,
                stale: start.replayed,
                interval_bytes: start.config.checkpoint_bytes,
            },
            config: start.config,
            marks: Marks::new(start.now),
            now: start.now,
            threads: start.threads,
            lock: start.lock,
        }
    }

    /// Appends an atomic unit: recovery keeps all of it or nothing. Never waits.
    ///
    /// The batches, all of one shard, get their seq, base offset and position; the answer has one
    /// entry for each. They are durable when [`Appender::settle`] returns their `end` or more.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended then. [`AppendError::Full`] is worth another try when
    /// the callback given to [`Appender::on_durable`] has run.
    ///
    /// # Panics
    /// If the unit is empty, of several shards, or in a term below the shard's last: the caller's
    /// bugs, none of them reachable from a network.
    pub fn append(&mut self, unit: &[Batch<'_>]) -> Result<&[Appended], AppendError> {
        let bytes = self.check(unit)?;
        let (shard, last) = (unit[0].shard, unit.len() - 1);
        let shard_at = shard.0 as usize;
        let claim = Claim::of(unit, bytes);
        self.with_room(bytes, claim, |appender, ring, end| {
            let durable_mark = appender.shared.commit.durable();
            appender.appended.clear();
            for (at, batch) in unit.iter().enumerate() {
                let seq = appender.tails[shard_at].1 + 1;
                let base_offset = appender.next_offset(batch.queue);
                let mut header = BatchHeader::local(
                    batch.kind,
                    LogPosition(ring.tail()),
                    durable_mark,
                    appender.log_epoch,
                );
                header.section_crc = batch.section_crc;
                header.seq = Seq(seq);
                header.queue = batch.queue;
                header.base_offset = base_offset;
                header.producer = batch.producer;
                header.sequence = batch.sequence;
                header.append_time = batch.append_time;
                header.base_create_time = batch.base_create_time;
                header.tag_bits = batch.tag_bits;
                header.shard = shard;
                header.term = batch.term;
                header.section_len =
                    u32::try_from(batch.section.len()).expect("checked against the unit's limit");
                header.key_id = batch.key_id;
                let more = if at == last { 0 } else { flags::MORE };
                header.flags = batch.flags & !flags::MORE | more;
                header.count = batch.count;
                header.span = batch.span;
                header.producer_epoch = batch.producer_epoch;
                header.codec = batch.codec;
                ring.put(&header.encode(appender.active.nonce));
                ring.put(batch.section);
                ring.put_zeros(batch.section.len().next_multiple_of(ALIGN) - batch.section.len());

                let base = appender.active.segment.base();
                appender.segment_batches += 1;
                appender.tails[shard_at] = (batch.term, seq);
                let trims = trims_of(batch).expect("checked with the unit");
                for row in trims.iter().filter(|row| row.start == QUEUE_REMOVED) {
                    appender.queue_tails.remove(&row.queue);
                }
                if batch.queue.0 != 0 {
                    let next = base_offset.plus(u64::from(batch.span));
                    appender.queue_tails.insert(batch.queue, next.0);
                }
                appender.in_flight.push_back(InFlight {
                    end,
                    segment_base: base,
                    term: batch.term,
                    queue: batch.queue,
                    entry: Entry::of(&header, base),
                    trims,
                });
                appender.appended.push(Appended {
                    seq: Seq(seq),
                    base_offset,
                    position: header.position,
                    end: LogPosition(end),
                });
            }
        })?;
        self.marks.appended();
        Ok(&self.appended)
    }

    /// Bytes that the unit takes, if it may be appended at all.
    fn check(&self, unit: &[Batch<'_>]) -> Result<u64, AppendError> {
        let first = unit.first().expect("a unit has at least one batch");
        if first.shard.0 >= self.config.shards {
            return Err(AppendError::UnknownShard {
                shard: first.shard.0,
                shards: self.config.shards,
            });
        }
        let mut bytes = 0;
        let mut term = self.tails[first.shard.0 as usize].0;
        for batch in unit {
            assert_eq!(batch.shard, first.shard, "a unit belongs to one shard");
            assert!(batch.term >= term, "a shard's term never falls");
            term = batch.term;
            if batch.kind.is_local() {
                return Err(AppendError::LocalKind);
            }
            self.check_trims(batch)?;
            bytes += stored_bytes(batch.section.len());
        }
        let max = self.config.unit_bytes_max();
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        Ok(bytes)
    }

    /// Has `put` fill exactly `bytes` bytes behind the tail, in this segment or the next one. It
    /// gets the position after them.
    fn with_room(
        &mut self,
        bytes: u64,
        claim: Claim,
        put: impl FnOnce(&mut Self, &mut Ring, u64),
    ) -> Result<(), AppendError> {
        if let Some(fenced) = self.shared.commit.fenced() {
            return Err(fenced.clone().into());
        }
        if claim == Claim::Data && self.shared.reserve.is_broken() {
            return Err(AppendError::NoSpace);
        }
        if claim == Claim::Data && self.is_ahead_of_checkpoint() {
            return Err(AppendError::Full);
        }
        let room = self.active.segment.end() - self.tail;
        let next = if room < bytes {
            Some(self.next_segment(bytes, claim)?)
        } else {
            None
        };
        let shared = self.shared.clone();
        shared.commit.with_ring(|ring| {
            let pad = if next.is_some() { HEADER_BYTES } else { 0 };
            let need = usize::try_from(bytes).expect("at most a unit") + pad;
            if !ring.reserve(need) {
                return Err(AppendError::Full);
            }
            if let Some(next) = next {
                self.begin_segment(ring, next);
            }
            let end = self.tail + bytes;
            put(self, ring, end);
            debug_assert_eq!(ring.tail(), end);
            self.tail = end;
            Ok(())
        })
    }

    /// Whether messages are refused for want of space, or will be once the segment is full.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.shared.reserve.is_broken()
            || matches!(self.preparer.spare(), Spare::Failed { is_full: true })
    }

    /// Whether a whole interval of log lies behind a checkpoint that is still being written: a start
    /// would read more than two.
    fn is_ahead_of_checkpoint(&self) -> bool {
        self.tail.saturating_sub(self.last_checkpoint.position)
            > self.last_checkpoint.interval_bytes
            && self.shared.files.is_checkpointing()
    }

    fn next_segment(&self, bytes: u64, claim: Claim) -> Result<WritableSegment, AppendError> {
        if self.shared.files.is_behind() {
            return Err(AppendError::Full);
        }
        match self.preparer.spare() {
            // One that was made of the reserve may be smaller than the smallest else.
            Spare::Ready(next) if next.segment.end() - next.segment.first() < bytes => {
                Err(AppendError::NoSpace)
            }
            Spare::Ready(next) => Ok(next),
            Spare::Failed { is_full: true }
                if matches!(claim, Claim::Control | Claim::Delete)
                    && self.preparer.break_reserve(claim == Claim::Delete) =>
            {
                Err(AppendError::Full)
            }
            Spare::Failed { is_full: true } => Err(AppendError::NoSpace),
            Spare::Pending | Spare::Failed { .. } => Err(AppendError::Full),
        }
    }

    fn begin_segment(&mut self, ring: &mut Ring, next: WritableSegment) {
        let old = &self.active.segment;
        if !old.is_full_at(self.tail) {
            let mut pad = BatchHeader::local(
                Kind::Pad,
                LogPosition(self.tail),
                self.shared.commit.durable(),
                self.log_epoch,
            );
            let rest = old.end() - self.tail - HEADER_BYTES as u64;
            pad.section_len = u32::try_from(rest).expect("segments end at 1 GiB");
            ring.put(&pad.encode(self.active.nonce));
        }
        let batch_bytes = (self.tail - old.first()).div_ceil(self.segment_batches.max(1));
        self.shared.segments.add(next.segment.clone());
        self.tail = next.segment.first();
        self.segment_batches = 0;
        ring.switch(next.clone(), self.tail);
        self.active = next;
        self.want_next(batch_bytes);
    }

    /// Has the segment after the active one prepared. `batch_bytes`: what a batch took lately.
    pub(crate) fn want_next(&self, batch_bytes: u64) {
        let segment = &self.active.segment;
        let most = batch_bytes
            .saturating_mul(SEGMENT_BATCHES_MAX)
            .min(self.config.segment_bytes_max)
            .next_multiple_of(SEGMENT_STEP_BYTES)
            .max(self.config.segment_bytes);
        let size = next_size(segment.size(), &self.config).min(most);
        self.preparer.want(Wanted {
            base: segment.end(),
            size,
            size_min: self.config.segment_bytes,
            now: self.now,
            of_reserve: false,
        });
    }

    /// Appends a record of the store's own, if there is room right now.
    fn append_local(&mut self, kind: Kind) -> Result<(), AppendError> {
        self.with_room(HEADER_BYTES as u64, Claim::Mark, |appender, ring, _| {
            let header = BatchHeader::local(
                kind,
                LogPosition(ring.tail()),
                appender.shared.commit.durable(),
                appender.log_epoch,
            );
            ring.put(&header.encode(appender.active.nonce));
        })
    }

    /// The offset that the queue's next record gets, counting what is in flight.
    #[must_use]
    pub fn next_offset(&self, queue: QueueId) -> Offset {
        match self.queue_tails.get(&queue) {
            Some(next) => Offset(*next),
            None => self.shared.index.bounds(queue).next,
        }
    }

    /// The number that the shard's next batch gets.
    #[must_use]
    pub fn next_seq(&self, shard: ShardId) -> Seq {
        Seq(self.tails.get(shard.0 as usize).map_or(0, |tail| tail.1) + 1)
    }

    /// End of all that was appended, exclusive.
    #[must_use]
    pub fn tail(&self) -> LogPosition {
        LogPosition(self.tail)
    }

    /// End of what survives a crash of the process, exclusive: acknowledgement level `os`.
    #[must_use]
    pub fn written(&self) -> LogPosition {
        self.shared.commit.written()
    }

    /// Makes all that is durable by now visible to readers, and returns its end, exclusive.
    /// It always is the end of a unit.
    ///
    /// # Errors
    /// [`Fenced`] after a failed write or sync. What was durable before is visible all the same,
    /// up to the position in the error.
    pub fn settle(&mut self) -> Result<LogPosition, Fenced> {
        let fenced = self.shared.commit.fenced().cloned();
        let durable = self.shared.commit.durable();
        if self
            .in_flight
            .front()
            .is_some_and(|next| next.end <= durable.0)
        {
            let mut index = write(&self.shared.index.state);
            let mut trimmed = false;
            while let Some(next) = self.in_flight.pop_front_if(|next| next.end <= durable.0) {
                let (queue, entry) = (next.queue, next.entry);
                self.settled_tails[entry.shard as usize] = (next.term, entry.seq);
                if self.queue_tails.get(&queue) == Some(&entry.end_offset()) {
                    self.queue_tails.remove(&queue);
                }
                if let Some(sealed) = index.push(next.segment_base, queue, entry) {
                    self.deltas.clear();
                    self.table_due = true;
                    let keys = self.shared.keys.of(sealed.base());
                    self.shared.files.add(Job::Index(sealed));
                    self.shared.files.add_keys(keys);
                }
                self.deltas.push(Delta::Batch { queue, entry });
                trimmed |= !next.trims.is_empty();
                for row in next.trims {
                    index.trim(row);
                    self.deltas.push(Delta::Trim(row));
                }
            }
            self.last_checkpoint.stale = true;
            self.newest_base = index.newest.base();
            if trimmed {
                self.shared.nudge.nudge();
            }
        }
        self.settled = durable.0;
        match fenced {
            Some(fenced) => Err(fenced),
            None => Ok(durable),
        }
    }

    /// Whether [`Appender::checkpoint`] should be called: enough log or time since the last one.
    #[must_use]
    pub fn checkpoint_due(&self, now: Timestamp) -> bool {
        let last = &self.last_checkpoint;
        // Full segments can't go before both kept generations are past them, even if all is quiet.
        let holds_segments = || self.shared.files.floor() < self.newest_base;
        if !last.stale && !holds_segments() || self.shared.commit.fenced().is_some() {
            return false;
        }
        let due = self.settled.saturating_sub(last.position) >= last.interval_bytes
            || now.since_ms(last.at) >= self.config.checkpoint_interval_ms
            // What was deleted on a full disk is given back once both generations are past it.
            || now.since_ms(last.at) >= FULL_INTERVAL_MS
                && self.is_out_of_space()
                && holds_segments();
        due && !self.shared.files.is_checkpointing()
    }

    /// Takes a snapshot of the state after all that [`Appender::settle`] has returned so far.
    /// It is written in the background; `false` if one is being written already.
    ///
    /// `states` are those of shards that changed; a shard left out keeps the state it had.
    pub fn checkpoint(&mut self, now: Timestamp, states: Vec<(ShardId, Vec<u8>)>) -> bool {
        if self.shared.files.is_checkpointing() {
            return false;
        }
        let tails = self.settled_tails.iter().enumerate();
        let (table, newest_segment) = {
            let index = crate::sync::read(&self.shared.index.state);
            (
                self.table_due.then(|| index.table(self.deltas.len())),
                index.newest.base(),
            )
        };
        let interval_bytes = self.interval_bytes(&states, table.as_deref());
        let room = self.deltas.len();
        let deltas = std::mem::replace(&mut self.deltas, Vec::with_capacity(room));
        self.shared.files.add(Job::Checkpoint(Checkpoint {
            position: LogPosition(self.settled),
            log_epoch: self.log_epoch,
            newest_segment,
            tails: tails
                .map(|(shard, (term, seq))| {
                    let shard = u32::try_from(shard).expect("at most 1024 shards");
                    (ShardId(shard), *term, *seq)
                })
                .collect(),
            states,
            deltas,
            table,
        }));
        self.table_due = false;
        self.last_checkpoint = LastCheckpoint {
            position: self.settled,
            at: now,
            stale: false,
            interval_bytes,
        };
        true
    }

    /// Log until a checkpoint follows one with these states and this table: writing them must not
    /// cost more than writing what they are about, however many queues there are.
    fn interval_bytes(&self, states: &[(ShardId, Vec<u8>)], table: Option<&[u8]>) -> u64 {
        let states = states.iter().map(|(_, state)| state.len()).sum::<usize>();
        let bytes = (states + table.map_or(0, <[u8]>::len)) as u64;
        let wanted = bytes
            .saturating_mul(self.config.checkpoint_factor)
            .min(INTERVAL_BYTES_MAX);
        wanted.max(self.config.checkpoint_bytes)
    }

    /// From now on appends of up to 16 KiB in all wait for [`Appender::flush`], which an owner calls
    /// when it has no more to append.
    pub fn flush_by_hand(&self) {
        self.shared.commit.set_by_owner();
    }

    /// After [`Appender::flush_by_hand`]: has what was appended written and synced. By the store's
    /// own thread, or, if `may_wait`, in this call where that is sooner: the appends are small, that
    /// thread sleeps, and the disk's last sync took at most 1 ms (ADR 0020). `true` if the call did it: settle again,
    /// since the callback of [`Appender::on_durable`] doesn't run for it.
    pub fn flush(&self, may_wait: bool) -> bool {
        self.shared.commit.flush_by_owner(may_wait)
    }

    /// Calls `f` after each sync, when the log is fenced, and when a refused append is worth
    /// another try. It runs on the store's threads and must only wake the owner.
    pub fn on_durable(&self, f: OnDurable) {
        self.shared.commit.set_on_durable(f);
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}
