//! A folder so small that each of its files can be flipped byte by byte: indexes by queue and by
//! key, snapshots, the space reserve, a batch with real messages.
//!
//! Each flipped copy is verified offline, opened, read, and searched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{Message, Offset, Order, QueueId, SectionBuilder, ShardId, Timestamp};
use tidegate_store::check::{FileKind, FileState, Offline, Verified};
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    Background, Batch, Find, LogPosition, ReadError, Reader, RecoveryReport, Replay, ReplayError,
    Store, StoredBatch,
};

use super::{HEADER, config};
use crate::support::{batch, dir};

/// Bytes of a page of a key index, and of its checksummed part with the checksum.
const KEY_PAGE: u64 = 4096;
const KEY_PAGE_CHECKED: u64 = 4092;
const KEYS: u64 = 5;
const QUEUES: [QueueId; 2] = [QueueId(3), QueueId(4)];
/// Bytes of most bodies: ten batches fill a segment.
const BODY_BYTES: usize = 2500;
const ROUNDS: u64 = 27;

/// A state so small that snapshots are: of each shard the number of batches, and a checksum of
/// them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Digest {
    shards: BTreeMap<u32, (u64, u32)>,
    quarantined: usize,
}

impl Digest {
    fn apply(&mut self, batch: &StoredBatch) {
        let header = &batch.header;
        let (count, crc) = self.shards.entry(header.shard.0).or_default();
        *count += 1;
        let numbers = [
            header.seq.0,
            header.queue.0,
            header.base_offset.0,
            header.append_time.0.cast_unsigned(),
            u64::from(crc32c(&batch.section)),
            u64::from(*crc),
        ];
        *crc = crc32c(&numbers.map(u64::to_le_bytes).concat());
    }

    fn states(&self) -> Vec<(ShardId, Vec<u8>)> {
        let state = |(shard, (count, crc)): (&u32, &(u64, u32))| {
            let bytes = [&count.to_le_bytes()[..], &crc.to_le_bytes()].concat();
            (ShardId(*shard), bytes)
        };
        self.shards.iter().map(state).collect()
    }
}

