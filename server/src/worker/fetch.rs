//! Looking into queues: which records there are, and which of them the filters accept.

use tidegate_broker::Refusal;
use tidegate_broker::effects::{Failed, Fetch, Fetched, FetchedBatch};
use tidegate_broker::range::RangeSet;
use tidegate_broker::reply::{DeliveredBatch, Gap, ReadBatches, Reply};
use tidegate_broker::request::OnError;
use tidegate_model::{Code, Codec, Offset, QueueId, Section, SectionError, code};
use tidegate_store::{IndexEntry, ReadError, Reader, StoredBatch};

use super::judge::Judge;
use super::{ReadJob, Tools, send};
use crate::input::Input;

/// Index entries looked up at a time.
const ENTRIES: usize = 256;
/// Batches judged in one go: with their section limit this bounds what is held in memory.
const JUDGED_BYTES: u64 = 4 * 1024 * 1024;
/// Damaged batches that one raw read passes over.
const GAP_BATCHES_MAX: u32 = 1024;

/// Answers a fetch of the broker.
pub(super) fn fetch(fetch: &Fetch, judge: &mut Judge, tools: &Tools) {
    let fetched = if fetch.bindings.is_empty() {
        unfiltered(fetch, &tools.reader)
    } else {
        filtered(fetch, judge, &tools.reader)
    };
    let fetched = fetched.unwrap_or_else(|reason| Fetched::Stopped { reason });
    tools.inputs.send(Input::Fetched(fetch.token, fetched));
}

/// Without filters the index says it all; no batch is read.
pub(super) fn unfiltered(fetch: &Fetch, reader: &Reader) -> Result<Fetched, Code> {
    let mut batches = Vec::new();
    let next = walk(fetch, reader, |entry, looked_at| {
        let mut accepted = RangeSet::one(looked_at.0.0, looked_at.1.0);
        if entry.count < entry.span {
            // Compaction has taken messages out: the batch alone says which.
            let batch = match reader.read_entry(entry) {
                Err(ReadError::NotFound { .. }) => return Ok(()),
                Err(error @ ReadError::Quarantined { .. }) => {
                    batches.push(unreadable(fetch, entry, looked_at, &error));
                    return Ok(());
                }
                read => read.map_err(|error| Walked::Failed(read_code(&error)))?,
            };
            let there = offsets(&batch).map_err(|_| Walked::Failed(code::QUARANTINED))?;
            accepted = accepted.intersection(&there);
        }
        batches.push(FetchedBatch {
            base_offset: entry.base_offset,
            span: entry.span,
            bytes: entry.section_len,
            records: entry.count,
            accepted,
            failed: Vec::new(),
        });
        Ok(())
    })?;
    Ok(Fetched::Examined { batches, next })
}

fn filtered(fetch: &Fetch, judge: &mut Judge, reader: &Reader) -> Result<Fetched, Code> {
    let mut stored: Vec<(StoredBatch, (Offset, Offset))> = Vec::new();
    let mut damaged = Vec::new();
    let mut visited = fetch.from;
    let mut bytes = 0;
    let next = walk(fetch, reader, |entry, looked_at| {
        if bytes > 0 && bytes + u64::from(entry.section_len) > JUDGED_BYTES {
            return Err(Walked::Enough);
        }
        let batch = match reader.read_entry(entry) {
            // It expired since it was looked up.
            Err(ReadError::NotFound { .. }) => return Ok(()),
            Err(error @ ReadError::Quarantined { .. }) => {
                damaged.push(unreadable(fetch, entry, looked_at, &error));
                visited = looked_at.1;
                return Ok(());
            }
            read => read.map_err(|error| Walked::Failed(read_code(&error)))?,
        };
        bytes += u64::from(entry.section_len);
        visited = looked_at.1;
        stored.push((batch, looked_at));
        Ok(())
    });
    // What was read before the failure is judged and delivered; the next fetch meets it alone.
    let next = match next {
        Err(reason) if visited == fetch.from => return Err(reason),
        Err(_) => visited,
        Ok(next) => next,
    };
    let (whole, looked_at): (Vec<_>, Vec<_>) = stored.into_iter().unzip();
    let (judged, whole, next) = match judge.judge(judge.clock.now(), &fetch.bindings, &whole) {
        Ok(judged) => (judged, &whole[..], next),
        Err(stopped) if stopped.batches == 0 => return Err(stopped.reason),
        Err(stopped) => {
            let before = &whole[..stopped.batches];
            let judged = judge
                .judge(judge.clock.now(), &fetch.bindings, before)
                .map_err(|stopped| stopped.reason)?;
            (judged, before, looked_at[stopped.batches - 1].1)
        }
    };
    let mut batches: Vec<FetchedBatch> = judged
        .into_iter()
        .zip(whole)
        .zip(looked_at)
        .map(|((judged, batch), (from, until))| FetchedBatch {
            base_offset: batch.header.base_offset,
            span: batch.header.span,
            bytes: u32::try_from(batch.section.len()).expect("a section is below 4 GiB"),
            records: batch.header.count,
            accepted: judged.accepted.within(from.0, until.0),
            failed: judged
                .failed
                .into_iter()
                .map(|mut failed| {
                    failed.offsets = failed.offsets.within(from.0, until.0);
                    failed
                })
                .filter(|failed| !failed.offsets.is_empty())
                .collect(),
        })
        .filter(|batch| !batch.accepted.is_empty() || !batch.failed.is_empty())
        .collect();
    damaged.retain(|batch: &FetchedBatch| batch.base_offset < next);
    batches.append(&mut damaged);
    batches.sort_by_key(|batch| batch.base_offset);
    Ok(Fetched::Examined { batches, next })
}

