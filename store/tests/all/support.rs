//! A pretended broker: remembers what it was told, in order, and can be snapshotted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tidegate_model::checksum::crc32c;
use tidegate_model::compress::raw_bodies;
use tidegate_model::{
    Codec, Message, Offset, ProducerEpoch, ProducerId, QueueId, Section, Seq, Sequence, ShardId,
    Term, Timestamp,
};
use tidegate_store::header::stored_bytes;
use tidegate_store::{
    Appended, Background, Batch, Kind, LogPosition, OpenError, Reader, Replay, ReplayError, Store,
    StoreConfig, StoredBatch, Vfs, trim,
};

pub(crate) const DIR: &str = "/data/store";

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(crate) fn small() -> StoreConfig {
    StoreConfig {
        ring_bytes: 64 << 10,
        ring_bytes_max: 256 << 10,
        segment_bytes: 32 << 10,
        segment_bytes_max: 64 << 10,
        checkpoint_bytes: 32 << 10,
        checkpoint_factor: 0,
        checkpoint_interval_ms: 5000,
        shards: 3,
        scrub_bytes_per_s: 0,
    }
}

/// A stored batch, as far as the tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: u8,
    pub(crate) shard: u32,
    pub(crate) seq: u64,
    pub(crate) queue: u64,
    pub(crate) base_offset: u64,
    pub(crate) span: u16,
    pub(crate) append_time: i64,
    pub(crate) section: Vec<u8>,
}

impl Record {
    pub(crate) fn of(batch: &StoredBatch) -> Self {
        let header = &batch.header;
        Self {
            kind: header.kind as u8,
            shard: header.shard.0,
            seq: header.seq.0,
            queue: header.queue.0,
            base_offset: header.base_offset.0,
            span: header.span,
            append_time: header.append_time.0,
            section: batch.section.to_vec(),
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [
            u64::from(self.kind),
            u64::from(self.shard),
            self.seq,
            self.queue,
            self.base_offset,
            u64::from(self.span),
            self.append_time.cast_unsigned(),
            self.section.len() as u64,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.section);
    }

    fn decode(bytes: &mut &[u8]) -> Self {
        let mut next = || {
            let (number, rest) = bytes.split_at(8);
            *bytes = rest;
            u64::from_le_bytes(number.try_into().unwrap())
        };
        let kind = u8::try_from(next()).unwrap();
        let (shard, seq, queue, base_offset) = (next(), next(), next(), next());
        let (span, append_time, len) = (next(), next().cast_signed(), next());
        let (section, rest) = bytes.split_at(usize::try_from(len).unwrap());
        *bytes = rest;
        Self {
            kind,
            shard: u32::try_from(shard).unwrap(),
            seq,
            queue,
            base_offset,
            span: u16::try_from(span).unwrap(),
            append_time,
            section: section.to_vec(),
        }
    }
}

/// Queues that hold messages, and that a test may have compacted by key.
pub(crate) const COMPACTED: Range<u64> = 100..200;

/// The messages of a batch, by offset.
pub(crate) fn messages(batch: &StoredBatch) -> Vec<(u64, Message)> {
    let header = &batch.header;
    let codec = Codec::from_byte(header.codec).unwrap();
    let (count, span) = (usize::from(header.count), u32::from(header.span));
    let section = Section::parse(&batch.section, count, span, codec).unwrap();
    let raw = raw_bodies(&section, codec).unwrap();
    let section = section.with_bodies(&raw).unwrap();
    let offset = |delta: u32| header.base_offset.0 + u64::from(delta);
    let records = section.records();
    let messages = records.map(|record| (offset(record.delta()), record.to_message()));
    messages.collect()
}

/// Everything that was applied, by shard and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) shards: BTreeMap<u32, Vec<Record>>,
    pub(crate) quarantined: Vec<(LogPosition, LogPosition)>,
}

