//! Looking into queues: which records there are, and which of them the filters accept.

use tidegate_broker::Refusal;
use tidegate_broker::effects::{Failed, Fetch, Fetched, FetchedBatch};
use tidegate_broker::range::RangeSet;
use tidegate_broker::reply::{DeliveredBatch, Gap, ReadBatches, Reply};
use tidegate_broker::request::OnError;
use tidegate_model::{Code, Codec, Offset, QueueId, Section, SectionError, code};
use tidegate_store::{IndexEntry, ReadError, Reader, StoredBatch};

use super::judge::{Judge, Looked, Seat, Undecided};
use super::{Job, ReadJob, Tools, send};
use crate::guests::Place;
use crate::input::Input;

/// Index entries looked up at a time.
const ENTRIES: usize = 256;
/// Batches judged in one go: with their section limit this bounds what is held in memory.
const JUDGED_BYTES: u64 = 4 * 1024 * 1024;
/// Damaged batches that one raw read passes over.
const GAP_BATCHES_MAX: u32 = 1024;
/// Messages of one raw read.
const READ_MESSAGES_MAX: u32 = 4096;
/// Bytes of heads and bodies of one raw read, unless its first message alone has more.
const READ_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Bytes of sections that one raw read looks at, whatever a view leaves of them.
const READ_LOOKED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of sections that a raw read judges in one go.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;

