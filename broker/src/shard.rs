//! The replicated state of one shard: what its log's data and group batches add up to.

mod ends;
mod snapshot;

use std::collections::BTreeMap;

use tidegate_model::{Offset, QueueId, ShardId};

use crate::cursor::CursorState;
use crate::id::CursorId;
use crate::publish::producers::Producers;
use ends::Ends;

/// State of one shard. Changed only by what became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) ends: Ends,
    /// Dedup state.
    pub(crate) producers: Producers,
    /// Cursors that were set in this shard's journal.
    pub(crate) cursors: BTreeMap<(QueueId, CursorId), CursorState>,
}

impl Shard {
    /// Shard `shard`, empty, of a node with `shards` of them.
    pub(crate) fn new(shard: ShardId, shards: u32) -> Self {
        Self {
            ends: Ends::new(shard, shards),
            producers: Producers::default(),
            cursors: BTreeMap::new(),
        }
    }

    pub(crate) fn end(&self, queue: QueueId) -> u64 {
        self.ends.get(queue).0
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
        self.ends.remove(queue);
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