/// A batch that no filter can see. Whatever the filters' policies, it waits for its next attempt and is
/// given up when there is none left: the same as becomes of one that can't be sent.
fn unreadable(
    fetch: &Fetch,
    entry: &IndexEntry,
    looked_at: (Offset, Offset),
    error: &ReadError,
) -> FetchedBatch {
    tracing::error!(queue = %fetch.queue, offset = %entry.base_offset, %error,
        "messages can't be read; they wait for their next attempt");
    FetchedBatch {
        base_offset: entry.base_offset,
        span: entry.span,
        bytes: entry.section_len,
        records: entry.count,
        accepted: RangeSet::new(),
        failed: vec![Failed {
            offsets: RangeSet::one(looked_at.0.0, looked_at.1.0),
            on_error: OnError::Retry,
            code: read_code(error),
        }],
    }
}

enum Walked {
    Enough,
    Failed(Code),
}

/// Visits the batches that a fetch may look at, each with the offsets that are looked at in it.
/// Gives the offset after the last one visited.
fn walk(
    fetch: &Fetch,
    reader: &Reader,
    mut visit: impl FnMut(&IndexEntry, (Offset, Offset)) -> Result<(), Walked>,
) -> Result<Offset, Code> {
    let mut next = fetch.from;
    let (mut records, mut bytes) = (0u32, 0u64);
    let mut entries = Vec::new();
    loop {
        entries.clear();
        let end = reader.bounds(fetch.queue).next;
        entries_from(reader, fetch.queue, next, &mut entries)?;
        if entries.is_empty() {
            // What expired or was compacted away has no entries any more.
            return Ok(next.max(end.min(fetch.until)));
        }
        for entry in &entries {
            let from = entry.base_offset.max(fetch.from);
            let until = entry.next_offset().min(fetch.until);
            if from >= until {
                return Ok(next.max(from.min(fetch.until)));
            }
            records += u32::from(entry.count);
            bytes += u64::from(entry.section_len);
            let room = records <= fetch.max_records && bytes <= u64::from(fetch.max_bytes);
            if !room && next > fetch.from {
                return Ok(next);
            }
            match visit(entry, (from, until)) {
                Ok(()) => next = until,
                Err(Walked::Enough) => return Ok(next),
                Err(Walked::Failed(code)) => return Err(code),
            }
        }
    }
}

fn entries_from(
    reader: &Reader,
    queue: QueueId,
    from: Offset,
    entries: &mut Vec<IndexEntry>,
) -> Result<(), Code> {
    reader
        .entries(queue, from, ENTRIES, entries)
        .map_err(|error| read_code(&error))
}

/// The offsets of a batch's messages: compaction may have taken some out.
pub(super) fn offsets(batch: &StoredBatch) -> Result<RangeSet, SectionError> {
    let header = &batch.header;
    let base = header.base_offset.0;
    if header.count == header.span {
        return Ok(RangeSet::one(base, base + u64::from(header.span)));
    }
    let codec = Codec::from_byte(header.codec)?;
    let section = Section::parse_trusted(&batch.section, usize::from(header.count), codec)?;
    let mut offsets = RangeSet::default();
    for record in section.records() {
        let offset = base + u64::from(record.delta());
        offsets.push(offset, offset + 1);
    }
    Ok(offsets)
}

