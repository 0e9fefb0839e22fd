//! Finding messages by key and time: over many segments, restarts, and damaged or missing indexes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    BatchId, Bookmark, Message, MessageId, Offset, Order, QueueId, SectionBuilder, ShardId,
    Timestamp,
};
use tidegate_store::header::stored_bytes;
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    Background, Batch, Find, Found, Kix, LogPosition, Reader, Store, StoredBatch, TrimRow, Vfs,
};

use crate::support::{batch, open_manual, small};

const QUEUES: u64 = 4;
const KEYS: u64 = 12;
const SEED: u64 = 20_130_708;

/// A message as the test remembers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    time: i64,
    queue: u64,
    offset: u64,
    id: MessageId,
    keys: Vec<Vec<u8>>,
}

struct Random(u64);

impl Random {
    /// A number below `n` (xorshift64*).
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

struct Node {
    store: Store,
    background: Background,
}

impl Node {
    fn open(vfs: &SimVfs) -> Self {
        let (store, background, _) = open_manual(vfs, small()).unwrap();
        Self { store, background }
    }

    fn reader(&self) -> &Reader {
        &self.store.reader
    }

    fn publish(&mut self, queue: u64, time: i64, messages: &[Message], known: &mut Vec<Known>) {
        let mut builder = SectionBuilder::new();
        for message in messages {
            builder.push(message).unwrap();
        }
        let count = u16::try_from(messages.len()).unwrap();
        let section = builder.finish().unwrap();
        let shard = u32::try_from(queue % 2).unwrap();
        let unit = [Batch {
            section_crc: crc32c(&section),
            ..batch(shard, queue, count, time, &section)
        }];
        self.background.run_all();
        let appended = self.store.appender.append(&unit).unwrap()[0];
        self.background.run_all();
        self.store.appender.settle().unwrap();
        for (record, message) in messages.iter().enumerate() {
            let record = u16::try_from(record).unwrap();
            let shard = unit[0].shard;
            known.push(Known {
                time,
                queue,
                offset: appended.base_offset.0 + u64::from(record),
                id: MessageId {
                    batch: BatchId {
                        shard,
                        seq: appended.seq,
                    },
                    record,
                },
                keys: message.keys.clone(),
            });
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// Publishes batches of random messages; several share a millisecond.
fn fill(node: &mut Node, random: &mut Random, batches: usize, known: &mut Vec<Known>) {
    let mut time = known.last().map_or(1_000, |last| last.time);
    for number in 0..batches {
        time += i64::try_from(random.below(3)).unwrap();
        let queue = 1 + random.below(QUEUES);
        let messages: Vec<Message> = (0..1 + random.below(6))
            .map(|_| {
                let mut message = Message::new(vec![7; 20]);
                for _ in 0..random.below(3) {
                    message = message.key(key(random.below(KEYS)));
                }
                message
            })
            .collect();
        node.publish(queue, time, &messages, known);
        if number % 40 == 0 {
            let states = Vec::new();
            node.store.appender.checkpoint(Timestamp(time), states);
        }
    }
    node.background.run_all();
}

const ALL: [QueueId; 4] = [QueueId(1), QueueId(2), QueueId(3), QueueId(4)];

fn every(key: Option<&[u8]>, order: Order) -> Find<'_> {
    Find {
        queues: &ALL,
        key,
        from: Timestamp(i64::MIN),
        to: Timestamp(i64::MAX),
        order,
        page: None,
        max_messages: usize::MAX,
        max_bytes: u64::MAX,
    }
}

/// What a page says, message by message in the order asked for.
fn listed(found: &Found, order: Order) -> Vec<Known> {
    let mut all = Vec::new();
    for batch in &found.batches {
        let StoredBatch { header, section } = &batch.batch;
        let codec = tidegate_model::Codec::None;
        let section =
            tidegate_model::Section::parse_trusted(section, usize::from(header.count), codec);
        let section = section.unwrap();
        assert!(batch.records.is_sorted());
        let of = |at: &u16| {
            let record = section.record(usize::from(*at));
            Known {
                time: header.append_time.0,
                queue: header.queue.0,
                offset: header.base_offset.0 + u64::from(record.delta()),
                id: MessageId {
                    batch: BatchId {
                        shard: header.shard,
                        seq: header.seq,
                    },
                    record: u16::try_from(record.delta()).unwrap(),
                },
                keys: record.keys().map(<[u8]>::to_vec).collect(),
            }
        };
        match order {
            Order::OldestFirst => all.extend(batch.records.iter().map(of)),
            Order::NewestFirst => all.extend(batch.records.iter().rev().map(of)),
        }
    }
    all
}

/// All pages, one after another, and how many there were.
fn pages(reader: &Reader, find: &Find<'_>) -> (Vec<Known>, usize) {
    let mut find = *find;
    let (mut all, mut count) = (Vec::new(), 0);
    loop {
        let found = reader.find(&find).unwrap();
        assert_eq!(found.unreadable, 0);
        let page = listed(&found, find.order);
        assert!(page.len() <= find.max_messages);
        all.extend(page);
        count += 1;
        assert!(count < 10_000, "the pages come to an end");
        let Some(next) = found.next else {
            return (all, count);
        };
        find.page = Some(next);
    }
}

fn expected(known: &[Known], find: &Find<'_>) -> Vec<Known> {
    let mut all: Vec<Known> = known
        .iter()
        .filter(|message| {
            let in_time = (find.from.0..find.to.0).contains(&message.time);
            let has_key = find
                .key
                .is_none_or(|key| message.keys.iter().any(|its| its == key));
            in_time && has_key && find.queues.contains(&QueueId(message.queue))
        })
        .cloned()
        .collect();
    all.sort();
    if find.order == Order::NewestFirst {
        all.reverse();
    }
    all
}

fn check_everything(reader: &Reader, known: &[Known]) {
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let find = every(None, order);
        assert_eq!(pages(reader, &find).0, expected(known, &find));
        for number in 0..=KEYS {
            let key = key(number);
            let find = every(Some(&key), order);
            assert_eq!(pages(reader, &find).0, expected(known, &find), "{number}");
        }
    }
}

fn key_indexes(vfs: &SimVfs) -> Vec<PathBuf> {
    let is_it = |path: &PathBuf| path.extension().is_some_and(|name| name == "kix");
    vfs.files().into_iter().filter(is_it).collect()
}

fn filled(vfs: &SimVfs, batches: usize) -> (Node, Vec<Known>) {
    let mut node = Node::open(vfs);
    let mut known = Vec::new();
    fill(&mut node, &mut Random(SEED), batches, &mut known);
    (node, known)
}

#[test]
fn by_key_and_by_time_over_many_segments_and_restarts() {
    let vfs = SimVfs::new(SEED);
    let (mut node, mut known) = filled(&vfs, 1500);
    assert!(key_indexes(&vfs).len() > 8, "{:?}", key_indexes(&vfs));
    check_everything(node.reader(), &known);
    drop(node);
    node = Node::open(&vfs);
    check_everything(node.reader(), &known);
    fill(&mut node, &mut Random(SEED + 1), 300, &mut known);
    check_everything(node.reader(), &known);
    drop(node);
    let vfs = vfs.crash(Crash::LoseAll);
    check_everything(Node::open(&vfs).reader(), &known);
}

#[test]
fn times_are_inclusive_and_exclusive() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 400);
    let mut random = Random(SEED + 2);
    let times: Vec<i64> = known.iter().map(|message| message.time).collect();
    for _ in 0..60 {
        let mut pick = || times[usize::try_from(random.below(times.len() as u64)).unwrap()];
        let (from, to) = (pick(), pick());
        let key = key(random.below(KEYS));
        for order in [Order::NewestFirst, Order::OldestFirst] {
            for key in [None, Some(&key[..])] {
                let find = Find {
                    from: Timestamp(from),
                    to: Timestamp(to),
                    ..every(key, order)
                };
                assert_eq!(
                    pages(node.reader(), &find).0,
                    expected(&known, &find),
                    "{from} to {to}"
                );
            }
        }
    }
}

