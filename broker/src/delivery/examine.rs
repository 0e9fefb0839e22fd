//! Looking into queues: what to fetch, and what becomes of what was found.

use tidegate_model::{Code, LeaseId, Offset, Timestamp, code};

use super::active::Active;
use super::lane::{DueKey, Lane, LaneFetch, LeaseKey, Run};
use super::{Context, Desk, Timer};
use crate::cursor::CursorState;
use crate::effects::{DeadLetter, DeadLetterReason, Failed, Fetch, Fetched, FetchedBatch};
use crate::id::{FetchToken, RequestToken};
use crate::journal::{Change, JournalEntry, Parked};
use crate::limit::{
    ACKED_RANGES_MAX, FETCH_BYTES, FETCH_PASSING_RETRY_MS, FETCH_RECORDS, FETCH_RETRY_MS,
    LEASES_MAX, PARKED_MAX, PASSED_MS, PASSED_RECORDS, READY_MAX,
};
use crate::range::RangeSet;
use crate::request::OnError;

impl Active {
    /// Asks for more of a lane, if it may have more and there is room for it.
    pub(super) fn fetch(&mut self, index: usize, desk: &mut Desk, cx: &mut Context<'_>) {
        let lane = &self.lanes[index];
        if lane.setting > 0
            || lane.stopped.is_some()
            || lane.retry.is_some()
            || lane.fetch.is_some()
        {
            return;
        }
        let shard = &cx.shards[lane.shard.0 as usize];
        let Some(state) = shard.cursor(lane.queue, self.id) else {
            return;
        };
        let judged = lane
            .judge
            .first_key_value()
            .filter(|(key, _)| key.due <= cx.now)
            .and_then(|(key, run)| Some((*key, run.offsets.first()?, run.offsets.end()?)));
        let (from, until, judge) = match judged {
            Some((key, from, until)) => (from, until, Some(key)),
            None if lane.scan < shard.end(lane.queue) && lane.has_room(state) => {
                (lane.scan, u64::MAX, None)
            }
            None => return,
        };
        let token = FetchToken(desk.next_fetch);
        desk.next_fetch += 1;
        desk.fetches.insert(token, (self.id, index));
        cx.effects.fetches.push(Fetch {
            token,
            cursor: self.id,
            source: self.source,
            topic: self.topic,
            shard: lane.shard,
            queue: lane.queue,
            bindings: self.bindings.clone(),
            from: Offset(from),
            until: Offset(until),
            max_records: FETCH_RECORDS,
            max_bytes: FETCH_BYTES,
        });
        self.lanes[index].fetch = Some(LaneFetch { token, from, judge });
    }

    /// A fetch was answered; its token was known.
    pub(super) fn fetched(
        &mut self,
        index: usize,
        fetched: Fetched,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) {
        let lane = &mut self.lanes[index];
        let Some(fetch) = lane.fetch.take() else {
            return;
        };
        match fetched {
            Fetched::Busy { reason } => {
                lane.waits = Some(reason);
                let wait = match reason {
                    code::OVERLOADED => FETCH_RETRY_MS,
                    _ => FETCH_PASSING_RETRY_MS,
                };
                self.retry_after(index, wait, desk, cx);
            }
            Fetched::Stopped { reason } => lane.stopped = Some(reason),
            Fetched::Examined { batches, next } => {
                lane.waits = None;
                let next = next.0.max(fetch.from);
                match fetch.judge {
                    Some(key) => self.judged(index, key, batches, next, cx),
                    None => self.examined(index, fetch.from, batches, next, cx),
                }
                self.note_passed(index, desk, cx);
                if next > fetch.from {
                    self.wake(index);
                } else if self.lanes[index].stopped.is_none() {
                    self.retry_after(index, FETCH_RETRY_MS, desk, cx);
                }
            }
        }
    }

    fn retry_after(&mut self, index: usize, ms: i64, desk: &mut Desk, cx: &Context<'_>) {
        let at = cx.now.plus_ms(ms);
        self.lanes[index].retry = Some(at);
        desk.timers.insert((at, Timer::Retry(self.id, index)));
    }

