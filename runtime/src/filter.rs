//! A bound filter: judges stored batches, call by call.

use std::fmt;
use std::sync::Arc;

use tidegate_model::Timestamp;
use tidegate_model::guest_call::{CallBuilder, GuestBatch};

use crate::error::{CallError, Failure, PluginError};
use crate::host::Permit;
use crate::instance::Instance;
use crate::limits::{CALL_BYTES_MAX, CALL_RECORDS_MAX, Limits};
use crate::plugin::{Plugin, PluginInfo};
use crate::stats::FilterStats;
use crate::verdicts::Verdicts;

/// A plugin with a configuration and limits: one instance, made anew after each failure.
///
/// Verdicts don't depend on earlier calls, so several filters of one binding may share the work.
pub struct Filter {
    plugin: Arc<Plugin>,
    config: Vec<u8>,
    limits: Limits,
    instance: Option<Instance>,
    call: CallBuilder,
    stats: Arc<FilterStats>,
    permit: Permit,
}

impl Filter {
    pub(crate) fn start(
        permit: Permit,
        plugin: Arc<Plugin>,
        config: &[u8],
        limits: Limits,
    ) -> Result<Self, PluginError> {
        let instance = plugin.start(&permit.shared().runner, limits, config)?;
        let stats = Arc::new(FilterStats::default());
        stats.started();
        Ok(Self {
            plugin,
            config: config.to_vec(),
            limits,
            instance: Some(instance),
            call: CallBuilder::new(),
            stats,
            permit,
        })
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

    /// Calls that failed since the last that didn't, for the caller's breaker.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u64 {
        self.stats.snapshot().failures_in_a_row
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
    /// If `verdicts` is of other batches, or if [`Self::needs_bodies`] and a batch has its body block
    /// compressed only.
    pub fn check(
        &mut self,
        now: Timestamp,
        batches: &[GuestBatch<'_>],
        verdicts: &mut Verdicts,
    ) -> Result<(), CallError> {
        let records: usize = batches.iter().map(GuestBatch::count).sum();
        assert_eq!(records, verdicts.len(), "verdicts on other batches");
        let bodies = self.needs_bodies();
        while !verdicts.is_complete() {
            let from = verdicts.decided();
            if !self.permit.shared().is_enabled() {
                return Err(CallError {
                    failure: Failure::Disabled,
                    records: from..records,
                });
            }
            gather(&mut self.call, now, bodies, batches, verdicts);
            let count = self.call.count();
            if let Err(failure) = self.judge(count, verdicts) {
                self.instance = None;
                self.stats.failed(&failure);
                return Err(CallError {
                    failure,
                    records: from..from + count,
                });
            }
        }
        Ok(())
    }

    fn judge(&mut self, count: usize, verdicts: &mut Verdicts) -> Result<(), Failure> {
        let runner = &self.permit.shared().runner;
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                let fresh = self.plugin.start(runner, self.limits, &self.config)?;
                self.stats.started();
                none.insert(fresh)
            }
        };
        let call = self.call.finish();
        let (verdict, spent) = instance.check(runner, &self.plugin.exports, count, call);
        self.call.shrink_to(2 * CALL_BYTES_MAX);
        self.stats
            .called(count, spent.fuel, spent.busy, instance.memory());
        let kept = verdicts
            .take(count, &verdict?)
            .map_err(|reason| Failure::BadVerdict { reason })?;
        self.stats.judged(kept);
        Ok(())
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

/// Gathers the next call: undecided records until it is full, at least one.
fn gather(
    call: &mut CallBuilder,
    now: Timestamp,
    bodies: bool,
    batches: &[GuestBatch<'_>],
    verdicts: &Verdicts,
) {
    let (first, mut skip) = verdicts.position();
    call.begin(now, bodies);
    for batch in &batches[first..] {
        let most = (batch.count() - skip).min(CALL_RECORDS_MAX - call.count());
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
