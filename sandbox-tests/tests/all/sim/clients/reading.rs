//! Looking at what queues hold.

use tidegate_broker::request::{Read, StartAt};
use tidegate_broker::{Reply, Request, SourceRef};
use tidegate_model::{Offset, TopicRef, code};

use super::Clients;
use super::bodies::messages_of;
use crate::sim::check::Finding;

/// Messages that one read asks for.
const READ_MESSAGES: u32 = 1000;

/// What a queue holds.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) start: u64,
    pub(crate) next: u64,
    pub(crate) messages: Vec<(u64, u64)>,
}

impl Clients<'_> {
    /// All messages of a queue, by offset, and where it begins and ends. `None` without the topic
    /// or the queue.
    pub(crate) fn read(
        &mut self,
        topic: &TopicRef,
        queue_index: u32,
    ) -> Result<Option<Stored>, Finding> {
        let mut stored = Stored::default();
        let mut from = StartAt::Earliest;
        loop {
            let read = Read {
                source: SourceRef::Topic(topic.clone()),
                queue_index,
                from,
                max_messages: READ_MESSAGES,
                max_bytes: 1 << 20,
                over_gaps: false,
            };
            let read = match self.ask(Request::Read(read))? {
                Ok(Reply::Read(read)) => read,
                Err(refusal)
                    if [code::TOPIC_NOT_FOUND, code::QUEUE_NOT_FOUND].contains(&refusal.code) =>
                {
                    return Ok(None);
                }
                other => return Err(Finding::Refused(format!("{other:?}"))),
            };
            if from == StartAt::Earliest {
                stored.start = read.start.0;
            }
            stored.next = read.next.0;
            for batch in &read.batches {
                for (delta, id) in messages_of(batch)? {
                    let offset = batch.base_offset.0 + u64::from(delta);
                    stored.messages.push((offset, id));
                }
            }
            if read.resume >= read.next || read.batches.is_empty() {
                return Ok(Some(stored));
            }
            from = StartAt::Offset(Offset(read.resume.0));
        }
    }
}
