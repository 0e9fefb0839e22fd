//! Backups: what was durable comes back, whatever retention does meanwhile, and what is damaged is
//! named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, ShardId, Timestamp};
use tidegate_store::backup::{
    Backup, BackupError, BackupFile, BackupFolder, BackupSource, FileId, KeptFile, Receiving,
    SourceError,
};
use tidegate_store::sim::{Crash, Random, SimVfs};
use tidegate_store::{Background, LogPosition, Reader, Store, TrimRow, Vfs, header::stored_bytes};

use crate::reclaim::{Stateless, section};
use crate::support::{Ledger, batch, check_reads, dir, open_manual, record, small};

const NODE: &str = "sha256:here";
/// Bytes that are fetched at once; no divisor of any length.
const PIECE: u64 = 10_007;

pub(crate) fn backups() -> &'static Path {
    Path::new("/backups")
}

pub(crate) fn target() -> PathBuf {
    PathBuf::from("/restored/store")
}

/// A store that is appended to, and what it was given.
pub(crate) struct Source {
    pub(crate) vfs: SimVfs,
    store: Store,
    background: Background,
    ledger: Ledger,
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        let vfs = SimVfs::new(seed);
        let (store, background, _) = open_manual(&vfs, small()).unwrap();
        Self {
            vfs,
            store,
            background,
            ledger: Ledger::default(),
        }
    }

    /// Of a store that was opened.
    pub(crate) fn of(vfs: SimVfs, store: Store, background: Background, ledger: Ledger) -> Self {
        Self {
            vfs,
            store,
            background,
            ledger,
        }
    }

    pub(crate) fn append(&mut self, batches: u64) {
        for _ in 0..batches {
            let number = self.ledger.len() as u64;
            let (shard, queue) = (u32::try_from(number % 3).unwrap(), 5 + number % 6);
            let section = section(queue, number);
            let unit = [batch(shard, queue, 2, 10, &section)];
            let appended = self.store.appender.append(&unit).unwrap()[0];
            self.background.run_all();
            self.store.appender.settle().unwrap();
            self.ledger.apply(record(&unit[0], &appended));
            if number % 30 == 20 {
                self.checkpoint();
            }
        }
    }

    pub(crate) fn checkpoint(&mut self) {
        let states = self.ledger.states();
        assert!(self.store.appender.checkpoint(Timestamp(1), states));
        self.background.run_all();
    }

    fn folder(&self) -> BackupFolder {
        folder(&self.vfs)
    }

    /// What it was given.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn back_up(&self) -> Backup {
        let source = self.store.reader.backup().unwrap();
        take(&self.folder(), &source).unwrap()
    }
}

pub(crate) fn folder(vfs: &SimVfs) -> BackupFolder {
    BackupFolder::open_for(Arc::new(vfs.clone()), backups(), NODE).unwrap()
}

/// Makes a backup of `source`, as a client does.
pub(crate) fn take(folder: &BackupFolder, source: &BackupSource) -> Result<Backup, BackupError> {
    let mut receiving = folder.receive(&mut |_| {})?;
    fetch(&mut receiving, source, u64::MAX)?;
    receiving.complete(said(source))
}

/// Fetches what is missing, or gives up after so many bytes: `false` then.
fn fetch(
    receiving: &mut Receiving<'_>,
    source: &BackupSource,
    mut most: u64,
) -> Result<bool, BackupError> {
    for (number, file) in source.files().enumerate() {
        let missing = receiving.missing(&file);
        let Some(mut incoming) = receiving.want(file)? else {
            assert_eq!(missing, 0);
            continue;
        };
        assert_eq!(missing, file.len - incoming.at());
        while incoming.at() < file.len {
            let len = PIECE.min(file.len - incoming.at());
            if len > most {
                return Ok(false);
            }
            most -= len;
            let piece = source.read(number, incoming.at(), len).unwrap();
            incoming.write(&piece.bytes)?;
        }
        receiving.take(incoming)?;
    }
    Ok(true)
}

fn said(source: &BackupSource) -> Backup {
    Backup {
        taken: Timestamp(77),
        durable: source.durable(),
        snapshot: source.snapshot().map_or(0, |manifest| manifest.generation),
        snapshot_position: source
            .snapshot()
            .map_or_else(LogPosition::default, |manifest| manifest.position),
        format: source.format(),
        damaged: source.damaged().to_vec(),
        ..Backup::default()
    }
}

