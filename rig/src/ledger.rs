//! What a log holds, as the rig remembers it and as a replay finds it.

use std::collections::BTreeMap;

use tidegate_model::ShardId;
use tidegate_model::checksum::crc32c;
use tidegate_store::{LogPosition, Replay, ReplayError, StoredBatch};

const KNOWN_BYTES: usize = 28;

/// A batch, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    pub(crate) queue: u64,
    pub(crate) base_offset: u64,
    pub(crate) crc: u32,
}

impl Known {
    pub(crate) fn of(batch: &StoredBatch) -> Self {
        Self {
            seq: batch.header.seq.0,
            queue: batch.header.queue.0,
            base_offset: batch.header.base_offset.0,
            crc: crc32c(&batch.section),
        }
    }
}

/// All batches by shard, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) shards: BTreeMap<u32, Vec<Known>>,
    pub(crate) quarantined: Vec<(LogPosition, LogPosition)>,
}

impl Ledger {
    pub(crate) fn add(&mut self, shard: u32, known: Known) {
        self.shards.entry(shard).or_default().push(known);
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.values().map(Vec::len).sum()
    }

    /// Each shard's state for a snapshot.
    pub(crate) fn states(&self) -> Vec<(ShardId, Vec<u8>)> {
        let state = |(shard, batches): (&u32, &Vec<Known>)| {
            let mut bytes = Vec::with_capacity(batches.len() * KNOWN_BYTES);
            for known in batches {
                for number in [known.seq, known.queue, known.base_offset] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                bytes.extend_from_slice(&known.crc.to_le_bytes());
            }
            (ShardId(*shard), bytes)
        };
        self.shards.iter().map(state).collect()
    }
}

impl Replay for Ledger {
    fn restore(&mut self, shard: ShardId, state: &[u8]) -> Result<(), ReplayError> {
        for bytes in state.chunks_exact(KNOWN_BYTES) {
            let number =
                |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            let known = Known {
                seq: number(0),
                queue: number(8),
                base_offset: number(16),
                crc: u32::from_le_bytes(bytes[24..].try_into().expect("four bytes")),
            };
            self.add(shard.0, known);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError> {
        self.add(batch.header.shard.0, Known::of(batch));
        Ok(())
    }

    fn quarantined(&mut self, from: LogPosition, to: LogPosition) -> Result<(), ReplayError> {
        self.quarantined.push((from, to));
        Ok(())
    }
}
