//! Runs a chain of filters over stored batches.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_broker::catalog::Binding;
use tidegate_broker::effects::Failed;
use tidegate_broker::range::RangeSet;
use tidegate_broker::request::OnError;
use tidegate_model::{Code, Codec, Section, Timestamp};
use tidegate_runtime::{CallError, Failure, Filter, GuestBatch, Limits, PluginDigest, Verdicts};
use tidegate_store::StoredBatch;

use super::Tools;
use super::fetch::offsets;
use crate::clock::Clock;
use crate::components::Components;
use crate::metrics::Metrics;

/// Calls spent on finding the bad records of one failed call; beyond it what is left has failed.
const SEARCH_CALLS_MAX: u32 = 64;

/// The verdicts on one stored batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    pub(super) accepted: RangeSet,
    pub(super) failed: Vec<Failed>,
}

/// A chain that can't be run, or whose policy is to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    /// Batches judged completely before.
    pub(super) batches: usize,
    pub(super) reason: Code,
}

/// The filters of one worker. Instances aren't shared between threads, so no lock is taken.
pub(super) struct Judge {
    components: Arc<Components>,
    metrics: Arc<Metrics>,
    /// What guests are told of the time.
    pub(super) clock: Clock,
    filters: BTreeMap<FilterKey, Filter>,
}

/// Bindings of equal component and configuration share a filter.
type FilterKey = ([u8; 32], Bytes);

impl Judge {
    pub(super) fn new(tools: &Tools) -> Self {
        Self {
            components: Arc::clone(&tools.components),
            metrics: Arc::clone(&tools.metrics),
            clock: tools.clock.clone(),
            filters: BTreeMap::new(),
        }
    }

    /// Drops the filters that no binding uses any more, and their memory with them.
    pub(super) fn retain(&mut self, bindings: &[Binding]) {
        self.filters.retain(|(digest, config), _| {
            bindings
                .iter()
                .any(|b| b.digest == *digest && b.config == *config)
        });
    }

    /// Judges batches by every filter of the chain in turn; each sees only batches in which
    /// something is still accepted.
    ///
    /// # Errors
    /// [`Stopped`] where a filter can't be had, or fails under [`OnError::Stop`].
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        bindings: &[Binding],
        batches: &[StoredBatch],
    ) -> Result<Vec<Judged>, Stopped> {
        let raw: Vec<Option<Vec<u8>>> = batches.iter().map(raw_bodies).collect();
        let mut judged = Vec::with_capacity(batches.len());
        for batch in batches {
            // Checked before it was stored, so this is damage that no checksum saw.
            let accepted = offsets(batch).map_err(|_| Stopped {
                batches: judged.len(),
                reason: tidegate_model::code::QUARANTINED,
            })?;
            judged.push(Judged {
                accepted,
                failed: Vec::new(),
            });
        }
        for binding in bindings {
            let open: Vec<usize> = (0..batches.len())
                .filter(|&at| !judged[at].accepted.is_empty())
                .collect();
            if open.is_empty() {
                break;
            }
            let sections: Vec<Section<'_>> = open
                .iter()
                .map(|&at| section(&batches[at], raw[at].as_deref()))
                .collect::<Result<_, _>>()
                .map_err(|reason| Stopped { batches: 0, reason })?;
            let guests: Vec<GuestBatch<'_>> = open
                .iter()
                .zip(&sections)
                .map(|(&at, section)| {
                    let header = &batches[at].header;
                    GuestBatch::new(*section, header.base_offset, header.append_time)
                })
                .collect();
            let outcome = self
                .run(now, binding, &guests)
                .map_err(|(guest, reason)| Stopped {
                    batches: open[guest],
                    reason,
                })?;
            for (guest, &at) in open.iter().enumerate() {
                apply(
                    &outcome,
                    guest,
                    &sections[guest],
                    &batches[at],
                    binding,
                    &mut judged[at],
                );
            }
        }
        Ok(judged)
    }

    /// One filter over all batches. `Err` is the batch at which it stopped, and why.
    fn run(
        &mut self,
        now: Timestamp,
        binding: &Binding,
        guests: &[GuestBatch<'_>],
    ) -> Result<Outcome, (usize, Code)> {
        let filter = match self.filters.entry((binding.digest, binding.config.clone())) {
            Entry::Occupied(filter) => filter.into_mut(),
            Entry::Vacant(place) => {
                let made = self.components.bind(
                    PluginDigest(binding.digest),
                    &binding.config,
                    Limits::default(),
                );
                match made {
                    Ok(filter) => place.insert(filter),
                    Err(error) => {
                        tracing::error!(plugin = %binding.plugin, %error, "a filter can't be made");
                        return Err((0, error.code()));
                    }
                }
            }
        };
        let mut outcome = Outcome {
            verdicts: Verdicts::new(guests),
            failed: Vec::new(),
        };
        while !outcome.verdicts.is_complete() {
            let (start, decided) = (Instant::now(), outcome.verdicts.decided());
            let checked = filter.check(now, guests, &mut outcome.verdicts);
            self.metrics.guest_calls.inc();
            self.metrics
                .guest_busy
                .inc_by(start.elapsed().as_secs_f64());
            let judged = outcome.verdicts.decided() - decided;
            self.metrics.guest_records.inc_by(judged as u64);
            let Err(error) = checked else { break };
            self.metrics.guest_failures.inc();
            if matches!(
                error.failure,
                Failure::Disabled | Failure::InstancesFull { .. }
            ) || binding.on_error == OnError::Stop
            {
                tracing::warn!(plugin = %binding.plugin, %error, "delivery waits: a filter failed");
                let at = guest_of(&outcome.verdicts, guests.len(), error.records.start);
                return Err((at, error.code()));
            }
            tracing::warn!(plugin = %binding.plugin, %error, policy = ?binding.on_error, "a filter failed");
            let mut search = Search {
                filter,
                now,
                guests,
                calls_left: SEARCH_CALLS_MAX,
            };
            search.narrow(&error, binding.on_error, &mut outcome);
        }
        Ok(outcome)
    }
}

