//! The log by itself, in this process: what it adds to copying, writing, syncing and mapping.

mod group;
mod path;
mod reading;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Message, ProducerEpoch, ProducerId, QueueId, SectionBuilder, Sequence, ShardId, Term, Timestamp,
};
use tidegate_store::{
    Batch, Kind, LogPosition, QueueBounds, RealVfs, Replay, ReplayError, Store, StoreConfig,
    StoredBatch,
};

use crate::table::Table;

/// Bytes of a message's body.
const BODY: usize = 1024;
/// Messages of a batch of some 16 KiB.
const RECORDS: u16 = 16;

pub(crate) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Vec<Table>> {
    Ok(vec![
        path::measure(folder, time)?,
        group::measure(folder, time)?,
        reading::measure(folder, time)?,
    ])
}

/// A section of `records` messages, and its CRC.
pub(crate) struct Load {
    pub(crate) section: Vec<u8>,
    pub(crate) crc: u32,
    pub(crate) records: u16,
    /// When its batches are appended.
    pub(crate) time: Timestamp,
}

impl Load {
    pub(crate) fn new(records: u16) -> anyhow::Result<Self> {
        Self::of(records, BODY)
    }

    pub(crate) fn of(records: u16, body: usize) -> anyhow::Result<Self> {
        let mut builder = SectionBuilder::new();
        for _ in 0..records {
            builder.push(&Message::new(vec![b'x'; body]))?;
        }
        let section = builder.finish()?;
        Ok(Self {
            crc: crc32c(&section),
            section,
            records,
            time: Timestamp(1),
        })
    }

    pub(crate) fn batch(&self, shard: ShardId, queue: QueueId) -> Batch<'_> {
        Batch {
            shard,
            term: Term(1),
            queue,
            kind: Kind::Data,
            codec: 0,
            key_id: 0,
            flags: 0,
            producer: ProducerId(0),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            append_time: self.time,
            base_create_time: self.time,
            tag_bits: 0,
            count: self.records,
            span: self.records,
            section: &self.section,
            section_crc: self.crc,
        }
    }
}

/// Nobody listens: these logs hold no broker.
pub(crate) struct Nothing;

impl Replay for Nothing {
    fn restore(&mut self, _: ShardId, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn quarantined(&mut self, _: LogPosition, _: LogPosition) -> Result<(), ReplayError> {
        Ok(())
    }

    fn batch(&mut self, _: &StoredBatch) -> Result<(), ReplayError> {
        Ok(())
    }
}

pub(crate) fn config() -> StoreConfig {
    StoreConfig {
        // Segments at once of the size that they grow to.
        segment_bytes: 256 << 20,
        ..StoreConfig::default()
    }
}

pub(crate) fn open(folder: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(
        Arc::new(RealVfs),
        folder,
        config(),
        Timestamp(1),
        &mut Nothing,
    )?)
}

/// What a queue holds, as a number of messages.
pub(crate) fn held(bounds: QueueBounds) -> u64 {
    bounds.next.0 - bounds.start.0
}
