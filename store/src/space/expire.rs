//! Finding what may go: segment by segment, since a million queues are too many to ask each.

use std::collections::BTreeMap;

use tidegate_model::{Offset, QueueId, ShardId, Timestamp};

use super::rule::{Front, Rule};
use crate::error::ReadError;
use crate::id_map::QueueMap;
use crate::index::{Index, QueueState, Run};
use crate::sync::read;
use crate::trim::{TRIM_ROWS_MAX, TrimRow};

/// Queues of segments that one call looks at.
const RUNS_MAX: usize = 16_384;
/// Queues of the newest segment that are looked at under one lock, for which the owner may wait.
const LOCKED_RUNS_MAX: usize = 64;

/// Ids begin at 1.
const FIRST_QUEUE: QueueId = QueueId(0);

/// What to trim, by shard; each shard's rows rise by queue and fit one trim record.
pub type Trims = BTreeMap<ShardId, Vec<TrimRow>>;

/// A pass over the log that finds what may go, a bounded piece at a time.
///
/// [`crate::Reader::expire`] carries it on. Between two calls what the first one found should be
/// appended ([`crate::Appender::trim`]) and settled; what isn't is found again by the next pass.
#[derive(Clone, Debug)]
pub struct Expiry {
    now: Timestamp,
    latest_before: Option<Timestamp>,
    rules: u64,
    at: At,
    /// Of the segment at hand: how long nothing in it expires by time, in ms; `None` for ever.
    quiet_ms: Option<i64>,
    /// Of the segment at hand: something in it was found.
    found: bool,
}

/// Where a pass goes on.
#[derive(Clone, Copy, Debug)]
enum At {
    /// At the oldest segment.
    Start,
    /// In the segment of this base, at this queue or the first after it.
    Run {
        base: u64,
        queue: QueueId,
    },
    /// Behind the segment of this base.
    After(u64),
    End,
}

impl Expiry {
    /// A pass at `now`.
    ///
    /// `latest_before` is the latest [`Rule::before`] that any queue's rule has: segments without
    /// anything appended before it are not looked at. Give `None` to look at all of them, as rules
    /// of other kinds, for queues that are not asked about one by one, need it.
    ///
    /// `rules` is a number that changes whenever a rule does, other than by the time that went by:
    /// a segment in which nothing is due under the same rules is not looked at again until then.
    #[must_use]
    pub fn new(now: Timestamp, latest_before: Option<Timestamp>, rules: u64) -> Self {
        Self {
            now,
            latest_before,
            rules,
            at: At::Start,
            quiet_ms: None,
            found: false,
        }
    }

    /// Whether the pass has reached the end of the log.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.at, At::End)
    }
}

/// What a call has found so far.
#[derive(Default)]
struct Finds {
    rows: QueueMap<(ShardId, TrimRow)>,
    per_shard: BTreeMap<ShardId, usize>,
    runs: usize,
}

impl Finds {
    fn is_enough(&self) -> bool {
        let full = TRIM_ROWS_MAX - LOCKED_RUNS_MAX;
        self.runs >= RUNS_MAX || self.per_shard.values().any(|rows| *rows >= full)
    }

    fn front(&self, queue: QueueId, state: &QueueState) -> Front {
        match self.rows.get(&queue) {
            Some((_, row)) => Front {
                start: row.start.0,
                taken: row.bytes,
            },
            None => Front {
                start: state.start,
                taken: 0,
            },
        }
    }

    fn set(&mut self, queue: QueueId, shard: ShardId, front: Front) {
        let row = TrimRow {
            queue,
            start: Offset(front.start),
            bytes: front.taken,
        };
        if self.rows.insert(queue, (shard, row)).is_none() {
            *self.per_shard.entry(shard).or_default() += 1;
        }
    }

    fn into_trims(self) -> Trims {
        let mut trims = Trims::new();
        for (shard, row) in self.rows.into_values() {
            trims.entry(shard).or_default().push(row);
        }
        for rows in trims.values_mut() {
            rows.sort_unstable_by_key(|row| row.queue);
        }
        trims
    }
}

