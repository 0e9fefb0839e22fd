//! Every bit of every kind of byte that a data folder holds, flipped once: found where it matters,
//! never served, never the end of what follows, and never in the way of what is elsewhere.
//!
//! What one node can't tell is left out: damage to the last group of all, while no durable mark, no
//! later batch and no snapshot says that it was durable, looks like a torn tail.

mod every_byte;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidegate_model::{Offset, QueueId, Timestamp};
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    Background, LogPosition, OpenError, ReadError, RecoveryReport, Store, StoreConfig, TrimRow,
};

use crate::support::{Ledger, Record, batch, check_reads, dir, open_manual, record, small};

const HEADER: u64 = 128;

/// Segments so small that the folder has several.
fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes_max: 32 << 10,
        ..small()
    }
}

/// A folder with a bit of everything, and what it holds.
struct Whole {
    vfs: SimVfs,
    ledger: Ledger,
    batches: Vec<(LogPosition, Record)>,
    tail: LogPosition,
    snapshot: LogPosition,
}

struct Filling {
    store: Store,
    background: Background,
    ledger: Ledger,
    batches: Vec<(LogPosition, Record)>,
    time: i64,
}

impl Filling {
    fn settle(&mut self) {
        self.background.run_all();
        self.store.appender.settle().unwrap();
        self.background.run_all();
    }

    fn append(&mut self, shard: u32, queue: u64, len: usize) {
        self.time += 1;
        let section = (0..len).map(|at| (at as u64 * 7 + queue).to_le_bytes()[0]);
        let section = section.collect::<Vec<_>>();
        let span = u16::from(queue != 0);
        let unit = [batch(shard, queue, span, self.time, &section)];
        let appended = self.store.appender.append(&unit).unwrap()[0];
        let record = record(&unit[0], &appended);
        self.ledger.apply(record.clone());
        self.batches.push((appended.position, record));
        self.settle();
    }

    fn checkpoint(&mut self) {
        let states = self.ledger.states();
        let now = Timestamp(self.time);
        assert!(self.store.appender.checkpoint(now, states));
        self.background.run_all();
    }
}

impl Whole {
    fn new() -> Self {
        let vfs = SimVfs::new(1);
        let (store, background, ledger) = open_manual(&vfs, config()).unwrap();
        let mut filling = Filling {
            store,
            background,
            ledger,
            batches: Vec::new(),
            time: 0,
        };
        filling.background.run_all();
        for round in 0..52 {
            filling.append(0, 3, 900);
            filling.append(1, 4, 1501);
            filling.append(2, 0, 33);
            // A queue that most segments don't hold, and one that few do.
            if round % 25 == 0 {
                filling.append(0, 6, 70);
            }
            if round == 5 || round == 50 {
                filling.append(1, 7, 9);
            }
            if round % 17 == 16 {
                filling.checkpoint();
            }
        }
        let start = filling.store.reader.bounds(QueueId(6)).start;
        let row = TrimRow {
            queue: QueueId(6),
            start: Offset(start.0),
            bytes: 0,
        };
        assert_eq!(start, Offset(0), "a trim that takes nothing away");
        let trimmed = filling.store.appender.trim(
            tidegate_model::ShardId(0),
            Timestamp(filling.time),
            &[row],
        );
        let trimmed = trimmed.unwrap();
        filling.settle();
        let stored = filling.store.reader.read(trimmed.position).unwrap();
        filling.ledger.apply(Record::of(&stored));
        filling
            .batches
            .push((trimmed.position, Record::of(&stored)));
        for _ in 0..4 {
            filling.append(0, 3, 101);
            filling.append(1, 4, 60);
        }
        for _ in 0..3 {
            filling.time += 50;
            filling.store.appender.tick(Timestamp(filling.time));
        }
        filling.settle();
        assert!(!filling.store.appender.needs_tick(), "a mark at the end");
        let tail = filling.store.appender.tail();
        let Filling {
            ledger, batches, ..
        } = filling;
        drop(filling.store);
        vfs.keep_history();
        let mut whole = Self {
            vfs,
            ledger,
            batches,
            tail,
            snapshot: LogPosition(0),
        };
        let (store, _, recovered) = open_manual(&whole.copy(), config()).unwrap();
        assert_eq!(recovered.shards, whole.ledger.shards);
        assert!(store.report.batches > 5, "{:?}", store.report);
        whole.snapshot = store.report.snapshot;
        whole
    }

