//! Compaction by key: of a queue's messages with one key the newest stays, older ones go when their
//! segment is rewritten for it.
//!
//! A round looks through the full segments twice, oldest first. The first time it learns the newest
//! offset of each key, of what came since the last round; the second time it rewrites segments without
//! what is superseded. Offsets never change; where messages went there are none any more.
//! Reasons: `docs/adr/0026-compaction.md`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_model::{QueueId, Timestamp};

use super::Space;
use super::rewrite::{RewriteError, Sieving, rewritten_size};
use super::sieve::{Compacted, Newest, Outcome, Sieve};
use crate::batch::{Kind, StoredBatch};
use crate::error::ReadError;
use crate::id_map::QueueMap;
use crate::index::Entry;
use crate::keys::messages;
use crate::position::LogPosition;
use crate::reader::Reader;
use crate::segment::Segment;
use crate::sync::{lock, read};

/// A queue is compacted when so many percent of its bytes in full segments came since it was last.
const DIRTY_PERCENT: u64 = 50;
/// A segment is rewritten if so many percent of what is live in it go.
const WORTH_PERCENT: u64 = 10;
/// Bytes that are read and written per second.
const BYTES_PER_S: u64 = 16 << 20;
/// How long until it looks again whether something is due.
const LOOK: Duration = Duration::from_secs(2);

/// The queues that keep the newest message of each key, and the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Runs of queues, by rising id.
    pub runs: Vec<CompactedRun>,
    /// The server's clock.
    pub now: Timestamp,
}

/// Compacted queues whose ids follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactedRun {
    /// The first.
    pub first: QueueId,
    /// The last, inclusive.
    pub last: QueueId,
    /// So many ms a message without a body stays after its append, at least.
    pub tombstone_ms: u64,
}

impl Compaction {
    pub(crate) fn run(&self, queue: QueueId) -> Option<&CompactedRun> {
        let after = self.runs.partition_point(|run| run.first <= queue);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (queue <= run.last).then_some(run)
    }

    /// A message without a body that was appended before this may go.
    fn tombstones_before(&self, queue: QueueId) -> Option<Timestamp> {
        let ms = i64::try_from(self.run(queue)?.tombstone_ms).ok()?;
        self.now.0.checked_sub(ms).map(Timestamp)
    }
}

/// What compaction remembers between two steps.
#[derive(Default)]
pub(super) struct Compactor {
    queues: QueueMap<Progress>,
    round: Option<Round>,
    /// The floor and the rules when nothing was due.
    idle_at: Option<(u64, Vec<CompactedRun>)>,
}

/// How far a queue has come since the opening.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// See [`Compacted::clean`].
    clean: u64,
    /// The last round had no room for what comes from here on.
    resume: Option<u64>,
    /// Stored bytes in full segments that the last round left.
    kept: u64,
}

struct Round {
    floor: u64,
    newest: Newest,
    queues: QueueMap<Compacted>,
    /// Segments that are still to be learned from, then those to be sieved; the next one last.
    learn: Vec<u64>,
    sieve: Vec<u64>,
    /// There was no room for all keys.
    is_full: bool,
}

impl Round {
    fn sieve(&self) -> Sieve<'_> {
        Sieve {
            newest: &self.newest,
            queues: &self.queues,
        }
    }

    /// Something of the queues that `is_one` can't be read.
    fn damaged(&mut self, is_one: impl Fn(QueueId) -> bool) {
        for (queue, compacted) in &mut self.queues {
            compacted.is_damaged |= is_one(*queue);
        }
    }
}

/// Entries that a segment holds of the queues of a round, in order.
type Held = Vec<(QueueId, Vec<Entry>)>;

/// What a sieve takes off a segment.
#[derive(Default)]
struct Measure {
    /// Stored bytes that go, by queue.
    dropped: QueueMap<u64>,
    /// Something superseded stays whatever happens.
    leaves: bool,
}

impl Space {
    /// Does a piece of compaction: looks which queues are due, or reads or rewrites one segment.
    /// The bytes that it took; `None` if there is nothing to do.
    pub(crate) fn compact(&self) -> Option<u64> {
        let mut compactor = lock(&self.compactor);
        let rules = lock(&self.shared.compaction).clone();
        // A queue that isn't compacted any more begins anew when it is again.
        compactor
            .queues
            .retain(|queue, _| rules.run(*queue).is_some());
        let mut round = match compactor.round.take() {
            Some(round) => round,
            // Indexes of new segments come before those of rewritten ones.
            None if rules.runs.is_empty() || self.shared.files.is_behind() => return None,
            None => {
                compactor.round = self.begin(&mut compactor, &rules);
                return compactor.round.is_some().then_some(0);
            }
        };
        round.queues.retain(|queue, _| rules.run(*queue).is_some());
        for (queue, compacted) in &mut round.queues {
            compacted.tombstones_before = rules.tombstones_before(*queue);
        }
        let took = if let Some(base) = round.learn.pop() {
            self.learn(base, &mut round)
        } else if self.shared.files.is_behind() {
            compactor.round = Some(round);
            return None;
        } else if let Some(base) = round.sieve.pop() {
            self.sieve(base, &mut round)
        } else {
            self.end(&mut compactor, &round);
            return Some(0);
        };
        compactor.round = Some(round);
        Some(took)
    }

