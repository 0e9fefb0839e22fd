//! A cursor that is being consumed: its members in line, its lanes in line, and the grants that
//! bring one to the other.

use core::ops::Range;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tidegate_model::{GroupId, LeaseId, Offset, QueueId, Timestamp, TopicId};

use super::lane::{DueKey, Lane, Lease, LeaseKey, Run};
use super::{Context, Desk, LaneInfo, Taker, Timer};
use crate::catalog::Binding;
use crate::effects::{Effects, Grant, Journaled, Member, WaiterDone};
use crate::id::{CursorId, RequestToken, SourceId};
use crate::journal::{Change, JournalEntry};
use crate::limit::{IDLE_MS, LEASES_MAX, READY_MAX};
use crate::range::RangeSet;
use crate::request::RetryPolicy;
use crate::shard::Shard;

/// Delivery state of one cursor.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: CursorId,
    pub(super) group: GroupId,
    pub(super) source: SourceId,
    pub(super) topic: TopicId,
    pub(super) policy: RetryPolicy,
    pub(super) bindings: Arc<[Binding]>,
    /// One per queue, in index order; queue ids rise with it.
    pub(super) lanes: Vec<Lane>,
    /// Lanes that may have something, next first.
    runnable: VecDeque<usize>,
    /// Members with credit, next first; those that left are passed over.
    hungry: VecDeque<Member>,
    pub(super) subscriptions: u32,
    pub(super) waiters: u32,
    /// Waiters with `at_once`.
    at_once: u32,
    /// When a member or holder last asked for something.
    pub(super) touched: Timestamp,
    /// When it is looked at whether it is still in use.
    pub(super) idle_at: Timestamp,
}

/// Where a lane's next messages come from.
enum Offer {
    Parked(DueKey),
    Ready,
}

impl Active {
    /// The delivery state of a cursor that the catalogue knows.
    pub(super) fn new(id: CursorId, cx: &Context<'_>) -> Option<Self> {
        let cursor = cx.catalog.cursor(id)?;
        let group = cx.catalog.group_by_id(cursor.group)?;
        let queues = cx.catalog.queues_of(cursor.source);
        let topic = cx.catalog.topic_of(*queues.first()?)?.id;
        let lanes = (0_u32..)
            .zip(queues)
            .map(|(index, queue)| Lane::new(index, queue, cx.catalog.shard_of(queue)))
            .collect();
        Some(Self {
            id,
            group: cursor.group,
            source: cursor.source,
            topic,
            policy: group.policy.clone(),
            bindings: cx.catalog.bindings(cursor.group, cursor.source),
            lanes,
            runnable: VecDeque::new(),
            hungry: VecDeque::new(),
            subscriptions: 0,
            waiters: 0,
            at_once: 0,
            touched: cx.now,
            idle_at: cx.now.plus_ms(IDLE_MS),
        })
    }

    /// Adds lanes for queues that its topic got since; tells which lanes are new.
    pub(super) fn grow(&mut self, cx: &Context<'_>) -> Range<usize> {
        let before = self.lanes.len();
        let queues = cx.catalog.queues_of(self.source);
        for (index, queue) in (0_u32..).zip(queues).skip(before) {
            let shard = cx.catalog.shard_of(queue);
            self.lanes.push(Lane::new(index, queue, shard));
        }
        before..self.lanes.len()
    }

    /// Starts lanes, where the log doesn't know the cursor yet by logging where it begins.
    pub(super) fn begin(&mut self, lanes: Range<usize>, desk: &mut Desk, cx: &mut Context<'_>) {
        for index in lanes {
            let lane = &self.lanes[index];
            let queue = lane.queue;
            if let Some(state) = cx.shards[lane.shard.0 as usize].cursor(queue, self.id) {
                self.lanes[index].start(state);
                self.arm_due(index, desk, cx.now);
                self.wake(index);
            } else {
                let start = cx
                    .catalog
                    .cursor(self.id)
                    .and_then(|cursor| cursor.starts.get(&queue))
                    .copied()
                    .unwrap_or_default();
                self.set(queue, start, None, desk, cx);
            }
        }
    }

    /// Index of a queue's lane.
    pub(super) fn lane_of(&self, queue: QueueId) -> Option<usize> {
        self.lanes
            .binary_search_by_key(&queue, |lane| lane.queue)
            .ok()
    }

    /// Begins a lane anew at an offset, once that is logged.
    pub(super) fn set(
        &mut self,
        queue: QueueId,
        at: Offset,
        token: Option<RequestToken>,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(index) = self.lane_of(queue) else {
            return false;
        };
        self.clear_lane(index, desk);
        let lane = &mut self.lanes[index];
        lane.setting += 1;
        let change = Change::Set {
            at,
            lease_floor: LeaseId(desk.next_lease),
        };
        self.log(index, change, token, cx.effects);
        true
    }

