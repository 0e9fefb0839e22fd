//! One queue under one cursor: what is ready, leased, parked, and on its way to the log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use tidegate_model::{Code, LeaseId, QueueId, ShardId, Timestamp};

use crate::cursor::CursorState;
use crate::id::FetchToken;
use crate::limit::REMEMBERED_ACKS;
use crate::range::RangeSet;

/// Delivery state of one queue under one cursor.
#[derive(Debug)]
pub(super) struct Lane {
    /// Index of the queue in its topic.
    pub(super) index: u32,
    pub(super) queue: QueueId,
    pub(super) shard: ShardId,
    /// Sets on their way to the log; nothing is delivered or settled meanwhile.
    pub(super) setting: u32,
    /// A filter's policy, or the owner, stopped delivery; why.
    pub(super) stopped: Option<Code>,
    /// Why the last fetch looked at nothing; it is tried again.
    pub(super) waits: Option<Code>,
    /// When the next fetch may be tried, after one that found no room.
    pub(super) retry: Option<Timestamp>,
    /// Everything before it was looked at.
    pub(super) scan: u64,
    /// Everything at or after it is untouched: never looked at, nor settled by a receipt.
    pub(super) untouched: u64,
    /// Accepted, not yet leased, offsets rising.
    pub(super) ready: VecDeque<Run>,
    pub(super) ready_count: u64,
    pub(super) fetch: Option<LaneFetch>,
    pub(super) leases: BTreeMap<LeaseKey, Lease>,
    /// Parked messages, by due time; those of a run that are leased again are taken out.
    pub(super) due: BTreeMap<DueKey, Run>,
    /// Parked messages to be judged again, likewise.
    pub(super) judge: BTreeMap<DueKey, Run>,
    pub(super) due_timer: Option<Timestamp>,
    /// Passed over by a filter, not yet logged.
    pub(super) passed: RangeSet,
    pub(super) passed_count: u64,
    pub(super) passed_timer: Option<Timestamp>,
    /// Their end is on its way to the log.
    pub(super) settling: RangeSet,
    /// Their parking is on its way to the log.
    pub(super) parking: RangeSet,
    /// What was acked under which lease lately, the latest last.
    pub(super) acked: VecDeque<(LeaseId, RangeSet)>,
    /// Stands in its cursor's line of lanes to look at.
    pub(super) queued: bool,
}

/// Messages of one batch.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) base: u64,
    pub(super) span: u16,
    pub(super) record_bytes: u32,
    pub(super) offsets: RangeSet,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct LaneFetch {
    pub(super) token: FetchToken,
    pub(super) from: u64,
    /// The parked run that is judged again; `None` looks at what is new.
    pub(super) judge: Option<DueKey>,
}

/// Parked messages of one batch that share due time and attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DueKey {
    pub(super) due: Timestamp,
    pub(super) base: u64,
    pub(super) attempt: u16,
}

/// A lease run; renewing some of its records splits it into parts with deadlines of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeaseKey {
    pub(super) base: u64,
    pub(super) lease: LeaseId,
    pub(super) part: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) span: u16,
    pub(super) attempt: u16,
    pub(super) record_bytes: u32,
    pub(super) deadline: Timestamp,
    /// What isn't settled yet; never empty.
    pub(super) open: RangeSet,
}

impl Lane {
    pub(super) fn new(index: u32, queue: QueueId, shard: ShardId) -> Self {
        Self {
            index,
            queue,
            shard,
            setting: 0,
            stopped: None,
            waits: None,
            retry: None,
            scan: 0,
            untouched: 0,
            ready: VecDeque::new(),
            ready_count: 0,
            fetch: None,
            leases: BTreeMap::new(),
            due: BTreeMap::new(),
            judge: BTreeMap::new(),
            due_timer: None,
            passed: RangeSet::new(),
            passed_count: 0,
            passed_timer: None,
            settling: RangeSet::new(),
            parking: RangeSet::new(),
            acked: VecDeque::new(),
            queued: false,
        }
    }

    /// Begins at what the log says.
    pub(super) fn start(&mut self, state: &CursorState) {
        self.scan = state.committed();
        self.untouched = self.scan;
        self.settling.clear();
        self.parking.clear();
        for (key, run) in state.parked() {
            self.park(
                DueKey {
                    due: key.due,
                    base: key.base,
                    attempt: key.attempt,
                },
                key.judge,
                Run {
                    base: key.base,
                    span: run.span,
                    record_bytes: run.record_bytes,
                    offsets: run.offsets.clone(),
                },
            );
        }
    }