    /// New records of a queue were judged.
    fn examined(
        &mut self,
        index: usize,
        from: u64,
        batches: Vec<FetchedBatch>,
        next: u64,
        cx: &mut Context<'_>,
    ) {
        let lane = &mut self.lanes[index];
        // What was trimmed while it was being looked at is gone.
        let from = from.max(lane.scan);
        let next = next.max(from);
        let stop = first_stop(&batches).filter(|(stop, _)| *stop >= from);
        let next = stop.map_or(next, |(stop, _)| next.min(stop));
        lane.stopped = lane.stopped.or(stop.map(|(_, code)| code));
        let shard = &cx.shards[lane.shard.0 as usize];
        let known = match shard.cursor(lane.queue, self.id) {
            Some(state) => lane.known(state, from, next),
            None => RangeSet::new(),
        };
        let mut passed = RangeSet::one(from, next);
        passed.subtract(&known);
        let mut failures = Vec::new();
        for batch in batches {
            let (base, end) = bounds(&batch);
            let mut wanted = batch.accepted.within(base.max(from), end.min(next));
            wanted.subtract(&known);
            let record_bytes = mean(&batch);
            for failed in batch.failed {
                let mut offsets = failed.offsets.within(base.max(from), end.min(next));
                offsets.subtract(&known);
                match failed.on_error {
                    OnError::Pass => wanted.union(&offsets),
                    OnError::Skip | OnError::Stop => {}
                    OnError::DeadLetter | OnError::Retry => {
                        passed.subtract(&offsets);
                        let run = Run {
                            base,
                            span: batch.span,
                            record_bytes,
                            offsets,
                        };
                        failures.push((run, failed.on_error, failed.code));
                    }
                }
            }
            passed.subtract(&wanted);
            if !wanted.is_empty() {
                lane.push_ready(Run {
                    base,
                    span: batch.span,
                    record_bytes,
                    offsets: wanted,
                });
            }
        }
        lane.scan = next;
        lane.untouched = lane.untouched.max(next);
        lane.passed_count += passed.count();
        lane.passed.union(&passed);
        for (run, on_error, code) in failures {
            self.failed(index, run, 1, on_error, code, cx);
        }
    }

    /// A parked run was judged again.
    fn judged(
        &mut self,
        index: usize,
        key: DueKey,
        batches: Vec<FetchedBatch>,
        next: u64,
        cx: &mut Context<'_>,
    ) {
        let lane = &mut self.lanes[index];
        let stop = first_stop(&batches);
        let next = stop.map_or(next, |(stop, _)| next.min(stop));
        lane.stopped = lane.stopped.or(stop.map(|(_, code)| code));
        let Some(mut run) = lane.judge.remove(&key) else {
            return;
        };
        let mut rest = run.offsets.within(0, next);
        run.offsets.subtract(&rest);
        let record_bytes = run.record_bytes;
        let (base, span) = (run.base, run.span);
        lane.park(key, true, run);
        let part = |offsets| Run {
            base,
            span,
            record_bytes,
            offsets,
        };
        for batch in batches {
            let accepted = batch.accepted.intersection(&rest);
            rest.subtract(&accepted);
            self.lanes[index].park(key, false, part(accepted));
            for failed in batch.failed {
                let offsets = failed.offsets.intersection(&rest);
                match failed.on_error {
                    OnError::Pass => {
                        rest.subtract(&offsets);
                        self.lanes[index].park(key, false, part(offsets));
                    }
                    OnError::Skip | OnError::Stop => {}
                    OnError::DeadLetter | OnError::Retry => {
                        rest.subtract(&offsets);
                        let Failed { on_error, code, .. } = failed;
                        self.failed(index, part(offsets), key.attempt, on_error, code, cx);
                    }
                }
            }
        }
        let lane = &mut self.lanes[index];
        lane.passed_count += rest.count();
        lane.passed.union(&rest);
    }

    /// A filter failed on a run, `attempt` being the delivery that it was judged for.
    fn failed(
        &mut self,
        index: usize,
        run: Run,
        attempt: u16,
        on_error: OnError,
        code: Code,
        cx: &mut Context<'_>,
    ) {
        if run.offsets.is_empty() {
            return;
        }
        if on_error == OnError::Retry && attempt < self.policy.max_attempts {
            let due = cx.now.plus_ms(self.backoff_ms(attempt));
            self.park(index, run, attempt + 1, due, true, None, cx);
        } else {
            self.dead_letter(index, &run, attempt - 1, DeadLetterReason::Plugin(code), cx);
        }
    }

    /// Wait before the attempt after `attempt`.
    pub(super) fn backoff_ms(&self, attempt: u16) -> i64 {
        let steps = &self.policy.backoff_ms;
        let step = usize::from(attempt).min(steps.len());
        step.checked_sub(1).map_or(0, |step| i64::from(steps[step]))
    }

    /// Logs that messages wait for another attempt.
    #[expect(clippy::too_many_arguments, reason = "what a park entry consists of")]
    pub(super) fn park(
        &mut self,
        index: usize,
        run: Run,
        attempt: u16,
        due: Timestamp,
        judge: bool,
        token: Option<RequestToken>,
        cx: &mut Context<'_>,
    ) {
        self.lanes[index].parking.union(&run.offsets);
        let parked = Parked {
            base_offset: Offset(run.base),
            span: run.span,
            attempt,
            due,
            record_bytes: run.record_bytes,
            judge,
        };
        let change = Change::Park {
            offsets: run.offsets,
            parked,
        };
        self.log(index, change, token, cx.effects);
    }