/// Restores a backup and opens what comes of it.
pub(crate) fn restore(vfs: &SimVfs, number: Option<u64>) -> (Store, Background, Ledger) {
    let folder = folder(vfs);
    let backup = folder.find(number).unwrap();
    let components = target().with_file_name("components");
    let restored = folder
        .restore(&backup, &target(), &components, &mut |_| {})
        .unwrap();
    assert!(restored.verified.is_clean(), "{:?}", restored.verified);
    assert_eq!(restored.verified.log.end, backup.durable);
    assert_eq!(restored.verified.log.unsynced_bytes, 0);
    assert_eq!(restored.bytes, backup.bytes());
    open_at(vfs, &target())
}

pub(crate) fn open_at(vfs: &SimVfs, dir: &Path) -> (Store, Background, Ledger) {
    let mut ledger = Ledger::default();
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (store, background) =
        Store::open_manual(vfs, dir, small(), Timestamp(1000), &mut ledger).unwrap();
    (store, background, ledger)
}

/// Removes what [`restore`] made.
pub(crate) fn clear(vfs: &SimVfs) {
    for file in vfs.files() {
        if file.starts_with("/restored") {
            vfs.unlink(&file).unwrap();
        }
    }
}

#[test]
fn what_was_durable_comes_back_and_the_log_goes_on_behind_it() {
    // Without a snapshot, with one, and with two.
    for batches in [0, 7, 40, 150] {
        let mut source = Source::new(batches);
        source.append(batches);
        let at_start = source.ledger.clone();
        let held = source.store.reader.backup().unwrap();
        source.append(50);
        let backup = take(&source.folder(), &held).unwrap();
        assert_eq!(backup.snapshot > 0, batches > 20);

        let (mut store, background, ledger) = restore(&source.vfs, None);
        assert_eq!(ledger, at_start);
        check_reads(&store.reader, &ledger);
        let section = section(5, 1 << 30);
        let unit = [batch(1, 900, 1, 10, &section)];
        store.appender.append(&unit).unwrap();
        background.run_all();
        store.appender.settle().unwrap();
        assert_eq!(store.reader.bounds(QueueId(900)).next, Offset(1));
    }
}