    fn copy(&self) -> SimVfs {
        self.vfs.cut_at(0, Crash::KeepAll, 7)
    }

    fn file(&self, suffix: &str, number: usize) -> PathBuf {
        let files = self.vfs.files().into_iter();
        let mut named = files.filter(|path| path.to_string_lossy().ends_with(suffix));
        named.nth(number).unwrap()
    }

    fn segment_of(&self, position: LogPosition) -> (PathBuf, u64) {
        let mut found = (PathBuf::new(), 0);
        for path in self.vfs.files() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(base) = name.strip_suffix(".seg") {
                let base = base.parse::<u64>().unwrap();
                if base <= position.0 {
                    found = (path, base);
                }
            }
        }
        (found.0, position.0 - found.1)
    }

    /// Flips each bit of `range` of the file, one copy of the folder for each, and has `check` look.
    fn each_bit(&self, path: &Path, range: Range<u64>, check: impl Fn(&SimVfs, &str)) {
        for at in range {
            for bit in 0..8 {
                let vfs = self.copy();
                vfs.rot(path, at, 1 << bit).unwrap();
                check(&vfs, &format!("{}, byte {at}, bit {bit}", path.display()));
            }
        }
    }

    /// Opens a damaged copy. Whatever is served must be what was appended; only batches at
    /// `damaged` positions may not be.
    /// The answer has how many are not.
    fn check(&self, vfs: &SimVfs, damaged: &Range<u64>, what: &str) -> (RecoveryReport, usize) {
        let (store, background, recovered) =
            open_manual(vfs, config()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let report = store.report.clone();
        assert_eq!(report.cut_bytes, 0, "{what}");
        assert!(report.tail >= self.tail, "{what}: nothing is cut");
        let mut missing = BTreeSet::new();
        for (position, record) in &self.batches {
            match store.reader.read(*position) {
                Ok(stored) => assert_eq!(Record::of(&stored), *record, "{what}"),
                Err(ReadError::Quarantined { .. }) if damaged.contains(&position.0) => {
                    missing.insert((record.shard, record.seq));
                }
                Err(error) => panic!("{what}: {}-{}: {error}", record.shard, record.seq),
            }
        }
        // What the snapshot holds is not replayed, so damage before it is found by its reader.
        let mut expected = self.ledger.clone();
        if !report.quarantined.is_empty() {
            for records in expected.shards.values_mut() {
                records.retain(|record| !missing.contains(&(record.shard, record.seq)));
            }
        }
        assert_eq!(recovered.shards, expected.shards, "{what}");
        if missing.is_empty() {
            check_reads(&store.reader, &recovered);
        }
        background.run_all();
        (report, missing.len())
    }

    fn nothing_damaged(&self, vfs: &SimVfs, what: &str) -> RecoveryReport {
        self.check(vfs, &(0..0), what).0
    }
}

/// Header, the section's first bytes and its last; those between are of the same kind.
fn parts_of(record: &Record) -> [Range<u64>; 2] {
    let end = HEADER + record.section.len() as u64;
    [0..end.min(HEADER + 16), end - 1..end]
}