#[test]
fn pages_together_are_the_whole() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 400);
    for order in [Order::NewestFirst, Order::OldestFirst] {
        for key in [None, Some(key(3))] {
            for max_messages in [1, 2, 7, 100] {
                let find = Find {
                    max_messages,
                    ..every(key.as_deref(), order)
                };
                let (all, count) = pages(node.reader(), &find);
                assert_eq!(all, expected(&known, &find));
                assert!(count >= all.len() / max_messages);
            }
            let find = Find {
                max_bytes: 200,
                ..every(key.as_deref(), order)
            };
            assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
        }
    }
}

#[test]
fn the_first_message_of_a_page_comes_whatever_its_size() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 20);
    let find = Find {
        max_bytes: 0,
        ..every(None, Order::OldestFirst)
    };
    let found = node.reader().find(&find).unwrap();
    assert_eq!(listed(&found, find.order), expected(&known, &find)[..1]);
}

#[test]
fn the_work_for_a_page_is_bounded() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 1500);
    let find = every(None, Order::NewestFirst);
    let found = node.reader().find(&find).unwrap();
    assert_eq!(found.batches.len(), 1024);
    assert!(found.next.is_some());
    let (all, count) = pages(node.reader(), &find);
    assert_eq!((all, count), (expected(&known, &find), 2));
}