    /// A round, if a queue is due.
    fn begin(&self, compactor: &mut Compactor, rules: &Compaction) -> Option<Round> {
        let floor = self.shared.files.floor();
        let is_idle = |(at, runs): &(u64, Vec<CompactedRun>)| *at == floor && *runs == rules.runs;
        if compactor.idle_at.as_ref().is_some_and(is_idle) {
            return None;
        }
        let mut queues = QueueMap::default();
        for queue in rules.runs.iter().flat_map(|run| run.first.0..=run.last.0) {
            let queue = QueueId(queue);
            let progress = compactor.queues.get(&queue).copied().unwrap_or_default();
            let full = self.full_bytes(queue, floor);
            let dirty = full.saturating_sub(progress.kept);
            let is_due = dirty > 0
                && dirty.saturating_mul(100) >= full.saturating_mul(DIRTY_PERCENT)
                || progress.resume.is_some();
            if is_due {
                let from = progress.resume.unwrap_or(progress.clean);
                let compacted = Compacted {
                    clean: progress.clean,
                    from,
                    until: from,
                    tombstones_before: None,
                    is_damaged: false,
                };
                queues.insert(queue, compacted);
            }
        }
        if queues.is_empty() {
            compactor.idle_at = Some((floor, rules.runs.clone()));
            return None;
        }
        let segments = self.shared.segments.below(floor);
        let bases: Vec<u64> = segments.iter().rev().map(|s| s.base()).collect();
        Some(Round {
            floor,
            newest: Newest::default(),
            queues,
            learn: bases.clone(),
            sieve: bases,
            is_full: false,
        })
    }