#[test]
fn indexes_are_made_as_the_store_makes_them() {
    let mut source = Source::new(3);
    source.append(600);
    source.back_up();
    let (_, background, _) = restore(&source.vfs, None);
    background.run_all();
    let (mut compared, mut any) = (0, 0);
    for file in source.vfs.files() {
        if file.starts_with(dir()) && file.extension().is_some_and(|found| found == "qix") {
            any += 1;
            let twin = target().join(file.strip_prefix(dir()).unwrap());
            if let Ok(twin) = source.vfs.contents(&twin) {
                assert_eq!(twin, source.vfs.contents(&file).unwrap(), "{file:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1 && any - compared <= 1, "{compared} of {any}");
}

#[test]
fn the_next_backup_fetches_only_what_is_new() {
    let mut source = Source::new(4);
    source.append(120);
    let first = source.back_up();
    assert_eq!(first.number, 1);
    assert_eq!(first.fetched, first.bytes());
    let again = source.back_up();
    assert_eq!((again.number, again.fetched), (2, 0));

    let before = source.ledger.clone();
    source.append(5);
    let third = source.back_up();
    let segments = |backup: &Backup| {
        let is_segment = |file: &BackupFile| matches!(file.id, FileId::Segment { .. });
        let files = backup.files.iter().map(|kept| kept.file);
        files.filter(is_segment).map(|file| file.len).sum::<u64>()
    };
    let new = segments(&third) - segments(&first);
    assert!(new > 0);
    assert_eq!(third.fetched, new, "no snapshot was written meanwhile");

    // The segment that grew serves both.
    let (store, _, ledger) = restore(&source.vfs, Some(1));
    assert_eq!(ledger, before);
    check_reads(&store.reader, &ledger);
    drop(store);
    clear(&source.vfs);
    let (store, _, ledger) = restore(&source.vfs, Some(3));
    assert_eq!(ledger, source.ledger);
    check_reads(&store.reader, &ledger);
}

#[test]
fn what_an_interrupted_backup_left_is_used_or_removed() {
    let mut source = Source::new(5);
    source.append(150);
    let held = source.store.reader.backup().unwrap();
    let of = source.store.reader.stats().durable.0;
    let mut last = u64::MAX;
    for most in [0, 1, 5000, 40_000, 70_000, of / 2, of] {
        let folder = source.folder();
        let mut receiving = folder.receive(&mut |_| {}).unwrap();
        let missing = |receiving: &Receiving<'_>| {
            let files = held.files();
            files.map(|file| receiving.missing(&file)).sum::<u64>()
        };
        let left = missing(&receiving);
        assert!(left <= last, "{left} of {last}");
        last = left;
        assert!(!fetch(&mut receiving, &held, most).unwrap() || most == of);
        assert_eq!(folder.list().unwrap(), []);
    }
    let backup = take(&source.folder(), &held).unwrap();
    assert!(backup.fetched < backup.bytes() / 2, "{}", backup.fetched);
    let names = source.vfs.list(backups()).unwrap();
    assert_eq!(names.len(), backup.files.len() + 2, "{names:?}");
    let (store, _, ledger) = restore(&source.vfs, None);
    assert_eq!(ledger, source.ledger);
    check_reads(&store.reader, &ledger);
}

/// Power cuts of the machine that the backup folder is on.
#[test]
fn a_backup_that_is_listed_is_whole_after_a_power_cut() {
    let mut complete = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut source = Source::new(seed);
        source.append(60);
        source.back_up();
        source.append(40);
        let held = source.store.reader.backup().unwrap();
        let folder = source.folder();
        source.vfs.power_off_after(random.below(80));
        let taken = take(&folder, &held);
        drop(folder);
        let vfs = source.vfs.crash(Crash::Subset { seed, block: 4096 });
        let folder = self::folder(&vfs);
        let listed = folder.list().unwrap();
        assert!(taken.is_err() || listed.len() == 2, "seed {seed}");
        complete += listed.len() - 1;
        let whole: Vec<Backup> = listed.into_iter().map(|l| l.backup.unwrap()).collect();
        let intact = folder.verify(&whole, &mut |_| {}).unwrap();
        assert_eq!(intact.problems, [], "seed {seed}");
        drop(folder);
        // The source is another machine in truth; here it lost power too.
        let (mut store, background, ledger) = open_at(&vfs, dir());
        store.appender.settle().unwrap();
        background.run_all();
        let held = store.reader.backup().unwrap();
        take(&self::folder(&vfs), &held).unwrap();
        let (store, _, restored) = restore(&vfs, None);
        assert_eq!(restored, ledger, "seed {seed}");
        check_reads(&store.reader, &restored);
    }
    assert!(complete > 0);
}

/// Two queues in all segments; the first is trimmed away.
fn trimmed(seed: u64) -> (SimVfs, Store, Background, BTreeMap<u64, u64>) {
    let vfs = SimVfs::new(seed);
    let (mut store, background) = Store::open_manual(
        Arc::new(vfs.clone()),
        dir(),
        small(),
        Timestamp(0),
        &mut Stateless,
    )
    .unwrap();
    let mut next = BTreeMap::new();
    for round in 0..160_u64 {
        // The first segments hold nothing of the second queue.
        let queues: &[u64] = if round < 60 {
            &[1, 1, 1]
        } else {
            &[1, 1, 1, 2]
        };
        for queue in queues {
            let offset = next.entry(*queue).or_insert(0);
            let section = section(*queue, *offset);
            let unit = [batch(0, *queue, 1, 10, &section)];
            store.appender.append(&unit).unwrap();
            *offset += 1;
            background.run_all();
            store.appender.settle().unwrap();
        }
        if round % 20 == 19 {
            store.appender.checkpoint(Timestamp(1), Vec::new());
            background.run_all();
        }
    }
    (vfs, store, background, next)
}

fn trim(store: &mut Store, background: &Background, queue: u64, start: u64) {
    let bytes = (0..start).map(|offset| stored_bytes(section(queue, offset).len()));
    let row = TrimRow {
        queue: QueueId(queue),
        start: Offset(start),
        bytes: bytes.sum(),
    };
    let trimmed = store.appender.trim(ShardId(0), Timestamp(20), &[row]);
    trimmed.unwrap();
    while background.flush() {}
    store.appender.settle().unwrap();
    store.appender.checkpoint(Timestamp(1), Vec::new());
    background.run_all();
    store.appender.checkpoint(Timestamp(1), Vec::new());
    background.run_all();
}

fn read_all(reader: &Reader, queue: u64) -> u64 {
    let bounds = reader.bounds(QueueId(queue));
    let mut at = bounds.start;
    while at < bounds.next {
        let mut entries = Vec::new();
        reader
            .entries(QueueId(queue), at, 16, &mut entries)
            .unwrap();
        assert!(!entries.is_empty(), "queue {queue} from {at}");
        for entry in entries {
            let stored = reader.read_entry(&entry).unwrap();
            assert_eq!(stored.section[..], section(queue, at.0), "{queue} at {at}");
            at = entry.next_offset();
        }
    }
    bounds.next.0 - bounds.start.0
}

#[test]
fn retention_goes_on_and_the_backup_holds_what_was_there() {
    let (vfs, mut store, background, next) = trimmed(6);
    let held = store.reader.backup().unwrap();
    trim(&mut store, &background, 1, next[&1]);
    let stats = store.reader.stats();
    assert!(stats.segments_removed > 0, "{stats:?}");
    assert!(stats.segments_rewritten > 0, "{stats:?}");
    assert_eq!(read_all(&store.reader, 1), 0);

    take(&folder(&vfs), &held).unwrap();
    drop(held);
    // And one of what is left, rewritten segments included.
    let after = store.reader.backup().unwrap();
    let second = take(&folder(&vfs), &after).unwrap();
    drop((after, store, background));
    for (number, of_first) in [(1, next[&1]), (2, 0)] {
        let folder = folder(&vfs);
        let backup = folder.find(Some(number)).unwrap();
        let components = target().with_file_name("components");
        let restored = folder
            .restore(&backup, &target(), &components, &mut |_| {})
            .unwrap();
        assert!(restored.verified.is_clean(), "{:?}", restored.verified);
        let (store, _) = Store::open_manual(
            Arc::new(vfs.clone()),
            &target(),
            small(),
            Timestamp(1000),
            &mut Stateless,
        )
        .unwrap();
        assert_eq!(read_all(&store.reader, 1), of_first);
        assert_eq!(read_all(&store.reader, 2), next[&2]);
        drop(store);
        clear(&vfs);
    }

    // What only the first consisted of goes with it.
    let removed = folder(&vfs).remove(1).unwrap();
    assert!(removed.files > 0 && removed.bytes > 0);
    let intact = folder(&vfs).verify(&[second], &mut |_| {}).unwrap();
    assert_eq!(intact.problems, []);
    folder(&vfs).remove(2).unwrap();
    let mut names = vfs.list(backups()).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["FORMAT"]);
}

#[test]
fn a_damaged_file_is_named_refused_and_fetched_again() {
    let mut source = Source::new(7);
    source.append(120);
    let first = source.back_up();
    source.append(5);
    let second = source.back_up();
    let held = source.store.reader.backup().unwrap();
    for (at, kept) in first.files.iter().enumerate() {
        let path = backups().join(kept.file.id.file_name());
        if kept.file.len == 0 {
            continue;
        }
        source.vfs.rot(&path, kept.file.len / 2, 1).unwrap();
        let folder = source.folder();
        let both = [first.clone(), second.clone()];
        let intact = folder.verify(&both, &mut |_| {}).unwrap();
        assert_eq!(intact.problems.len(), 1, "{:?}", intact.problems);
        let problem = &intact.problems[0];
        assert_eq!(problem.name, kept.file.id.file_name());
        assert!(problem.backups.contains(&1));
        let components = target().with_file_name("components");
        let refused = folder.restore(&first, &target(), &components, &mut |_| {});
        let Err(BackupError::Damaged { path: named, .. }) = refused else {
            panic!("restored a damaged backup");
        };
        assert_eq!(named, path);
        assert!(
            source
                .vfs
                .files()
                .iter()
                .all(|f| !f.starts_with("/restored"))
        );

        let healing = take(&folder, &held).unwrap();
        assert_eq!(healing.number, 3 + at as u64);
        let of_second = second.files.iter().any(|k| k.file.id == kept.file.id);
        assert_eq!(healing.fetched > 0, of_second);
        let intact = folder.verify(&[second.clone(), healing], &mut |_| {});
        assert_eq!(intact.unwrap().problems, []);
        if !of_second {
            source.vfs.rot(&path, kept.file.len / 2, 1).unwrap();
        }
    }
}

#[test]
fn a_missing_file_and_a_damaged_manifest_are_named() {
    let mut source = Source::new(8);
    source.append(60);
    let first = source.back_up();
    source.back_up();
    let folder = source.folder();
    let name = first.files[0].file.id.file_name();
    source.vfs.unlink(&backups().join(&name)).unwrap();
    let intact = folder.verify(&[first], &mut |_| {}).unwrap();
    assert_eq!(intact.problems[0].name, name);

    let manifest = backups().join("00000000000000000002.backup");
    source.vfs.rot(&manifest, 20, 1).unwrap();
    let error = folder.find(Some(2)).unwrap_err();
    assert!(
        matches!(&error, BackupError::Damaged { path, .. } if *path == manifest),
        "{error}"
    );
    // It may need any file, until it is removed itself.
    let removed = folder.remove(1).unwrap();
    assert_eq!((removed.files, removed.held_by), (0, Some(2)));
    assert!(folder.remove(2).unwrap().files > 0);
    assert!(matches!(
        folder.find(None),
        Err(BackupError::NoSuchBackup { .. })
    ));
}

#[test]
fn a_folder_is_one_nodes_and_nothing_else_is_in_it() {
    let mut source = Source::new(9);
    source.append(1);
    source.back_up();
    let vfs: Arc<dyn Vfs> = Arc::new(source.vfs.clone());
    let other = BackupFolder::open_for(vfs.clone(), backups(), "sha256:other");
    assert!(matches!(other, Err(BackupError::OtherNode { .. })));
    let held = source.folder();
    let twice = BackupFolder::open(vfs.clone(), backups());
    assert!(matches!(twice, Err(BackupError::InUse { .. })));
    drop(held);
    for open in [
        BackupFolder::open_for(vfs.clone(), dir(), NODE),
        BackupFolder::open(vfs.clone(), dir()),
        BackupFolder::open(vfs.clone(), Path::new("/nowhere")),
    ] {
        assert!(matches!(open, Err(BackupError::NoBackups { .. })));
    }
    let folder = source.folder();
    let backup = folder.find(None).unwrap();
    let full = folder.restore(&backup, dir(), Path::new("/c"), &mut |_| {});
    assert!(matches!(full, Err(BackupError::NotEmpty { .. })));
}

#[test]
fn damage_of_the_log_is_told_and_the_rest_is_backed_up() {
    let mut source = Source::new(10);
    source.append(120);
    let vfs = source.vfs.crash(Crash::KeepAll);
    // Opened anew, so that nothing is in memory.
    let (store, _background, _) = open_at(&vfs, dir());
    let reader = &store.reader;
    let mut entries = Vec::new();
    reader
        .entries(QueueId(5), Offset(0), 8, &mut entries)
        .unwrap();
    let (rotten, unreadable) = (entries[0], entries[6]);
    let file = dir().join("log/00000000000000000000.seg");
    vfs.rot(&file, rotten.position.0 + 140, 1).unwrap();
    let at = unreadable.position.0;
    vfs.fail_reads(&file, at..at + 1);
    reader.read(rotten.position).unwrap_err();
    let held = reader.backup().unwrap();
    assert_eq!(held.damaged().len(), 1);
    assert_eq!(held.damaged()[0].0, rotten.position);
    let piece = held.read(0, at - 5000, 10_000).unwrap();
    assert_eq!(piece.unreadable, 4096);
    assert_eq!(piece.bytes.len(), 10_000);

    let folder = folder(&vfs);
    let backup = take(&folder, &held).unwrap();
    let components = target().with_file_name("components");
    let restored = folder
        .restore(&backup, &target(), &components, &mut |_| {})
        .unwrap();
    assert!(restored.verified.can_start());
    let damaged = &restored.verified.damaged;
    assert!(
        damaged.iter().any(|d| d.from == rotten.position),
        "{damaged:?}"
    );
    let (store, _background, _) = open_at(&vfs, &target());
    store.reader.read(rotten.position).unwrap_err();
    store.reader.read(unreadable.position).unwrap_err();
    let mut whole = 0;
    for queue in 6..11 {
        let mut entries = Vec::new();
        let found = store
            .reader
            .entries(QueueId(queue), Offset(0), 99, &mut entries);
        found.unwrap();
        whole += entries
            .iter()
            .filter(|e| store.reader.read_entry(e).is_ok())
            .count();
    }
    assert!(whole >= 90, "{whole}");
}

#[test]
fn an_older_snapshot_does_where_the_newest_is_damaged() {
    let mut source = Source::new(11);
    source.append(120);
    let newest = source.store.reader.backup().unwrap();
    let newest = newest.snapshot().unwrap().clone();
    let part = format!("snapshot/{:020}.part", newest.table.file);
    let parts: Vec<u64> = newest.parts().map(|part| part.file).collect();
    let last = parts.iter().max().unwrap();
    let own = dir().join(format!("snapshot/{last:020}.part"));
    source.vfs.rot(&own, 0, 1).unwrap();
    let held = source.store.reader.backup().unwrap();
    assert!(held.snapshot().unwrap().generation < newest.generation);
    take(&source.folder(), &held).unwrap();
    let (store, _, ledger) = restore(&source.vfs, None);
    assert_eq!(ledger, source.ledger);
    check_reads(&store.reader, &ledger);
    drop(store);
    // The table is shared by both.
    source.vfs.rot(&dir().join(part), 0, 1).unwrap();
    if *last != newest.table.file {
        let refused = source.store.reader.backup();
        assert!(matches!(refused, Err(SourceError::Unreadable(_))));
    }
}

#[test]
fn pieces_that_are_not_there_are_refused() {
    let mut source = Source::new(12);
    source.append(3);
    let held = source.store.reader.backup().unwrap();
    let len = held.files().next().unwrap().len;
    for (number, at, len) in [(99, 0, 1), (0, len, 1), (0, 0, len + 1), (0, u64::MAX, 2)] {
        let read = held.read(number, at, len);
        assert!(matches!(read, Err(SourceError::NoSuchPiece { .. })));
    }
    assert_eq!(held.read(0, len, 0).unwrap().bytes, "");
    let folder = source.folder();
    let mut receiving = folder.receive(&mut |_| {}).unwrap();
    let mut file = held.files().next().unwrap();
    file.len = file.size + 1;
    assert!(matches!(
        receiving.want(file),
        Err(BackupError::Source { .. })
    ));
}

/// What has the number of a snapshot's manifest in its name.
fn is_manifest(kept: &KeptFile) -> bool {
    matches!(kept.file.id, FileId::Manifest { .. })
}

#[test]
fn every_byte_of_a_small_backup_is_watched() {
    let mut source = Source::new(11);
    source.append(22);
    let backup = source.back_up();
    assert!(backup.files.iter().any(is_manifest));
    let verified = |vfs: &SimVfs| -> Result<(), String> {
        let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let folder = BackupFolder::open(vfs, backups()).map_err(|error| error.to_string())?;
        let backup = folder.find(Some(1)).map_err(|error| error.to_string())?;
        let intact = folder.verify(&[backup], &mut |_| {}).unwrap();
        match intact.problems.into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(problem.what),
        }
    };
    assert_eq!(verified(&source.vfs), Ok(()));
    for name in source.vfs.list(backups()).unwrap() {
        let path = backups().join(&name);
        let len = source.vfs.contents(&path).unwrap().len() as u64;
        // All of the small files, and every page of the large ones.
        let step = if len > 1000 { 509 } else { 1 };
        for at in (0..len).step_by(step) {
            source.vfs.rot(&path, at, 1).unwrap();
            assert!(verified(&source.vfs).is_err(), "{name}, byte {at}");
            source.vfs.rot(&path, at, 1).unwrap();
        }
        assert_eq!(verified(&source.vfs), Ok(()), "{name}");
    }
}
