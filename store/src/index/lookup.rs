//! Finding batches by queue and offset, by time, and by shard and seq.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, RwLock};

use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};

use super::sealed::{OpenIndex, Run, SealedIndex};
use super::{AppendTimes, Entry, IndexState, NO_SEGMENT, QueueState, position_of};
use crate::batch::{IndexEntry, QueueBounds};
use crate::commit::Commit;
use crate::error::ReadError;
use crate::files::{Files, Job};
use crate::folder::Folder;
use crate::position::LogPosition;
use crate::recovery::rebuild_index;
use crate::segments::Segments;
use crate::sync::read;
use crate::vfs::Vfs;

/// Segments that a lookup remembers on its way back, so as to go forward over them alone.
const PASSED_MAX: usize = 32;

/// A lookup is made anew at most so often because maps lost pages meanwhile; each map counts once or
/// twice.
pub(super) const LOSSES_MAX: u32 = 16;

/// A segment that a lookup came to, with its index unless it is the newest.
struct Stop {
    base: u64,
    index: Option<OpenIndex>,
}

#[derive(Default)]
struct Passed(VecDeque<Stop>);

impl Passed {
    fn add(&mut self, stop: Option<Stop>) {
        if self.0.len() == PASSED_MAX {
            self.0.pop_front();
        }
        self.0.extend(stop);
    }
}

/// The index as readers use it. Looking into an older segment may open its file, and so wait.
pub(crate) struct Index {
    pub(crate) state: Arc<RwLock<IndexState>>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) files: Arc<Files>,
    pub(crate) commit: Arc<Commit>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) folder: Folder,
}

impl Index {
    /// What `look` finds in indexes that it opens by itself, once more where pages of maps were lost
    /// meanwhile: they read as zeros. The file of such an index is mapped and verified again, and made
    /// anew if that fails.
    pub(crate) fn undisturbed<T>(
        &self,
        mut look: impl FnMut() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        for _ in 0..LOSSES_MAX {
            let before = self.vfs.broken_maps();
            let found = look();
            if self.vfs.broken_maps() == before {
                return found;
            }
        }
        Err(ReadError::Io {
            path: self.folder.log.clone(),
            source: io::Error::other("pages of it are lost faster than they can be looked up"),
        })
    }

    pub(crate) fn bounds(&self, queue: QueueId) -> QueueBounds {
        read(&self.state)
            .queues
            .get(queue)
            .map_or_else(QueueBounds::default, |state| QueueBounds {
                start: Offset(state.start),
                next: Offset(state.next),
                bytes: state.bytes,
            })
    }

    pub(crate) fn queue_state(&self, queue: QueueId) -> Option<QueueState> {
        read(&self.state).queues.get(queue).copied()
    }

    /// Appends up to `max` entries to `out`, in order: the one that holds `from`, else the first
    /// after it, and those that follow. None that ends at or below the queue's start.
    pub(crate) fn entries(
        &self,
        queue: QueueId,
        from: Offset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), ReadError> {
        let before = out.len();
        self.undisturbed(|| {
            out.truncate(before);
            self.add_entries(queue, from, max, out)
        })
    }

