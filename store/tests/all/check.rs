//! Looking at a folder offline: everything that is wrong is found, and nothing is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};
use tidegate_store::check::{
    CheckError, Dumped, FileDump, FileKind, FileState, Offline, Progress, Verified,
};
use tidegate_store::sim::{Crash, Op, Random, SimVfs};
use tidegate_store::{LogPosition, OpenError, Store, Vfs};

use crate::support::{Ledger, batch, dir, open_manual, record, small};

/// A log of several segments with two snapshots, and what was appended with its positions.
pub(crate) struct Filled {
    pub(crate) vfs: SimVfs,
    pub(crate) placed: Vec<(LogPosition, LogPosition, crate::support::Record)>,
}

pub(crate) fn filled(seed: u64) -> Filled {
    let vfs = SimVfs::new(seed);
    let (store, background, _) = open_manual(&vfs, small()).unwrap();
    let Store { mut appender, .. } = store;
    let mut ledger = Ledger::default();
    let mut placed = Vec::new();
    for number in 0..90_u32 {
        let section = vec![number.to_le_bytes()[0]; 1000 + number as usize];
        let (shard, queue) = (number % 3, 5 + u64::from(number % 6));
        let unit = [batch(shard, queue, 2, 10, &section)];
        let appended = appender.append(&unit).unwrap()[0];
        background.run_all();
        appender.settle().unwrap();
        let record = record(&unit[0], &appended);
        ledger.apply(record.clone());
        placed.push((appended.position, appended.end, record));
        if number % 30 == 20 {
            assert!(appender.checkpoint(Timestamp(1), ledger.states()));
            background.run_all();
        }
    }
    for now in [0, 60, 120] {
        appender.tick(Timestamp(now));
    }
    background.run_all();
    Filled { vfs, placed }
}

pub(crate) fn verify(vfs: &SimVfs) -> Verified {
    let before = contents(vfs);
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let mut last = Progress { done: 0, of: 0 };
    let verified = offline.verify(&mut |progress| {
        assert!(progress.done >= last.done && progress.done <= progress.of);
        last = progress;
    });
    drop(offline);
    assert_eq!(contents(vfs), before, "looking changes nothing");
    assert_eq!(last.done, last.of);
    verified.unwrap()
}

pub(crate) fn contents(vfs: &SimVfs) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = vfs.files().into_iter();
    files
        .map(|path| (path.clone(), vfs.contents(&path).unwrap()))
        .collect()
}

pub(crate) fn files_ending(vfs: &SimVfs, suffix: &str) -> Vec<PathBuf> {
    let files = vfs.files().into_iter();
    files
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect()
}

/// The file's path in the folder.
pub(crate) fn name_of(path: &Path) -> String {
    let name = path.strip_prefix(dir()).unwrap();
    name.to_string_lossy().into_owned()
}

fn state<'a>(verified: &'a Verified, name: &str) -> &'a FileState {
    let file = verified.files.iter().find(|file| file.name == name);
    &file.unwrap_or_else(|| panic!("{name} is listed")).state
}

pub(crate) fn segment_of(vfs: &SimVfs, position: LogPosition) -> (PathBuf, u64) {
    let base = |path: &PathBuf| {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        stem.parse::<u64>().unwrap()
    };
    let mut segments = files_ending(vfs, ".seg").into_iter();
    let path = segments.rfind(|path| base(path) <= position.0).unwrap();
    let offset = position.0 - base(&path);
    (path, offset)
}

