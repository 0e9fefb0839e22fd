//! Runs a chain of filters over stored batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_broker::catalog::Binding;
use tidegate_broker::effects::Failed;
use tidegate_broker::range::RangeSet;
use tidegate_broker::request::OnError;
use tidegate_model::{BatchId, Code, Codec, MessageId, Offset, Section, Timestamp, code};
use tidegate_runtime::{Budget, GuestBatch, Limits, PluginDigest};
use tidegate_store::StoredBatch;

use super::Tools;
use super::fetch::offsets;
use super::search::{self, Outcome, Reason};
use crate::clock::Clock;
use crate::components::Components;
use crate::failures::Failure;
use crate::guests::{Ended, Place};
use crate::metrics::Metrics;

/// CPU time of a chain in one fetch on a worker, whose other fetches wait for it.
const WORKER_CPU: Duration = Duration::from_millis(20);
/// The same on the thread for bindings that overran before.
const SLOW_CPU: Duration = Duration::from_millis(250);
/// The same where time is simulated: what a machine takes must change nothing.
const SIMULATED_CPU: Duration = Duration::from_secs(3600);
/// A binding that takes longer than this for its part of a fetch, and longer than [`HEAVY_PER_RECORD`]
/// for each record, is heavy: it isn't to be waited for either.
const HEAVY_MIN: Duration = Duration::from_millis(4);
/// What a record is worth: eight times what a script takes for one.
const HEAVY_PER_RECORD: Duration = Duration::from_micros(20);
/// Failures that are logged of one binding's part of a fetch; all are counted.
const LOGGED_MAX: usize = 8;

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Worker,
    Slow,
    /// A worker driven by hand.
    Simulated,
}

/// A stored batch and the offsets that are looked at in it.
pub(super) struct Looked {
    pub(super) batch: StoredBatch,
    pub(super) from: Offset,
    /// Exclusive.
    pub(super) until: Offset,
}

/// The verdicts on one stored batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    pub(super) accepted: RangeSet,
    pub(super) failed: Vec<Failed>,
}

/// The verdicts on some batches.
pub(super) struct Judgement {
    /// One for each batch. Of a batch at [`Undecided::batch`] only what lies before it, of those behind
    /// nothing.
    pub(super) judged: Vec<Judged>,
    /// Where it ended early.
    pub(super) undecided: Option<Undecided>,
}

/// The first record without a verdict of the whole chain, and why.
#[derive(Clone, Debug)]
pub(super) struct Undecided {
    pub(super) batch: usize,
    pub(super) offset: Offset,
    pub(super) code: Code,
    pub(super) message: String,
}

/// Runs filters for one thread. It keeps no instance: each lives for one fetch.
pub(super) struct Judge {
    components: Arc<Components>,
    metrics: Arc<Metrics>,
    clock: Clock,
    pub(super) seat: Seat,
}

impl Judge {
    pub(super) fn new(tools: &Tools, seat: Seat) -> Self {
        Self {
            components: Arc::clone(&tools.components),
            metrics: Arc::clone(&tools.metrics),
            clock: tools.clock.clone(),
            seat,
        }
    }

    /// Where a fetch through these bindings is to be done now.
    pub(super) fn place(&self, bindings: &[Binding]) -> Place {
        match self.seat {
            Seat::Simulated => Place::Worker,
            Seat::Worker | Seat::Slow => self.components.guests().place(bindings, Instant::now()),
        }
    }

    /// Judges batches by every filter of the chain in turn; each sees only batches in which
    /// something is still accepted.
    pub(super) fn judge(&self, bindings: &[Binding], looked: &[Looked]) -> Judgement {
        let now = self.clock.now();
        let mut judgement = Judgement {
            judged: vec![Judged::default(); looked.len()],
            undecided: None,
        };
        let raw: Vec<Option<Vec<u8>>> = looked.iter().map(|it| raw_bodies(&it.batch)).collect();
        for (at, it) in looked.iter().enumerate() {
            // Checked before it was stored, so this is damage that no checksum saw.
            match offsets(&it.batch) {
                Ok(there) => {
                    judgement.judged[at].accepted = there.within(it.from.0, it.until.0);
                }
                Err(error) => {
                    judgement.end(at, it.from, code::QUARANTINED, error.to_string());
                    break;
                }
            }
        }
        let started = self.components.guests().start(bindings);
        let cpu = match self.seat {
            Seat::Worker => WORKER_CPU,
            Seat::Slow => SLOW_CPU,
            Seat::Simulated => SIMULATED_CPU,
        };
        let mut left = cpu;
        for (at, binding) in bindings.iter().enumerate() {
            // Each has its share of what those before it have left, however much these took.
            let behind = u32::try_from(bindings.len() - at).expect("a chain has few bindings");
            let mut budget = Budget::new(left / behind, started.interrupt.clone());
            self.link(now, binding, looked, &raw, &mut budget, &mut judgement);
            left -= budget.used();
        }
        judgement.cut(looked);
        judgement
    }