/// Answers a fetch of the broker.
pub(super) fn fetch(fetch: Fetch, judge: &Judge, tools: &Tools) {
    let token = fetch.token;
    let fetched = if fetch.bindings.is_empty() {
        unfiltered(&fetch, &tools.reader)
    } else {
        match judge.place(&fetch.bindings) {
            Place::Paused => Err(code::PLUGIN_PAUSED),
            Place::Slow if judge.seat == Seat::Worker => match tools.slow.give(Job::Fetch(fetch)) {
                Ok(()) => return,
                Err(_) => Err(code::OVERLOADED),
            },
            Place::Slow | Place::Worker => filtered(&fetch, judge, &tools.reader),
        }
    };
    let fetched = fetched.unwrap_or_else(|reason| match reason.is_passing() {
        true => Fetched::Busy { reason },
        false => Fetched::Stopped { reason },
    });
    tools.inputs.send(Input::Fetched(token, fetched));
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

fn filtered(fetch: &Fetch, judge: &Judge, reader: &Reader) -> Result<Fetched, Code> {
    let mut looked: Vec<Looked> = Vec::new();
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
        let (from, until) = looked_at;
        looked.push(Looked { batch, from, until });
        Ok(())
    });
    // What was read before the failure is judged and delivered; the next fetch meets it alone.
    let next = match next {
        Err(reason) if visited == fetch.from => return Err(reason),
        Err(_) => visited,
        Ok(next) => next,
    };
    let judgement = judge.judge(&fetch.bindings, &looked);
    let next = match judgement.undecided {
        Some(end) if end.offset <= fetch.from => return Err(end.code),
        // The next fetch begins at what has no verdict yet.
        Some(end) => next.min(end.offset),
        None => next,
    };
    let mut batches: Vec<FetchedBatch> = judgement
        .judged
        .into_iter()
        .zip(&looked)
        .map(|(judged, looked)| FetchedBatch {
            base_offset: looked.batch.header.base_offset,
            span: looked.batch.header.span,
            bytes: u32::try_from(looked.batch.section.len()).expect("a section is below 4 GiB"),
            records: looked.batch.header.count,
            accepted: judged.accepted,
            failed: judged.failed,
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
pub(super) fn read(job: ReadJob, judge: &Judge, tools: &Tools) {
    // Whoever asked may have gone away while it waited.
    if job.answer.is_closed() {
        return;
    }
    let outcome = match judge.place(&job.bindings) {
        Place::Paused => Err(paused()),
        Place::Slow if judge.seat == Seat::Worker => return to_slow(job, tools),
        Place::Slow | Place::Worker => read_batches(&job, judge, &tools.reader),
    };
    match outcome {
        Err(refusal) if refusal.code == code::PLUGIN_PAUSED && judge.seat == Seat::Worker => {
            to_slow(job, tools);
        }
        outcome => drop(job.answer.send(outcome.map(Reply::Read))),
    }
}

fn to_slow(job: ReadJob, tools: &Tools) {
    if let Err(job) = tools.slow.give(Job::Read(job))
        && let Job::Read(job) = *job
    {
        drop(job.answer.send(Err(paused())));
    }
}

fn paused() -> Refusal {
    Refusal::new(
        code::PLUGIN_PAUSED,
        "a plugin of the view took too much time and waits for a while",
    )
    .hint("read again in a moment; `tidegate plugin info` shows the plugin's last failures")
}

/// Reads and judges batches until the reply is full, or enough was looked at: where it holds nothing
/// then, its `resume` says where to read on.
fn read_batches(job: &ReadJob, judge: &Judge, reader: &Reader) -> Result<ReadBatches, Refusal> {
    let bounds = reader.bounds(job.queue);
    let mut answer = ReadBatches {
        start: bounds.start,
        next: bounds.next,
        resume: job.from,
        batches: Vec::new(),
        gaps: Vec::new(),
    };
    let mut room = Room {
        messages: u64::from(job.max_messages.clamp(1, READ_MESSAGES_MAX)),
        bytes: u64::from(job.max_bytes.clamp(1, READ_BYTES_MAX)),
        looked_at: READ_LOOKED_BYTES_MAX,
        damaged: GAP_BATCHES_MAX,
    };
    while room.is_left() {
        let looked = look(job, &mut room, &mut answer, reader)?;
        if looked.is_empty() {
            break;
        }
        if !deliver(job, looked, judge, &mut room, &mut answer)? {
            break;
        }
    }
    Ok(answer)
}

/// What a raw read may still take.
struct Room {
    messages: u64,
    bytes: u64,
    looked_at: u64,
    damaged: u32,
}

impl Room {
    fn is_left(&self) -> bool {
        self.messages > 0 && self.bytes > 0 && self.looked_at > 0 && self.damaged > 0
    }
}

/// The next batches of a raw read, about as many as its reply has room for. What can't be read is
/// noted as a gap; `resume` is then at the first batch that was read.
fn look(
    job: &ReadJob,
    room: &mut Room,
    answer: &mut ReadBatches,
    reader: &Reader,
) -> Result<Vec<Looked>, Refusal> {
    let refuse = |error: ReadError| Refusal::new(read_code(&error), error.to_string());
    let mut looked: Vec<Looked> = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    let mut entries = Vec::new();
    reader
        .entries(job.queue, answer.resume, ENTRIES, &mut entries)
        .map_err(refuse)?;
    if entries.is_empty() {
        // What expired or was compacted away has no entries any more.
        answer.resume = answer.resume.max(answer.next);
    }
    let mut at = answer.resume;
    for entry in &entries {
        let is_full = messages >= room.messages || bytes >= room.bytes.min(READ_AHEAD_BYTES);
        if !looked.is_empty() && is_full || room.looked_at == 0 || room.damaged == 0 {
            break;
        }
        if job.over_gaps && entry.base_offset > at {
            let missing = reader.damaged_before(job.queue, at, entry);
            if let Some((from, to)) = missing.map_err(refuse)? {
                if !looked.is_empty() {
                    // Met again when what lies before it has been delivered.
                    break;
                }
                let code = code::QUARANTINED;
                add_gap(&mut answer.gaps, Gap { from, to, code });
            }
        }
        let next = entry.next_offset();
        match reader.read_entry(entry) {
            // It expired since it was looked up.
            Err(ReadError::NotFound { .. }) => {}
            Err(error) if !looked.is_empty() => {
                tracing::debug!(%error, "met again when what lies before it has been delivered");
                break;
            }
            Err(error @ ReadError::Quarantined { .. }) if job.over_gaps => {
                let gap = Gap {
                    from: entry.base_offset.max(at),
                    to: next,
                    code: read_code(&error),
                };
                add_gap(&mut answer.gaps, gap);
                room.damaged -= 1;
            }
            read => {
                let batch = read.map_err(refuse)?;
                messages += u64::from(entry.count);
                bytes += u64::from(entry.section_len);
                room.looked_at = room
                    .looked_at
                    .saturating_sub(u64::from(entry.section_len) + 1);
                let from = at.max(entry.base_offset);
                looked.push(Looked {
                    batch,
                    from,
                    until: next,
                });
            }
        }
        at = next;
        if looked.is_empty() {
            answer.resume = next;
        }
    }
    Ok(looked)
}

/// Judges what was looked at and takes it into the reply, as far as that has room. False if there is no
/// more to be had now.
fn deliver(
    job: &ReadJob,
    looked: Vec<Looked>,
    judge: &Judge,
    room: &mut Room,
    answer: &mut ReadBatches,
) -> Result<bool, Refusal> {
    let judgement = judge.judge(&job.bindings, &looked);
    for (index, (judged, looked)) in judgement.judged.into_iter().zip(looked).enumerate() {
        let fails = |failed: &&Failed| !matches!(failed.on_error, OnError::Skip | OnError::Pass);
        let mut end = judgement.undecided.clone().filter(|end| end.batch <= index);
        if !job.over_gaps
            && let Some(failed) = judged.failed.iter().find(fails)
            && let Some(offset) = failed.offsets.first()
        {
            end = Some(Undecided {
                batch: index,
                offset: Offset(offset),
                code: failed.code,
                message: "see the last failures of the plugin".to_owned(),
            });
        }
        let until = end.as_ref().map_or(looked.until, |end| end.offset);
        if !room.is_left() {
            return Ok(false);
        }
        let base = looked.batch.header.base_offset;
        let is_first = answer.batches.is_empty();
        let bytes = looked.batch.section.len() as u64;
        let mut wanted = judged.accepted.within(0, until.0);
        if !wanted.is_empty() && !is_first && bytes > room.bytes {
            return Ok(false);
        }
        let all = wanted.count();
        let wanted = wanted.take_front(room.messages);
        // A batch cut short by the limit is read on from there.
        let resume = match wanted.end() {
            Some(end) if wanted.count() < all || wanted.count() == room.messages => Offset(end),
            _ => until,
        };
        for failed in judged.failed.iter().filter(fails) {
            let ranges = failed.offsets.within(answer.resume.0, resume.0);
            for range in ranges.ranges() {
                let gap = Gap {
                    from: Offset(range.first),
                    to: Offset(range.end),
                    code: failed.code,
                };
                add_gap(&mut answer.gaps, gap);
            }
        }
        if let Some(batch) = delivered(looked.batch, &wanted)? {
            room.messages -= wanted.count();
            room.bytes = room.bytes.saturating_sub(batch.section.len() as u64);
            answer.batches.push(batch);
        }
        answer.resume = resume.max(base);
        if let Some(end) = end {
            return stopped_at(&end, job, answer).map(|()| false);
        }
    }
    Ok(true)
}

/// What comes of a read that met a record without a verdict: where something was read before, that is
/// the reply, and the next read meets it alone.
fn stopped_at(end: &Undecided, job: &ReadJob, answer: &ReadBatches) -> Result<(), Refusal> {
    if answer.resume > job.from {
        return Ok(());
    }
    let offset = end.offset;
    let message = format!(
        "a plugin of the view failed at offset {offset}: {}",
        end.message
    );
    Err(Refusal::new(end.code, message))
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
