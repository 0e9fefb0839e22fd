//! Compaction by key: the newest message of each key stays, offsets and bytes of what stays never
//! change, and what is gone never comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_model::checksum::crc32c;
use tidegate_model::{Message, Offset, Order, QueueId, SectionBuilder, Timestamp};
use tidegate_store::check::Offline;
use tidegate_store::header::stored_bytes;
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    Background, Batch, CompactedRun, Compaction, Find, FoundBatch, Reader, Rule, Store, StoreConfig,
};

use crate::backup::{folder, restore, take};
use crate::reclaim::Stateless;
use crate::support::{batch, dir, messages, small};

/// Queues 1 and 2 are compacted, 3 isn't.
const QUEUES: u64 = 3;
const COMPACTED: u64 = 2;
const TOMBSTONE_MS: u64 = 1000;

/// A message as it was published.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    message: Message,
    time: i64,
}

struct World {
    config: StoreConfig,
    vfs: SimVfs,
    store: Store,
    background: Background,
    queues: BTreeMap<u64, BTreeMap<u64, Known>>,
    now: i64,
}

fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes: 32 << 10,
        segment_bytes_max: 32 << 10,
        ..small()
    }
}

fn open(vfs: &SimVfs, config: &StoreConfig, now: i64) -> (Store, Background) {
    let vfs = Arc::new(vfs.clone());
    Store::open_manual(vfs, dir(), config.clone(), Timestamp(now), &mut Stateless).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, config())
    }

    fn with(seed: u64, config: StoreConfig) -> Self {
        let vfs = SimVfs::new(seed);
        let (store, background) = open(&vfs, &config, 0);
        Self {
            config,
            vfs,
            store,
            background,
            queues: BTreeMap::new(),
            now: 0,
        }
    }

    fn append(&mut self, queue: u64, batch_messages: &[Message], lz4: bool) {
        self.now += 1;
        let mut builder = SectionBuilder::new();
        for message in batch_messages {
            builder.push(message).unwrap();
        }
        let section = if lz4 {
            builder.finish_lz4().unwrap()
        } else {
            builder.finish().unwrap()
        };
        let count = u16::try_from(builder.count()).unwrap();
        let shard = u32::try_from(queue % 3).unwrap();
        let unit = [Batch {
            codec: u8::from(lz4),
            tag_bits: builder.tag_bits(),
            base_create_time: Timestamp(builder.earliest_create_ms()),
            section_crc: crc32c(&section),
            ..batch(shard, queue, count, self.now, &section)
        }];
        let base = self.store.appender.append(&unit).unwrap()[0].base_offset.0;
        self.settle();
        let known = self.queues.entry(queue).or_default();
        for (offset, message) in (base..).zip(batch_messages) {
            let (message, time) = (message.clone(), self.now);
            known.insert(offset, Known { message, time });
        }
    }

    fn settle(&mut self) {
        self.background.run_all();
        self.store.appender.settle().unwrap();
        self.background.run_all();
    }

    fn checkpoint(&mut self) {
        assert!(
            self.store
                .appender
                .checkpoint(Timestamp(self.now), Vec::new())
        );
        self.background.run_all();
    }

    fn compact(&mut self) {
        self.name(1, COMPACTED);
        self.rounds();
    }

    /// Says that the queues from `first` to `last` are compacted; none if `last` is before it.
    fn name(&self, first: u64, last: u64) {
        let run = CompactedRun {
            first: QueueId(first),
            last: QueueId(last),
            tombstone_ms: TOMBSTONE_MS,
        };
        self.store.reader.compact(Compaction {
            runs: (first <= last).then_some(run).into_iter().collect(),
            now: Timestamp(self.now),
        });
    }

    fn rounds(&self) {
        while self.background.compact() {
            self.background.run_all();
        }
    }

    /// Lets the oldest messages of a queue go.
    fn trim(&mut self, queue: u64, age: i64) {
        self.expire(
            queue,
            &Rule {
                before: Some(Timestamp(self.now - age)),
                ..Rule::default()
            },
        );
    }

    fn expire(&mut self, queue: u64, rule: &Rule) {
        let row = self
            .store
            .reader
            .expire_queue(QueueId(queue), rule)
            .unwrap();
        if let Some((shard, row)) = row {
            let now = Timestamp(self.now);
            self.store.appender.trim(shard, now, &[row]).unwrap();
            self.settle();
        }
    }

    fn restart(&mut self, crash: Crash) {
        self.vfs = self.vfs.crash(crash);
        (self.store, self.background) = open(&self.vfs, &self.config, self.now);
        self.background.run_all();
    }

    /// The messages of a queue, and their stored bytes.
    fn stored(&self, queue: u64) -> (BTreeMap<u64, Message>, u64) {
        stored(&self.store.reader, queue)
    }

    fn check(&self) {
        for (queue, known) in &self.queues {
            self.check_queue(*queue, known);
        }
    }

    fn check_queue(&self, queue: u64, known: &BTreeMap<u64, Known>) {
        let (stored, bytes) = self.stored(queue);
        let reader = &self.store.reader;
        let bounds = reader.bounds(QueueId(queue));
        let end = known.last_key_value().map_or(0, |(last, _)| last + 1);
        assert_eq!(bounds.next.0, end);
        for (offset, message) in &stored {
            assert_eq!(*message, known[offset].message, "{queue}: {offset}");
        }
        let live = known.range(bounds.start.0..);
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (offset, known) in live.clone() {
            for key in &known.message.keys {
                newest.insert(key, *offset);
            }
            let must_stay = queue > COMPACTED || known.message.keys.is_empty();
            assert!(
                !must_stay || stored.contains_key(offset),
                "{queue}: {offset} is gone"
            );
        }
        for (key, offset) in newest {
            let is_one = |(offset, message): (&u64, &Message)| {
                let has_key = message.keys.iter().any(|other| other == key);
                has_key.then_some(*offset)
            };
            let with_key: Vec<u64> = stored.iter().filter_map(is_one).collect();
            assert_eq!(self.found(queue, key), with_key, "{queue}");
            let Known { message, time } = &known[&offset];
            if stored.contains_key(&offset) {
                continue;
            }
            let due = message.body.is_none() && time + (TOMBSTONE_MS as i64) < self.now;
            assert!(due, "{queue}: {offset}, the newest of {key:?}, is gone");
            assert!(
                with_key.is_empty(),
                "{queue}: deleted at {offset}, and back"
            );
        }
        assert_eq!(bounds.bytes, bytes, "{queue}");
        let times: BTreeSet<i64> = live.map(|(_, known)| known.time).collect();
        for time in times {
            let at = reader.offset_at(QueueId(queue), Timestamp(time)).unwrap();
            let (before, after) = (stored.range(..at.0), stored.range(at.0..));
            assert!(before.into_iter().all(|(at, _)| known[at].time < time));
            assert!(after.into_iter().all(|(at, _)| known[at].time >= time));
        }
    }

    /// Offsets of what a search by key finds in a queue.
    fn found(&self, queue: u64, key: &[u8]) -> Vec<u64> {
        let found = self.store.reader.find(&Find {
            queues: &[QueueId(queue)],
            key: Some(key),
            from: Timestamp(i64::MIN),
            to: Timestamp(i64::MAX),
            order: Order::OldestFirst,
            page: None,
            max_messages: usize::MAX,
            max_bytes: u64::MAX,
        });
        let found = found.unwrap();
        assert_eq!((found.next, found.unreadable), (None, 0));
        let offset = |found: &FoundBatch| {
            let all = messages(&found.batch);
            let records = found.records.iter();
            records
                .map(move |record| all[usize::from(*record)].0)
                .collect::<Vec<_>>()
        };
        found.batches.iter().flat_map(offset).collect()
    }

    /// Scrubber and verification find nothing wrong.
    fn verify(self) {
        while self.background.scrub() {}
        assert_eq!(self.store.reader.stats().quarantined, 0);
        let vfs = self.vfs.clone();
        drop(self);
        let offline = Offline::open(Arc::new(vfs), dir()).unwrap();
        let verified = offline.verify(&mut |_| {}).unwrap();
        assert!(verified.is_clean(), "{verified:#?}");
    }
}

