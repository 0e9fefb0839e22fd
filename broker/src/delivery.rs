//! Delivery: who waits, what is leased to whom, and what comes next. Leader only: nothing of it is
//! logged, all of it is made anew from the replicated state after a restart.

mod active;
mod clock;
mod examine;
mod lane;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::{Code, Offset, QueueId, Timestamp, TopicId, code};

use crate::catalog::Catalog;
use crate::effects::{Effects, Fetched, Gone, Member, WaiterDone};
use crate::id::{CursorId, FetchToken, RequestToken};
use crate::journal::JournalEntry;
use crate::limit::{IDLE_MS, TICK_DEADLINES};
use crate::refusal::Refusal;
use crate::reply::CursorMove;
use crate::request::SettleRun;
use crate::shard::Shard;

use active::Active;
use lane::LeaseKey;

/// Delivery state of a node.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Cursors that are being consumed, or were until lately.
    active: BTreeMap<CursorId, Active>,
    /// Which of them run over a queue.
    by_queue: BTreeMap<QueueId, Vec<CursorId>>,
    desk: Desk,
}

/// What all cursors share.
#[derive(Debug)]
struct Desk {
    next_lease: u64,
    next_fetch: u64,
    members: BTreeMap<Member, Taker>,
    subscriptions: usize,
    fetches: BTreeMap<FetchToken, (CursorId, usize)>,
    timers: BTreeSet<(Timestamp, Timer)>,
    pending: BTreeMap<RequestToken, Pending>,
}

/// A member and what it may still take.
#[derive(Clone, Copy, Debug)]
struct Taker {
    cursor: CursorId,
    messages: u64,
    /// May be overdrawn by the last message.
    bytes: i64,
    invisible_ms: u32,
    /// Stands in its cursor's line.
    queued: bool,
    /// Set for long polls.
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Timestamp,
    /// Ends as soon as all queues were looked into.
    at_once: bool,
    served: bool,
}

/// What comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A lease lapses.
    Lease(CursorId, usize, LeaseKey),
    /// Parked messages of a lane become due.
    Due(CursorId, usize),
    /// A lane logs what was passed over.
    Passed(CursorId, usize),
    /// A lane fetches again.
    Retry(CursorId, usize),
    /// A long poll ends.
    Wait(Member),
    /// A cursor is looked at whether it is still in use.
    Idle(CursorId),
}

/// A request that waits for its journal entries.
#[derive(Clone, Debug)]
struct Pending {
    entries: u32,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
enum Outcome {
    Settled(Vec<Result<(), Code>>),
    Reset(Vec<CursorMove>),
}

/// What a step of delivery sees and writes to.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) catalog: &'a Catalog,
    pub(crate) shards: &'a [Shard],
    pub(crate) effects: &'a mut Effects,
}

/// Delivery's part of a cursor's description.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneInfo {
    pub(crate) cursor: Option<Offset>,
    pub(crate) leased: u64,
    /// Why delivery waits, if it was stopped.
    pub(crate) stopped: Option<Code>,
}

impl Delivery {
    /// Leases of a new life of the log: their ids are above all given before.
    pub(crate) fn begin_epoch(&mut self, log_epoch: u32) {
        self.desk.next_lease = (u64::from(log_epoch) << 40) + 1;
    }

