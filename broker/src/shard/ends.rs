//! How far the queues of a shard reach.

use tidegate_model::{Offset, QueueId, QueueTable, ShardId};

/// One past the last durable message of each queue that has any.
///
/// A node deals its queues out to its shards in turn ([`Catalog::shard_of`]), so a shard has every
/// so many-th id: rows are numbered without those of the other shards.
///
/// [`Catalog::shard_of`]: crate::catalog::Catalog::shard_of
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    rows: QueueTable<Offset>,
    /// Distance of the shard's ids from each other.
    step: u64,
    /// What is left of each id divided by it.
    rest: u64,
}

impl Ends {
    /// Of shard `shard` on a node with `shards` of them.
    pub(crate) fn new(shard: ShardId, shards: u32) -> Self {
        Self {
            rows: QueueTable::default(),
            step: u64::from(shards.saturating_sub(1)).max(1),
            rest: u64::from(shard.0.saturating_sub(1)),
        }
    }

    pub(crate) fn get(&self, queue: QueueId) -> Offset {
        self.rows.get(self.row(queue)).copied().unwrap_or_default()
    }

    pub(crate) fn raise(&mut self, queue: QueueId, end: Offset) {
        let known = self
            .rows
            .get_or_insert_with(self.row(queue), Offset::default);
        *known = end.max(*known);
    }

    pub(crate) fn remove(&mut self, queue: QueueId) {
        self.rows.remove(self.row(queue));
    }

    /// The queues, ids rising, and their ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueId, Offset)> {
        let rows = self.rows.iter();
        rows.map(|(row, end)| (QueueId(row.0 * self.step + self.rest), *end))
    }

    fn row(&self, queue: QueueId) -> QueueId {
        debug_assert_eq!(queue.0 % self.step, self.rest, "a queue of another shard");
        QueueId(queue.0 / self.step)
    }
}
