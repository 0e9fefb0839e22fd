//! Acks, nacks, renewals and lapses.

use tidegate_model::{Code, LeaseId, Timestamp, code};

use super::active::Active;
use super::lane::{Lane, Lease, LeaseKey, Run};
use super::{Context, Desk, Timer};
use crate::cursor::CursorState;
use crate::effects::{DeadLetterReason, Gone};
use crate::id::RequestToken;
use crate::journal::Change;
use crate::limit::{INVISIBLE_MS_MAX, INVISIBLE_MS_MIN, LEASES_MAX, UNKNOWN_RECORD_BYTES};
use crate::range::RangeSet;
use crate::request::{Outcome, Receipt, SettleRun};

impl Active {
    /// Does what the holder says about one run, as far as it holds it.
    ///
    /// A part of the run that is no longer the holder's makes the result `LEASE_EXPIRED`; the rest
    /// is carried out all the same. A repeated ack is no error while its lease is remembered.
    pub(super) fn settle_run(
        &mut self,
        run: &SettleRun,
        token: RequestToken,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Result<(), Code> {
        let receipt = &run.receipt;
        let offsets = offsets_of(run)?;
        let index = self.lane_of(receipt.queue).ok_or(code::LEASE_INVALID)?;
        let lane = &self.lanes[index];
        if receipt.lease.0 >= desk.next_lease {
            return Err(code::LEASE_INVALID);
        }
        let state = cx.shards[lane.shard.0 as usize].cursor(lane.queue, self.id);
        let Some(state) =
            state.filter(|state| lane.setting == 0 && receipt.lease >= state.lease_floor())
        else {
            return Err(code::LEASE_EXPIRED);
        };
        match run.outcome {
            Outcome::Ack => self.ack(index, receipt, offsets, token, state, desk, cx),
            Outcome::Nack { delay_ms } => {
                let (held, result) = self.hold(index, receipt, offsets, state, desk);
                for (key, mine) in held {
                    self.nack(index, key, mine, delay_ms, token, desk, cx);
                }
                result
            }
            Outcome::Extend { invisible_ms } => {
                if !(INVISIBLE_MS_MIN..=INVISIBLE_MS_MAX).contains(&invisible_ms) {
                    return Err(code::INVALID_ARGUMENT);
                }
                let until = cx.now.plus_ms(i64::from(invisible_ms));
                let (held, result) = self.hold(index, receipt, offsets, state, desk);
                for (key, mine) in held {
                    self.extend(index, key, mine, until, desk);
                }
                result
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of settling, split off for reading"
    )]
    fn ack(
        &mut self,
        index: usize,
        receipt: &Receipt,
        mut offsets: RangeSet,
        token: RequestToken,
        state: &CursorState,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Result<(), Code> {
        let base = receipt.base_offset.0;
        let mut acked = RangeSet::new();
        let mut result = Ok(());
        for (key, mine) in self.mine(index, base, receipt.lease, &offsets) {
            self.take_open(index, key, &mine, desk);
            offsets.subtract(&mine);
            acked.union(&mine);
        }
        let lane = &mut self.lanes[index];
        if !offsets.is_empty() {
            let logged = lane.done_of(state, base, &offsets);
            let settling = offsets.intersection(&lane.settling);
            let mut foreign = logged.clone();
            foreign.union(&settling);
            let repeated = lane.acked_under(receipt.lease, &foreign);
            foreign.subtract(&repeated);
            if !foreign.is_empty() {
                result = Err(code::LEASE_EXPIRED);
            }
            // A repeated ack is logged again, so that it isn't confirmed before the first.
            acked.union(&repeated.intersection(&settling));
            offsets.subtract(&logged);
            offsets.subtract(&settling);
            let elsewhere = offsets.intersection(&lane.leased_in(base));
            if !elsewhere.is_empty() {
                result = Err(code::LEASE_EXPIRED);
                offsets.subtract(&elsewhere);
            }
            // In nobody's hands: the lease lapsed, or was granted before a restart.
            if !offsets.is_empty() {
                lane.withdraw(base, &offsets, state);
                acked.union(&offsets);
            }
        }
        if acked.is_empty() {
            return result;
        }
        let lane = &mut self.lanes[index];
        lane.settling.union(&acked);
        lane.note_ack(receipt.lease, &acked);
        if let Some(passed) = self.take_passed(index, desk) {
            acked.union(&passed);
        }
        let done = Change::Done { offsets: acked };
        self.log(index, done, Some(token), cx.effects);
        self.wake(index);
        result
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of settling, split off for reading"
    )]
    fn nack(
        &mut self,
        index: usize,
        key: LeaseKey,
        mine: RangeSet,
        delay_ms: Option<u32>,
        token: RequestToken,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) {
        let Some(lease) = self.take_open(index, key, &mine, desk) else {
            return;
        };
        let delay = delay_ms.map_or_else(|| self.backoff_ms(lease.attempt), i64::from);
        let run = Run {
            base: key.base,
            span: lease.span,
            record_bytes: lease.record_bytes,
            offsets: mine,
        };
        self.give_back(
            index,
            run,
            lease.attempt,
            cx.now.plus_ms(delay),
            Some(token),
            cx,
        );
        self.wake(index);
    }

    fn extend(
        &mut self,
        index: usize,
        key: LeaseKey,
        mine: RangeSet,
        until: Timestamp,
        desk: &mut Desk,
    ) {
        let Some(lease) = self.take_open(index, key, &mine, desk) else {
            return;
        };
        let lane = &mut self.lanes[index];
        let part = match lane.parts(key.base, key.lease).next_back() {
            Some((last, _)) if lane.leases.contains_key(&key) => last.part.checked_add(1),
            _ => Some(key.part),
        };
        // Each part holds a record of its own, and a batch has fewer records than there are parts.
        let part = part.expect("a lease has at most as many parts as records");
        let key = LeaseKey { part, ..key };
        desk.timers
            .insert((until, Timer::Lease(self.id, index, key)));
        let renewed = Lease {
            deadline: until,
            open: mine,
            ..lease
        };
        lane.leases.insert(key, renewed);
    }

    /// What compaction took while it was leased is done, as what is passed over; what can't be read is
    /// given back.
    pub(super) fn gone(&mut self, gone: &Gone, desk: &mut Desk, cx: &mut Context<'_>) {
        let Some(index) = self.lane_of(gone.queue) else {
            return;
        };
        for (key, mine) in self.mine(index, gone.base_offset.0, gone.lease, &gone.offsets) {
            let Some(lease) = self.take_open(index, key, &mine, desk) else {
                continue;
            };
            if gone.unreadable {
                self.unsettled(index, key, &lease, mine, cx);
                continue;
            }
            let lane = &mut self.lanes[index];
            lane.passed_count += mine.count();
            lane.passed.union(&mine);
        }
        self.note_passed(index, desk, cx);
        self.wake(index);
    }

    /// A lease's time is over.
    pub(super) fn lapse(&mut self, index: usize, key: LeaseKey, cx: &mut Context<'_>) {
        let Some(lease) = self.lanes[index].leases.remove(&key) else {
            return;
        };
        let open = lease.open.clone();
        self.unsettled(index, key, &lease, open, cx);
        self.wake(index);
    }

    /// Nobody said what became of messages of a lease: their delivery failed.
    fn unsettled(
        &mut self,
        index: usize,
        key: LeaseKey,
        lease: &Lease,
        offsets: RangeSet,
        cx: &mut Context<'_>,
    ) {
        let due = cx.now.plus_ms(self.backoff_ms(lease.attempt));
        let run = Run {
            base: key.base,
            span: lease.span,
            record_bytes: lease.record_bytes,
            offsets,
        };
        self.give_back(index, run, lease.attempt, due, None, cx);
    }

    /// Messages whose delivery failed wait for the next, or leave the group.
    fn give_back(
        &mut self,
        index: usize,
        run: Run,
        attempt: u16,
        due: Timestamp,
        token: Option<RequestToken>,
        cx: &mut Context<'_>,
    ) {
        if attempt < self.policy.max_attempts {
            self.park(index, run, attempt + 1, due, false, token, cx);
        } else {
            self.dead_letter(index, &run, attempt, DeadLetterReason::Attempts, cx);
        }
    }

    /// Parts of a lease with what of `offsets` they hold.
    fn mine(
        &self,
        index: usize,
        base: u64,
        lease: LeaseId,
        offsets: &RangeSet,
    ) -> Vec<(LeaseKey, RangeSet)> {
        self.lanes[index]
            .parts(base, lease)
            .map(|(key, lease)| (*key, lease.open.intersection(offsets)))
            .filter(|(_, mine)| !mine.is_empty())
            .collect()
    }

    /// What of `offsets` the receipt holds. Messages that nobody was given since the receipt was
    /// made (before a restart) are leased to it again.
    fn hold(
        &mut self,
        index: usize,
        receipt: &Receipt,
        mut offsets: RangeSet,
        state: &CursorState,
        desk: &mut Desk,
    ) -> (Vec<(LeaseKey, RangeSet)>, Result<(), Code>) {
        let base = receipt.base_offset.0;
        let mut held = self.mine(index, base, receipt.lease, &offsets);
        for (_, mine) in &held {
            offsets.subtract(mine);
        }
        if offsets.is_empty() {
            return (held, Ok(()));
        }
        let before = offsets.clone();
        let lane = &mut self.lanes[index];
        offsets.subtract(&lane.done_of(state, base, &before));
        offsets.subtract(&lane.settling);
        offsets.subtract(&lane.parking);
        offsets.subtract(&lane.leased_in(base));
        let mut record_bytes = UNKNOWN_RECORD_BYTES;
        let mut fresh = offsets.clone();
        for (key, run) in state.parked_in(base) {
            fresh.subtract(&run.offsets);
            if key.attempt == receipt.attempt && !key.judge {
                record_bytes = run.record_bytes;
            } else {
                offsets.subtract(&run.offsets);
            }
        }
        if receipt.attempt != 1 {
            offsets.subtract(&fresh);
        }
        let result = if offsets == before {
            Ok(())
        } else {
            Err(code::LEASE_EXPIRED)
        };
        if offsets.is_empty() || lane.leases.len() >= LEASES_MAX {
            return (held, Err(code::LEASE_EXPIRED));
        }
        let part = lane
            .parts(base, receipt.lease)
            .next_back()
            .map_or(Some(0), |(key, _)| key.part.checked_add(1))
            .expect("a lease has at most as many parts as records");
        let key = LeaseKey {
            base,
            lease: receipt.lease,
            part,
        };
        lane.withdraw(base, &offsets, state);
        // The caller gives it back or renews it at once, so no deadline is set here.
        lane.leases.insert(
            key,
            Lease {
                span: receipt.span,
                attempt: receipt.attempt,
                record_bytes,
                deadline: Timestamp(i64::MAX),
                open: offsets.clone(),
            },
        );
        desk.timers
            .insert((Timestamp(i64::MAX), Timer::Lease(self.id, index, key)));
        held.push((key, offsets));
        (held, result)
    }

    /// Takes messages out of a part of a lease, and the part with its last ones.
    fn take_open(
        &mut self,
        index: usize,
        key: LeaseKey,
        mine: &RangeSet,
        desk: &mut Desk,
    ) -> Option<Lease> {
        let lane = &mut self.lanes[index];
        let lease = lane.leases.get_mut(&key)?;
        lease.open.subtract(mine);
        if !lease.open.is_empty() {
            return Some(lease.clone());
        }
        let lease = lane.leases.remove(&key)?;
        desk.timers
            .remove(&(lease.deadline, Timer::Lease(self.id, index, key)));
        Some(lease)
    }
}

impl Lane {
    /// Which of `offsets`, all in the batch at `base`, are done, logged or not.
    fn done_of(&self, state: &CursorState, base: u64, offsets: &RangeSet) -> RangeSet {
        let mut done = state.done_of(base, offsets);
        done.union(&offsets.intersection(&self.passed));
        done
    }
}

/// The offsets that a run speaks of, if its ranges rise within the frame.
fn offsets_of(run: &SettleRun) -> Result<RangeSet, Code> {
    let base = run.receipt.base_offset.0;
    if base.checked_add(u64::from(run.receipt.span)).is_none() {
        return Err(code::LEASE_INVALID);
    }
    let mut offsets = RangeSet::new();
    for &(first, end) in &run.records {
        if first >= end || end > run.receipt.span {
            return Err(code::INVALID_ARGUMENT);
        }
        offsets.insert(base + u64::from(first), base + u64::from(end));
    }
    if offsets.is_empty() {
        return Err(code::INVALID_ARGUMENT);
    }
    Ok(offsets)
}
