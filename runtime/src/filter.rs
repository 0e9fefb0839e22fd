//! A bound filter: judges stored batches, call by call.

use std::fmt;
use std::sync::Arc;

use tidegate_model::Timestamp;
use tidegate_model::guest_call::{CallBuilder, GuestBatch};

use crate::budget::Budget;
use crate::error::{CallError, Failure, PluginError};
use crate::host::{Permit, Shared, permit};
use crate::instance::{Instance, StartError};
use crate::limits::{CALL_BYTES_MAX, CALL_RECORDS_MAX, Limits};
use crate::plugin::{Plugin, PluginInfo};
use crate::stats::FilterStats;
use crate::verdicts::Verdicts;

/// A plugin with a configuration and limits. It holds no instance: each [`Run`] makes its own.
pub struct Filter {
    plugin: Arc<Plugin>,
    config: Vec<u8>,
    limits: Limits,
    call: CallBuilder,
    stats: Arc<FilterStats>,
    shared: Arc<Shared>,
}

impl Filter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        plugin: Arc<Plugin>,
        config: &[u8],
        limits: Limits,
    ) -> Self {
        Self {
            plugin,
            config: config.to_vec(),
            limits,
            call: CallBuilder::new(),
            stats: Arc::new(FilterStats::default()),
            shared,
        }
    }

    /// Makes an instance with its configuration, and drops it.
    pub(crate) fn try_config(&self, budget: &mut Budget) -> Result<(), PluginError> {
        let _permit = permit(&self.shared)?;
        self.instance(budget)?;
        Ok(())
    }

    /// The plugin that it runs.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        self.plugin.info
    }

    /// Whether batches must come with their bodies uncompressed; otherwise bodies aren't looked at.
    #[must_use]
    pub fn needs_bodies(&self) -> bool {
        self.plugin.info.manifest.needs.body
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> Arc<FilterStats> {
        Arc::clone(&self.stats)
    }

    /// Begins the calls of one fetch, which share an instance and take from `budget`. No instance
    /// outlives its run, so nothing that a guest keeps gets from one fetch into another.
    pub fn run<'a>(&'a mut self, budget: &'a mut Budget) -> Run<'a> {
        Run {
            filter: self,
            budget,
            instance: None,
            records_max: CALL_RECORDS_MAX,
        }
    }

    /// One [`Run`] with the default [`Budget`] and a single check.
    ///
    /// # Errors
    /// As [`Run::check`].
    ///
    /// # Panics
    /// As [`Run::check`].
    pub fn check(
        &mut self,
        now: Timestamp,
        batches: &[GuestBatch<'_>],
        verdicts: &mut Verdicts,
    ) -> Result<(), CallError> {
        self.run(&mut Budget::default())
            .check(now, batches, verdicts)
    }

    fn instance(&self, budget: &mut Budget) -> Result<Instance, StartError> {
        let runner = &self.shared.runner;
        let instance = self
            .plugin
            .start(runner, self.limits, &self.config, budget)?;
        self.stats.started();
        Ok(instance)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("plugin", &self.plugin.info.digest)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The calls of a [`Filter`] for one fetch: one instance, made when it is first needed and anew after a
/// failure.
pub struct Run<'a> {
    filter: &'a mut Filter,
    budget: &'a mut Budget,
    instance: Option<(Instance, Permit)>,
    records_max: usize,
}

impl Run<'_> {
    /// Has later calls take at most so many records, 1 to [`CALL_RECORDS_MAX`]; other values are
    /// brought there.
    pub fn limit_records(&mut self, records: usize) {
        self.records_max = records.clamp(1, CALL_RECORDS_MAX);
    }

    /// What is left for it.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        self.budget
    }

    /// Judges the undecided records of `batches`, in calls of at most [`CALL_RECORDS_MAX`] records
    /// and [`CALL_BYTES_MAX`] bytes (one record may have more).
    ///
    /// `verdicts` was made of the same batches ([`Verdicts::new`]). After an error the caller decides
    /// the records that it names ([`Verdicts::decide`]) and may call again with the same arguments to
    /// go on behind them. `now` is the only clock the guest sees.
    ///
    /// # Errors
    /// [`CallError`] for the first call that fails; what is decided before it stands.
    ///
    /// # Panics
    /// If `verdicts` is of other batches, or if [`Filter::needs_bodies`] and a batch has its body block
    /// compressed only.
    pub fn check(
        &mut self,
        now: Timestamp,
        batches: &[GuestBatch<'_>],
        verdicts: &mut Verdicts,
    ) -> Result<(), CallError> {
        let records: usize = batches.iter().map(GuestBatch::count).sum();
        assert_eq!(records, verdicts.len(), "verdicts on other batches");
        let bodies = self.filter.needs_bodies();
        while !verdicts.is_complete() {
            let from = verdicts.decided();
            if !self.filter.shared.is_enabled() {
                return Err(CallError {
                    failure: Failure::Disabled,
                    records: from..records,
                    is_start: true,
                });
            }
            let call = &mut self.filter.call;
            gather(call, now, bodies, self.records_max, batches, verdicts);
            let count = self.filter.call.count();
            if let Err((failure, is_start)) = self.judge(count, verdicts) {
                self.instance = None;
                self.filter.stats.failed(&failure);
                return Err(CallError {
                    failure,
                    records: from..from + count,
                    is_start,
                });
            }
        }
        Ok(())
    }

    /// One call. With the failure comes whether there was no instance to call.
    fn judge(&mut self, count: usize, verdicts: &mut Verdicts) -> Result<(), (Failure, bool)> {
        if self.instance.is_none() {
            let start = |failure| (failure, true);
            let permit = permit(&self.filter.shared).map_err(|full| start(full.into()))?;
            let instance = self
                .filter
                .instance(self.budget)
                .map_err(|error| start(error.into()))?;
            self.instance = Some((instance, permit));
        }
        let (instance, _) = self.instance.as_mut().expect("it was just made");
        let filter = &mut *self.filter;
        let call = filter.call.finish();
        let (verdict, spent) = instance.check(
            &filter.shared.runner,
            &filter.plugin.exports,
            count,
            call,
            self.budget,
        );
        filter.call.shrink_to(2 * CALL_BYTES_MAX);
        filter
            .stats
            .called(count, spent.fuel, spent.busy, instance.memory());
        let kept = verdict
            .and_then(|verdict| {
                verdicts
                    .take(count, &verdict)
                    .map_err(|reason| Failure::BadVerdict { reason })
            })
            .map_err(|failure| (failure, false))?;
        filter.stats.judged(kept);
        Ok(())
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("filter", &self.filter)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Gathers the next call: undecided records until it is full, at least one.
fn gather(
    call: &mut CallBuilder,
    now: Timestamp,
    bodies: bool,
    records_max: usize,
    batches: &[GuestBatch<'_>],
    verdicts: &Verdicts,
) {
    let (first, mut skip) = verdicts.position();
    call.begin(now, bodies);
    for batch in &batches[first..] {
        let most = (batch.count() - skip).min(records_max - call.count());
        let mut take = fitting(call.len(), batch, skip, most, bodies);
        if call.is_empty() {
            take = take.max(most.min(1));
        }
        if take > 0 {
            call.push(batch, skip, take);
        }
        if skip + take < batch.count() {
            break;
        }
        skip = 0;
    }
}

/// The most records, up to `most`, with which a call of `len` bytes stays within its size.
fn fitting(len: usize, batch: &GuestBatch<'_>, skip: usize, most: usize, bodies: bool) -> usize {
    let fits = |count| len + batch.call_bytes(skip, count, bodies) <= CALL_BYTES_MAX;
    if fits(most) {
        return most;
    }
    let (mut fit, mut too_many) = (0, most);
    while too_many - fit > 1 {
        let middle = fit.midpoint(too_many);
        if fits(middle) {
            fit = middle;
        } else {
            too_many = middle;
        }
    }
    fit
}
