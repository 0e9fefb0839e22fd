//! Gathering settlements into runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tidegate_model::limits::BATCH_RECORDS_MAX;
use tidegate_model::{Code, code};
use tidegate_wire::limits::SETTLE_RUNS_MAX;
use tidegate_wire::settle::RUN_BYTES;
use tidegate_wire::{Outcome, Receipt, SettleRun};

use super::{RefusedSettle, Settled};
use crate::Error;
use crate::message::Handle;

/// Bytes of encoded runs in one frame, well below what a control frame takes.
const FRAME_BYTES: usize = 48 * 1024;
/// Runs that wait to be sent beyond which callers wait.
const WAITING_RUNS_MAX: usize = 16 * 1024;
/// Ranges of one run: every other record of a full batch.
const RANGES_MAX: usize = BATCH_RECORDS_MAX / 2;

const _: () = assert!(RUN_BYTES + (RANGES_MAX + 1) * 4 <= FRAME_BYTES);

/// Settlements on their way, in the order in which they were said.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: VecDeque<SettleRun>,
    /// Number of the first run in `waiting` since the beginning.
    first: u64,
    /// Number of the run that gathers acknowledgements of a lease.
    acks: HashMap<Receipt, u64>,
    in_flight: Option<(u64, Vec<SettleRun>)>,
    /// Records said, and those whose outcome is known.
    said: u64,
    answered: u64,
    report: Settled,
}

impl Settling {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_RUNS_MAX
    }

    /// Whether a frame can be sent now: one at a time, what is said meanwhile shares the next.
    pub(super) fn can_send(&self) -> bool {
        self.in_flight.is_none() && !self.waiting.is_empty()
    }

    /// Records said so far.
    pub(super) fn said(&self) -> u64 {
        self.said
    }

    /// Records whose outcome is known.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn take_report(&mut self) -> Settled {
        std::mem::take(&mut self.report)
    }

    /// Says it of the records of a run from `range.0` to `range.1`, exclusive.
    pub(super) fn say(&mut self, receipt: Receipt, range: (u16, u16), outcome: Outcome) {
        self.said += u64::from(range.1 - range.0);
        if outcome == Outcome::Ack {
            if let Some(run) = self.gathering(&receipt)
                && add(&mut run.records, range)
            {
                return;
            }
            let number = self.first + self.waiting.len() as u64;
            self.acks.insert(receipt, number);
        }
        self.waiting.push_back(SettleRun {
            receipt,
            records: vec![range],
            outcome,
        });
    }

    fn gathering(&mut self, receipt: &Receipt) -> Option<&mut SettleRun> {
        let number = self.acks.get(receipt)?.checked_sub(self.first)?;
        self.waiting.get_mut(usize::try_from(number).ok()?)
    }

    /// The runs of the next frame.
    pub(super) fn next_frame(&mut self) -> Vec<SettleRun> {
        let mut bytes = 0;
        let mut runs = Vec::new();
        while let Some(run) = self.waiting.front() {
            bytes += RUN_BYTES + (run.records.len() + 1) * 4;
            if runs.len() == SETTLE_RUNS_MAX || bytes > FRAME_BYTES {
                break;
            }
            if let Some(run) = self.waiting.pop_front() {
                if self.acks.get(&run.receipt) == Some(&self.first) {
                    self.acks.remove(&run.receipt);
                }
                self.first += 1;
                runs.push(run);
            }
        }
        runs
    }

    pub(super) fn sent(&mut self, ticket: u64, runs: Vec<SettleRun>) {
        self.in_flight = Some((ticket, runs));
    }

    /// Runs that didn't reach the server go out again, before all others.
    pub(super) fn put_back(&mut self, runs: Vec<SettleRun>) {
        // Numbers count from the front: those of the gathering runs move.
        let count = runs.len() as u64;
        for number in self.acks.values_mut() {
            *number += count;
        }
        for run in runs.into_iter().rev() {
            self.waiting.push_front(run);
        }
    }

    /// The connection broke: what was in flight goes out again.
    pub(super) fn disconnected(&mut self) {
        if let Some((_, runs)) = self.in_flight.take() {
            self.put_back(runs);
        }
    }

    /// The runs in flight under this ticket.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Vec<SettleRun>> {
        let (_, runs) = self.in_flight.take_if(|(number, _)| *number == ticket)?;
        Some(runs)
    }

    /// What became of each run.
    pub(super) fn outcome(&mut self, runs: &[SettleRun], results: &[Result<(), Code>]) {
        for (index, run) in runs.iter().enumerate() {
            // An answer that is too short says nothing good about the rest.
            let result = results.get(index).copied();
            self.answer(run, result.unwrap_or(Err(code::PROTOCOL)));
        }
    }

    /// None of them took effect.
    pub(super) fn refuse(&mut self, runs: &[SettleRun], why: Code) {
        for run in runs {
            self.answer(run, Err(why));
        }
    }

    fn answer(&mut self, run: &SettleRun, result: Result<(), Code>) {
        let count = run
            .records
            .iter()
            .map(|(first, end)| u64::from(end - first))
            .sum::<u64>();
        self.answered += count;
        match result {
            Ok(()) => self.report.done += count,
            Err(code) => {
                for &(first, end) in &run.records {
                    if self.report.refused.len() < Settled::REFUSED_MAX {
                        self.report.refused.push(RefusedSettle {
                            code,
                            queue: run.receipt.queue,
                            from: run.receipt.base_offset.plus(first.into()),
                            to: run.receipt.base_offset.plus(end.into()),
                        });
                    }
                }
            }
        }
    }
}

