//! One filter over some batches: its calls, and the search for the records on which one fails.

use std::ops::Range;

use tidegate_broker::request::OnError;
use tidegate_model::{Code, Timestamp};
use tidegate_runtime::{CallError, Failure, GuestBatch, Run, Verdicts};

/// Calls that one fetch spends on finding bad records; what is left then waits for the next fetch. Each
/// bad record takes two for each halving of its call, so 16 a call at most.
const SEARCH_CALLS_MAX: u32 = 512;

/// What became of the records.
pub(super) struct Outcome {
    /// Decided from the front; what isn't waits for the next fetch.
    pub(super) verdicts: Verdicts,
    /// Records on which the filter failed, each alone, as indexes over all batches.
    pub(super) failed: Vec<(usize, Failure)>,
    /// Why it ended before all was decided.
    pub(super) ended: Option<Reason>,
    /// Whether a call took all the CPU time that it may have.
    pub(super) is_cut: bool,
}

/// Why a filter's work on a fetch ends early.
#[derive(Clone, Debug)]
pub(super) struct Reason {
    pub(super) code: Code,
    pub(super) message: String,
}

impl From<&CallError> for Reason {
    fn from(error: &CallError) -> Self {
        Self {
            code: error.code(),
            message: error.failure.to_string(),
        }
    }
}

/// Calls a filter until everything is decided, or its time is spent. A call that fails is halved until
/// the record that it fails on is alone, and `policy` decides about that one. With
/// [`OnError::Stop`] nothing behind it is judged.
pub(super) fn run(
    run: &mut Run<'_>,
    now: Timestamp,
    guests: &[GuestBatch<'_>],
    policy: OnError,
) -> Outcome {
    let mut search = Search {
        run,
        now,
        guests,
        policy,
        calls_left: SEARCH_CALLS_MAX,
        outcome: Outcome {
            verdicts: Verdicts::new(guests),
            failed: Vec::new(),
            ended: None,
            is_cut: false,
        },
    };
    while !search.outcome.verdicts.is_complete() && search.outcome.ended.is_none() {
        let checked = search.run.check(now, guests, &mut search.outcome.verdicts);
        if let Err(error) = checked {
            search.narrow(&error);
        }
    }
    search.outcome
}

struct Search<'s, 'r, 'b> {
    run: &'s mut Run<'r>,
    now: Timestamp,
    guests: &'s [GuestBatch<'b>],
    policy: OnError,
    calls_left: u32,
    outcome: Outcome,
}

impl Search<'_, '_, '_> {
    /// Decides about the records of a call that failed, or ends.
    fn narrow(&mut self, error: &CallError) {
        self.outcome.is_cut |= matches!(error.failure, Failure::Deadline { .. });
        if error.is_start || !error.failure.is_of_records() {
            let mut reason = Reason::from(error);
            if matches!(error.failure, Failure::Deadline { .. }) {
                // It started in time when it was bound: a busy machine may be to blame.
                reason.code = tidegate_model::code::PLUGIN_PAUSED;
            }
            self.outcome.ended = Some(reason);
            return;
        }
        let records = error.records.clone();
        if records.len() == 1 {
            return self.fail(records.start, error);
        }
        let middle = records.start + records.len() / 2;
        for half in [records.start..middle, middle..records.end] {
            if self.outcome.ended.is_some() {
                return;
            }
            if self.calls_left == 0 {
                self.outcome.ended = Some(Reason {
                    code: tidegate_model::code::PLUGIN_PAUSED,
                    message: format!("{SEARCH_CALLS_MAX} calls were spent on finding bad records"),
                });
                return;
            }
            self.calls_left -= 1;
            self.try_half(half);
        }
    }

    fn try_half(&mut self, half: Range<usize>) {
        let window = window(self.guests, half.clone());
        let mut verdicts = Verdicts::new(&window);
        let checked = self.run.check(self.now, &window, &mut verdicts);
        for index in 0..verdicts.decided() {
            self.outcome.verdicts.decide(1, verdicts.keeps(index));
        }
        if let Err(error) = checked {
            let records = half.start + error.records.start..half.start + error.records.end;
            // A large half may have been judged in several calls, of which one failed.
            let rest = records.end..half.end;
            self.narrow(&CallError { records, ..error });
            if !rest.is_empty() && self.outcome.ended.is_none() {
                self.try_half(rest);
            }
        }
    }

    fn fail(&mut self, record: usize, error: &CallError) {
        self.outcome
            .verdicts
            .decide(1, self.policy == OnError::Pass);
        self.outcome.failed.push((record, error.failure.clone()));
        if self.policy == OnError::Stop {
            self.outcome.ended = Some(error.into());
        }
    }
}

/// The batches cut to a range of records, counted over all of them.
fn window<'a>(guests: &[GuestBatch<'a>], records: Range<usize>) -> Vec<GuestBatch<'a>> {
    let mut first = 0;
    let mut window = Vec::new();
    for guest in guests {
        let end = first + guest.count();
        let (from, until) = (records.start.max(first), records.end.min(end));
        if from < until {
            let skipped = guest.range().start;
            window.push(
                guest
                    .clone()
                    .records(skipped + from - first..skipped + until - first),
            );
        }
        first = end;
    }
    window
}