impl Replay for Digest {
    fn restore(&mut self, shard: ShardId, state: &[u8]) -> Result<(), ReplayError> {
        let count = u64::from_le_bytes(state[..8].try_into().unwrap());
        let crc = u32::from_le_bytes(state[8..].try_into().unwrap());
        self.shards.insert(shard.0, (count, crc));
        Ok(())
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError> {
        self.apply(batch);
        Ok(())
    }

    fn quarantined(&mut self, _: LogPosition, _: LogPosition) -> Result<(), ReplayError> {
        self.quarantined += 1;
        Ok(())
    }
}

fn open(vfs: &SimVfs, what: &str) -> (Store, Background, Digest) {
    let mut digest = Digest::default();
    let opened = Store::open_manual(
        Arc::new(vfs.clone()),
        dir(),
        config(),
        Timestamp(1000),
        &mut digest,
    );
    let (store, background) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    (store, background, digest)
}

/// What a search gives: where messages lie.
type Places = BTreeSet<(QueueId, Offset)>;

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// Where messages with a key are found, and how many batches could not be looked into.
fn find(reader: &Reader, key: &[u8]) -> (Places, u64) {
    let find = Find {
        queues: &QUEUES,
        key: Some(key),
        from: Timestamp(i64::MIN),
        to: Timestamp(i64::MAX),
        order: Order::OldestFirst,
        page: None,
        max_messages: usize::MAX,
        max_bytes: u64::MAX,
    };
    let found = reader.find(&find).unwrap();
    assert_eq!(found.next, None, "one page has all");
    let mut places = Places::new();
    for batch in &found.batches {
        let header = &batch.batch.header;
        for record in &batch.records {
            places.insert((header.queue, header.base_offset.plus(u64::from(*record))));
        }
    }
    (places, found.unreadable)
}

struct Small {
    vfs: SimVfs,
    digest: Digest,
    batches: Vec<(LogPosition, StoredBatch)>,
    found: Vec<Places>,
    tail: LogPosition,
    report: RecoveryReport,
}

impl Small {
    fn new() -> Self {
        let vfs = SimVfs::new(1);
        let (mut store, background, mut digest) = open(&vfs, "a new folder");
        background.run_all();
        let mut batches = Vec::new();
        let mut time = 0;
        for round in 0..ROUNDS {
            let queue = QUEUES[usize::try_from(round % 2).unwrap()];
            let mut builder = SectionBuilder::new();
            let bodies = [vec![7; BODY_BYTES], Vec::new()];
            for (number, body) in (0..).zip(bodies) {
                let message = Message::new(body).key(key((round + number) % KEYS));
                builder.push(&message.tag("rot").group("g")).unwrap();
            }
            time += 10;
            let section = builder.finish().unwrap();
            let shard = u32::try_from(queue.0 % 2).unwrap();
            let unit = [Batch {
                tag_bits: builder.tag_bits(),
                ..batch(shard, queue.0, 2, time, &section)
            }];
            let appended = store.appender.append(&unit).unwrap()[0];
            background.run_all();
            store.appender.settle().unwrap();
            let stored = store.reader.read(appended.position).unwrap();
            digest.apply(&stored);
            batches.push((appended.position, stored));
            if round == 12 || round == ROUNDS - 3 {
                assert!(store.appender.checkpoint(Timestamp(time), digest.states()));
                background.run_all();
            }
        }
        for _ in 0..3 {
            time += 50;
            store.appender.tick(Timestamp(time));
        }
        background.run_all();
        store.appender.settle().unwrap();
        assert!(!store.appender.needs_tick(), "a mark at the end");
        let keys = (0..KEYS).map(|number| find(&store.reader, &key(number)));
        let found: Vec<Places> = keys.map(|(places, _)| places).collect();
        assert!(found.iter().all(|places| places.len() > 5), "{found:?}");
        let tail = store.appender.tail();
        drop(store);
        vfs.keep_history();
        let copy = vfs.cut_at(0, Crash::KeepAll, 7);
        let (store, ..) = open(&copy, "a whole copy");
        let report = store.report.clone();
        let small = Self {
            vfs,
            digest,
            batches,
            found,
            tail,
            report,
        };
        assert!(small.report.snapshot > LogPosition(0));
        assert!(small.report.batches > 0);
        assert!(small.verify(&small.copy()).is_clean());
        small
    }

    fn copy(&self) -> SimVfs {
        self.vfs.cut_at(0, Crash::KeepAll, 7)
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = self.vfs.files().into_iter();
        let files = files.filter(|path| path.extension() == Some(extension.as_ref()));
        files.collect()
    }

    fn bytes(&self, path: &Path) -> Vec<u8> {
        self.vfs.contents(path).unwrap()
    }

    /// Flips so many bits of each byte of the file, one at a time and in a copy of the folder for
    /// each: 8 are all, and a single one is another one in each byte that follows.
    fn each_byte(&self, path: &Path, bits: u64, mut check: impl FnMut(&SimVfs, u64, &str)) {
        for at in 0..self.bytes(path).len() as u64 {
            for bit in (at..at + bits).map(|bit| bit % 8) {
                let vfs = self.copy();
                vfs.rot(path, at, 1 << bit).unwrap();
                let what = format!("{}, byte {at}, bit {bit}", path.display());
                check(&vfs, at, &what);
            }
        }
    }

    fn verify(&self, vfs: &SimVfs) -> Verified {
        let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
        offline.verify(&mut |_| {}).unwrap()
    }

    /// Whoever verifies the folder is told of this file, and of no other.
    fn is_reported(&self, vfs: &SimVfs, path: &Path, kind: FileKind, what: &str) {
        let verified = self.verify(vfs);
        let is_damaged = |state: &FileState| matches!(state, FileState::Damaged { .. });
        let damaged = verified.files.iter();
        let damaged: Vec<_> = damaged.filter(|file| is_damaged(&file.state)).collect();
        let [file] = damaged[..] else {
            panic!("{what}: {damaged:?}");
        };
        assert_eq!(file.kind, kind, "{what}");
        assert_eq!(dir().join(&file.name), path, "{what}");
        assert!(verified.can_start(), "{what}");
    }