    /// Logs a change of a lane. Ends of messages that follow one another share an entry.
    pub(super) fn log(
        &self,
        index: usize,
        change: Change,
        token: Option<RequestToken>,
        effects: &mut Effects,
    ) {
        let lane = &self.lanes[index];
        if let Change::Done { offsets } = &change
            && let Some(last) = effects.journal.last_mut()
            && last.token == token
            && last.entry.cursor == self.id
            && last.entry.queue == lane.queue
            && let Change::Done { offsets: earlier } = &mut last.entry.change
        {
            earlier.union(offsets);
            return;
        }
        effects.journal.push(Journaled {
            shard: lane.shard,
            entry: JournalEntry {
                cursor: self.id,
                queue: lane.queue,
                change,
            },
            token,
        });
    }

    /// A journal entry of this cursor was applied.
    pub(super) fn journaled(
        &mut self,
        entry: &JournalEntry,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) {
        let Some(index) = self.lane_of(entry.queue) else {
            return;
        };
        let lane = &mut self.lanes[index];
        let Some(state) = cx.shards[lane.shard.0 as usize].cursor(entry.queue, self.id) else {
            return;
        };
        match &entry.change {
            Change::Set { .. } => {
                lane.setting = lane.setting.saturating_sub(1);
                if lane.setting > 0 {
                    return;
                }
                self.clear_lane(index, desk);
                self.lanes[index].start(state);
            }
            Change::Done { offsets } => lane.settling.subtract(offsets),
            Change::Park { offsets, parked } => {
                lane.parking.subtract(offsets);
                if lane.setting > 0 {
                    return;
                }
                let key = DueKey {
                    due: parked.due,
                    base: parked.base_offset.0,
                    attempt: parked.attempt,
                };
                let mut waiting = offsets.clone();
                waiting.subtract(&state.done_of(key.base, offsets));
                waiting.subtract(&lane.settling);
                let run = Run {
                    base: key.base,
                    span: parked.span,
                    record_bytes: parked.record_bytes,
                    offsets: waiting,
                };
                lane.park(key, parked.judge, run);
            }
        }
        self.arm_due(index, desk, cx.now);
        self.wake(index);
    }

    /// Forgets all of a lane but what is on its way to the log.
    fn clear_lane(&mut self, index: usize, desk: &mut Desk) {
        let id = self.id;
        let lane = &mut self.lanes[index];
        for (key, lease) in &lane.leases {
            desk.timers
                .remove(&(lease.deadline, Timer::Lease(id, index, *key)));
        }
        lane.leases.clear();
        lane.clear_ready();
        lane.due.clear();
        lane.judge.clear();
        lane.passed.clear();
        lane.passed_count = 0;
        lane.acked.clear();
        if let Some(fetch) = lane.fetch.take() {
            desk.fetches.remove(&fetch.token);
        }
        if let Some(at) = lane.due_timer.take() {
            desk.timers.remove(&(at, Timer::Due(id, index)));
        }
        if let Some(at) = lane.passed_timer.take() {
            desk.timers.remove(&(at, Timer::Passed(id, index)));
        }
        if let Some(at) = lane.retry.take() {
            desk.timers.remove(&(at, Timer::Retry(id, index)));
        }
    }

    /// Takes the cursor's traces off the desk.
    pub(super) fn forget(&mut self, desk: &mut Desk) {
        for index in 0..self.lanes.len() {
            self.clear_lane(index, desk);
        }
        desk.timers.remove(&(self.idle_at, Timer::Idle(self.id)));
    }

    /// Puts a lane in line to be looked at.
    pub(super) fn wake(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.queued {
            lane.queued = true;
            self.runnable.push_back(index);
        }
    }

    pub(super) fn wake_queue(&mut self, queue: QueueId) {
        if let Some(index) = self.lane_of(queue) {
            self.wake(index);
        }
    }

    /// Everything of a queue before `start` is gone. What of it is leased stays with its holders.
    pub(super) fn trimmed(&mut self, queue: QueueId, start: u64, desk: &mut Desk, now: Timestamp) {
        if let Some(index) = self.lane_of(queue) {
            self.lanes[index].trim(start);
            self.arm_due(index, desk, now);
            self.wake(index);
        }
    }

    /// Tries lanes again that were stopped.
    pub(super) fn resume(&mut self) {
        for index in 0..self.lanes.len() {
            if self.lanes[index].stopped.take().is_some() {
                self.wake(index);
            }
        }
    }