#[test]
fn a_bit_of_a_batch_that_is_replayed() {
    let whole = Whole::new();
    let replayed = whole
        .batches
        .iter()
        .filter(|(position, _)| *position >= whole.snapshot);
    // Of each queue, the trim among them, the first one.
    let mut seen = BTreeSet::new();
    for (position, record) in replayed {
        if record.section.len() > 200 || !seen.insert((record.queue, record.kind)) {
            continue;
        }
        let (path, at) = whole.segment_of(*position);
        let damaged = position.0..position.0 + 1;
        for part in parts_of(record) {
            whole.each_bit(&path, at + part.start..at + part.end, |vfs, what| {
                let (report, missing) = whole.check(vfs, &damaged, what);
                assert_eq!(missing, 1, "{what}");
                assert_eq!(report.quarantined.len(), 1, "{what}");
                assert_eq!(report.quarantined[0].0, *position, "{what}");
            });
        }
        // Padding says nothing and is never read.
        let end = HEADER + record.section.len() as u64;
        whole.each_bit(
            &path,
            at + end..at + end.next_multiple_of(8),
            |vfs, what| {
                whole.nothing_damaged(vfs, what);
            },
        );
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn a_bit_of_a_batch_below_the_snapshot() {
    let whole = Whole::new();
    let mut seen = BTreeSet::new();
    for (position, record) in &whole.batches {
        if record.section.len() > 200 || !seen.insert(record.queue) {
            continue;
        }
        let (path, at) = whole.segment_of(*position);
        let damaged = position.0..position.0 + 1;
        for part in parts_of(record) {
            whole.each_bit(&path, at + part.start..at + part.end, |vfs, what| {
                let (_, missing) = whole.check(vfs, &damaged, what);
                assert_eq!(missing, 1, "{what}");
            });
        }
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn a_bit_of_a_local_record() {
    let whole = Whole::new();
    // The last record of all is the durable mark. Damaged itself, it looks torn, and goes alone.
    let mark = LogPosition(whole.tail.0 - HEADER);
    let (path, at) = whole.segment_of(mark);
    whole.each_bit(&path, at..at + HEADER, |vfs, what| {
        let (store, _background, recovered) = open_manual(vfs, config()).unwrap();
        assert_eq!(recovered.shards, whole.ledger.shards, "{what}");
        assert_eq!(store.report.tail, mark, "{what}");
        check_reads(&store.reader, &recovered);
    });
    // The record of the opening, at the log's very beginning, without a snapshot to skip it.
    let path = whole.file(".seg", 0);
    let manifests = [whole.file(".manifest", 0), whole.file(".manifest", 1)];
    whole.each_bit(&path, 4096..4096 + HEADER, |vfs, what| {
        for manifest in &manifests {
            tidegate_store::Vfs::unlink(vfs, manifest).unwrap();
        }
        let report = whole.nothing_damaged(vfs, what);
        assert_eq!(report.quarantined.len(), 1, "{what}");
    });
}

#[test]
fn a_bit_of_a_segment_header() {
    let whole = Whole::new();
    let path = whole.file(".seg", 0);
    let zeroes = (56..4096).step_by(101).map(|at| at..at + 1);
    let fields = std::iter::once(0..56);
    let segment = whole.vfs.contents(&path).unwrap().len() as u64;
    for range in fields.chain(zeroes) {
        whole.each_bit(&path, range.clone(), |vfs, what| {
            let (_, missing) = whole.check(vfs, &(0..segment), what);
            let all = whole.batches.iter();
            let inside = all.filter(|(position, _)| position.0 < segment);
            assert_eq!(missing, inside.count(), "{what}");
        });
        // Where recovery needs the segment, it says so and touches nothing.
        let (newest, _) = whole.segment_of(whole.tail);
        whole.each_bit(&newest, range, |vfs, what| {
            let before = vfs.contents(&newest).unwrap();
            let error = open_manual(vfs, config()).err();
            let Some(OpenError::Corrupt { path, .. }) = error else {
                panic!("{what}: {error:?}");
            };
            assert_eq!(path, newest, "{what}");
            assert_eq!(vfs.contents(&newest).unwrap(), before, "{what}");
        });
    }
}

#[test]
fn a_bit_of_a_queue_index() {
    let whole = Whole::new();
    let files = whole.vfs.files().into_iter();
    let indexes = files.filter(|path| path.extension() == Some("qix".as_ref()));
    let mut gaps = 0;
    for (number, path) in indexes.enumerate() {
        let intact = whole.vfs.contents(&path).unwrap();
        let count =
            |at: usize| u64::from(u32::from_le_bytes(intact[at..at + 4].try_into().unwrap()));
        let (queues, shards, entries) = (count(16), count(20), count(24));
        let shards_at = 40 + queues * 24;
        let entries_at = shards_at + shards * 16;
        let places_at = entries_at + entries * 48;
        let end = intact.len() as u64;
        let classes = [
            0..40,
            40..64,
            shards_at..shards_at + 16,
            entries_at..entries_at + 48,
            places_at..places_at + 4,
            end - 12..end - 4,
        ];
        // In one index all kinds of bytes; in the others one, to see that each is made anew as it
        // was: queues have earlier entries in the segment before, in one further back, or in none.
        let (first, all) = (classes[0].start, number == 1);
        let classes = classes
            .into_iter()
            .filter(|class| all || class.start == first);
        gaps += (0..queues)
            .map(|row| usize::try_from(40 + row * 24 + 8).unwrap())
            .map(|at| u64::from_le_bytes(intact[at..at + 8].try_into().unwrap()))
            .filter(|previous| *previous != u64::MAX && previous + (32 << 10) < base_of(&path))
            .count();
        for range in classes {
            let range = if all {
                range
            } else {
                range.start..range.start + 1
            };
            whole.each_bit(&path, range, |vfs, what| {
                whole.nothing_damaged(vfs, what);
                assert_eq!(vfs.contents(&path).unwrap(), intact, "{what}: rebuilt");
            });
        }
        // The last four bytes are zero and never read.
        whole.each_bit(&path, end - 4..end, |vfs, what| {
            whole.nothing_damaged(vfs, what);
        });
    }
    assert!(gaps > 0, "queues that skip a segment");
}

fn base_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_bit_of_a_snapshot() {
    let whole = Whole::new();
    let newest = whole.file(".manifest", 1);
    let end = whole.vfs.contents(&newest).unwrap().len() as u64;
    whole.each_bit(&newest, 0..end - 4, |vfs, what| {
        let report = whole.nothing_damaged(vfs, what);
        assert_eq!(report.damaged_snapshots, 1, "{what}");
        assert!(report.snapshot < whole.snapshot, "{what}");
    });
    whole.each_bit(&newest, end - 4..end, |vfs, what| {
        assert_eq!(whole.nothing_damaged(vfs, what).damaged_snapshots, 0);
    });
    // Table, deltas and states: of each part that only the newest names the first bytes, where
    // its header and first row are, and the last.
    let bytes = whole.vfs.contents(&newest).unwrap();
    let manifest = tidegate_store::Manifest::decode(&bytes).unwrap();
    let older = whole.vfs.contents(&whole.file(".manifest", 0)).unwrap();
    let older = tidegate_store::Manifest::decode(&older).unwrap();
    let shared = older.parts().collect::<Vec<_>>();
    let mut parts = 0;
    for part in manifest.parts().filter(|part| !shared.contains(part)) {
        let path = dir().join(format!("snapshot/{:020}.part", part.file));
        let first = part.len.min(72);
        for range in [0..first, part.len - 1..part.len] {
            whole.each_bit(&path, range, |vfs, what| {
                let report = whole.nothing_damaged(vfs, what);
                assert_eq!(report.damaged_snapshots, 1, "{what}");
            });
        }
        parts += 1;
    }
    assert!(parts >= 4, "a table or deltas, and three states");
}

#[test]
fn a_bit_of_the_format_file() {
    let whole = Whole::new();
    let path = dir().join("FORMAT");
    let end = whole.vfs.contents(&path).unwrap().len() as u64;
    whole.each_bit(&path, 0..end, |vfs, what| {
        match open_manual(vfs, config()) {
            Err(OpenError::Corrupt { .. } | OpenError::Version { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
            Ok((store, _background, recovered)) => {
                assert_eq!(recovered.shards, whole.ledger.shards, "{what}");
                check_reads(&store.reader, &recovered);
            }
        }
    });
}