#[test]
fn some_queues_and_none() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 300);
    let key = key(5);
    for queues in [&[][..], &[QueueId(2)], &[QueueId(3), QueueId(9)]] {
        let find = Find {
            queues,
            ..every(Some(&key), Order::NewestFirst)
        };
        assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
    }
    let empty = Find {
        from: Timestamp(2_000_000),
        ..every(Some(&key), Order::OldestFirst)
    };
    assert_eq!(pages(node.reader(), &empty), (vec![], 1));
}

#[test]
fn what_comes_while_paging_changes_nothing_behind_the_bookmark() {
    let vfs = SimVfs::new(SEED);
    let (mut node, mut known) = filled(&vfs, 200);
    let key = key(1);
    let mut find = Find {
        max_messages: 5,
        ..every(Some(&key), Order::NewestFirst)
    };
    let before = expected(&known, &find);
    let first = node.reader().find(&find).unwrap();
    let mut all = listed(&first, find.order);
    fill(&mut node, &mut Random(SEED + 3), 200, &mut known);
    find.page = first.next;
    all.extend(pages(node.reader(), &find).0);
    assert_eq!(all, before);
}

#[test]
fn a_missing_or_damaged_key_index_is_made_again_to_the_same_bytes() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 1000);
    drop(node);
    let paths = key_indexes(&vfs);
    let whole: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| vfs.contents(path).unwrap())
        .collect();
    type Damage<'a> = &'a dyn Fn(&PathBuf, &[u8]);
    let damages: [Damage<'_>; 5] = [
        &|path, _| vfs.unlink(path).unwrap(),
        &|path, _| vfs.rot(path, 9, 4).unwrap(),
        &|path, bytes| vfs.rot(path, bytes.len() as u64 - 100, 1).unwrap(),
        &|path, _| vfs.rot(path, 4096 + 40, 16).unwrap(),
        &|path, _| drop(vfs.create(path).unwrap()),
    ];
    for damage in damages {
        for (path, bytes) in paths.iter().zip(&whole) {
            damage(path, bytes);
        }
        let node = Node::open(&vfs);
        check_everything(node.reader(), &known);
        node.background.run_all();
        drop(node);
        for (path, bytes) in paths.iter().zip(&whole) {
            // A damaged page that nobody read stays for who verifies the whole file.
            let now = vfs.contents(path).unwrap();
            if Kix::check(&Bytes::from(now.clone()), nonce(bytes)).is_ok() {
                assert_eq!(&now, bytes, "{}", path.display());
            } else {
                vfs.unlink(path).unwrap();
            }
        }
    }
}

fn nonce(kix: &[u8]) -> u64 {
    u64::from_le_bytes(kix[16..24].try_into().unwrap())
}

#[test]
fn a_page_makes_four_indexes_at_most() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 1200);
    drop(node);
    let paths = key_indexes(&vfs);
    assert!(paths.len() > 8);
    for path in &paths {
        vfs.unlink(path).unwrap();
    }
    let node = Node::open(&vfs);
    // What is sealed during the opening is made in the background.
    let before = key_indexes(&vfs).len();
    let key = key(2);
    let find = every(Some(&key), Order::NewestFirst);
    let found = node.reader().find(&find).unwrap();
    assert_eq!(key_indexes(&vfs).len(), before + 4);
    let next = found.next.expect("there are more");
    let whole = expected(&known, &find);
    let page = listed(&found, find.order);
    assert_eq!(page, whole[..page.len()]);
    assert!(whole[page.len()].time < next.time.0, "{next}");
    assert!(next < Bookmark::at(find.to));
    assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
    assert_eq!(key_indexes(&vfs), paths);
}