/// Adds a range to sorted ones that don't touch; false if there would be too many, or part of it is
/// there already.
fn add(ranges: &mut Vec<(u16, u16)>, range: (u16, u16)) -> bool {
    let at = ranges.partition_point(|&(first, _)| first < range.0);
    let before = at.checked_sub(1).map(|before| ranges[before]);
    let after = ranges.get(at).copied();
    if before.is_some_and(|(_, end)| end > range.0)
        || after.is_some_and(|(first, _)| first < range.1)
    {
        return false;
    }
    let joins_before = before.is_some_and(|(_, end)| end == range.0);
    let joins_after = after.is_some_and(|(first, _)| first == range.1);
    match (joins_before, joins_after) {
        (true, true) => {
            ranges[at - 1].1 = ranges[at].1;
            ranges.remove(at);
        }
        (true, false) => ranges[at - 1].1 = range.1,
        (false, true) => ranges[at].0 = range.0,
        (false, false) if ranges.len() >= RANGES_MAX => return false,
        (false, false) => ranges.insert(at, range),
    }
    true
}

/// Runs that say the same of all these handles, and for each handle its run.
pub(crate) fn runs(
    handles: &[Handle],
    outcome: Outcome,
) -> Result<(Vec<SettleRun>, Vec<usize>), Error> {
    let mut runs: Vec<SettleRun> = Vec::new();
    let mut known: HashMap<Receipt, usize> = HashMap::new();
    let mut places = Vec::with_capacity(handles.len());
    for handle in handles {
        let receipt = receipt(handle)?;
        let range = (handle.delta, handle.delta + 1);
        if let Some(&at) = known.get(&receipt)
            && add(&mut runs[at].records, range)
        {
            places.push(at);
            continue;
        }
        known.insert(receipt, runs.len());
        places.push(runs.len());
        runs.push(SettleRun {
            receipt,
            records: vec![range],
            outcome,
        });
    }
    Ok((runs, places))
}

/// The receipt in a handle.
pub(super) fn receipt(handle: &Handle) -> Result<Receipt, Error> {
    handle
        .run
        .as_ref()
        .map(Arc::as_ref)
        .copied()
        .ok_or_else(|| {
            Error::new(
                code::LEASE_INVALID,
                "the message was read without a group, so there is nothing to settle",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::LeaseId;

    fn lease(number: u64) -> Receipt {
        Receipt {
            lease: LeaseId(number),
            span: 100,
            ..Receipt::default()
        }
    }

    #[test]
    fn acks_of_a_run_share_an_entry_whatever_their_order() {
        let mut settling = Settling::default();
        for delta in [3, 1, 2, 7, 0, 9, 8] {
            settling.say(lease(1), (delta, delta + 1), Outcome::Ack);
            settling.say(lease(2), (delta, delta + 1), Outcome::Ack);
        }
        settling.say(lease(1), (20, 21), Outcome::Nack { delay_ms: None });
        let frame = settling.next_frame();
        assert_eq!(frame.len(), 3);
        assert_eq!(frame[0].records, [(0, 4), (7, 10)]);
        assert_eq!(frame[1].records, frame[0].records);
        assert_eq!(frame[2].records, [(20, 21)]);
        assert_eq!(settling.said(), 15);
    }

    #[test]
    fn what_is_put_back_goes_first_and_counts_once() {
        let mut settling = Settling::default();
        settling.say(lease(1), (0, 1), Outcome::Ack);
        let frame = settling.next_frame();
        settling.sent(1, frame);
        settling.say(lease(2), (0, 1), Outcome::Ack);
        assert!(!settling.can_send());
        settling.disconnected();
        settling.say(lease(2), (1, 2), Outcome::Ack);
        let frame = settling.next_frame();
        let leases: Vec<u64> = frame.iter().map(|run| run.receipt.lease.0).collect();
        assert_eq!(leases, [1, 2]);
        assert_eq!(frame[1].records, [(0, 2)]);
        settling.sent(2, frame);
        assert_eq!(settling.take(1), None);
        let frame = settling.take(2).unwrap();
        settling.outcome(&frame, &[Err(code::LEASE_EXPIRED), Ok(())]);
        assert_eq!(settling.answered(), settling.said());
        let report = settling.take_report();
        assert_eq!(report.done, 2);
        assert_eq!(report.refused[0].code, code::LEASE_EXPIRED);
    }

    #[test]
    fn a_frame_stays_below_its_limit() {
        let mut settling = Settling::default();
        for number in 0..3000 {
            settling.say(lease(number), (0, 1), Outcome::Ack);
        }
        let frame = settling.next_frame();
        assert!(frame.len() > 500);
        assert!(tidegate_wire::settle::encode_runs(&frame).len() <= FRAME_BYTES);
        let frame = tidegate_wire::SettleFrame {
            ticket: 1,
            subscription: 1,
            runs: frame,
        };
        assert!(frame.encode().is_ok());
    }
}