impl Ledger {
    pub(crate) fn apply(&mut self, record: Record) {
        self.shards.entry(record.shard).or_default().push(record);
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Record> {
        self.shards.values().flatten()
    }

    /// Where trims let queues begin.
    pub(crate) fn starts(&self) -> BTreeMap<u64, u64> {
        let mut starts = BTreeMap::new();
        for record in self.all().filter(|record| record.kind == Kind::Trim as u8) {
            for row in trim::decode(&record.section).unwrap() {
                let start = starts.entry(row.queue.0).or_insert(0);
                *start = row.start.0.max(*start);
            }
        }
        starts
    }

    pub(crate) fn len(&self) -> usize {
        self.all().count()
    }

    pub(crate) fn states(&self) -> Vec<(ShardId, Vec<u8>)> {
        let encode = |(shard, records): (&u32, &Vec<Record>)| {
            let mut bytes = Vec::new();
            for record in records {
                record.encode(&mut bytes);
            }
            (ShardId(*shard), bytes)
        };
        self.shards.iter().map(encode).collect()
    }
}

impl Replay for Ledger {
    fn restore(&mut self, shard: ShardId, mut state: &[u8]) -> Result<(), ReplayError> {
        while !state.is_empty() {
            let record = Record::decode(&mut state);
            assert_eq!(record.shard, shard.0);
            self.apply(record);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError> {
        self.apply(Record::of(batch));
        Ok(())
    }

    fn quarantined(&mut self, from: LogPosition, to: LogPosition) -> Result<(), ReplayError> {
        self.quarantined.push((from, to));
        Ok(())
    }
}

pub(crate) fn batch(shard: u32, queue: u64, span: u16, time: i64, section: &[u8]) -> Batch<'_> {
    Batch {
        shard: ShardId(shard),
        term: Term(1),
        queue: QueueId(queue),
        kind: if queue == 0 { Kind::Group } else { Kind::Data },
        codec: 0,
        key_id: 0,
        flags: 0,
        producer: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
        sequence: Sequence(42),
        append_time: Timestamp(time),
        base_create_time: Timestamp(time - 1),
        tag_bits: 1 << (queue % 64),
        count: span,
        span,
        section,
        section_crc: crc32c(section),
    }
}

pub(crate) fn record(batch: &Batch<'_>, appended: &Appended) -> Record {
    Record {
        kind: batch.kind as u8,
        shard: batch.shard.0,
        seq: appended.seq.0,
        queue: batch.queue.0,
        base_offset: appended.base_offset.0,
        span: batch.span,
        append_time: batch.append_time.0,
        section: batch.section.to_vec(),
    }
}

pub(crate) fn open_manual(
    vfs: &(impl Vfs + Clone + 'static),
    config: StoreConfig,
) -> Result<(Store, Background, Ledger), OpenError> {
    let mut ledger = Ledger::default();
    let (store, background) = Store::open_manual(
        Arc::new(vfs.clone()),
        dir(),
        config,
        Timestamp(1000),
        &mut ledger,
    )?;
    Ok((store, background, ledger))
}

/// Reads each queue from its start through index and log, and the batches by their numbers, and
/// compares with `ledger`. Of the queues [`COMPACTED`] superseded messages may be gone.
pub(crate) fn check_reads(reader: &Reader, ledger: &Ledger) {
    let starts = ledger.starts();
    let mut queues: BTreeMap<u64, Vec<&Record>> = BTreeMap::new();
    for record in ledger.all() {
        let is_data = record.queue != 0 && record.span > 0;
        let end = record.base_offset + u64::from(record.span);
        let is_live = is_data && starts.get(&record.queue).is_none_or(|start| end > *start);
        if is_data {
            let live = queues.entry(record.queue).or_default();
            live.extend(is_live.then_some(record));
        }
        let position = reader
            .position_of(ShardId(record.shard), Seq(record.seq))
            .unwrap();
        // What was trimmed, and what only recovery needed, may be gone.
        match position {
            _ if COMPACTED.contains(&record.queue) => {}
            Some(position) => assert_eq!(Record::of(&reader.read(position).unwrap()), *record),
            None => assert!(!is_live, "{}-{} is in the index", record.shard, record.seq),
        }
    }
    for (queue, records) in queues {
        let queue = QueueId(queue);
        if COMPACTED.contains(&queue.0) {
            check_compacted(reader, queue, &records);
            continue;
        }
        let bounds = reader.bounds(queue);
        let bytes = |record: &&Record| stored_bytes(record.section.len());
        assert_eq!(bounds.bytes, records.iter().map(bytes).sum::<u64>());
        match records.first() {
            Some(first) => assert_eq!(bounds.start, Offset(first.base_offset)),
            None => assert_eq!(bounds.start, bounds.next),
        }
        let mut from = bounds.start;
        let mut found = Vec::new();
        while from < bounds.next {
            let mut entries = Vec::new();
            reader.entries(queue, from, 3, &mut entries).unwrap();
            assert!(
                !entries.is_empty(),
                "{queue} from {from} to {}",
                bounds.next
            );
            for entry in entries {
                assert_eq!(entry.base_offset, from, "no hole in {queue}");
                let stored = reader.read(entry.position).unwrap();
                assert_eq!(entry.seq, stored.header.seq);
                assert_eq!(entry.tag_bits, stored.header.tag_bits);
                assert_eq!(entry.section_len, stored.header.section_len);
                found.push(Record::of(&stored));
                from = entry.next_offset();
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), records);
        for record in &records {
            let time = Timestamp(record.append_time);
            let first = records.iter().find(|other| other.append_time >= time.0);
            assert_eq!(
                reader.offset_at(queue, time).unwrap(),
                Offset(first.unwrap().base_offset)
            );
        }
        assert_eq!(
            reader.offset_at(queue, Timestamp(i64::MAX)).unwrap(),
            bounds.next
        );
    }
}

/// What is stored of a queue is what was appended, at its offsets; what isn't any more is superseded,
/// or a deletion of which nothing older is left.
fn check_compacted(reader: &Reader, queue: QueueId, records: &[&Record]) {
    let mut appended = BTreeMap::new();
    for record in records {
        let count = u32::from(record.span);
        let section = &record.section;
        let section = Section::parse(section, record.span.into(), count, Codec::None).unwrap();
        let messages = section.records().map(|record| record.to_message());
        appended.extend((record.base_offset..).zip(messages));
    }
    let bounds = reader.bounds(queue);
    let (mut stored, mut bytes, mut from) = (BTreeMap::new(), 0, bounds.start);
    loop {
        let mut entries = Vec::new();
        reader.entries(queue, from, 3, &mut entries).unwrap();
        let Some(last) = entries.last() else { break };
        from = last.next_offset();
        for entry in entries {
            let batch = reader.read(entry.position).unwrap();
            bytes += batch.header.stored_bytes();
            let record = Record::of(&batch);
            let is_it = |other: &&&Record| other.base_offset == record.base_offset;
            let section = records.iter().find(is_it).unwrap().section.clone();
            if batch.header.count == batch.header.span {
                assert_eq!(record.section, section);
            }
            let whole = Record { section, ..record };
            assert!(records.contains(&&whole), "{queue}: {whole:?}");
            let at = reader.position_of(batch.header.shard, batch.header.seq);
            assert_eq!(at.unwrap(), Some(entry.position));
            stored.extend(messages(&batch));
        }
    }
    // What compaction took off the count may be lost in a crash.
    assert!(bounds.bytes >= bytes, "{queue}: {bounds:?}, stored {bytes}");
    for (offset, message) in &stored {
        assert_eq!(*message, appended[offset], "{queue} {offset}");
    }
    for (offset, message) in &appended {
        let is_superseded = |key: &Vec<u8>| {
            let mut newer = appended.range(offset + 1..);
            newer.any(|(_, newer)| newer.keys.contains(key))
        };
        if stored.contains_key(offset) || message.keys.iter().all(is_superseded) {
            continue;
        }
        assert_eq!(message.body, None, "{queue} {offset} is lost");
        let is_deleted = |old: &Message| old.keys.iter().any(|key| message.keys.contains(key));
        assert!(!stored.values().any(is_deleted), "{queue} {offset}");
    }
}
