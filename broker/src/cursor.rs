//! A group's cursor on one queue, as the shard's journal makes it: the same at replay as when live.

use std::collections::BTreeMap;

use tidegate_model::{LeaseId, Offset, Timestamp};

use crate::journal::{Change, Parked};
use crate::range::RangeSet;

/// What of a queue is done, parked, or still to come for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CursorState {
    /// Every message before it is done or parked.
    committed: u64,
    /// Done messages at or after `committed`; never holds `committed` itself.
    done: RangeSet,
    /// Messages that wait for another attempt, wherever they lie.
    parked: BTreeMap<ParkKey, ParkedRun>,
    /// Receipts of lower leases are void.
    lease_floor: LeaseId,
}

/// Parked messages of one batch that share attempt and due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ParkKey {
    pub(crate) base: u64,
    pub(crate) attempt: u16,
    pub(crate) due: Timestamp,
    pub(crate) judge: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParkedRun {
    pub(crate) span: u16,
    pub(crate) record_bytes: u32,
    pub(crate) offsets: RangeSet,
}

impl ParkKey {
    /// Below every key of the batch at `base`.
    fn lowest(base: u64) -> Self {
        Self {
            base,
            attempt: 0,
            due: Timestamp(i64::MIN),
            judge: false,
        }
    }

    pub(crate) fn of(parked: &Parked) -> Self {
        Self {
            base: parked.base_offset.0,
            attempt: parked.attempt,
            due: parked.due,
            judge: parked.judge,
        }
    }

    pub(crate) fn parked(self, run: &ParkedRun) -> Parked {
        Parked {
            base_offset: Offset(self.base),
            span: run.span,
            attempt: self.attempt,
            due: self.due,
            record_bytes: run.record_bytes,
            judge: self.judge,
        }
    }
}

impl CursorState {
    /// A cursor at its first message.
    pub(crate) fn new(at: Offset, lease_floor: LeaseId) -> Self {
        Self {
            committed: at.0,
            done: RangeSet::new(),
            parked: BTreeMap::new(),
            lease_floor,
        }
    }