/// The messages of a queue, and their stored bytes.
fn stored(reader: &Reader, queue: u64) -> (BTreeMap<u64, Message>, u64) {
    let bounds = reader.bounds(QueueId(queue));
    let (mut found, mut bytes) = (BTreeMap::new(), 0);
    let mut from = bounds.start;
    loop {
        let mut entries = Vec::new();
        reader
            .entries(QueueId(queue), from, 5, &mut entries)
            .unwrap();
        let Some(last) = entries.last() else { break };
        from = last.next_offset();
        for entry in &entries {
            let batch = reader.read_entry(entry).unwrap();
            assert_eq!(batch.header.count, entry.count);
            assert_eq!(batch.header.tag_bits, entry.tag_bits);
            bytes += stored_bytes(batch.section.len());
            found.extend(messages(&batch));
        }
    }
    found.retain(|offset, _| *offset >= bounds.start.0);
    (found, bytes)
}

fn message(key: Option<u8>, other: Option<u8>, body: Option<usize>) -> Message {
    let mut message = match body {
        Some(len) => Message::new(vec![key.unwrap_or(0); len]),
        None => Message {
            body: None,
            ..Message::new("")
        },
    };
    for key in [key, other].into_iter().flatten() {
        message = message.key(format!("key-{key}"));
    }
    message.tag(format!("tag-{}", key.unwrap_or(9) % 3))
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, Vec<Message>, bool),
    Many(u64, u8),
    Checkpoint,
    Compact,
    Wait,
    Trim(u64),
    Restart,
    PowerCut(u64),
}