    /// Adds parked messages.
    pub(super) fn park(&mut self, key: DueKey, judge: bool, run: Run) {
        if run.offsets.is_empty() {
            return;
        }
        let parked = if judge {
            &mut self.judge
        } else {
            &mut self.due
        };
        parked
            .entry(key)
            .and_modify(|there| there.offsets.union(&run.offsets))
            .or_insert(run);
    }

    pub(super) fn push_ready(&mut self, run: Run) {
        self.ready_count += run.offsets.count();
        self.ready.push_back(run);
    }

    /// Takes away what could be leased of a queue that begins at `start` now.
    pub(super) fn trim(&mut self, start: u64) {
        while let Some(run) = self.ready.front_mut() {
            let gone = run.offsets.within(0, start);
            if gone.is_empty() {
                break;
            }
            self.ready_count -= gone.count();
            run.offsets.subtract(&gone);
            if !run.offsets.is_empty() {
                break;
            }
            self.ready.pop_front();
        }
        for parked in [&mut self.due, &mut self.judge] {
            parked.retain(|_, run| {
                run.offsets.remove(0, start);
                !run.offsets.is_empty()
            });
        }
        self.passed.remove(0, start);
        self.passed_count = self.passed_count.min(self.passed.count());
        if start > self.scan {
            self.scan = start;
            self.untouched = self.untouched.max(start);
            // What couldn't be judged may be among what is gone.
            self.stopped = None;
        }
    }

    /// Forgets what waits for a member.
    pub(super) fn clear_ready(&mut self) {
        self.ready.clear();
        self.ready_count = 0;
    }

    /// When the next parked messages become due after `now`.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let after = Bound::Excluded(DueKey {
            due: now,
            base: u64::MAX,
            attempt: u16::MAX,
        });
        let next = |parked: &BTreeMap<DueKey, Run>| {
            parked
                .range((after, Bound::Unbounded))
                .next()
                .map(|(key, _)| key.due)
        };
        match (next(&self.due), next(&self.judge)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Parts of a lease.
    pub(super) fn parts(
        &self,
        base: u64,
        lease: LeaseId,
    ) -> impl DoubleEndedIterator<Item = (&LeaseKey, &Lease)> {
        let key = |part| LeaseKey { base, lease, part };
        self.leases.range(key(0)..=key(u16::MAX))
    }

    /// Everything leased of the batch at `base`.
    pub(super) fn leased_in(&self, base: u64) -> RangeSet {
        let key = |lease, part| LeaseKey { base, lease, part };
        let mut leased = RangeSet::new();
        for (_, lease) in self
            .leases
            .range(key(LeaseId(0), 0)..=key(LeaseId(u64::MAX), u16::MAX))
        {
            leased.union(&lease.open);
        }
        leased
    }

    /// Takes messages of the batch at `base` away from what could be leased.
    pub(super) fn withdraw(&mut self, base: u64, offsets: &RangeSet, state: &CursorState) {
        if let Some(end) = offsets.end() {
            self.untouched = self.untouched.max(end);
        }
        let at = self.ready.partition_point(|run| run.base < base);
        if let Some(run) = self.ready.get_mut(at)
            && run.base == base
        {
            let before = run.offsets.count();
            run.offsets.subtract(offsets);
            let after = run.offsets.count();
            self.ready_count -= before - after;
            if after == 0 {
                self.ready.remove(at);
            }
        }
        for (key, _) in state.parked_in(base) {
            let key = DueKey {
                due: key.due,
                base,
                attempt: key.attempt,
            };
            for parked in [&mut self.due, &mut self.judge] {
                if let Some(run) = parked.get_mut(&key) {
                    run.offsets.subtract(offsets);
                    if run.offsets.is_empty() {
                        parked.remove(&key);
                    }
                }
            }
        }
    }

    /// Remembers an ack.
    pub(super) fn note_ack(&mut self, lease: LeaseId, offsets: &RangeSet) {
        if let Some((last, acked)) = self.acked.back_mut()
            && *last == lease
        {
            acked.union(offsets);
            return;
        }
        if self.acked.len() >= REMEMBERED_ACKS {
            self.acked.pop_front();
        }
        self.acked.push_back((lease, offsets.clone()));
    }

    /// What of `offsets` is remembered as acked under a lease.
    pub(super) fn acked_under(&self, lease: LeaseId, offsets: &RangeSet) -> RangeSet {
        let mut found = RangeSet::new();
        for (_, acked) in self.acked.iter().filter(|(other, _)| *other == lease) {
            found.union(&offsets.intersection(acked));
        }
        found
    }

    /// Whether nothing would be lost by starting anew from the log.
    pub(super) fn idle(&self) -> bool {
        self.leases.is_empty()
            && self.setting == 0
            && self.settling.is_empty()
            && self.parking.is_empty()
    }
}