#[test]
fn a_healthy_folder_is_clean_closed_killed_or_cut_off() {
    let filled = filled(1);
    let vfs = filled.vfs;
    let verified = verify(&vfs);
    assert!(verified.is_clean() && verified.can_start(), "{verified:#?}");
    assert_eq!(verified.log.batches, 90);
    assert_eq!(verified.log.first, LogPosition(0));
    assert_eq!(verified.log.unsynced_bytes, 0);
    assert!(verified.log.end > filled.placed[89].1);
    let of = |kind| {
        let files = verified.files.iter();
        files.filter(|file| file.kind == kind).count()
    };
    assert!(of(FileKind::Segment) >= 3 && of(FileKind::QueueIndex) >= 2);
    assert_eq!(of(FileKind::Manifest), 2);
    assert!(of(FileKind::Part) >= 4);

    // A group that never was synced, whole on the disk: no damage, and no part of the log.
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    let clean = store.report.tail;
    let torn = store
        .appender
        .append(&[batch(0, 5, 1, 11, b"one"), batch(0, 5, 1, 11, b"unit")])
        .unwrap()[0]
        .position;
    vfs.fail(Op::Sync, true);
    while background.flush() {}
    let vfs = vfs.crash(Crash::KeepAll);
    let (path, offset) = segment_of(&vfs, torn);
    vfs.rot(&path, offset + 50, 1).unwrap();
    let verified = verify(&vfs);
    assert!(verified.is_clean(), "{verified:#?}");
    assert!(verified.log.end > clean && verified.log.end <= torn);
    assert!(verified.log.unsynced_bytes > 0);
}

#[test]
fn every_flipped_bit_of_the_log_is_found_and_names_what_it_took() {
    let seed = 2;
    let Filled { vfs, placed } = filled(seed);
    let mut random = Random(seed);
    for _ in 0..60 {
        let (from, end, record) = &placed[usize::try_from(random.below(90)).unwrap()];
        let (path, offset) = segment_of(&vfs, *from);
        // Past the padding, of which no checksum knows.
        let at = random.below(128 + record.section.len() as u64);
        let mask = 1 << random.below(8);
        vfs.rot(&path, offset + at, mask).unwrap();
        let verified = verify(&vfs);
        vfs.rot(&path, offset + at, mask).unwrap();

        let what = format!("byte {at} of {record:?} at {from}: {verified:#?}");
        assert!(!verified.is_clean() && verified.can_start(), "{what}");
        assert_eq!(verified.damaged.len(), 1, "{what}");
        let damage = &verified.damaged[0];
        assert_eq!((damage.from, damage.to), (*from, *end), "{what}");
        assert_eq!(
            (&damage.file, damage.offset),
            (&name_of(&path), offset),
            "{what}"
        );
        assert_eq!(verified.lost_seqs.len(), 1, "{what}");
        let lost = &verified.lost_seqs[0];
        assert_eq!((lost.shard.0, lost.first.0), (record.shard, record.seq));
        assert_eq!(lost.last, lost.first);
        let offsets = &verified.lost_offsets;
        // The last of a queue has no neighbour behind it to tell, unless its header does.
        if let [lost] = &offsets[..] {
            assert_eq!(
                (lost.queue.0, lost.first.0),
                (record.queue, record.base_offset)
            );
            assert_eq!(lost.last, Offset(record.base_offset + 1));
        } else {
            let later = |other: &&(_, _, crate::support::Record)| {
                other.2.queue == record.queue && other.2.seq > record.seq
            };
            assert!(
                offsets.is_empty() && placed.iter().find(later).is_none(),
                "{what}"
            );
        }
        assert!(matches!(
            state(&verified, &name_of(&path)),
            FileState::Damaged { .. }
        ));
    }
    assert!(verify(&vfs).is_clean());
}

#[test]
fn every_flipped_bit_of_the_other_files_is_found() {
    let seed = 3;
    let Filled { vfs, .. } = filled(seed);
    let mut random = Random(seed);
    let mut files = vec![dir().join("FORMAT")];
    for suffix in [".qix", ".kix", ".manifest", ".part"] {
        files.extend(files_ending(&vfs, suffix));
    }
    for path in files {
        let len = vfs.contents(&path).unwrap().len() as u64;
        // Behind an index's and a manifest's checksum are four bytes that nobody reads.
        let len = match path.extension().and_then(|name| name.to_str()) {
            Some("qix" | "manifest") => len - 4,
            None => 20,
            _ => len,
        };
        for _ in 0..6 {
            let (at, mask) = (random.below(len), 1 << random.below(8));
            vfs.rot(&path, at, mask).unwrap();
            let verified = verify(&vfs);
            vfs.rot(&path, at, mask).unwrap();
            let state = state(&verified, &name_of(&path));
            let found = matches!(state, FileState::Damaged { .. });
            assert!(found, "byte {at} of {}: {state:?}", path.display());
            assert!(!verified.is_clean() && verified.can_start());
        }
    }
}