fn any_message() -> impl Strategy<Value = Message> {
    let key = prop_oneof![9 => (0..6_u8).prop_map(Some), 1 => Just(None)];
    let other = prop_oneof![9 => Just(None), 1 => (0..6_u8).prop_map(Some)];
    let body = prop_oneof![8 => (0..900_usize).prop_map(Some), 2 => Just(None)];
    (key, other, body).prop_map(|(key, other, body)| {
        let other = other.filter(|other| key.is_some_and(|key| key != *other));
        message(key, other, body)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..=QUEUES, vec(any_message(), 1..8), any::<bool>())
            .prop_map(|(queue, messages, lz4)| Step::Append(queue, messages, lz4)),
        4 => (1..=QUEUES, any::<u8>()).prop_map(|(queue, key)| Step::Many(queue, key % 6)),
        3 => Just(Step::Checkpoint),
        3 => Just(Step::Compact),
        1 => Just(Step::Wait),
        1 => (1..=QUEUES).prop_map(Step::Trim),
        1 => Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new(1);
    for step in steps {
        match step {
            Step::Append(queue, messages, lz4) => world.append(queue, &messages, lz4),
            Step::Many(queue, key) => {
                for number in 0..30 {
                    let other = message(Some((key + number) % 6), None, Some(700));
                    world.append(queue, &[other, message(Some(key), None, Some(200))], false);
                }
            }
            Step::Checkpoint => world.checkpoint(),
            Step::Compact => {
                world.checkpoint();
                world.checkpoint();
                world.compact();
                world.check();
            }
            Step::Wait => world.now += 2 * TOMBSTONE_MS as i64,
            Step::Trim(queue) => world.trim(queue, 100),
            Step::Restart => world.restart(Crash::KeepAll),
            Step::PowerCut(seed) => world.restart(Crash::Subset { seed, block: 512 }),
        }
    }
    // What a crash lost of the counts comes back with the next round.
    world.checkpoint();
    world.checkpoint();
    world.compact();
    world.check();
    world.verify();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_newest_of_each_key_stays_whatever_happens(steps in vec(step(), 1..50)) {
        run(steps);
    }
}

#[test]
fn superseded_messages_go_and_their_space_comes_back() {
    let mut world = World::new(2);
    for round in 0..40 {
        for key in 0..5 {
            world.append(
                1,
                &[
                    message(Some(key), None, Some(800)),
                    message(Some(key), None, Some(round)),
                ],
                round % 2 == 0,
            );
            world.append(3, &[message(Some(key), None, Some(300))], false);
        }
        if round % 10 == 9 {
            world.checkpoint();
        }
    }
    world.checkpoint();
    let before = world.store.reader.stats();
    let held = world.store.reader.bounds(QueueId(1)).bytes;
    world.compact();
    let after = world.store.reader.stats();
    assert!(after.compacted_bytes > held / 2, "{after:?}");
    assert!(after.log_bytes + after.compacted_bytes <= before.log_bytes + 64 * 4096);
    assert!(world.store.reader.bounds(QueueId(1)).bytes < held / 2);
    world.check();
    // Nothing is due any more, and a restart changes nothing.
    assert!(!world.background.compact());
    let (stored, _) = world.stored(1);
    world.restart(Crash::LoseAll);
    assert_eq!(world.stored(1).0, stored);
    // Each message of the other queue is there: it isn't compacted.
    assert_eq!(world.stored(3).0.len(), 200);
    assert_eq!(world.store.reader.bounds(QueueId(3)).start, Offset(0));
}

#[test]
fn a_deleted_key_goes_after_its_retention_and_never_comes_back() {
    let mut world = World::new(3);
    world.append(1, &[message(Some(1), None, Some(100))], false);
    world.append(1, &[message(Some(1), None, None)], false);
    for number in 0..200_u8 {
        world.append(1, &[message(Some(2 + number % 3), None, Some(700))], false);
    }
    world.checkpoint();
    world.checkpoint();
    world.compact();
    world.check();
    let (stored, _) = world.stored(1);
    assert!(
        !stored.contains_key(&0) && stored.contains_key(&1),
        "the tombstone alone"
    );
    world.now += 2 * TOMBSTONE_MS as i64;
    for number in 0..200_u8 {
        world.append(1, &[message(Some(2 + number % 3), None, Some(700))], false);
    }
    world.checkpoint();
    world.checkpoint();
    world.compact();
    world.check();
    assert!(!world.stored(1).0.contains_key(&1));
}

#[test]
fn a_queue_is_compacted_while_it_is_named_and_may_go_meanwhile() {
    const FILL: usize = 200;
    let mut world = World::new(6);
    let fill = |world: &mut World| {
        for number in 0..FILL as u8 {
            for queue in 1..=COMPACTED {
                let message = message(Some(number % 3), None, Some(700));
                world.append(queue, &[message], false);
            }
        }
        world.checkpoint();
        world.checkpoint();
    };
    let counts = |world: &World| [1, 2].map(|queue| world.stored(queue).0.len());
    fill(&mut world);
    world.name(1, 0);
    assert!(!world.background.compact(), "nothing is named");
    assert_eq!(counts(&world), [FILL; 2]);

    world.name(1, 1);
    world.rounds();
    world.check();
    let [left, beside] = counts(&world);
    assert!(left < FILL / 2 && beside == FILL, "{left}, {beside}");

    // The other one in its place: what comes now stays.
    world.name(2, 2);
    world.rounds();
    fill(&mut world);
    world.rounds();
    world.check();
    let [kept, compacted] = counts(&world);
    assert!(
        kept == left + FILL && compacted < FILL,
        "{kept}, {compacted}"
    );

    // Again, and its topic goes in the middle of a round.
    world.name(1, 2);
    world.rounds();
    world.check();
    assert!(counts(&world)[0] < FILL);
    fill(&mut world);
    assert!(world.background.compact(), "a round begins");
    assert!(world.background.compact());
    let removed = Rule {
        remove: true,
        ..Rule::default()
    };
    world.expire(1, &removed);
    world.queues.remove(&1);
    world.name(2, 2);
    world.rounds();
    world.check();
    let [gone, compacted] = counts(&world);
    assert!(gone == 0 && compacted < FILL, "{gone}, {compacted}");
    world.verify();
}

#[test]
fn an_incremental_backup_takes_what_was_rewritten() {
    let mut world = World::new(4);
    for number in 0..200_u8 {
        world.append(1, &[message(Some(number % 3), None, Some(700))], false);
    }
    world.checkpoint();
    world.checkpoint();
    let back_up = |world: &World| {
        let held = world.store.reader.backup().unwrap();
        take(&folder(&world.vfs), &held).unwrap()
    };
    let first = back_up(&world);
    world.compact();
    let second = back_up(&world);
    assert!(second.fetched > 0 && second.bytes() < first.bytes() / 2);
    let (store, ..) = restore(&world.vfs, None);
    assert_eq!(stored(&store.reader, 1), world.stored(1));
}

/// More keys than a round remembers: further rounds go on where it stopped.
#[test]
fn more_keys_than_fit_are_compacted_in_turn() {
    const KEYS: u64 = 1500;
    let mut world = World::with(
        5,
        StoreConfig {
            segment_bytes: 8 << 20,
            segment_bytes_max: 8 << 20,
            checkpoint_bytes: 16 << 20,
            ..config()
        },
    );
    for number in 0..2 * KEYS {
        let mut key = vec![b'k'; 50 << 10];
        key[..8].copy_from_slice(&(number % KEYS).to_le_bytes());
        world.append(1, &[Message::new("").key(key)], false);
    }
    // All of it is full.
    for _ in 0..100 {
        world.append(3, &[message(None, None, Some(200 << 10))], false);
    }
    world.checkpoint();
    world.checkpoint();
    world.compact();
    let rounds = world.store.reader.stats().compaction_rounds;
    assert!(rounds > 2, "{rounds}");
    let (stored, _) = world.stored(1);
    assert!(stored.keys().copied().eq(KEYS..2 * KEYS));
}
