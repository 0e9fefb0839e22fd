//! Searches: messages by key and time, or by id, in what is stored.

use std::sync::mpsc::Receiver;

use tidegate_broker::Refusal;
use tidegate_broker::range::RangeSet;
use tidegate_broker::reply::{FoundBatch, FoundMessages, Reply};
use tidegate_broker::request::FindMessages;
use tidegate_model::{Codec, MessageId, QueueId, Section, TopicRef, code};
use tidegate_store::{Find, ReadError, Reader, StoredBatch};

use super::fetch::read_code;
use super::send;
use crate::input::{Admitted, Answer};

/// Messages of one page.
const PAGE_MESSAGES_MAX: u32 = 4096;
/// Bytes of heads and bodies of one page, unless its first message alone has more.
const PAGE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// A search in a topic.
pub(crate) struct FindJob {
    pub(crate) topic: TopicRef,
    /// All queues of the topic, in index order.
    pub(crate) queues: Vec<QueueId>,
    pub(crate) wanted: Wanted,
    pub(crate) answer: Answer<Reply>,
    pub(crate) _admitted: Admitted,
}

/// What is searched.
pub(crate) enum Wanted {
    Page(FindMessages),
    Message(MessageId),
}

/// Searches until nobody can ask any more.
pub(super) fn work(jobs: &Receiver<FindJob>, reader: &Reader) {
    while let Ok(job) = jobs.recv() {
        if job.answer.is_closed() {
            continue;
        }
        let found = match &job.wanted {
            Wanted::Page(find) => page(find, &job.queues, reader),
            Wanted::Message(id) => message(*id, &job, reader),
        };
        // The caller may have gone away.
        let _ = job.answer.send(found.map(Reply::Found));
    }
}

fn page(
    find: &FindMessages,
    queues: &[QueueId],
    reader: &Reader,
) -> Result<FoundMessages, Refusal> {
    let max_messages = find.max_messages.clamp(1, PAGE_MESSAGES_MAX);
    let found = reader
        .find(&Find {
            queues,
            key: find.key.as_deref(),
            from: find.from,
            to: find.to,
            order: find.order,
            page: find.page,
            max_messages: usize::try_from(max_messages).expect("a small number"),
            max_bytes: u64::from(find.max_bytes.min(PAGE_BYTES_MAX)),
        })
        .map_err(|error| refuse(&error))?;
    let batches = found
        .batches
        .into_iter()
        .map(|found| part(found.batch, &found.records, queues))
        .collect::<Result<_, _>>()?;
    Ok(FoundMessages {
        batches,
        next: found.next,
        unreadable: found.unreadable,
    })
}

fn message(id: MessageId, job: &FindJob, reader: &Reader) -> Result<FoundMessages, Refusal> {
    let missing = || {
        let topic = &job.topic;
        Refusal::new(
            code::MESSAGE_NOT_FOUND,
            format!("topic {topic} holds no message {id}, or no longer"),
        )
        .hint(format!("tidegate message find {} --key KEY", topic.topic))
    };
    let batch = reader
        .batch(id.batch.shard, id.batch.seq)
        .map_err(|error| refuse(&error))?
        .ok_or_else(missing)?;
    let header = &batch.header;
    let offset = header.base_offset.plus(u64::from(id.record));
    let is_here = header.kind == tidegate_store::Kind::Data
        && job.queues.contains(&header.queue)
        && id.record < header.span
        && reader.bounds(header.queue).start <= offset;
    let record = if is_here {
        record_of(&batch, id.record)?
    } else {
        None
    };
    let record = record.ok_or_else(missing)?;
    Ok(FoundMessages {
        batches: vec![part(batch, &[record], &job.queues)?],
        next: None,
        unreadable: 0,
    })
}

/// Where in a section the record of this offset delta is; compaction may have taken it out.
fn record_of(batch: &StoredBatch, delta: u16) -> Result<Option<u16>, Refusal> {
    let section = section(batch)?;
    let at = section
        .records()
        .position(|record| record.delta() == u32::from(delta));
    Ok(at.map(|at| u16::try_from(at).expect("BATCH_RECORDS_MAX is below 2^16")))
}

fn section(batch: &StoredBatch) -> Result<Section<'_>, Refusal> {
    let header = &batch.header;
    Codec::from_byte(header.codec)
        .and_then(|codec| {
            let count = usize::from(header.count);
            Section::parse_trusted(&batch.section, count, codec)
        })
        .map_err(|error| Refusal::new(code::DATA_CORRUPT, error.to_string()))
}

/// Some records of a batch, as they go out.
fn part(batch: StoredBatch, records: &[u16], queues: &[QueueId]) -> Result<FoundBatch, Refusal> {
    let queue = batch.header.queue;
    let queue_index = queues
        .iter()
        .position(|known| *known == queue)
        .expect("only these queues are searched");
    let mut wanted = RangeSet::default();
    {
        let section = section(&batch)?;
        for record in records {
            let delta = section.record(usize::from(*record)).delta();
            let offset = batch.header.base_offset.plus(u64::from(delta));
            wanted.push(offset.0, offset.0 + 1);
        }
    }
    let batch = send::prepare(batch, &wanted)
        .map_err(|error| Refusal::new(code::DATA_CORRUPT, error.to_string()))?;
    Ok(FoundBatch {
        queue_index: u32::try_from(queue_index).expect("TOPIC_QUEUES_MAX is below 2^32"),
        batch,
    })
}

fn refuse(error: &ReadError) -> Refusal {
    Refusal::new(read_code(error), error.to_string())
}