#[test]
fn missing_files_are_named() {
    let Filled { vfs, .. } = filled(4);
    let index = files_ending(&vfs, ".qix")[0].clone();
    let segment = files_ending(&vfs, ".seg")[1].clone();
    let part = files_ending(&vfs, ".part")[0].clone();
    for path in [&index, &segment, &part] {
        Vfs::unlink(&vfs, path).unwrap();
    }
    let verified = verify(&vfs);
    for path in [&index, &segment, &part] {
        let state = state(&verified, &name_of(path));
        assert!(matches!(state, FileState::Missing { .. }), "{state:?}");
    }
    assert!(!verified.lost_seqs.is_empty() && !verified.lost_offsets.is_empty());
    assert!(!verified.is_clean());
}

#[test]
fn a_header_page_that_rotted_takes_its_segment_and_no_more() {
    let Filled { vfs, placed } = filled(5);
    let path = files_ending(&vfs, ".seg")[1].clone();
    vfs.rot(&path, 20, 1).unwrap();
    let verified = verify(&vfs);
    let (first, last) = (verified.damaged[0].from, verified.damaged[0].to);
    let inside = placed
        .iter()
        .filter(|(from, ..)| *from >= first && *from < last)
        .count();
    assert_eq!(verified.log.batches as usize, placed.len() - inside);
    let lost: u64 = verified
        .lost_seqs
        .iter()
        .map(|lost| lost.last.0 - lost.first.0 + 1)
        .sum();
    assert_eq!(lost as usize, inside);
}

#[test]
fn what_cannot_be_read_is_damage_and_no_error() {
    let Filled { vfs, placed } = filled(6);
    let (from, _, record) = &placed[10];
    let (path, offset) = segment_of(&vfs, *from);
    vfs.fail_reads(&path, offset + 200..offset + 201);
    let manifest = files_ending(&vfs, ".manifest")[1].clone();
    vfs.fail_reads(&manifest, 0..10);
    let verified = verify(&vfs);
    assert!(verified.can_start());
    // A block that can't be read takes all batches that touch it.
    assert!(
        verified
            .damaged
            .iter()
            .any(|d| d.from <= *from && *from < d.to)
    );
    assert!(
        verified
            .lost_seqs
            .iter()
            .any(|lost| lost.shard.0 == record.shard
                && (lost.first.0..=lost.last.0).contains(&record.seq))
    );
    let state = state(&verified, &name_of(&manifest));
    assert!(matches!(state, FileState::Damaged { .. }), "{state:?}");
}

#[test]
fn without_snapshots_only_a_log_from_its_beginning_starts() {
    let Filled { vfs, .. } = filled(7);
    for manifest in files_ending(&vfs, ".manifest") {
        vfs.rot(&manifest, 30, 4).unwrap();
    }
    let verified = verify(&vfs);
    assert_eq!((verified.snapshot, verified.can_start()), (None, true));
    Vfs::unlink(&vfs, &files_ending(&vfs, ".seg")[0]).unwrap();
    let verified = verify(&vfs);
    assert_eq!((verified.snapshot, verified.can_start()), (None, false));
}