    /// One filter of the chain over what is still open.
    fn link(
        &self,
        now: Timestamp,
        binding: &Binding,
        looked: &[Looked],
        raw: &[Option<Vec<u8>>],
        budget: &mut Budget,
        judgement: &mut Judgement,
    ) {
        let mut open = Vec::new();
        let mut guests: Vec<GuestBatch<'_>> = Vec::new();
        for (at, it) in looked.iter().enumerate() {
            let until = match &judgement.undecided {
                Some(end) if end.batch < at => break,
                Some(end) if end.batch == at => end.offset,
                _ => it.until,
            };
            let wanted = judgement.judged[at].accepted.within(it.from.0, until.0);
            let (Some(first), Some(end)) = (wanted.first(), wanted.end()) else {
                continue;
            };
            let section = match section(&it.batch, raw[at].as_deref()) {
                Ok(section) => section,
                Err(code) => {
                    judgement.end(at, it.from, code, "the batch can't be read".to_owned());
                    break;
                }
            };
            let header = &it.batch.header;
            let index_of = |offset: u64| {
                let deltas = section.records().map(|record| u64::from(record.delta()));
                deltas
                    .take_while(|delta| header.base_offset.0 + delta < offset)
                    .count()
            };
            let guest = GuestBatch::new(section, header.base_offset, header.append_time);
            guests.push(guest.records(index_of(first)..index_of(end)));
            open.push((at, section));
        }
        if open.is_empty() {
            return;
        }
        let outcome = match self.run(now, binding, &guests, budget) {
            Ok(outcome) => outcome,
            Err(reason) => {
                let (at, _) = open[0];
                return judgement.end(at, looked[at].from, reason.code, reason.message);
            }
        };
        let busy = budget.used();
        self.metrics.guest_busy.inc_by(busy.as_secs_f64());
        self.note(binding, &outcome, &guests, &open, looked, budget);
        let decided = outcome.verdicts.decided();
        for (guest, (at, section)) in open.iter().enumerate() {
            let part = Part {
                records: outcome.verdicts.batch_range(guest),
                skipped: guests[guest].range().start,
                base: looked[*at].batch.header.base_offset.0,
                section,
            };
            part.apply(&outcome, binding, &mut judgement.judged[*at]);
            if part.records.contains(&decided)
                && let Some(reason) = &outcome.ended
            {
                let offset = Offset(part.offset(decided));
                judgement.end(*at, offset, reason.code, reason.message.clone());
            }
        }
    }

