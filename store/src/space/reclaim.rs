//! Taking back what retention left: segments without anything live go, those with little are
//! rewritten without what is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_model::QueueId;

use super::Nudge;
use super::compact::Compactor;
use super::rewrite::RewriteError;
use crate::error::ReadError;
use crate::folder::{KEY_INDEX, QUEUE_INDEX};
use crate::reader::Shared;
use crate::segment::{Preparer, SEGMENT_HEADER_BYTES, Segment};
use crate::sync::{lock, read, write};

/// Segments are rewritten while the log takes more than this many halves of what is live.
const LOG_HALVES_OF_LIVE: u64 = 3;
/// So many segments of the current size are kept beyond that: what was just appended often goes
/// by itself a little later.
const SLACK_SEGMENTS: u64 = 2;
/// A segment is worth rewriting if no more than so many quarters of it are live.
const WORTH_QUARTERS: u64 = 3;
/// The thread rests so many times as long as it worked, for the log's syncs to go on.
const REST_FACTOR: u32 = 3;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// Gives space back in the background.
pub(crate) struct Space {
    pub(super) shared: Arc<Shared>,
    pub(super) preparer: Arc<Preparer>,
    pub(super) nudge: Arc<Nudge>,
    pub(super) work: Mutex<Work>,
    pub(super) compactor: Mutex<Compactor>,
}

/// What it has done since the opening.
#[derive(Default)]
pub(crate) struct SpaceStats {
    pub(crate) removed: AtomicU64,
    pub(crate) rewritten: AtomicU64,
    /// Bytes that were written again.
    pub(crate) moved_bytes: AtomicU64,
    /// Stored bytes that compaction took off.
    pub(crate) compacted_bytes: AtomicU64,
    /// Rounds of compaction that came to their end.
    pub(crate) compaction_rounds: AtomicU64,
}

#[derive(Default)]
pub(super) struct Work {
    live: BTreeMap<u64, Live>,
    /// Segments of which something can't be read: they stay as they are.
    stuck: BTreeSet<u64>,
    /// Segments that can't be rewritten in the round at hand.
    skipped: BTreeSet<u64>,
    /// The disk failed or is full: worth another try at the next nudge.
    failed: bool,
    /// The trims that the round at hand counts with.
    round: Option<u64>,
    /// Trims and floor when there was nothing left to do.
    idle_at: Option<(u64, u64)>,
}

/// Stored bytes of the live batches of a segment, when so many trims were applied.
#[derive(Clone, Copy)]
struct Live {
    bytes: u64,
    trims: u64,
}

impl Work {
    /// A segment has so many stored bytes of live batches now.
    pub(super) fn rewritten(&mut self, base: u64, bytes: u64) {
        if let Some(live) = self.live.get_mut(&base) {
            live.bytes = bytes;
        }
        // It may have nothing left, without a trim.
        self.idle_at = None;
    }
}

impl Space {
    pub(crate) fn new(shared: Arc<Shared>, preparer: Arc<Preparer>, nudge: Arc<Nudge>) -> Self {
        Self {
            shared,
            preparer,
            nudge,
            work: Mutex::default(),
            compactor: Mutex::default(),
        }
    }

    /// Does one piece of work: looks at a segment, removes or rewrites one, or fills the reserve.
    /// `false` if there is nothing to do.
    pub(crate) fn reclaim(&self) -> bool {
        let mut work = lock(&self.work);
        let newest_bytes = self.shared.segments.newest_bytes();
        let trims = read(&self.shared.index.state).trims;
        let reserve = self.preparer.reserve();
        // One that is only partly filled is no progress: it may be given up again right away.
        if reserve.fill(newest_bytes) && !reserve.is_broken() {
            self.preparer.retry();
            return true;
        }
        let floor = self.shared.files.floor();
        if work.idle_at == Some((trims, floor)) {
            return false;
        }
        let segments = self.shared.segments.below(floor);
        let is_there = |base: &u64| segments.iter().any(|segment| segment.base() == *base);
        work.live.retain(|base, _| is_there(base));
        let round = *work.round.get_or_insert(trims);
        let uncounted = |segment: &&Arc<Segment>| {
            let live = work.live.get(&segment.base());
            live.is_none_or(|live| live.trims < round)
        };
        if let Some(segment) = segments.iter().find(uncounted) {
            let bytes = self.live_bytes(segment.base()).unwrap_or_else(|error| {
                tracing::warn!(segment = segment.base(), %error, "a segment is kept whole: what is live in it can't be told");
                work.stuck.insert(segment.base());
                segment.size()
            });
            let live = Live {
                bytes,
                trims: round,
            };
            work.live.insert(segment.base(), live);
            return true;
        }
        if self.take_one(&mut work, &segments, newest_bytes) {
            return true;
        }
        work.round = None;
        work.skipped.clear();
        let failed = std::mem::take(&mut work.failed);
        work.idle_at = Some((round, floor)).filter(|_| !failed);
        !failed && round != trims
    }