    /// Gives messages up to the group's dead-letter topic.
    pub(super) fn dead_letter(
        &mut self,
        index: usize,
        run: &Run,
        attempts: u16,
        reason: DeadLetterReason,
        cx: &mut Context<'_>,
    ) {
        let lane = &mut self.lanes[index];
        lane.settling.union(&run.offsets);
        cx.effects.dead_letters.push(DeadLetter {
            cursor: self.id,
            group: self.group,
            source: self.source,
            shard: lane.shard,
            queue: lane.queue,
            base_offset: Offset(run.base),
            span: run.span,
            offsets: run.offsets.clone(),
            attempts,
            reason,
            entry: JournalEntry::done(self.id, lane.queue, run.offsets.clone()),
        });
    }

    /// Logs what was passed over if it is much, else sees to it that it is logged before long.
    pub(super) fn note_passed(&mut self, index: usize, desk: &mut Desk, cx: &mut Context<'_>) {
        let lane = &mut self.lanes[index];
        if lane.passed_count >= PASSED_RECORDS {
            self.flush_passed(index, desk, cx);
        } else if !lane.passed.is_empty() && lane.passed_timer.is_none() {
            let at = cx.now.plus_ms(PASSED_MS);
            lane.passed_timer = Some(at);
            desk.timers.insert((at, Timer::Passed(self.id, index)));
        }
    }

    /// Logs what was passed over.
    pub(super) fn flush_passed(&mut self, index: usize, desk: &mut Desk, cx: &mut Context<'_>) {
        if let Some(offsets) = self.take_passed(index, desk) {
            self.log(index, Change::Done { offsets }, None, cx.effects);
        }
    }

    /// What was passed over, to be logged now.
    pub(super) fn take_passed(&mut self, index: usize, desk: &mut Desk) -> Option<RangeSet> {
        let lane = &mut self.lanes[index];
        if let Some(at) = lane.passed_timer.take() {
            desk.timers.remove(&(at, Timer::Passed(self.id, index)));
        }
        if lane.passed.is_empty() {
            return None;
        }
        lane.passed_count = 0;
        let passed = core::mem::take(&mut lane.passed);
        lane.settling.union(&passed);
        Some(passed)
    }

    /// Other filters judge from here on: what is leased or parked keeps its verdict, what waits for
    /// a member is judged anew.
    pub(super) fn rebound(&mut self, desk: &mut Desk, cx: &mut Context<'_>) {
        self.bindings = cx.catalog.bindings(self.group, self.source);
        for index in 0..self.lanes.len() {
            self.flush_passed(index, desk, cx);
            let lane = &mut self.lanes[index];
            if let Some(fetch) = lane.fetch.take() {
                desk.fetches.remove(&fetch.token);
            }
            if let Some(first) = lane.ready.front().and_then(|run| run.offsets.first()) {
                lane.scan = lane.scan.min(first);
            }
            lane.clear_ready();
            self.wake(index);
        }
        self.resume();
    }
}

impl Lane {
    /// Whether more messages may be fetched than there are.
    fn has_room(&self, state: &CursorState) -> bool {
        self.ready_count < READY_MAX
            && self.leases.len() < LEASES_MAX
            && state.parked().len() < PARKED_MAX
            && state.done().ranges().len() < ACKED_RANGES_MAX
    }

    /// Messages from `from` up to `next` whose fate is decided, or in somebody's hands.
    fn known(&self, state: &CursorState, from: u64, next: u64) -> RangeSet {
        let mut known = RangeSet::one(from, state.committed().min(next));
        known.union(&state.done().within(from, next));
        known.union(&state.parked_within(from, next));
        if from < self.untouched {
            for set in [&self.settling, &self.parking, &self.passed] {
                known.union(&set.within(from, next));
            }
            let above = LeaseKey {
                base: next,
                lease: LeaseId(0),
                part: 0,
            };
            for (key, lease) in self.leases.range(..above).rev() {
                if key.base + u64::from(lease.span) <= from {
                    break;
                }
                known.union(&lease.open.within(from, next));
            }
        }
        known
    }
}

/// The batch's offsets: first, and one past the last.
fn bounds(batch: &FetchedBatch) -> (u64, u64) {
    let base = batch.base_offset.0;
    (base, base.saturating_add(u64::from(batch.span)))
}

/// Mean bytes of a record, rounded up.
fn mean(batch: &FetchedBatch) -> u32 {
    batch.bytes.div_ceil(u32::from(batch.records).max(1))
}

/// The lowest offset at which a filter's policy stops delivery.
fn first_stop(batches: &[FetchedBatch]) -> Option<(u64, Code)> {
    batches
        .iter()
        .flat_map(|batch| &batch.failed)
        .filter(|failed| failed.on_error == OnError::Stop)
        .filter_map(|failed| Some((failed.offsets.first()?, failed.code)))
        .min()
}