    /// What the round leaves behind for the next one.
    fn end(&self, compactor: &mut Compactor, round: &Round) {
        let queues: Vec<QueueId> = round.queues.keys().copied().collect();
        self.shared.index.recount(&queues);
        for (queue, compacted) in &round.queues {
            let progress = compactor.queues.entry(*queue).or_default();
            progress.resume = round.is_full.then_some(compacted.until);
            // Before what it learned from there may be something that an earlier round left.
            if compacted.from <= progress.clean
                && !compacted.is_damaged
                && round.newest.is_clean(*queue)
            {
                progress.clean = compacted.until;
            }
            progress.kept = self.full_bytes(*queue, round.floor);
        }
        let rounds = &self.shared.space.compaction_rounds;
        rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Stored bytes that a queue has in segments before `floor`.
    fn full_bytes(&self, queue: QueueId, floor: u64) -> u64 {
        let index = &self.shared.index;
        let Some((state, before)) = index.queue_state(queue).zip(floor.checked_sub(1)) else {
            return 0;
        };
        let mut behind = 0;
        let mut at = index.segment_after(before);
        while let Some(base) = at {
            let bytes = index.with_run(base, queue, |run| {
                run.map_or(0, |run| run.stored_bytes(state.start))
            });
            // What can't be told counts as full, which begins a round too early.
            behind += bytes.unwrap_or(0);
            at = index.segment_after(base);
        }
        state.bytes.saturating_sub(behind)
    }

    fn held(&self, base: u64, round: &Round) -> Result<Held, ReadError> {
        let index = &self.shared.index;
        let Some(sealed) = read(&index.state).sealed.get(&base).cloned() else {
            return Ok(Held::new());
        };
        index.undisturbed(|| {
            let open = index.open(&sealed)?;
            let mut held = Held::new();
            for (queue, run) in open.runs_from(QueueId(0)) {
                let state = index.queue_state(queue);
                let Some(state) = state.filter(|_| round.queues.contains_key(&queue)) else {
                    continue;
                };
                let first = run.partition_point(|entry| entry.end_offset() <= state.start);
                let entries = (first..run.len()).map(|at| run.entry(at));
                held.push((queue, entries.collect()));
            }
            Ok(held)
        })
    }

    /// The batch of an entry; `None` if a trim has taken it meanwhile.
    fn batch(&self, base: u64, entry: &Entry) -> Result<Option<StoredBatch>, ReadError> {
        let reader = Reader {
            shared: self.shared.clone(),
        };
        match reader.read_entry(&entry.public(base)) {
            Err(ReadError::NotFound { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Takes in the keys of what came since the last round. The bytes read.
    fn learn(&self, base: u64, round: &mut Round) -> u64 {
        let held = match self.held(base, round) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(segment = base, %error, "a segment can't be looked into for compaction");
                round.damaged(|_| true);
                return 0;
            }
        };
        let mut bytes = 0;
        for (queue, entries) in held {
            let Some(compacted) = round.queues.get_mut(&queue) else {
                continue;
            };
            for entry in entries.iter().filter(|e| e.base_offset >= compacted.from) {
                bytes += entry.stored_bytes();
                match self.batch(base, entry) {
                    Ok(Some(batch)) if batch.header.kind == Kind::Data => {
                        match messages(&batch.header, &batch.section) {
                            Some(section) if !round.newest.add(&batch.header, &section) => {
                                round.is_full = true;
                                round.learn.clear();
                                return bytes;
                            }
                            Some(_) => {}
                            None => compacted.is_damaged = true,
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%queue, offset = entry.base_offset, %error, "a batch can't be read for compaction");
                        compacted.is_damaged = true;
                    }
                }
                compacted.until = entry.end_offset();
            }
        }
        bytes
    }

    /// Rewrites a segment if enough of it is superseded. The bytes read and written.
    fn sieve(&self, base: u64, round: &mut Round) -> u64 {
        let held = match self.held(base, round) {
            Ok(held) => held,
            Err(_) => {
                round.damaged(|_| true);
                return 0;
            }
        };
        let segment = self.shared.segments.at_base(base);
        let Some(segment) = segment.filter(|_| !held.is_empty()) else {
            return 0;
        };
        let entries = held.iter().flat_map(|(_, entries)| entries);
        let read = entries.map(Entry::stored_bytes).sum();
        // What an unreadable part of it held is in no index any more.
        let sieved = match self.shared.segments.is_damaged(&segment) {
            true => Err(RewriteError::Damaged(LogPosition(base))),
            false => self.sieve_whole(&segment, &held, round),
        };
        sieved.map_or_else(
            |error| {
                if !matches!(error, RewriteError::Stopped | RewriteError::Worthless) {
                    tracing::warn!(segment = base, %error, "a segment could not be compacted");
                }
                round.damaged(|queue| held.iter().any(|(held, _)| *held == queue));
                read
            },
            |written| read + written,
        )
    }

    /// Rewrites a segment if enough of it is superseded. The bytes written.
    fn sieve_whole(
        &self,
        segment: &Arc<Segment>,
        held: &Held,
        round: &mut Round,
    ) -> Result<u64, RewriteError> {
        let base = segment.base();
        // Reclaiming waits meanwhile: both rewrite segments.
        let mut work = lock(&self.work);
        // Before it is measured: so there is never more than this to be copied.
        let live = self.live_bytes(base)?;
        let mut measure = self.measure(base, held, round.sieve())?;
        if measure.leaves {
            // What supersedes that must stay too, in this segment already.
            self.leave(base, held, round, false)?;
            measure = self.measure(base, held, round.sieve())?;
        }
        let gone: u64 = measure.dropped.values().sum();
        if gone == 0 {
            return Ok(0);
        }
        let is_worth = gone.saturating_mul(100) >= live.saturating_mul(WORTH_PERCENT)
            && rewritten_size(live - gone) < segment.size();
        if !is_worth {
            self.leave(base, held, round, true)?;
            return Ok(0);
        }
        if let Err(error) = self.shared.files.verify_snapshots() {
            tracing::error!(%error, "a snapshot is damaged: nothing of the log is given up");
            return Err(RewriteError::Worthless);
        }
        let sieve = round.sieve();
        let dropped = &measure.dropped;
        let sieving = Sieving {
            sieve,
            dropped,
            live,
        };
        let written = self.rewrite(segment, Some(&sieving))?;
        work.rewritten(base, written);
        drop(work);
        self.nudge.nudge();
        let stats = &self.shared.space;
        stats.rewritten.fetch_add(1, Ordering::Relaxed);
        stats.moved_bytes.fetch_add(written, Ordering::Relaxed);
        stats.compacted_bytes.fetch_add(gone, Ordering::Relaxed);
        Ok(written)
    }

    /// What the sieve takes off a segment.
    fn measure(&self, base: u64, held: &Held, sieve: Sieve<'_>) -> Result<Measure, ReadError> {
        let mut measure = Measure::default();
        for (queue, entries) in held {
            for entry in entries {
                let Some(batch) = self.batch(base, entry)? else {
                    continue;
                };
                let stored = batch.header.stored_bytes();
                let verdict = sieve.verdict(&batch.header, &batch.section);
                measure.leaves |= verdict.leaves;
                let gone = match verdict.outcome {
                    Outcome::Keep => continue,
                    Outcome::Drop => stored,
                    Outcome::Replace(smaller, _) => stored - smaller.stored_bytes(),
                };
                *measure.dropped.entry(*queue).or_default() += gone;
            }
        }
        Ok(measure)
    }

    /// Remembers which superseded messages stay in a segment: those that the sieve leaves, or all.
    fn leave(&self, base: u64, held: &Held, round: &mut Round, all: bool) -> Result<(), ReadError> {
        for entry in held.iter().flat_map(|(_, entries)| entries) {
            let Some(batch) = self.batch(base, entry)? else {
                continue;
            };
            let (header, section) = (&batch.header, &batch.section);
            if all || round.sieve().verdict(header, section).leaves {
                round.newest.leave(header, section);
            }
        }
        Ok(())
    }

    /// Does what [`Space::compact`] does at [`BYTES_PER_S`] until it is stopped.
    pub(crate) fn run_compaction(&self) {
        let mut pause = LOOK;
        while self.nudge.rest(pause) {
            pause = match self.compact() {
                None => LOOK,
                Some(bytes) => Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_S),
            };
        }
    }
}