    /// Removes or rewrites a segment, if that is due and can be done.
    fn take_one(&self, work: &mut Work, segments: &[Arc<Segment>], newest_bytes: u64) -> bool {
        let live = |segment: &Segment| work.live.get(&segment.base()).map_or(0, |live| live.bytes);
        let empty = segments.iter().find(|segment| live(segment) == 0);
        let victim = match empty {
            Some(segment) => segment.clone(),
            // What is rewritten gets a new index; those of new segments come first.
            None if self.shared.files.is_behind() => {
                work.failed = true;
                return false;
            }
            None if self.is_loose(newest_bytes) => {
                let worth = |segment: &&Arc<Segment>| {
                    let size = live(segment) + SEGMENT_HEADER_BYTES as u64;
                    size * 4 <= segment.size() * WORTH_QUARTERS
                        && !work.stuck.contains(&segment.base())
                        && !work.skipped.contains(&segment.base())
                        && !self.shared.segments.is_damaged(segment)
                };
                // On a full disk the one that needs the least space, else the one with the least
                // live part; products of 2³⁰ each.
                let is_tight = self.preparer.is_tight();
                let least = segments.iter().filter(worth).min_by(|a, b| {
                    let (of_a, of_b) = if is_tight {
                        (1, 1)
                    } else {
                        (b.size(), a.size())
                    };
                    (live(a) * of_a, a.base()).cmp(&(live(b) * of_b, b.base()))
                });
                let Some(least) = least else {
                    return false;
                };
                least.clone()
            }
            None => return false,
        };
        if let Err(error) = self.shared.files.verify_snapshots() {
            tracing::error!(%error, "a snapshot is damaged: nothing of the log is given up");
            return false;
        }
        if empty.is_some() {
            self.remove(&victim);
            return true;
        }
        match self.rewrite(&victim, None) {
            Ok(bytes) => {
                let stats = &self.shared.space;
                stats.rewritten.fetch_add(1, Ordering::Relaxed);
                stats.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
                work.rewritten(victim.base(), bytes);
                self.preparer.retry();
                true
            }
            Err(error) => {
                tracing::warn!(segment = victim.base(), %error, "a segment could not be rewritten");
                match error {
                    RewriteError::Worthless => work.skipped.insert(victim.base()),
                    RewriteError::Damaged(_) | RewriteError::Read(_) => {
                        work.stuck.insert(victim.base())
                    }
                    RewriteError::Stopped | RewriteError::Io(_) => {
                        work.failed = true;
                        false
                    }
                }
            }
        }
    }

    /// Whether the log takes so much more than what is live that segments should be rewritten.
    fn is_loose(&self, newest_bytes: u64) -> bool {
        // On a full disk all that is worth it is.
        if self.preparer.is_tight() {
            return true;
        }
        let live = read(&self.shared.index.state).live_bytes;
        let slack = SLACK_SEGMENTS * newest_bytes;
        let most = (live / 2).saturating_mul(LOG_HALVES_OF_LIVE);
        self.shared.segments.bytes() > most.saturating_add(slack)
    }

    /// Stored bytes of the segment's batches that queues still hold.
    pub(super) fn live_bytes(&self, base: u64) -> Result<u64, ReadError> {
        let index = &self.shared.index;
        let sealed = read(&index.state).sealed.get(&base).cloned();
        let Some(sealed) = sealed else {
            // Nothing but records of the store's own.
            return Ok(0);
        };
        index.undisturbed(|| {
            let open = index.open(&sealed)?;
            let mut bytes = 0;
            for (queue, run) in open.runs_from(QueueId(0)) {
                let Some(state) = index.queue_state(queue) else {
                    continue;
                };
                bytes += run.stored_bytes(state.start);
            }
            Ok(bytes)
        })
    }

    fn remove(&self, segment: &Segment) {
        let base = segment.base();
        {
            let mut index = write(&self.shared.index.state);
            index.sealed.remove(&base);
            self.shared.segments.remove(base);
        }
        // Forgets the file too, which takes space as long as somebody holds it.
        let gone = self.shared.keys.of(base);
        debug_assert!(gone.is_none());
        let index = &self.shared.index;
        for extension in [QUEUE_INDEX, KEY_INDEX] {
            // It may not be there. Without its segment it is swept at the next start.
            let _ = index.vfs.unlink(&index.folder.log_file(base, extension));
        }
        let removed = index
            .vfs
            .unlink(segment.path())
            .and_then(|()| index.vfs.sync_dir(&index.folder.log));
        match removed {
            Ok(()) => tracing::debug!(base, bytes = segment.size(), "a log segment is removed"),
            Err(error) => tracing::warn!(base, %error, "removing a log segment failed"),
        }
        self.shared.space.removed.fetch_add(1, Ordering::Relaxed);
        self.preparer.retry();
    }

    pub(crate) fn stop(&self) {
        self.nudge.stop();
    }

    /// Does what there is to do at each nudge, with rests, until it is stopped.
    pub(crate) fn run(&self) {
        while self.nudge.wait() {
            while !self.nudge.is_stopped() {
                let begun = Instant::now();
                let goes_on = self.reclaim();
                let rest = (begun.elapsed() * REST_FACTOR).min(REST_MAX);
                if !goes_on || !self.nudge.rest(rest) {
                    break;
                }
            }
        }
    }
}
