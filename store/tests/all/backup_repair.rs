//! Backups of one folder before and after damage and a repair: what the later one shares with the
//! earlier one is what the log holds now, or said to be damaged.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Timestamp};
use tidegate_store::backup::{Backup, BackupFile, FileId};
use tidegate_store::check::Offline;
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{Background, Store};

use crate::backup::{Source, backups, clear, folder, open_at, restore, take, target};
use crate::check::files_ending;
use crate::support::{Ledger, check_reads, dir};

const PAGE: std::ops::Range<u64> = 0..4096;

/// A log of several segments whose snapshots let none of them go, as a start finds it.
fn opened(seed: u64) -> (SimVfs, Store, Background, Ledger) {
    let mut source = Source::new(seed);
    source.append(150);
    let vfs = source.vfs.crash(Crash::KeepAll);
    drop(source);
    let (store, background, ledger) = open_at(&vfs, dir());
    (vfs, store, background, ledger)
}

fn segments(vfs: &SimVfs) -> Vec<PathBuf> {
    let all = files_ending(vfs, ".seg");
    let own: Vec<_> = all.into_iter().filter(|p| p.starts_with(dir())).collect();
    assert!(own.len() > 2, "{own:?}");
    own
}

fn repair(vfs: &SimVfs) {
    let mut offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let plan = offline.plan_repair(&mut |_| {}).unwrap();
    assert!(plan.left.is_empty() && !plan.steps.is_empty(), "{plan:#?}");
    offline.repair(&plan).unwrap();
}

/// Both backups are what their manifests say, and open as what the log was.
fn check_backups(vfs: &SimVfs, all: &[(Backup, &Ledger)]) {
    let backups: Vec<_> = all.iter().map(|(backup, _)| backup.clone()).collect();
    let intact = folder(vfs).verify(&backups, &mut |_| {}).unwrap();
    assert_eq!(intact.problems, []);
    for (backup, was) in all {
        let (store, background, ledger) = restore(vfs, Some(backup.number));
        assert_eq!(&ledger, *was);
        check_reads(&store.reader, &ledger);
        drop((store, background));
        clear(vfs);
    }
}

#[test]
fn a_header_page_that_rotted_before_the_first_backup_and_was_repaired() {
    let count = segments(&opened(1).0).len();
    for number in 0..count {
        let (vfs, store, background, ledger) = opened(1);
        let path = segments(&vfs)[number].clone();
        let held = store.reader.backup().unwrap();
        vfs.wipe(&path, PAGE).unwrap();
        let first = take(&folder(&vfs), &held).unwrap();
        drop((held, store, background));

        repair(&vfs);
        let (store, background, again) = open_at(&vfs, dir());
        assert_eq!(again, ledger);
        let second = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
        assert_eq!(second.damaged, []);
        drop((store, background));
        check_backups(&vfs, &[(first, &ledger), (second, &ledger)]);
    }
}

#[test]
fn a_header_page_that_rotted_between_two_backups_and_was_repaired() {
    let count = segments(&opened(2).0).len();
    for number in 0..count {
        let (vfs, store, background, ledger) = opened(2);
        let path = segments(&vfs)[number].clone();
        let first = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
        drop((store, background));

        vfs.wipe(&path, PAGE).unwrap();
        repair(&vfs);
        let (store, background, again) = open_at(&vfs, dir());
        assert_eq!(again, ledger);
        let second = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
        let of_log = |backup: &Backup| -> Vec<(FileId, u64)> {
            let files = backup.files.iter().map(|kept| kept.file);
            let is_segment = |file: &BackupFile| matches!(file.id, FileId::Segment { .. });
            files.filter(is_segment).map(|f| (f.id, f.len)).collect()
        };
        let kept = of_log(&first);
        assert!(
            kept.iter()
                .filter(|file| of_log(&second).contains(file))
                .count()
                + 1
                >= kept.len()
        );
        drop((store, background));
        check_backups(&vfs, &[(first, &ledger), (second, &ledger)]);
    }
}

