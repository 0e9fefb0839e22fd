//! Queues with holes, as compaction by key leaves them.

use std::path::Path;
use std::sync::Arc;

use tidegate_broker::effects::{Fetch, Fetched};
use tidegate_broker::id::{CursorId, FetchToken, SourceId};
use tidegate_broker::range::RangeSet;
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Message, Offset, ProducerEpoch, ProducerId, QueueId, Section, SectionBuilder, Sequence,
    ShardId, Term, Timestamp, TopicId,
};
use tidegate_store::sim::SimVfs;
use tidegate_store::{
    Background, Batch, CompactedRun, Compaction, Kind, Reader, Replay, ReplayError, Store,
    StoreConfig, StoredBatch,
};

use super::{fetch, send};

const QUEUE: QueueId = QueueId(1);

struct Nothing;

impl Replay for Nothing {
    fn restore(&mut self, _: ShardId, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn batch(&mut self, _: &StoredBatch) -> Result<(), ReplayError> {
        Ok(())
    }
}

fn append(store: &mut Store, background: &Background, keys: &[&str]) {
    let mut builder = SectionBuilder::new();
    for key in keys {
        builder.push(&Message::new(vec![7; 500]).key(*key)).unwrap();
    }
    let section = builder.finish().unwrap();
    let count = u16::try_from(builder.count()).unwrap();
    let batch = Batch {
        shard: ShardId(0),
        term: Term(1),
        queue: QUEUE,
        kind: Kind::Data,
        codec: 0,
        key_id: 0,
        flags: 0,
        producer: ProducerId(0),
        producer_epoch: ProducerEpoch(0),
        sequence: Sequence(0),
        append_time: Timestamp(1),
        base_create_time: Timestamp(1),
        tag_bits: builder.tag_bits(),
        count,
        span: count,
        section: &section,
        section_crc: crc32c(&section),
    };
    store.appender.append(&[batch]).unwrap();
    background.run_all();
    store.appender.settle().unwrap();
}

/// A queue of which most is gone: whole batches, and parts of some.
fn compacted() -> (Store, Background) {
    let config = StoreConfig {
        ring_bytes: 64 << 10,
        ring_bytes_max: 256 << 10,
        segment_bytes: 32 << 10,
        segment_bytes_max: 32 << 10,
        checkpoint_bytes: 32 << 10,
        checkpoint_interval_ms: 5000,
        checkpoint_factor: 0,
        shards: 1,
        scrub_bytes_per_s: 0,
    };
    let (vfs, dir) = (Arc::new(SimVfs::new(1)), Path::new("/data"));
    let opened = Store::open_manual(vfs, dir, config, Timestamp(1), &mut Nothing);
    let (mut store, background) = opened.unwrap();
    append(&mut store, &background, &["often", "once", "often"]);
    for _ in 0..200 {
        append(&mut store, &background, &["often", "too"]);
    }
    for _ in 0..2 {
        assert!(store.appender.checkpoint(Timestamp(1), Vec::new()));
        background.run_all();
    }
    store.reader.compact(Compaction {
        runs: vec![CompactedRun {
            first: QUEUE,
            last: QUEUE,
            tombstone_ms: 1000,
        }],
        now: Timestamp(1),
    });
    while background.compact() {
        background.run_all();
    }
    (store, background)
}

fn batches(reader: &Reader) -> Vec<StoredBatch> {
    let mut entries = Vec::new();
    reader
        .entries(QUEUE, Offset(0), 1000, &mut entries)
        .unwrap();
    let read = entries
        .iter()
        .map(|entry| reader.read_entry(entry).unwrap());
    read.collect()
}

#[test]
fn a_fetch_steps_over_holes_to_the_end() {
    let (store, _background) = compacted();
    let reader = &store.reader;
    let mut there = RangeSet::new();
    for batch in batches(reader) {
        there.union(&fetch::offsets(&batch).unwrap());
    }
    let end = reader.bounds(QUEUE).next;
    assert!(there.contains(1) && !there.contains(0) && !there.contains(2));
    assert!(there.count() < end.0 / 2, "{there:?}");
    let (mut found, mut from, mut fetches) = (RangeSet::new(), Offset(0), 0);
    while from < end {
        let fetch = Fetch {
            token: FetchToken(1),
            cursor: CursorId(1),
            source: SourceId::Topic(TopicId(1)),
            topic: TopicId(1),
            shard: ShardId(0),
            queue: QUEUE,
            bindings: Arc::from([]),
            from,
            until: Offset(u64::MAX),
            max_records: 3,
            max_bytes: 1 << 20,
        };
        let Ok(Fetched::Examined { batches, next }) = fetch::unfiltered(&fetch, reader) else {
            panic!("it is whole");
        };
        for batch in batches {
            found.union(&batch.accepted);
        }
        assert!(next > from);
        from = next;
        fetches += 1;
    }
    assert_eq!((found, from), (there, end));
    assert!(fetches > 1, "{fetches}");
}

#[test]
fn what_is_left_of_a_batch_goes_out_as_it_is_stored() {
    let (store, _background) = compacted();
    let first = batches(&store.reader).remove(0);
    let stored = first.section.clone();
    // What was granted before the rest went.
    let granted = RangeSet::one(0, 3);
    let sent = send::prepare(first.clone(), &granted).unwrap();
    assert_eq!((sent.count, sent.span, sent.compacted), (1, 3, true));
    assert_eq!(sent.section, stored);
    let section = Section::parse_trusted(&sent.section, 1, tidegate_model::Codec::None).unwrap();
    assert_eq!(section.record(0).delta(), 1);
    // Of what is there nothing was granted.
    let gone = send::there(&first, &RangeSet::one(0, 1)).unwrap();
    assert_eq!(gone, Some(RangeSet::new()));
}