#[test]
fn rows_that_lie_find_nothing() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 400);
    drop(node);
    // As if all hashes of all keys were the same: each row's place is said of each hash.
    for path in key_indexes(&vfs) {
        let bytes = Bytes::from(vfs.contents(&path).unwrap());
        let kix = Kix::check(&bytes, nonce(&bytes)).unwrap();
        let rows = rows_of(&bytes, kix.rows());
        let places: BTreeSet<u32> = rows.iter().map(|row| row.1).collect();
        let hashes: BTreeSet<u64> = rows.iter().map(|row| row.0).collect();
        let mut all: Vec<(u64, u32)> = Vec::new();
        for hash in hashes {
            all.extend(places.iter().map(|place| (hash, *place)));
            // Nor is a place believed where no batch begins.
            all.extend(places.iter().map(|place| (hash, place + 3)));
        }
        let lying = Kix::encode(kix.info(), all);
        let file = vfs.create(&path).unwrap();
        file.write_all_at(&lying, 0).unwrap();
    }
    check_everything(Node::open(&vfs).reader(), &known);
}

/// The rows of a key index by the table of `docs/formats/segment.md`.
fn rows_of(bytes: &[u8], count: u32) -> Vec<(u64, u32)> {
    let pages = bytes.len() / 4096;
    let row_pages = usize::try_from(count).unwrap().div_ceil(340);
    let mut rows = Vec::new();
    for page in pages - row_pages..pages {
        for row in 0..340 {
            let at = page * 4096 + row * 12;
            let hash = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let place = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            rows.push((hash, place));
        }
    }
    rows.truncate(usize::try_from(count).unwrap());
    rows
}

#[test]
fn damaged_batches_are_told_and_the_rest_is_found() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 600);
    let key = key(4);
    let find = every(Some(&key), Order::OldestFirst);
    let all = expected(&known, &find);
    let lost = all[all.len() / 3].clone();
    let batch = lost.id.batch;
    let position = node.reader().position_of(batch.shard, batch.seq).unwrap();
    let LogPosition(position) = position.unwrap();
    drop(node);
    let segment = vfs
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|name| name == "seg"))
        .map(|path| {
            let base: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            (base, path)
        })
        .filter(|(base, _)| *base <= position)
        .max()
        .unwrap();
    vfs.rot(&segment.1, position - segment.0 + 150, 1).unwrap();
    let node = Node::open(&vfs);
    let found = node.reader().find(&find).unwrap();
    assert_eq!((found.unreadable, found.next), (1, None));
    let left: Vec<Known> = all
        .iter()
        .filter(|message| message.id.batch != lost.id.batch)
        .cloned()
        .collect();
    assert_eq!(listed(&found, find.order), left);
    // An index made from what is left says as much.
    drop(node);
    for path in key_indexes(&vfs) {
        vfs.unlink(&path).unwrap();
    }
    let node = Node::open(&vfs);
    let (mut all, mut unreadable, mut page) = (Vec::new(), 0, None);
    loop {
        let found = node.reader().find(&Find { page, ..find }).unwrap();
        all.extend(listed(&found, find.order));
        unreadable += found.unreadable;
        page = found.next;
        if page.is_none() {
            break;
        }
    }
    assert_eq!((all, unreadable > 0), (left, true));
}

#[test]
fn a_full_disk_costs_the_index_and_not_the_answer() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 400);
    drop(node);
    for path in key_indexes(&vfs) {
        vfs.unlink(&path).unwrap();
    }
    let node = Node::open(&vfs);
    node.background.run_all();
    let key = key(6);
    let find = every(Some(&key), Order::NewestFirst);
    vfs.set_capacity(Some(vfs.used()));
    assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
    vfs.set_capacity(None);
    assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
}

#[test]
fn by_id_and_by_offset() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = filled(&vfs, 300);
    for message in known.iter().step_by(7) {
        let BatchId { shard, seq } = message.id.batch;
        let position = node.reader().position_of(shard, seq).unwrap().unwrap();
        let batch = node.reader().read(position).unwrap();
        let offset = batch.header.base_offset.plus(u64::from(message.id.record));
        assert_eq!(offset, Offset(message.offset));
        let mut entries = Vec::new();
        let queue = QueueId(message.queue);
        node.reader()
            .entries(queue, offset, 1, &mut entries)
            .unwrap();
        assert_eq!(entries[0].seq, seq);
    }
}