/// Answers a raw read.
pub(super) fn read(job: ReadJob, judge: &mut Judge, tools: &Tools) {
    let outcome = read_batches(&job, judge, &tools.reader);
    // The caller may have gone away.
    let _ = job.answer.send(outcome.map(Reply::Read));
}

fn read_batches(job: &ReadJob, judge: &mut Judge, reader: &Reader) -> Result<ReadBatches, Refusal> {
    let refuse = |error: ReadError| Refusal::new(read_code(&error), error.to_string());
    let bounds = reader.bounds(job.queue);
    let mut answer = ReadBatches {
        start: bounds.start,
        next: bounds.next,
        resume: job.from,
        batches: Vec::new(),
        gaps: Vec::new(),
    };
    let (mut messages, mut bytes) = (0u64, 0u64);
    let mut damaged = 0;
    let mut entries = Vec::new();
    loop {
        entries.clear();
        reader
            .entries(job.queue, answer.resume, ENTRIES, &mut entries)
            .map_err(refuse)?;
        if entries.is_empty() {
            // What expired or was compacted away has no entries any more.
            answer.resume = answer.resume.max(bounds.next);
            return Ok(answer);
        }
        for entry in &entries {
            if messages >= u64::from(job.max_messages) || bytes >= u64::from(job.max_bytes) {
                return Ok(answer);
            }
            if !answer.batches.is_empty()
                && bytes + u64::from(entry.section_len) > u64::from(job.max_bytes)
            {
                return Ok(answer);
            }
            if job.over_gaps && entry.base_offset > answer.resume {
                let missing = reader.damaged_before(job.queue, answer.resume, entry);
                if let Some((from, to)) = missing.map_err(refuse)? {
                    let code = code::QUARANTINED;
                    add_gap(&mut answer.gaps, Gap { from, to, code });
                }
            }
            let batch = match reader.read_entry(entry) {
                // It expired since it was looked up.
                Err(ReadError::NotFound { .. }) => {
                    answer.resume = entry.next_offset();
                    continue;
                }
                Err(error @ ReadError::Quarantined { .. }) if job.over_gaps => {
                    let gap = Gap {
                        from: entry.base_offset.max(answer.resume),
                        to: entry.next_offset(),
                        code: read_code(&error),
                    };
                    add_gap(&mut answer.gaps, gap);
                    answer.resume = gap.to;
                    damaged += 1;
                    if damaged >= GAP_BATCHES_MAX {
                        return Ok(answer);
                    }
                    continue;
                }
                read => read.map_err(refuse)?,
            };
            let mut wanted = judge
                .judge(
                    judge.clock.now(),
                    &job.bindings,
                    std::slice::from_ref(&batch),
                )
                .map_err(|stopped| {
                    Refusal::new(stopped.reason, "a plugin of the view failed on this range")
                })?
                .remove(0)
                .accepted
                .within(answer.resume.0, u64::MAX);
            let wanted = wanted.take_front(u64::from(job.max_messages) - messages);
            answer.resume = match wanted.end() {
                // A batch cut short by the limit is read on from there.
                Some(end) if messages + wanted.count() >= u64::from(job.max_messages) => {
                    Offset(end)
                }
                _ => entry.next_offset(),
            };
            if let Some(batch) = delivered(batch, &wanted)? {
                messages += wanted.count();
                bytes += batch.section.len() as u64;
                answer.batches.push(batch);
            }
        }
    }
}

/// Damage seldom ends with a batch: what adjoins is one gap.
fn add_gap(gaps: &mut Vec<Gap>, gap: Gap) {
    match gaps.last_mut() {
        Some(last) if last.to == gap.from && last.code == gap.code => last.to = gap.to,
        _ => gaps.push(gap),
    }
}

fn delivered(batch: StoredBatch, wanted: &RangeSet) -> Result<Option<DeliveredBatch>, Refusal> {
    if wanted.is_empty() {
        return Ok(None);
    }
    send::prepare(batch, wanted)
        .map(Some)
        .map_err(|error| Refusal::new(code::QUARANTINED, error.to_string()))
}

pub(super) fn read_code(error: &ReadError) -> Code {
    match error {
        ReadError::NotFound { .. } => code::OFFSET_OUT_OF_RANGE,
        ReadError::Quarantined { .. } => code::QUARANTINED,
        _ => code::DATA_CORRUPT,
    }
}