struct Outcome {
    verdicts: Verdicts,
    /// Ranges of record indexes over all batches, and how the filter failed on them.
    failed: Vec<(Range<usize>, Code)>,
}

impl Outcome {
    fn fail(&mut self, records: Range<usize>, code: Code, policy: OnError) {
        self.verdicts.decide(records.len(), policy == OnError::Pass);
        if matches!(policy, OnError::DeadLetter | OnError::Retry) {
            self.failed.push((records, code));
        }
    }
}

/// Looks for the records on which a filter fails, so that one bad message doesn't take along the up
/// to 255 good ones that shared its call.
struct Search<'a, 'b> {
    filter: &'a mut Filter,
    now: Timestamp,
    guests: &'a [GuestBatch<'b>],
    calls_left: u32,
}

impl Search<'_, '_> {
    fn narrow(&mut self, error: &CallError, policy: OnError, outcome: &mut Outcome) {
        let records = error.records.clone();
        // A loop or a memory eater costs its whole limit each time: no second try.
        let cheap = !matches!(
            error.failure,
            Failure::OutOfFuel { .. } | Failure::Deadline { .. } | Failure::Memory { .. }
        );
        if records.len() == 1 || !cheap || self.calls_left < 2 {
            return outcome.fail(records, error.code(), policy);
        }
        let middle = records.start + records.len() / 2;
        for half in [records.start..middle, middle..records.end] {
            self.calls_left = self.calls_left.saturating_sub(1);
            let window = window(self.guests, half.clone());
            let mut verdicts = Verdicts::new(&window);
            match self.filter.check(self.now, &window, &mut verdicts) {
                Ok(()) => {
                    for index in 0..verdicts.len() {
                        outcome.verdicts.decide(1, verdicts.keeps(index));
                    }
                }
                Err(error) => {
                    let error = CallError {
                        records: half,
                        ..error
                    };
                    self.narrow(&error, policy, outcome);
                }
            }
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

/// The batch that holds record `index`, counted over all.
fn guest_of(verdicts: &Verdicts, count: usize, index: usize) -> usize {
    (0..count)
        .find(|&guest| verdicts.batch_range(guest).contains(&index))
        .unwrap_or(0)
}

/// Narrows what is accepted of one batch by a filter's verdicts on it.
fn apply(
    outcome: &Outcome,
    guest: usize,
    section: &Section<'_>,
    batch: &StoredBatch,
    binding: &Binding,
    judged: &mut Judged,
) {
    let base = batch.header.base_offset.0;
    let range = outcome.verdicts.batch_range(guest);
    let mut kept = RangeSet::default();
    for (index, keep) in outcome.verdicts.batch(guest).enumerate() {
        if keep {
            let offset = base + u64::from(section.record(index).delta());
            kept.push(offset, offset + 1);
        }
    }
    for (failed, code) in &outcome.failed {
        let mut offsets = RangeSet::default();
        for index in failed.start.max(range.start)..failed.end.min(range.end) {
            let offset = base + u64::from(section.record(index - range.start).delta());
            // What an earlier filter of the chain rejected stays rejected.
            if judged.accepted.contains(offset) {
                offsets.push(offset, offset + 1);
            }
        }
        if !offsets.is_empty() {
            judged.failed.push(Failed {
                offsets,
                on_error: binding.on_error,
                code: *code,
            });
        }
    }
    judged.accepted = judged.accepted.intersection(&kept);
}

fn raw_bodies(batch: &StoredBatch) -> Option<Vec<u8>> {
    let codec = Codec::from_byte(batch.header.codec).ok()?;
    if codec == Codec::None {
        return None;
    }
    let section =
        Section::parse_trusted(&batch.section, usize::from(batch.header.count), codec).ok()?;
    tidegate_model::compress::raw_bodies(&section, codec).ok()
}

fn section<'a>(batch: &'a StoredBatch, raw: Option<&'a [u8]>) -> Result<Section<'a>, Code> {
    // Checked before it was stored: that it can't be read now is damage that no checksum saw.
    let damaged = |_| tidegate_model::code::QUARANTINED;
    let codec = Codec::from_byte(batch.header.codec).map_err(damaged)?;
    let section = Section::parse_trusted(&batch.section, usize::from(batch.header.count), codec)
        .map_err(damaged)?;
    match raw {
        Some(raw) => section.with_bodies(raw).map_err(damaged),
        None => Ok(section),
    }
}