impl Index {
    /// See [`crate::Reader::expire`].
    pub(crate) fn expire(
        &self,
        pass: &mut Expiry,
        rule: &dyn Fn(QueueId) -> Option<Rule>,
    ) -> Result<Trims, ReadError> {
        let began = pass.clone();
        self.undisturbed(|| {
            pass.clone_from(&began);
            self.expire_piece(pass, rule)
        })
    }

    fn expire_piece(
        &self,
        pass: &mut Expiry,
        rule: &dyn Fn(QueueId) -> Option<Rule>,
    ) -> Result<Trims, ReadError> {
        let broken = self.vfs.broken_maps();
        let mut finds = Finds::default();
        while !pass.is_done() && !finds.is_enough() {
            let (base, queue) = match pass.at {
                At::Start => (self.oldest_segment(), FIRST_QUEUE),
                At::Run { base, queue } => (Some(base), queue),
                At::After(base) => (self.segment_after(base), FIRST_QUEUE),
                At::End => break,
            };
            let Some(base) = base else {
                pass.at = At::End;
                break;
            };
            let sealed = read(&self.state).sealed.get(&base).cloned();
            let Some(sealed) = sealed else {
                self.expire_newest(pass, base, queue, rule, &mut finds);
                continue;
            };
            if queue == FIRST_QUEUE && !pass.looks_at(&sealed) {
                pass.at = At::After(base);
                continue;
            }
            let open = match self.open(&sealed) {
                Ok(open) => open,
                // What was found before goes out first; then the next call meets this alone.
                Err(_) if !finds.rows.is_empty() => break,
                Err(error) => {
                    pass.at = At::After(base);
                    return Err(error);
                }
            };
            if queue == FIRST_QUEUE {
                pass.begin_segment();
            }
            let mut goes_on = None;
            for (queue, run) in open.runs_from(queue) {
                if finds.is_enough() {
                    goes_on = Some(queue);
                    break;
                }
                finds.runs += 1;
                if let Some((rule, state)) = rule(queue).zip(self.queue_state(queue)) {
                    pass.look(queue, run, &state, &rule, &mut finds);
                }
            }
            if let Some(queue) = goes_on {
                pass.at = At::Run { base, queue };
                break;
            }
            if !pass.found && self.vfs.broken_maps() == broken {
                let until = pass.quiet_ms.map(|ms| pass.now.plus_ms(ms));
                sealed.set_quiet(pass.rules, until.unwrap_or(Timestamp(i64::MAX)));
            }
            pass.at = At::After(base);
        }
        Ok(finds.into_trims())
    }

    fn expire_newest(
        &self,
        pass: &mut Expiry,
        base: u64,
        mut from: QueueId,
        rule: &dyn Fn(QueueId) -> Option<Rule>,
        finds: &mut Finds,
    ) {
        loop {
            let queues = {
                let state = read(&self.state);
                if state.newest.base() != base {
                    // Sealed meanwhile, and begun again as such, or removed.
                    let is_sealed = state.sealed.contains_key(&base);
                    pass.at = if is_sealed {
                        At::Run {
                            base,
                            queue: FIRST_QUEUE,
                        }
                    } else {
                        At::After(base)
                    };
                    return;
                }
                let runs = state.newest.runs_from(from).take(LOCKED_RUNS_MAX);
                runs.map(|(queue, _)| queue).collect::<Vec<_>>()
            };
            let Some(last) = queues.last() else {
                pass.at = At::End;
                return;
            };
            if finds.is_enough() {
                pass.at = At::Run { base, queue: from };
                return;
            }
            from = QueueId(last.0.saturating_add(1));
            finds.runs += queues.len();
            // The rules first: they may take locks of their own.
            let rules = queues.iter().map(|queue| (*queue, rule(*queue)));
            let rules = rules.collect::<Vec<_>>();
            let state = read(&self.state);
            if state.newest.base() != base {
                continue;
            }
            for (queue, rule) in rules {
                let found = state.newest.run(queue).zip(state.queues.get(queue));
                if let Some(((run, queue_state), rule)) = found.zip(rule) {
                    pass.look(queue, run, queue_state, &rule, finds);
                }
            }
        }
    }