    /// A cursor out of its parts, as a snapshot has them.
    pub(crate) fn from_parts(
        at: Offset,
        lease_floor: LeaseId,
        done: RangeSet,
        parked: impl IntoIterator<Item = (RangeSet, Parked)>,
    ) -> Self {
        let mut state = Self::new(at, lease_floor);
        state.done = done;
        for (offsets, parked) in parked {
            state.parked.insert(
                ParkKey::of(&parked),
                ParkedRun {
                    span: parked.span,
                    record_bytes: parked.record_bytes,
                    offsets,
                },
            );
        }
        state
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    pub(crate) fn done(&self) -> &RangeSet {
        &self.done
    }

    pub(crate) fn lease_floor(&self) -> LeaseId {
        self.lease_floor
    }

    pub(crate) fn parked(&self) -> &BTreeMap<ParkKey, ParkedRun> {
        &self.parked
    }

    /// Messages parked.
    pub(crate) fn parked_count(&self) -> u64 {
        self.parked.values().map(|run| run.offsets.count()).sum()
    }

    /// Parked runs of the batch at `base`.
    pub(crate) fn parked_in(&self, base: u64) -> impl Iterator<Item = (&ParkKey, &ParkedRun)> {
        self.parked
            .range(ParkKey::lowest(base)..ParkKey::lowest(base.saturating_add(1)))
    }

    /// Parked messages from `first` up to, not including, `end`.
    pub(crate) fn parked_within(&self, first: u64, end: u64) -> RangeSet {
        let mut parked = RangeSet::new();
        for (key, run) in self.parked.range(..ParkKey::lowest(end)).rev() {
            if key.base.saturating_add(u64::from(run.span)) <= first {
                break;
            }
            parked.union(&run.offsets.within(first, end));
        }
        parked
    }

    /// Which of `offsets`, all in the batch at `base`, are done.
    pub(crate) fn done_of(&self, base: u64, offsets: &RangeSet) -> RangeSet {
        let mut done = offsets.within(0, self.committed);
        if !done.is_empty() {
            for (_, run) in self.parked_in(base) {
                done.subtract(&run.offsets);
            }
        }
        done.union(&offsets.intersection(&self.done));
        done
    }

    /// Applies a journal entry.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Set { at, lease_floor } => *self = Self::new(*at, *lease_floor),
            Change::Done { offsets } => self.finish(offsets),
            Change::Park { offsets, parked } => self.park(offsets, parked),
        }
    }

    /// All before `start` is gone from the queue. How many messages of it were not done.
    pub(crate) fn trim(&mut self, start: u64) -> u64 {
        let mut lost = 0;
        let mut emptied = Vec::new();
        for (key, run) in self.parked.range_mut(..ParkKey::lowest(start)) {
            let gone = run.offsets.within(0, start);
            lost += gone.within(0, self.committed).count();
            run.offsets.subtract(&gone);
            if run.offsets.is_empty() {
                emptied.push(*key);
            }
        }
        for key in emptied {
            self.parked.remove(&key);
        }
        if let Some(skipped) = start.checked_sub(self.committed) {
            lost += skipped - self.done.within(self.committed, start).count();
            self.done.remove(0, start);
            self.committed = start;
            self.advance();
        }
        lost
    }

    /// Everything before it is done: neither parked nor still to come.
    pub(crate) fn consumed(&self) -> u64 {
        let lowest = self.parked.keys().next().map(|key| key.base);
        lowest
            .into_iter()
            .flat_map(|base| self.parked_in(base))
            .filter_map(|(_, run)| run.offsets.first())
            .fold(self.committed, u64::min)
    }

    fn finish(&mut self, offsets: &RangeSet) {
        self.unpark(offsets);
        for range in offsets.ranges() {
            self.done.insert(range.first.max(self.committed), range.end);
        }
        self.advance();
    }

    fn park(&mut self, offsets: &RangeSet, parked: &Parked) {
        let mut offsets = offsets.clone();
        let done = self.done_of(parked.base_offset.0, &offsets);
        offsets.subtract(&done);
        if offsets.is_empty() {
            return;
        }
        self.unpark(&offsets);
        let run = self
            .parked
            .entry(ParkKey::of(parked))
            .or_insert_with(|| ParkedRun {
                span: parked.span,
                record_bytes: parked.record_bytes,
                offsets: RangeSet::new(),
            });
        run.offsets.union(&offsets);
        self.advance();
    }

    /// Takes offsets out of the parked runs.
    fn unpark(&mut self, offsets: &RangeSet) {
        if self.parked.is_empty() {
            return;
        }
        let (Some(first), Some(end)) = (offsets.first(), offsets.end()) else {
            return;
        };
        // A batch that begins before `first` may reach into it, and only the last such batch.
        let from = self
            .parked
            .range(..ParkKey::lowest(first.saturating_add(1)))
            .next_back()
            .map_or(first, |(key, _)| key.base.min(first));
        let mut emptied = Vec::new();
        for (key, run) in self
            .parked
            .range_mut(ParkKey::lowest(from)..ParkKey::lowest(end))
        {
            run.offsets.subtract(offsets);
            if run.offsets.is_empty() {
                emptied.push(*key);
            }
        }
        for key in emptied {
            self.parked.remove(&key);
        }
    }

    /// Moves `committed` over what is done or parked.
    fn advance(&mut self) {
        loop {
            let before = self.committed;
            if let Some(range) = self.done.ranges().first()
                && range.first <= self.committed
            {
                self.committed = self.committed.max(range.end);
                self.done.remove(0, self.committed);
            }
            if let Some(base) = self
                .parked
                .range(..ParkKey::lowest(self.committed.saturating_add(1)))
                .next_back()
                .map(|(key, _)| key.base)
            {
                let end = self
                    .parked_in(base)
                    .filter_map(|(_, run)| {
                        let rest = run.offsets.within(self.committed, u64::MAX);
                        let range = *rest.ranges().first()?;
                        (range.first == self.committed).then_some(range.end)
                    })
                    .max();
                if let Some(end) = end {
                    self.committed = end;
                    self.done.remove(0, end);
                }
            }
            if self.committed == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