#[test]
fn what_was_trimmed_is_not_found() {
    let vfs = SimVfs::new(SEED);
    let (mut node, mut known) = filled(&vfs, 600);
    for (queue, share) in [(1, 2), (2, 3)] {
        let bounds = node.reader().bounds(QueueId(queue));
        // In the middle of a batch as a rule.
        let start = Offset(bounds.next.0 / share + 1);
        let row = TrimRow {
            queue: QueueId(queue),
            start,
            bytes: 0,
        };
        let shard = ShardId(u32::try_from(queue % 2).unwrap());
        node.background.run_all();
        let now = Timestamp(known[known.len() - 1].time);
        node.store.appender.trim(shard, now, &[row]).unwrap();
        node.background.run_all();
        node.store.appender.settle().unwrap();
        known.retain(|message| message.queue != queue || message.offset >= start.0);
    }
    check_everything(node.reader(), &known);
    drop(node);
    check_everything(Node::open(&vfs).reader(), &known);
}

/// Trims all but a quarter of the messages, so that segments are worth rewriting, and makes the two
/// snapshot generations behind which they may be.
fn trimmed(vfs: &SimVfs) -> (Node, Vec<Known>) {
    let (mut node, mut known) = filled(vfs, 1500);
    let now = Timestamp(known[known.len() - 1].time);
    for queue in [1, 2, 3] {
        let next = node.reader().bounds(QueueId(queue)).next;
        let start = Offset(next.0 - 5);
        let mut entries = Vec::new();
        let all = usize::MAX;
        node.reader()
            .entries(QueueId(queue), Offset(0), all, &mut entries)
            .unwrap();
        let goes = entries.iter().filter(|entry| entry.next_offset() <= start);
        let row = TrimRow {
            queue: QueueId(queue),
            start,
            bytes: goes
                .map(|entry| stored_bytes(entry.section_len as usize))
                .sum(),
        };
        let shard = ShardId(u32::try_from(queue % 2).unwrap());
        node.background.run_all();
        node.store.appender.trim(shard, now, &[row]).unwrap();
        known.retain(|message| message.queue != queue || message.offset >= start.0);
    }
    for _ in 0..2 {
        while node.background.flush() | node.background.prepare() {}
        node.store.appender.settle().unwrap();
        node.store.appender.checkpoint(now, Vec::new());
        while node.background.write_file() {}
    }
    (node, known)
}

#[test]
fn a_rewritten_segment_has_a_key_index_of_its_own() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = trimmed(&vfs);
    // A page before, the others after the segments were rewritten.
    let key = key(3);
    let mut find = Find {
        max_messages: 5,
        ..every(Some(&key), Order::NewestFirst)
    };
    let first = node.reader().find(&find).unwrap();
    let mut all = listed(&first, find.order);
    find.page = first.next;
    while node.background.reclaim() {}
    assert!(node.reader().stats().segments_rewritten > 3);
    all.extend(pages(node.reader(), &find).0);
    assert_eq!(
        all,
        expected(&known, &every(Some(&key), Order::NewestFirst))
    );
    check_everything(node.reader(), &known);
    node.background.run_all();
    check_everything(node.reader(), &known);
    drop(node);
    let whole: Vec<(PathBuf, Vec<u8>)> = key_indexes(&vfs)
        .into_iter()
        .map(|path| (path.clone(), vfs.contents(&path).unwrap()))
        .collect();
    for (path, _) in &whole {
        vfs.unlink(path).unwrap();
    }
    let node = Node::open(&vfs);
    check_everything(node.reader(), &known);
    for (path, bytes) in &whole {
        assert_eq!(&vfs.contents(path).unwrap(), bytes, "{}", path.display());
    }
}

#[test]
fn searches_go_on_while_segments_are_rewritten() {
    let vfs = SimVfs::new(SEED);
    let (node, known) = trimmed(&vfs);
    let done = AtomicBool::new(false);
    let searches = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let search = || {
            while !done.load(Ordering::Relaxed) {
                for number in 0..KEYS {
                    let key = key(number);
                    for order in [Order::NewestFirst, Order::OldestFirst] {
                        let find = every(Some(&key), order);
                        assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
                    }
                }
                let find = every(None, Order::OldestFirst);
                assert_eq!(pages(node.reader(), &find).0, expected(&known, &find));
                searches.fetch_add(1, Ordering::Relaxed);
            }
        };
        let searching = [scope.spawn(search), scope.spawn(search)];
        while searches.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        while node.background.reclaim() | node.background.write_file() {}
        done.store(true, Ordering::Relaxed);
        for search in searching {
            search.join().unwrap();
        }
    });
    assert!(node.reader().stats().segments_rewritten > 3);
}
