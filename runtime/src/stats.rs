//! What a filter did, countable while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Failure;

/// Counters of one filter; read from any thread.
#[derive(Debug, Default)]
pub struct FilterStats {
    calls: AtomicU64,
    records: AtomicU64,
    kept: AtomicU64,
    fuel: AtomicU64,
    busy_ns: AtomicU64,
    instances: AtomicU64,
    memory_peak: AtomicU64,
    traps: AtomicU64,
    out_of_fuel: AtomicU64,
    deadlines: AtomicU64,
    memory: AtomicU64,
    guest_errors: AtomicU64,
    bad_verdicts: AtomicU64,
    failures_in_a_row: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Calls of `check`, failed ones included.
    pub calls: u64,
    /// Records given to the guest.
    pub records: u64,
    /// Records that it kept.
    pub kept: u64,
    /// Fuel that it used.
    pub fuel: u64,
    /// Nanoseconds spent in it, on the caller's thread.
    pub busy_ns: u64,
    /// Instances made: one for each run, and one more after each failure.
    pub instances: u64,
    /// The most bytes of linear memory that an instance had.
    pub memory_peak: u64,
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that ran out of fuel.
    pub out_of_fuel: u64,
    /// Calls cut for their CPU time.
    pub deadlines: u64,
    /// Calls that wanted too much memory.
    pub memory: u64,
    /// Calls that reported an error of their own.
    pub guest_errors: u64,
    /// Calls with a wrong answer.
    pub bad_verdicts: u64,
    /// Calls that failed since the last that didn't: what a breaker looks at.
    pub failures_in_a_row: u64,
}

impl FilterStats {
    /// The counters now. They are read one after another, not at one instant.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatsSnapshot {
            calls: read(&self.calls),
            records: read(&self.records),
            kept: read(&self.kept),
            fuel: read(&self.fuel),
            busy_ns: read(&self.busy_ns),
            instances: read(&self.instances),
            memory_peak: read(&self.memory_peak),
            traps: read(&self.traps),
            out_of_fuel: read(&self.out_of_fuel),
            deadlines: read(&self.deadlines),
            memory: read(&self.memory),
            guest_errors: read(&self.guest_errors),
            bad_verdicts: read(&self.bad_verdicts),
            failures_in_a_row: read(&self.failures_in_a_row),
        }
    }

    pub(crate) fn called(&self, records: usize, fuel: u64, busy: Duration, memory: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        let ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(ns, Ordering::Relaxed);
        self.memory_peak.fetch_max(memory as u64, Ordering::Relaxed);
    }

    pub(crate) fn started(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn judged(&self, kept: usize) {
        self.kept.fetch_add(kept as u64, Ordering::Relaxed);
        self.failures_in_a_row.store(0, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        let counter = match failure {
            Failure::Trap { .. } => &self.traps,
            Failure::OutOfFuel { .. } => &self.out_of_fuel,
            Failure::Deadline { .. } => &self.deadlines,
            Failure::Memory { .. } => &self.memory,
            Failure::Guest { .. } => &self.guest_errors,
            Failure::BadVerdict { .. } => &self.bad_verdicts,
            // None is one call's doing.
            Failure::Spent { .. }
            | Failure::Interrupted
            | Failure::InstancesFull { .. }
            | Failure::Disabled => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
    }
}