    fn run(
        &self,
        now: Timestamp,
        binding: &Binding,
        guests: &[GuestBatch<'_>],
        budget: &mut Budget,
    ) -> Result<Outcome, Reason> {
        let digest = PluginDigest(binding.digest);
        let limits = match self.seat {
            Seat::Worker | Seat::Slow => Limits::default(),
            Seat::Simulated => Limits {
                call_cpu_ms: u32::MAX,
                ..Limits::default()
            },
        };
        let filter = self.components.filter(digest, &binding.config, limits);
        let mut filter = filter.map_err(|error| {
            if !error.code().is_passing() {
                tracing::error!(plugin = %binding.plugin, %error, "a filter can't be made");
            }
            Reason {
                code: error.code(),
                message: error.to_string(),
            }
        })?;
        let mut run = filter.run(budget);
        run.limit_records(self.components.guests().records_max(binding.id));
        let outcome = search::run(&mut run, now, guests, binding.on_error);
        let busy = run.budget().used();
        let stats = filter.stats().snapshot();
        self.metrics.guest_calls.inc_by(stats.calls);
        let judged = outcome.verdicts.decided() as u64;
        let records = u32::try_from(judged).unwrap_or(u32::MAX);
        self.metrics.guest_records.inc_by(judged);
        let is_over = budget.left() == Duration::ZERO || outcome.is_cut;
        let ended = match is_over {
            false if busy > HEAVY_MIN && busy > HEAVY_PER_RECORD * records => Ended::Heavy(busy),
            false => Ended::InTime,
            true if judged > 0 => Ended::Overran,
            true => Ended::Stuck,
        };
        let place = match self.seat {
            Seat::Worker => Place::Worker,
            Seat::Slow => Place::Slow,
            Seat::Simulated => return Ok(outcome),
        };
        if !budget.is_interrupted() {
            self.components
                .guests()
                .ended(binding.id, ended, place, Instant::now());
        }
        Ok(outcome)
    }

    /// Tells operators what failed: in the log, in the plugin's last failures, in the counters.
    fn note(
        &self,
        binding: &Binding,
        outcome: &Outcome,
        guests: &[GuestBatch<'_>],
        open: &[(usize, Section<'_>)],
        looked: &[Looked],
        budget: &Budget,
    ) {
        let failures = outcome.failed.len() as u64;
        self.metrics.guest_failures.inc_by(failures);
        for (logged, (record, failure)) in outcome.failed.iter().enumerate() {
            let Some(guest) =
                (0..open.len()).find(|guest| outcome.verdicts.batch_range(*guest).contains(record))
            else {
                continue;
            };
            let (at, section) = &open[guest];
            let header = &looked[*at].batch.header;
            let part = Part {
                records: outcome.verdicts.batch_range(guest),
                skipped: guests[guest].range().start,
                base: header.base_offset.0,
                section,
            };
            let offset = Offset(part.offset(*record));
            let message_id = MessageId {
                batch: BatchId {
                    shard: header.shard,
                    seq: header.seq,
                },
                record: u16::try_from(offset.0 - part.base).expect("a span has 16 bits"),
            };
            if logged < LOGGED_MAX {
                tracing::warn!(plugin = %binding.plugin, binding = binding.id.0, queue = %header.queue,
                    %offset, message = %message_id, policy = ?binding.on_error, error = %failure,
                    "a filter failed on a message");
            }
            self.components.failures().note(
                &binding.plugin,
                Failure {
                    at: self.clock.now(),
                    code: failure.code(),
                    message: failure.to_string(),
                    queue: header.queue,
                    offset,
                    message_id,
                },
            );
        }
        if failures > LOGGED_MAX as u64 {
            tracing::warn!(plugin = %binding.plugin, binding = binding.id.0, failures,
                "a filter failed on more messages than are listed");
        }
        if let Some(reason) = &outcome.ended
            && binding.on_error != OnError::Stop
            && !budget.is_interrupted()
        {
            tracing::warn!(plugin = %binding.plugin, binding = binding.id.0, code = %reason.code,
                reason = reason.message, "a filter ended before all messages were judged");
        }
    }
}

/// One batch's part of an outcome.
struct Part<'a> {
    /// Its records as indexes over all batches.
    records: std::ops::Range<usize>,
    /// Records of the stored batch before them.
    skipped: usize,
    base: u64,
    section: &'a Section<'a>,
}

impl Part<'_> {
    fn offset(&self, record: usize) -> u64 {
        let index = self.skipped + record - self.records.start;
        self.base + u64::from(self.section.record(index).delta())
    }

    /// Narrows what is accepted of the batch by a filter's verdicts on it.
    fn apply(&self, outcome: &Outcome, binding: &Binding, judged: &mut Judged) {
        let mut kept = RangeSet::default();
        for record in self.records.clone() {
            if outcome.verdicts.keeps(record) {
                let offset = self.offset(record);
                kept.push(offset, offset + 1);
            }
        }
        for (record, failure) in &outcome.failed {
            if !self.records.contains(record) || binding.on_error == OnError::Pass {
                continue;
            }
            let offset = self.offset(*record);
            // What an earlier filter of the chain rejected stays rejected.
            if !judged.accepted.contains(offset) {
                continue;
            }
            let (on_error, code) = (binding.on_error, failure.code());
            let is_same = |failed: &&mut Failed| failed.on_error == on_error && failed.code == code;
            match judged.failed.iter_mut().find(is_same) {
                Some(failed) => failed.offsets.push(offset, offset + 1),
                None => judged.failed.push(Failed {
                    offsets: RangeSet::one(offset, offset + 1),
                    on_error,
                    code,
                }),
            }
        }
        judged.accepted = judged.accepted.intersection(&kept);
    }
}

impl Judgement {
    /// Notes where the chain ends, unless it ended before that.
    fn end(&mut self, batch: usize, offset: Offset, code: Code, message: String) {
        let is_first = match &self.undecided {
            Some(end) => (batch, offset) < (end.batch, end.offset),
            None => true,
        };
        if is_first {
            self.undecided = Some(Undecided {
                batch,
                offset,
                code,
                message,
            });
        }
    }

    /// Takes out what has verdicts of a part of the chain only.
    fn cut(&mut self, looked: &[Looked]) {
        let Some(end) = &self.undecided else { return };
        for (at, judged) in self.judged.iter_mut().enumerate().skip(end.batch) {
            let until = if at == end.batch { end.offset.0 } else { 0 };
            let from = looked[at].from.0;
            judged.accepted = judged.accepted.within(from, until);
            for failed in &mut judged.failed {
                failed.offsets = failed.offsets.within(0, until);
            }
            judged.failed.retain(|failed| !failed.offsets.is_empty());
        }
    }
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
    let damaged = |_| code::QUARANTINED;
    let codec = Codec::from_byte(batch.header.codec).map_err(damaged)?;
    let section = Section::parse_trusted(&batch.section, usize::from(batch.header.count), codec)
        .map_err(damaged)?;
    match raw {
        Some(raw) => section.with_bodies(raw).map_err(damaged),
        None => Ok(section),
    }
}