#[test]
fn a_segment_that_a_backup_left_out_is_in_the_next_one_after_a_repair() {
    let (vfs, store, background, ledger) = opened(3);
    drop((store, background));
    let path = segments(&vfs)[0].clone();
    vfs.wipe(&path, PAGE).unwrap();
    let (store, background, _) = open_at(&vfs, dir());
    let first = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
    let has_it = |backup: &Backup| {
        let is_it = |file: &BackupFile| matches!(file.id, FileId::Segment { base: 0, .. });
        backup.files.iter().any(|kept| is_it(&kept.file))
    };
    assert!(!has_it(&first) && !first.damaged.is_empty(), "{first:?}");
    drop((store, background));
    repair(&vfs);
    let (store, background, _) = open_at(&vfs, dir());
    let second = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
    assert!(has_it(&second));
    assert_eq!(second.damaged, []);
    drop((store, background));
    check_backups(&vfs, &[(second, &ledger)]);
}

#[test]
fn what_was_damaged_when_it_was_fetched_is_said_by_every_backup_that_has_it() {
    let (vfs, store, background, ledger) = opened(4);
    let mut entries = Vec::new();
    let reader = &store.reader;
    reader
        .entries(QueueId(5), Offset(0), 1, &mut entries)
        .unwrap();
    let at = entries[0].position;
    let path = dir().join("log/00000000000000000000.seg");
    vfs.rot(&path, at.0 + 140, 1).unwrap();
    reader.read(at).unwrap_err();
    let first = take(&folder(&vfs), &reader.backup().unwrap()).unwrap();
    assert_eq!(first.damaged.len(), 1);
    assert_eq!(first.damaged[0].0, at);
    drop((store, background));

    // A disk may find again what it couldn't read.
    vfs.rot(&path, at.0 + 140, 1).unwrap();
    let (mut store, background, again) = open_at(&vfs, dir());
    assert_eq!(again, ledger);
    store.reader.read(at).unwrap();
    store.appender.checkpoint(Timestamp(1), again.states());
    background.run_all();
    let second = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
    assert_eq!(second.damaged, first.damaged);
    let files = folder(&vfs);
    let restored = files
        .restore(
            &second,
            &target(),
            &target().with_file_name("c"),
            &mut |_| {},
        )
        .unwrap();
    assert!(restored.verified.damaged.iter().any(|d| d.from == at));
    drop(files);
    clear(&vfs);

    // A folder of its own has it whole.
    for name in tidegate_store::Vfs::list(&vfs, backups()).unwrap() {
        tidegate_store::Vfs::unlink(&vfs, &backups().join(name)).unwrap();
    }
    let third = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
    assert_eq!((third.number, third.damaged.len()), (1, 0));
    drop((store, background));
    check_backups(&vfs, &[(third, &again)]);
}

#[test]
fn a_repaired_folder_uses_the_number_of_a_generation_again() {
    let (vfs, store, background, ledger) = opened(5);
    let first = take(&folder(&vfs), &store.reader.backup().unwrap()).unwrap();
    drop((store, background));
    // All that the newest generation brought, or the numbers of what is left would be passed over.
    let own = |ending: &str| -> Vec<PathBuf> {
        let files = files_ending(&vfs, ending).into_iter();
        files.filter(|path| path.starts_with(dir())).collect()
    };
    let manifests = own(".manifest");
    let older = &manifests[manifests.len() - 2];
    let parts = own(".part").into_iter();
    for path in parts.filter(|path| path.file_stem() > older.file_stem()) {
        vfs.rot(&path, 20, 1).unwrap();
    }
    repair(&vfs);
    let (store, background, again) = open_at(&vfs, dir());
    let mut source = Source::of(vfs.clone(), store, background, again);
    source.append(30);
    let second = source.back_up();
    assert_eq!(second.snapshot, first.snapshot, "the number is used again");
    assert_ne!(second.snapshot_position, first.snapshot_position);
    let after = source.ledger().clone();
    drop(source);
    check_backups(&vfs, &[(first, &ledger), (second, &after)]);
}