    /// Looks again after a fetch that found no room.
    pub(super) fn retry(&mut self, index: usize) {
        self.lanes[index].retry = None;
        self.wake(index);
    }

    /// Parked messages of a lane are due.
    pub(super) fn due(&mut self, index: usize, desk: &mut Desk, now: Timestamp) {
        self.lanes[index].due_timer = None;
        self.arm_due(index, desk, now);
        self.wake(index);
    }

    /// Sees to it that the lane is woken when its next parked messages become due.
    pub(super) fn arm_due(&mut self, index: usize, desk: &mut Desk, now: Timestamp) {
        let id = self.id;
        let lane = &mut self.lanes[index];
        let next = lane.next_due(now);
        if next != lane.due_timer {
            if let Some(at) = lane.due_timer {
                desk.timers.remove(&(at, Timer::Due(id, index)));
            }
            if let Some(at) = next {
                desk.timers.insert((at, Timer::Due(id, index)));
            }
            lane.due_timer = next;
        }
    }

    /// Puts a member in line if it may take something.
    pub(super) fn enqueue(&mut self, member: Member, desk: &mut Desk) {
        let Some(taker) = desk.members.get_mut(&member) else {
            return;
        };
        if taker.queued || !taker.hungry() {
            return;
        }
        taker.queued = true;
        if taker.wait.is_some_and(|wait| wait.at_once) {
            self.at_once += 1;
        }
        self.hungry.push_back(member);
        let members = (self.subscriptions + self.waiters) as usize;
        if self.hungry.len() > 2 * members + 16 {
            // Long polls that ended left their places behind.
            let mut seen = BTreeSet::new();
            self.hungry
                .retain(|member| desk.members.contains_key(member) && seen.insert(*member));
        }
    }

    /// Lets a member go.
    pub(super) fn release(&mut self, member: Member, desk: &mut Desk) {
        let Some(taker) = desk.members.remove(&member) else {
            return;
        };
        match taker.wait {
            Some(wait) => {
                self.waiters -= 1;
                if wait.at_once && taker.queued {
                    self.at_once -= 1;
                }
                desk.timers.remove(&(wait.until, Timer::Wait(member)));
            }
            None => {
                self.subscriptions -= 1;
                desk.subscriptions -= 1;
            }
        }
    }

    /// Ends a long poll.
    pub(super) fn end_wait(&mut self, member: Member, desk: &mut Desk, effects: &mut Effects) {
        self.release(member, desk);
        if let Member::Waiter(waiter) = member {
            effects.waiters_done.push(WaiterDone {
                waiter,
                outcome: Ok(()),
            });
        }
    }

    /// Gives what lanes have to those who may take it, and fetches more while somebody may.
    pub(super) fn dispatch(&mut self, desk: &mut Desk, cx: &mut Context<'_>) {
        let mut served = Vec::new();
        while let Some(&index) = self.runnable.front() {
            let Some(member) = self.next_hungry(desk) else {
                break;
            };
            let Some(offer) = self.offer(index, cx.now) else {
                self.runnable.pop_front();
                self.lanes[index].queued = false;
                self.fetch(index, desk, cx);
                continue;
            };
            self.hungry.pop_front();
            if self.grant(index, &offer, member, desk, cx) {
                served.push(member);
            }
            self.runnable.rotate_left(1);
            if self.lanes[index].ready_count < READY_MAX / 2 {
                self.fetch(index, desk, cx);
            }
        }
        for member in served {
            self.end_wait(member, desk, cx.effects);
        }
        if self.at_once > 0 && !self.lanes.iter().any(Lane::looking) {
            let waiting: Vec<_> = self
                .hungry
                .iter()
                .filter(|member| {
                    desk.members
                        .get(member)
                        .and_then(|taker| taker.wait)
                        .is_some_and(|wait| wait.at_once)
                })
                .copied()
                .collect();
            for member in waiting {
                self.end_wait(member, desk, cx.effects);
            }
        }
    }

    /// The first member in line that is still there.
    fn next_hungry(&mut self, desk: &Desk) -> Option<Member> {
        while let Some(&member) = self.hungry.front() {
            if desk.members.get(&member).is_some_and(|taker| taker.queued) {
                return Some(member);
            }
            self.hungry.pop_front();
        }
        None
    }

    /// What a lane can give now: parked messages that are due go first.
    fn offer(&self, index: usize, now: Timestamp) -> Option<Offer> {
        let lane = &self.lanes[index];
        if lane.setting > 0 || lane.leases.len() >= LEASES_MAX {
            return None;
        }
        if let Some((key, _)) = lane.due.first_key_value()
            && key.due <= now
        {
            return Some(Offer::Parked(*key));
        }
        (!lane.ready.is_empty()).then_some(Offer::Ready)
    }