#[test]
fn a_folder_in_use_or_without_a_store_is_refused() {
    let vfs = SimVfs::new(8);
    let none = Offline::open(Arc::new(vfs.clone()), dir()).err().unwrap();
    assert!(matches!(none, CheckError::NoStore { .. }), "{none}");
    let (store, ..) = open_manual(&vfs, small()).unwrap();
    // A lock of the simulated machine is no file; of a real one it is.
    Vfs::create(&vfs, &dir().join("LOCK")).unwrap();
    let used = Offline::open(Arc::new(vfs.clone()), dir()).err().unwrap();
    let used_as_such = matches!(used, CheckError::Open(OpenError::InUse { .. }));
    assert!(used_as_such, "{used}");
    drop(store);
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let refused = open_manual(&vfs, small()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(offline);
    assert!(verify(&vfs).is_clean());
}

#[test]
fn a_dump_gives_every_batch_and_says_where_there_is_none() {
    let Filled { vfs, placed } = filled(9);
    let (rotten, behind, _) = placed[40];
    let (path, offset) = segment_of(&vfs, rotten);
    vfs.rot(&path, offset + 3, 1).unwrap();
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let read = |from: LogPosition| {
        let (mut batches, mut bad) = (Vec::new(), Vec::new());
        for dumped in offline.batches(from).unwrap() {
            match dumped.unwrap() {
                Dumped::Batch(batch) if batch.header.kind.is_local() => {}
                Dumped::Batch(batch) => batches.push(crate::support::Record::of(&batch)),
                Dumped::Bad { from, to } => bad.push((from, to)),
            }
        }
        (batches, bad)
    };
    let mut records: Vec<_> = placed.iter().map(|(.., record)| record.clone()).collect();
    records.remove(40);
    let (batches, bad) = read(LogPosition(0));
    assert_eq!(batches, records);
    assert_eq!(bad[0], (rotten, behind));
    // The rest is the end of the log, in its segment and the one that is prepared.
    assert!(bad.len() <= 3, "{bad:?}");
    let (batches, _) = read(LogPosition(placed[50].0.0 + 8));
    assert_eq!(batches, records[50..]);

    let base = LogPosition(0);
    let first = offline.batches_of(base).unwrap().count();
    assert!(first > 10 && first < 60);
    let index = name_of(&files_ending(&vfs, ".qix")[0]);
    let FileDump::QueueIndex { rows, .. } = offline.file(&index).unwrap() else {
        panic!("an index is an index");
    };
    assert_eq!(rows[0].queue, QueueId(5));
    assert_eq!(
        (rows[0].entry.shard, rows[0].entry.seq),
        (ShardId(0), Seq(1))
    );
    for path in vfs.files() {
        let name = name_of(&path);
        if name.contains('/') && !name.ends_with("RESERVE") {
            offline.file(&name).unwrap();
        }
    }
    for name in [
        "FORMAT",
        "log/1.seg",
        "../x",
        "log/00000000000000000001.seg",
    ] {
        let error = offline.file(name).unwrap_err();
        assert!(matches!(error, CheckError::NoSuchFile { .. }), "{error}");
    }
}

/// A segment that is rewritten in its slot ends with zeros, which are no damage: neither for who
/// verifies the folder nor for the scrubber. Damage to it is found all the same.
#[test]
fn a_rewritten_segment_is_whole() {
    let Filled { vfs, placed } = filled(3);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    // One queue keeps all it has, so that of each segment a sixth lives on.
    for queue in 6..11_u64 {
        let bounds = store.reader.bounds(QueueId(queue));
        let row = tidegate_store::TrimRow {
            queue: QueueId(queue),
            start: bounds.next,
            bytes: bounds.bytes,
        };
        let shard = ShardId(u32::try_from((queue - 5) % 3).unwrap());
        let appended = store.appender.trim(shard, Timestamp(20), &[row]).unwrap();
        background.run_all();
        store.appender.settle().unwrap();
        let stored = store.reader.read(appended.position).unwrap();
        ledger.apply(crate::support::Record::of(&stored));
    }
    for time in [30, 40] {
        let states = ledger.states();
        assert!(store.appender.checkpoint(Timestamp(time), states));
        background.run_all();
    }
    assert!(store.reader.stats().segments_rewritten > 0);
    while background.scrub() {}
    let stats = store.reader.stats();
    assert_eq!((stats.scrub.found, stats.quarantined), (0, 0));
    let kept = placed.iter().find(|(_, _, record)| record.queue == 5);
    let record = &kept.unwrap().2;
    let moved = store
        .reader
        .position_of(ShardId(record.shard), Seq(record.seq));
    let moved = moved.unwrap().unwrap();
    drop(store);
    let verified = verify(&vfs);
    assert!(verified.is_clean(), "{verified:?}");
    let path = segment_of(&vfs, moved);
    vfs.rot(&path.0, path.1, 1).unwrap();
    let verified = verify(&vfs);
    assert_eq!(verified.damaged.len(), 1, "{verified:?}");
    assert_eq!(verified.damaged[0].from, moved);
}