    fn add_entries(
        &self,
        queue: QueueId,
        from: Offset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), ReadError> {
        let Some(state) = self.queue_state(queue) else {
            return Ok(());
        };
        let from = from.max(Offset(state.start));
        let enough = out.len().saturating_add(max);
        let mut passed = Passed::default();
        let first = |first: &Entry| first.base_offset <= from.0;
        let mut at = self.newest_where_passing(queue, first, &mut passed)?;
        while let Some(Stop { base, index }) = at {
            if out.len() >= enough {
                break;
            }
            let mut take = |run: Option<Run<'_>>| {
                let Some(run) = run else { return };
                let first = run.partition_point(|entry| entry.end_offset() <= from.0);
                let until = run.len().min(first + (enough - out.len()));
                out.extend((first..until).map(|at| run.entry(at).public(base)));
            };
            match index {
                Some(index) => take(index.run(queue)),
                None => self.with_run(base, queue, take)?,
            }
            at = match passed.0.pop_back() {
                Some(later) => Some(later),
                None => self
                    .segment_after(base)
                    .map(|base| Stop { base, index: None }),
            };
        }
        Ok(())
    }

    /// The first kept offset appended at or after `time`; the queue's next offset if there is none.
    pub(crate) fn offset_at(&self, queue: QueueId, time: Timestamp) -> Result<Offset, ReadError> {
        let start = self.bounds(queue).start;
        let is_before = |entry: &Entry| entry.append_time < time.0 || entry.end_offset() <= start.0;
        let mut at = self.newest_where(queue, is_before)?;
        while let Some(base) = at {
            let found = self.with_run(base, queue, |run| {
                let run = run?;
                let at = run.partition_point(is_before);
                (at < run.len()).then(|| Offset(run.entry(at).base_offset).max(start))
            })?;
            if let Some(offset) = found {
                return Ok(offset);
            }
            at = self.segment_after(base);
        }
        Ok(self.bounds(queue).next)
    }

    /// Where a shard's batch lies.
    pub(crate) fn position_of(
        &self,
        shard: ShardId,
        seq: Seq,
    ) -> Result<Option<LogPosition>, ReadError> {
        let sealed = {
            let state = read(&self.state);
            if let Some(place) = state.newest.place(shard, seq.0) {
                return Ok(Some(position_of(state.newest.base(), place)));
            }
            let holds = |sealed: &&Arc<SealedIndex>| {
                sealed.seqs().iter().any(|bounds| {
                    bounds.shard == shard && (bounds.first..=bounds.last).contains(&seq.0)
                })
            };
            state.sealed.values().rev().find(holds).cloned()
        };
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let place = self.undisturbed(|| Ok(self.open(&sealed)?.place(shard, seq.0)))?;
        Ok(place.map(|place| position_of(sealed.base(), place)))
    }

    /// The newest segment whose first entry of the queue fulfils `is_before`; the oldest that holds
    /// any if none does.
    pub(crate) fn newest_where(
        &self,
        queue: QueueId,
        is_before: impl Fn(&Entry) -> bool,
    ) -> Result<Option<u64>, ReadError> {
        self.undisturbed(|| {
            let mut passed = Passed::default();
            let found = self.newest_where_passing(queue, &is_before, &mut passed)?;
            Ok(found.map(|stop| stop.base))
        })
    }

    /// Like [`Index::newest_where`]; `passed` gets the segments behind the one found that hold
    /// entries of the queue, newest first, the nearest [`PASSED_MAX`] of them.
    fn newest_where_passing(
        &self,
        queue: QueueId,
        is_before: impl Fn(&Entry) -> bool,
        passed: &mut Passed,
    ) -> Result<Option<Stop>, ReadError> {
        let mut best = None;
        let mut at = {
            let state = read(&self.state);
            let Some(queue_state) = state.queues.get(queue) else {
                return Ok(None);
            };
            if let Some(run) = state.newest.run(queue) {
                let base = state.newest.base();
                best = Some(Stop { base, index: None });
                if is_before(&run.entry(0)) {
                    return Ok(best);
                }
            }
            queue_state.sealed_last
        };
        while at != NO_SEGMENT {
            let index = self.sealed(at).map(|sealed| self.open(&sealed));
            let index = index.transpose()?;
            let found = index.as_ref().and_then(|index| index.run(queue));
            let Some((found, previous)) =
                found.map(|run| (is_before(&run.entry(0)), run.previous()))
            else {
                // A rebuilt index only knows that earlier entries are not in between.
                at = self.segment_before(at);
                continue;
            };
            passed.add(best.replace(Stop { base: at, index }));
            if found {
                break;
            }
            // It always lies before, unless its page was lost.
            at = if previous < at || previous == NO_SEGMENT {
                previous
            } else {
                self.segment_before(at)
            };
        }
        Ok(best)
    }

    fn sealed(&self, base: u64) -> Option<Arc<SealedIndex>> {
        read(&self.state).sealed.get(&base).cloned()
    }

    fn segment_before(&self, base: u64) -> u64 {
        let state = read(&self.state);
        let before = state.sealed.range(..base).next_back();
        before.map_or(NO_SEGMENT, |(base, _)| *base)
    }

    pub(crate) fn segment_after(&self, base: u64) -> Option<u64> {
        let state = read(&self.state);
        let sealed = state.sealed.range(base + 1..).next().map(|(base, _)| *base);
        sealed.or_else(|| Some(state.newest.base()).filter(|newest| *newest > base))
    }

    /// Bases of the sealed segments, rising, with the times of what they hold, and of the newest.
    pub(crate) fn bases(&self) -> (Vec<(u64, Option<AppendTimes>)>, u64) {
        let state = read(&self.state);
        let sealed = state.sealed.iter();
        let sealed = sealed.map(|(base, sealed)| (*base, sealed.times()));
        (sealed.collect(), state.newest.base())
    }

    /// Gives the entries that a segment holds of a queue to `f`, once more where some were lost
    /// meanwhile. May open the index, and so wait.
    pub(crate) fn with_run<R>(
        &self,
        base: u64,
        queue: QueueId,
        mut f: impl FnMut(Option<Run<'_>>) -> R,
    ) -> Result<R, ReadError> {
        let sealed = {
            let state = read(&self.state);
            if state.newest.base() == base {
                return Ok(f(state.newest.run(queue)));
            }
            state.sealed.get(&base).cloned()
        };
        match sealed {
            Some(sealed) => self.undisturbed(|| Ok(f(self.open(&sealed)?.run(queue)))),
            None => Ok(f(None)),
        }
    }

    /// The index of a sealed segment, whole as it is opened: see [`Index::undisturbed`].
    pub(crate) fn open(&self, sealed: &Arc<SealedIndex>) -> Result<OpenIndex, ReadError> {
        let base = sealed.base();
        let generation = self.commit.generation();
        if let Some(open) = sealed.opened(generation) {
            return Ok(open);
        }
        let segment = self.segments.at_base(base).ok_or(ReadError::NotFound {
            position: LogPosition(base),
        })?;
        let nonce = segment.nonce()?;
        let rebuild = || {
            let (mut index, gaps) = rebuild_index(&segment)?;
            for gap in gaps {
                self.segments.quarantine(gap.start, gap.end);
            }
            self.chain(&mut index);
            Ok(index)
        };
        let vfs = self.vfs.as_ref();
        let (open, rebuilt) = sealed.open(vfs, &self.folder, nonce, generation, rebuild)?;
        if rebuilt {
            self.files.add(Job::Index(sealed.clone()));
        }
        Ok(open)
    }
}