    /// All is there: read at its place, through the index, by its keys.
    fn is_whole(&self, vfs: &SimVfs, what: &str) -> RecoveryReport {
        let (store, background, digest) = open(vfs, what);
        let report = store.report.clone();
        assert_eq!(report.cut_bytes, 0, "{what}");
        assert!(report.tail >= self.tail, "{what}: nothing is cut");
        assert_eq!(digest, self.digest, "{what}");
        for (position, batch) in &self.batches {
            let stored = store.reader.read(*position);
            let stored = stored.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(stored.section, batch.section, "{what}");
            let header = &batch.header;
            let found = store.reader.position_of(header.shard, header.seq);
            assert_eq!(found.unwrap(), Some(*position), "{what}");
        }
        for queue in QUEUES {
            let mut entries = Vec::new();
            let all = store.reader.entries(queue, Offset(0), 1000, &mut entries);
            all.unwrap_or_else(|error| panic!("{what}: {error}"));
            let places = entries.iter().map(|entry| entry.position);
            let stored = self.batches.iter().filter(|(_, b)| b.header.queue == queue);
            assert!(places.eq(stored.map(|(at, _)| *at)), "{what}");
        }
        for (number, places) in (0..).zip(&self.found) {
            let found = find(&store.reader, &key(number));
            assert_eq!(found, (places.clone(), 0), "{what}");
        }
        background.run_all();
        assert_eq!(store.reader.stats().quarantined, 0, "{what}");
        report
    }