    pub(crate) fn new() -> Self {
        Self {
            active: BTreeMap::new(),
            by_queue: BTreeMap::new(),
            desk: Desk {
                // Zero is no lease, also in the first epoch.
                next_lease: 1,
                next_fetch: 1,
                members: BTreeMap::new(),
                subscriptions: 0,
                fetches: BTreeMap::new(),
                timers: BTreeSet::new(),
                pending: BTreeMap::new(),
            },
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.desk.subscriptions
    }

    pub(crate) fn waiters(&self) -> usize {
        self.desk.members.len() - self.desk.subscriptions
    }

    pub(crate) fn has(&self, member: Member) -> bool {
        self.desk.members.contains_key(&member)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.desk.timers.first().map(|(at, _)| *at)
    }

    /// Live subscriptions of a cursor.
    pub(crate) fn members_of(&self, cursor: CursorId) -> u32 {
        self.active
            .get(&cursor)
            .map_or(0, |active| active.subscriptions)
    }

    pub(crate) fn lane_info(&self, cursor: CursorId, queue: QueueId, shards: &[Shard]) -> LaneInfo {
        self.active
            .get(&cursor)
            .and_then(|active| active.lane_info(queue, shards))
            .unwrap_or_default()
    }

    /// Lets a member take part. A long poll with `at_once` ends when all queues were looked into.
    pub(crate) fn join(&mut self, member: Member, taker: NewTaker, cx: &mut Context<'_>) {
        self.activate(taker.cursor, cx);
        let Some(active) = self.active.get_mut(&taker.cursor) else {
            return;
        };
        active.touched = cx.now;
        let wait = taker.wait_until.map(|until| Wait {
            until,
            at_once: taker.at_once,
            served: false,
        });
        if let Some(wait) = wait {
            self.desk.timers.insert((wait.until, Timer::Wait(member)));
            active.waiters += 1;
        } else {
            self.desk.subscriptions += 1;
            active.subscriptions += 1;
            active.resume();
        }
        self.desk.members.insert(
            member,
            Taker {
                cursor: taker.cursor,
                messages: taker.messages,
                bytes: taker.bytes,
                invisible_ms: taker.invisible_ms,
                queued: false,
                wait,
            },
        );
        active.enqueue(member, &mut self.desk);
        active.dispatch(&mut self.desk, cx);
    }

    /// Adds to what a member may take.
    pub(crate) fn credit(
        &mut self,
        member: Member,
        messages: u64,
        bytes: i64,
        cx: &mut Context<'_>,
    ) {
        let Some(taker) = self.desk.members.get_mut(&member) else {
            return;
        };
        taker.messages = taker.messages.saturating_add(messages);
        taker.bytes = taker.bytes.saturating_add(bytes);
        let cursor = taker.cursor;
        if let Some(active) = self.active.get_mut(&cursor) {
            active.enqueue(member, &mut self.desk);
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// Lets a member go. Its leases stay.
    pub(crate) fn leave(&mut self, member: Member) {
        if let Some(taker) = self.desk.members.get(&member) {
            let cursor = taker.cursor;
            if let Some(active) = self.active.get_mut(&cursor) {
                active.release(member, &mut self.desk);
            }
        }
    }

    /// Settles runs; the results of those that wait for the log come with `token`'s confirmation.
    pub(crate) fn settle(
        &mut self,
        token: RequestToken,
        cursor: CursorId,
        runs: &[SettleRun],
        cx: &mut Context<'_>,
    ) {
        self.activate(cursor, cx);
        let Some(active) = self.active.get_mut(&cursor) else {
            return;
        };
        active.touched = cx.now;
        let logged = cx.effects.journal.len();
        let results = runs
            .iter()
            .map(|run| active.settle_run(run, token, &mut self.desk, cx))
            .collect();
        let entries = cx.effects.journal[logged..]
            .iter()
            .filter(|entry| entry.token == Some(token))
            .count();
        self.wait_for(token, entries, Outcome::Settled(results), cx.effects);
        if let Some(active) = self.active.get_mut(&cursor) {
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// Moves a cursor's lanes.
    pub(crate) fn reset(
        &mut self,
        token: RequestToken,
        cursor: CursorId,
        moves: Vec<CursorMove>,
        cx: &mut Context<'_>,
    ) {
        self.activate(cursor, cx);
        let mut entries = 0;
        if let Some(active) = self.active.get_mut(&cursor) {
            for change in &moves {
                if active.set(change.queue, change.to, Some(token), &mut self.desk, cx) {
                    entries += 1;
                }
            }
        }
        self.wait_for(token, entries, Outcome::Reset(moves), cx.effects);
    }

    fn wait_for(
        &mut self,
        token: RequestToken,
        entries: usize,
        outcome: Outcome,
        effects: &mut Effects,
    ) {
        let pending = Pending {
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            outcome,
        };
        if entries == 0 {
            finish(token, pending.outcome, effects);
        } else {
            self.desk.pending.insert(token, pending);
        }
    }

    pub(crate) fn confirm(&mut self, tokens: &[RequestToken], effects: &mut Effects) {
        for token in tokens {
            let Some(pending) = self.desk.pending.get_mut(token) else {
                continue;
            };
            pending.entries -= 1;
            if pending.entries == 0
                && let Some(pending) = self.desk.pending.remove(token)
            {
                finish(*token, pending.outcome, effects);
            }
        }
    }

    /// A journal entry was applied to its shard.
    pub(crate) fn journaled(&mut self, entry: &JournalEntry, cx: &mut Context<'_>) {
        if let Some(active) = self.active.get_mut(&entry.cursor) {
            active.journaled(entry, &mut self.desk, cx);
        }
    }

    /// Goes on with a cursor after journal entries.
    pub(crate) fn dispatch(&mut self, cursor: CursorId, cx: &mut Context<'_>) {
        if let Some(active) = self.active.get_mut(&cursor) {
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// A queue has more messages.
    pub(crate) fn appended(&mut self, queue: QueueId, cx: &mut Context<'_>) {
        let Some(cursors) = self.by_queue.get(&queue) else {
            return;
        };
        for cursor in cursors {
            if let Some(active) = self.active.get_mut(cursor) {
                active.wake_queue(queue);
                active.dispatch(&mut self.desk, cx);
            }
        }
    }

    /// Everything of a queue before `start` is gone; its cursors know already.
    pub(crate) fn trimmed(&mut self, queue: QueueId, start: Offset, cx: &mut Context<'_>) {
        let Some(cursors) = self.by_queue.get(&queue) else {
            return;
        };
        for cursor in cursors {
            if let Some(active) = self.active.get_mut(cursor) {
                active.trimmed(queue, start.0, &mut self.desk, cx.now);
                active.dispatch(&mut self.desk, cx);
            }
        }
    }

    pub(crate) fn fetched(&mut self, token: FetchToken, fetched: Fetched, cx: &mut Context<'_>) {
        let Some((cursor, lane)) = self.desk.fetches.remove(&token) else {
            return;
        };
        if let Some(active) = self.active.get_mut(&cursor) {
            active.fetched(lane, fetched, &mut self.desk, cx);
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// Granted messages can't be sent.
    pub(crate) fn gone(&mut self, gone: &Gone, cx: &mut Context<'_>) {
        let Some(active) = self.active.get_mut(&gone.cursor) else {
            return;
        };
        active.gone(gone, &mut self.desk, cx);
        active.dispatch(&mut self.desk, cx);
    }

    /// A cursor's filters are others now.
    pub(crate) fn rebound(&mut self, cursor: CursorId, cx: &mut Context<'_>) {
        if let Some(active) = self.active.get_mut(&cursor) {
            active.rebound(&mut self.desk, cx);
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// A topic has more queues.
    pub(crate) fn grown(&mut self, topic: TopicId, cx: &mut Context<'_>) {
        for (cursor, active) in &mut self.active {
            if active.topic != topic {
                continue;
            }
            let fresh = active.grow(cx);
            for lane in &active.lanes[fresh.clone()] {
                self.by_queue.entry(lane.queue).or_default().push(*cursor);
            }
            active.begin(fresh, &mut self.desk, cx);
            active.dispatch(&mut self.desk, cx);
        }
    }

    /// A cursor is gone; its members are told why.
    pub(crate) fn removed(&mut self, cursor: CursorId, what: &str, effects: &mut Effects) {
        if !self.active.contains_key(&cursor) {
            return;
        }
        let members: Vec<_> = self
            .desk
            .members
            .iter()
            .filter(|(_, taker)| taker.cursor == cursor)
            .map(|(member, _)| *member)
            .collect();
        for member in members {
            self.leave(member);
            let refusal = Refusal::new(code::GROUP_DELETED, format!("{what} was removed"));
            match member {
                Member::Waiter(waiter) => effects.waiters_done.push(WaiterDone {
                    waiter,
                    outcome: Err(refusal),
                }),
                Member::Subscription(id) => effects.ended.push((id, refusal)),
            }
        }
        self.deactivate(cursor);
    }

    /// Does what is due, up to [`TICK_DEADLINES`].
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        let mut touched = BTreeSet::new();
        for _ in 0..TICK_DEADLINES {
            let Some(&(at, timer)) = self.desk.timers.first() else {
                break;
            };
            if at > cx.now {
                break;
            }
            self.desk.timers.pop_first();
            touched.extend(self.due(timer, cx));
        }
        for cursor in touched {
            self.dispatch(cursor, cx);
        }
    }

    /// Handles one deadline; tells which cursor may go on.
    fn due(&mut self, timer: Timer, cx: &mut Context<'_>) -> Option<CursorId> {
        match timer {
            Timer::Lease(cursor, lane, key) => {
                self.active.get_mut(&cursor)?.lapse(lane, key, cx);
                Some(cursor)
            }
            Timer::Due(cursor, lane) => {
                self.active
                    .get_mut(&cursor)?
                    .due(lane, &mut self.desk, cx.now);
                Some(cursor)
            }
            Timer::Passed(cursor, lane) => {
                let active = self.active.get_mut(&cursor)?;
                active.lanes[lane].passed_timer = None;
                active.flush_passed(lane, &mut self.desk, cx);
                None
            }
            Timer::Retry(cursor, lane) => {
                self.active.get_mut(&cursor)?.retry(lane);
                Some(cursor)
            }
            Timer::Wait(member) => {
                let cursor = self.desk.members.get(&member)?.cursor;
                self.active
                    .get_mut(&cursor)?
                    .end_wait(member, &mut self.desk, cx.effects);
                None
            }
            Timer::Idle(cursor) => {
                let active = self.active.get_mut(&cursor)?;
                if active.idle() && active.touched.plus_ms(IDLE_MS) <= cx.now {
                    for lane in 0..active.lanes.len() {
                        active.flush_passed(lane, &mut self.desk, cx);
                    }
                    self.deactivate(cursor);
                } else {
                    active.idle_at = cx.now.plus_ms(IDLE_MS);
                    self.desk
                        .timers
                        .insert((active.idle_at, Timer::Idle(cursor)));
                }
                None
            }
        }
    }

    /// Makes a cursor ready to be consumed.
    fn activate(&mut self, cursor: CursorId, cx: &mut Context<'_>) {
        if self.active.contains_key(&cursor) {
            return;
        }
        let Some(mut active) = Active::new(cursor, cx) else {
            return;
        };
        for queue in active.lanes.iter().map(|lane| lane.queue) {
            self.by_queue.entry(queue).or_default().push(cursor);
        }
        self.desk
            .timers
            .insert((active.idle_at, Timer::Idle(cursor)));
        active.begin(0..active.lanes.len(), &mut self.desk, cx);
        self.active.insert(cursor, active);
    }

    fn deactivate(&mut self, cursor: CursorId) {
        let Some(mut active) = self.active.remove(&cursor) else {
            return;
        };
        active.forget(&mut self.desk);
        for lane in &active.lanes {
            if let Some(cursors) = self.by_queue.get_mut(&lane.queue) {
                cursors.retain(|other| *other != cursor);
                if cursors.is_empty() {
                    self.by_queue.remove(&lane.queue);
                }
            }
        }
    }
}

/// A member about to join.
pub(crate) struct NewTaker {
    pub(crate) cursor: CursorId,
    pub(crate) messages: u64,
    pub(crate) bytes: i64,
    pub(crate) invisible_ms: u32,
    /// Set for long polls.
    pub(crate) wait_until: Option<Timestamp>,
    pub(crate) at_once: bool,
}

fn finish(token: RequestToken, outcome: Outcome, effects: &mut Effects) {
    match outcome {
        Outcome::Settled(results) => effects.settled.push((token, results)),
        Outcome::Reset(moves) => effects.resets.push((token, moves)),
    }
}