    /// Leases one run to a member that was taken out of line, and puts it back if it may take more.
    /// Whether this served a long poll for the first time.
    fn grant(
        &mut self,
        index: usize,
        offer: &Offer,
        member: Member,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(taker) = desk.members.get_mut(&member) else {
            return false;
        };
        let lane = &mut self.lanes[index];
        let (run, attempt) = match offer {
            Offer::Parked(key) => (lane.due.get_mut(key), key.attempt),
            Offer::Ready => (lane.ready.front_mut(), 1),
        };
        let Some(run) = run else {
            return false;
        };
        let count = taker.share(run);
        if count == 0 {
            // A long poll that has what fits: it leaves the line and is answered.
            taker.queued = false;
            return false;
        }
        let offsets = run.offsets.take_front(count);
        let count = offsets.count();
        let (base, span, record_bytes) = (run.base, run.span, run.record_bytes);
        let emptied = run.offsets.is_empty();
        match offer {
            Offer::Parked(key) if emptied => drop(lane.due.remove(key)),
            Offer::Parked(_) => {}
            Offer::Ready => {
                lane.ready_count -= count;
                if emptied {
                    lane.ready.pop_front();
                }
            }
        }
        let bytes = u64::from(record_bytes).saturating_mul(count);
        taker.messages -= count;
        taker.bytes = taker
            .bytes
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        let invisible_until = cx.now.plus_ms(i64::from(taker.invisible_ms));
        let first_of_poll = match &mut taker.wait {
            Some(wait) => {
                // A poll that got something ends with this round, whatever it wanted before.
                if wait.at_once {
                    wait.at_once = false;
                    self.at_once -= 1;
                }
                !core::mem::replace(&mut wait.served, true)
            }
            None => false,
        };
        taker.queued = taker.hungry();
        if taker.queued {
            self.hungry.push_back(member);
        }
        let lease = LeaseId(desk.next_lease);
        desk.next_lease += 1;
        let key = LeaseKey {
            base,
            lease,
            part: 0,
        };
        desk.timers
            .insert((invisible_until, Timer::Lease(self.id, index, key)));
        lane.leases.insert(
            key,
            Lease {
                span,
                attempt,
                record_bytes,
                deadline: invisible_until,
                open: offsets.clone(),
            },
        );
        cx.effects.grants.push(Grant {
            to: member,
            cursor: self.id,
            group: self.group,
            source: self.source,
            shard: lane.shard,
            queue: lane.queue,
            queue_index: lane.index,
            lease,
            base_offset: Offset(base),
            span,
            offsets,
            bytes,
            attempt,
            invisible_until,
        });
        first_of_poll
    }

    /// Whether nothing would be lost by letting it go.
    pub(super) fn idle(&self) -> bool {
        self.subscriptions == 0 && self.waiters == 0 && self.lanes.iter().all(Lane::idle)
    }

    /// A lane as `group info` shows it: the cursor as it will be once logged, and what is leased.
    pub(super) fn lane_info(&self, queue: QueueId, shards: &[Shard]) -> Option<LaneInfo> {
        let lane = &self.lanes[self.lane_of(queue)?];
        let state = shards[lane.shard.0 as usize].cursor(queue, self.id)?;
        let mut done: RangeSet = state.done().clone();
        done.union(&lane.passed);
        let cursor = match done.ranges().first() {
            Some(range) if range.first <= state.committed() => range.end.max(state.committed()),
            _ => state.committed(),
        };
        Some(LaneInfo {
            cursor: Some(Offset(cursor)),
            leased: lane.leases.values().map(|lease| lease.open.count()).sum(),
            stopped: lane.stopped.or(lane.waits),
        })
    }
}

impl Lane {
    /// Whether something is under way that may bring messages at once.
    fn looking(&self) -> bool {
        self.fetch.is_some() || self.setting > 0 || self.retry.is_some()
    }
}

impl Taker {
    /// Whether it may take a message.
    fn hungry(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// How many messages of a run it may take: at least one, unless it is a long poll that has
    /// some already and no room for another.
    fn share(&self, run: &Run) -> u64 {
        let room = u64::try_from(self.bytes).unwrap_or(0);
        let fitting = match u64::from(run.record_bytes) {
            0 => u64::MAX,
            bytes => room / bytes,
        };
        let least = match self.wait {
            Some(wait) if wait.served => 0,
            _ => 1,
        };
        fitting.max(least).min(self.messages)
    }
}
