//! The replicated state of one shard: what its log's data and group batches add up to.

mod snapshot;

use std::collections::BTreeMap;

use tidegate_model::{Offset, QueueId};

use crate::cursor::CursorState;
use crate::id::CursorId;
use crate::publish::producers::Producers;

/// State of one shard. Changed only by what became durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shard {
    /// One past the last durable message of each queue that has any.
    pub(crate) ends: BTreeMap<QueueId, Offset>,
    /// Dedup state.
    pub(crate) producers: Producers,
    /// Cursors that were set in this shard's journal.
    pub(crate) cursors: BTreeMap<(QueueId, CursorId), CursorState>,
}

impl Shard {
    pub(crate) fn end(&self, queue: QueueId) -> u64 {
        self.ends.get(&queue).map_or(0, |end| end.0)
    }

    pub(crate) fn cursor(&self, queue: QueueId, cursor: CursorId) -> Option<&CursorState> {
        self.cursors.get(&(queue, cursor))
    }

    /// All of a queue before `start` is gone. How many messages its cursors lost by that.
    pub(crate) fn trim(&mut self, queue: QueueId, start: Offset) -> u64 {
        self.cursors
            .range_mut((queue, CursorId(0))..=(queue, CursorId(u64::MAX)))
            .map(|(_, state)| state.trim(start.0))
            .sum()
    }

    /// Forgets a queue that was removed.
    pub(crate) fn drop_queue(&mut self, queue: QueueId) {
        self.ends.remove(&queue);
        self.producers.drop_queue(queue);
        let gone: Vec<_> = self
            .cursors
            .range((queue, CursorId(0))..=(queue, CursorId(u64::MAX)))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.cursors.remove(&key);
        }
    }
}