    /// See [`crate::Reader::expire_queue`].
    pub(crate) fn expire_queue(
        &self,
        queue: QueueId,
        rule: &Rule,
    ) -> Result<Option<(ShardId, TrimRow)>, ReadError> {
        let Some(state) = self.queue_state(queue) else {
            return Ok(None);
        };
        if !rule.remove && !rule.may_take(&state) {
            return Ok(None);
        }
        self.undisturbed(|| self.expire_from(queue, &state, rule))
    }

    fn expire_from(
        &self,
        queue: QueueId,
        state: &QueueState,
        rule: &Rule,
    ) -> Result<Option<(ShardId, TrimRow)>, ReadError> {
        let mut front = Front {
            start: state.start,
            taken: 0,
        };
        let mut shard = ShardId(0);
        let mut at = self.newest_where(queue, |first| first.base_offset <= state.start)?;
        while let Some(base) = at {
            let goes_on = self.with_run(base, queue, |run| {
                let Some(run) = run else { return true };
                shard = ShardId(run.entry(0).shard);
                !rule.remove && take(run, state, rule, &mut front).is_none()
            })?;
            if !goes_on {
                break;
            }
            at = self.segment_after(base);
        }
        if rule.remove {
            return Ok(Some((shard, TrimRow::removal(queue))));
        }
        let row = TrimRow {
            queue,
            start: Offset(front.start),
            bytes: front.taken,
        };
        Ok((front.start > state.start).then_some((shard, row)))
    }

    fn oldest_segment(&self) -> Option<u64> {
        let state = read(&self.state);
        let oldest = state.sealed.keys().next().copied();
        Some(oldest.unwrap_or_else(|| state.newest.base()))
    }
}

/// Takes what goes of a run from `front` on. The append time of the first batch that stays, if
/// one of the run does.
fn take(run: Run<'_>, state: &QueueState, rule: &Rule, front: &mut Front) -> Option<Timestamp> {
    let start = front.start;
    let first = run.partition_point(|entry| entry.end_offset() <= start);
    for at in first..run.len() {
        let entry = run.entry(at);
        if !rule.takes(&entry, state, front) {
            return Some(Timestamp(entry.append_time));
        }
        front.start = entry.end_offset();
        front.taken += entry.stored_bytes();
    }
    None
}

impl Expiry {
    fn looks_at(&self, sealed: &crate::index::SealedIndex) -> bool {
        let Some(times) = sealed.times() else {
            return false;
        };
        match self.latest_before {
            None => true,
            Some(before) => times.first < before.0 && !sealed.is_quiet(self.rules, self.now),
        }
    }

    fn begin_segment(&mut self) {
        self.quiet_ms = None;
        self.found = false;
    }

    fn look(
        &mut self,
        queue: QueueId,
        run: Run<'_>,
        state: &QueueState,
        rule: &Rule,
        finds: &mut Finds,
    ) {
        let before = finds.front(queue, state);
        if before.start == u64::MAX {
            return;
        }
        let mut front = before;
        if rule.remove {
            front.start = u64::MAX;
        } else {
            let stays = take(run, state, rule, &mut front);
            if let Some((stays, before)) = stays.zip(rule.before) {
                // In so many ms the rule's instant has passed the batch.
                let ms = stays.0.saturating_sub(before.0).saturating_add(1);
                self.quiet_ms = Some(self.quiet_ms.map_or(ms, |quiet| quiet.min(ms)));
            }
        }
        if front.start > before.start {
            self.found = true;
            finds.set(queue, ShardId(run.entry(0).shard), front);
        }
    }
}
