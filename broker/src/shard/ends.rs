//! How far the queues of a shard reach.

use tidegate_model::{Offset, QueueId, QueueTable, ShardId};

/// Bytes of a row in snapshots.
const ROW_BYTES: usize = 16;

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

    /// Queue and end of each, ids rising: two little-endian u64.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.rows.len() * ROW_BYTES);
        for (row, end) in self.rows.iter() {
            bytes.extend_from_slice(&(row.0 * self.step + self.rest).to_le_bytes());
            bytes.extend_from_slice(&end.0.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Ends::encode`] wrote of this shard.
    pub(crate) fn decode(shard: ShardId, shards: u32, bytes: &[u8]) -> Result<Self, String> {
        let mut ends = Self::new(shard, shards);
        let (rows, rest) = bytes.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() {
            return Err("the last queue's end is cut".to_owned());
        }
        for row in rows {
            let (queue, end) = row.split_first_chunk().expect("a row has two numbers");
            let queue = QueueId(u64::from_le_bytes(*queue));
            if queue.0 % ends.step != ends.rest {
                return Err(format!("queue {queue} lies in another shard"));
            }
            let end = u64::from_le_bytes(*end.first_chunk().expect("the other half of a row"));
            ends.raise(queue, Offset(end));
        }
        Ok(ends)
    }

    fn row(&self, queue: QueueId) -> QueueId {
        debug_assert_eq!(queue.0 % self.step, self.rest, "a queue of another shard");
        QueueId(queue.0 / self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut ends = Ends::new(ShardId(3), 8);
        for (queue, end) in [(2, 7), (9, 1), (7002, u64::MAX)] {
            ends.raise(QueueId(queue), Offset(end));
        }
        ends.raise(QueueId(2), Offset(5));
        assert_eq!(ends.get(QueueId(2)), Offset(7), "an end never falls");
        assert_eq!(ends.get(QueueId(16)), Offset(0));
        let bytes = ends.encode();
        assert_eq!(Ends::decode(ShardId(3), 8, &bytes), Ok(ends.clone()));
        assert!(Ends::decode(ShardId(3), 8, &bytes[1..]).is_err());
        assert!(Ends::decode(ShardId(4), 8, &bytes).is_err());
        ends.remove(QueueId(9));
        assert_eq!(ends.encode().len(), 2 * ROW_BYTES);
    }

    #[test]
    fn a_node_with_one_shard_has_all_queues_in_it() {
        let mut ends = Ends::new(ShardId(0), 1);
        ends.raise(QueueId(1), Offset(1));
        ends.raise(QueueId(2), Offset(2));
        assert_eq!(Ends::decode(ShardId(0), 1, &ends.encode()), Ok(ends));
    }
}