    /// Batch `number` with the messages `lost` is refused, never found, and missed aloud; all else
    /// is there. `unlisted`: it has no header that an index could be made of.
    fn misses(&self, vfs: &SimVfs, number: usize, lost: &Places, unlisted: bool, what: &str) {
        let position = self.batches[number].0;
        let verified = self.verify(vfs);
        assert_eq!(verified.damaged.len(), 1, "{what}: {verified:?}");
        assert_eq!(verified.damaged[0].from, position, "{what}");
        let (store, background, digest) = open(vfs, what);
        assert_eq!(digest, self.digest, "{what}: it lies below the snapshot");
        for (number, places) in (0..).zip(&self.found) {
            let (found, unreadable) = find(&store.reader, &key(number));
            let whole: Places = places.difference(lost).copied().collect();
            assert_eq!(found, whole, "{what}");
            let touches = !places.is_disjoint(lost);
            assert!(!touches || unreadable > 0, "{what}: it is missed aloud");
        }
        for queue in QUEUES {
            let mut entries = Vec::new();
            let all = store.reader.entries(queue, Offset(0), 1000, &mut entries);
            all.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        if unlisted {
            let found = store.reader.stats().quarantined;
            assert_eq!(found, 1, "{what}: whoever makes the index sets it apart");
        }
        for (other, batch) in &self.batches {
            match store.reader.read(*other) {
                Ok(stored) => {
                    assert_ne!(*other, position, "{what}");
                    assert_eq!(stored.section, batch.section, "{what}");
                }
                Err(ReadError::Quarantined { .. }) => assert_eq!(*other, position, "{what}"),
                Err(error) => panic!("{what}: {error}"),
            }
        }
        background.run_all();
    }
}

#[test]
fn every_byte_of_the_key_indexes() {
    let small = Small::new();
    let files = small.files("kix");
    assert_eq!(files.len(), 2);
    for path in files {
        let intact = small.bytes(&path);
        assert_eq!(intact.len() as u64, 3 * KEY_PAGE, "header, filter, rows");
        small.each_byte(&path, 1, |vfs, at, what| {
            if at % KEY_PAGE < KEY_PAGE_CHECKED {
                small.is_reported(vfs, &path, FileKind::KeyIndex, what);
                small.is_whole(vfs, what);
                assert_eq!(vfs.contents(&path).unwrap(), intact, "{what}: rebuilt");
            } else {
                // Behind a page's checksum there is nothing.
                small.is_whole(vfs, what);
            }
        });
    }
}

#[test]
fn every_byte_of_the_queue_indexes() {
    let small = Small::new();
    let files = small.files("qix");
    assert_eq!(files.len(), 2);
    for path in files {
        let intact = small.bytes(&path);
        let checked = intact.len() as u64 - 4;
        small.each_byte(&path, 8, |vfs, at, what| {
            if at < checked {
                small.is_reported(vfs, &path, FileKind::QueueIndex, what);
            }
            small.is_whole(vfs, what);
            if at < checked {
                assert_eq!(vfs.contents(&path).unwrap(), intact, "{what}: rebuilt");
            }
        });
    }
}

#[test]
fn every_byte_of_the_snapshots() {
    let small = Small::new();
    let manifests = small.files("manifest");
    assert_eq!(manifests.len(), 2);
    let decode = |path: &PathBuf| {
        let manifest = tidegate_store::Manifest::decode(&small.bytes(path)).unwrap();
        manifest.parts().collect::<Vec<_>>()
    };
    let [older, newest] = [&manifests[0], &manifests[1]].map(decode);
    assert!(newest.len() >= 4, "a table, deltas, two states: {newest:?}");
    let part = |file: u64| dir().join(format!("snapshot/{file:020}.part"));
    let old: BTreeSet<u64> = older.iter().map(|part| part.file).collect();
    let new: BTreeSet<u64> = newest.iter().map(|part| part.file).collect();
    let mut files: BTreeMap<PathBuf, (FileKind, bool)> = BTreeMap::new();
    for (manifest, is_newest) in [(&manifests[0], false), (&manifests[1], true)] {
        files.insert(manifest.clone(), (FileKind::Manifest, is_newest));
    }
    for file in old.union(&new) {
        files.insert(part(*file), (FileKind::Part, new.contains(file)));
    }
    for (path, (kind, in_newest)) in files {
        let end = small.bytes(&path).len() as u64;
        // The last four bytes of a manifest are zero and never read.
        let checked = end - 4 * u64::from(kind == FileKind::Manifest);
        small.each_byte(&path, 8, |vfs, at, what| {
            if at >= checked {
                small.is_whole(vfs, what);
                return;
            }
            small.is_reported(vfs, &path, kind, what);
            let report = small.is_whole(vfs, what);
            assert!(!in_newest || report.damaged_snapshots > 0, "{what}");
            assert_eq!(report.snapshot < small.report.snapshot, in_newest, "{what}");
        });
    }
}

#[test]
fn every_byte_of_the_space_reserve() {
    let small = Small::new();
    let path = dir().join("log/RESERVE");
    assert!(small.bytes(&path).len() > 1000, "there is one");
    small.each_byte(&path, 1, |vfs, at, what| {
        // Nothing reads it, so a few of them show it.
        if at.is_multiple_of(509) {
            assert!(small.verify(vfs).is_clean(), "{what}");
            small.is_whole(vfs, what);
        }
    });
}

/// Table, heads and bodies of messages: the batch is refused, never found, and all else is served.
#[test]
fn every_byte_of_a_batch_of_messages() {
    let small = Small::new();
    let (position, damaged) = &small.batches[1];
    let lost: Places = (0..2)
        .map(|record| {
            (
                damaged.header.queue,
                damaged.header.base_offset.plus(record),
            )
        })
        .collect();
    let path = &small.files("seg")[0];
    let end = HEADER + damaged.section.len() as u64;
    for at in 0..end {
        // Bodies are long and all alike.
        if at > HEADER + 300 && at + 20 < end && !at.is_multiple_of(61) {
            continue;
        }
        for bit in 0..8 {
            let vfs = small.copy();
            vfs.rot(path, position.0 + at, 1 << bit).unwrap();
            let what = format!("byte {at}, bit {bit} of the batch");
            // Indexes that were made before the damage speak of the batch. Where they are lost as
            // well, making them anew must find that something is missing.
            let indexes_lost = bit % 2 == 1;
            if indexes_lost {
                for index in small.files("kix").iter().chain(&small.files("qix")) {
                    tidegate_store::Vfs::unlink(&vfs, index).unwrap();
                }
            }
            small.misses(&vfs, 1, &lost, indexes_lost && at < HEADER, &what);
        }
    }
}

/// Without rows there would be nothing to damage.
#[test]
fn the_fixture_has_rows_in_its_key_indexes() {
    let small = Small::new();
    for path in small.files("kix") {
        let segment = path.with_extension("seg");
        let page = &small.bytes(&segment)[..4096];
        let header = tidegate_store::SegmentHeader::decode(page).unwrap();
        let bytes = Bytes::from(small.bytes(&path));
        let kix = tidegate_store::Kix::check(&bytes, header.nonce).unwrap();
        assert!(kix.rows() > 10);
    }
}
