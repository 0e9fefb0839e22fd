use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;

fn disk_with(path: &Path, synced: &[u8]) -> (SimVfs, Arc<dyn VfsFile>) {
    let vfs = SimVfs::new(1);
    let folder = path.parent().unwrap();
    vfs.create_dir(folder).unwrap();
    let file = vfs.create(path).unwrap();
    file.write_all_at(synced, 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(folder).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    (vfs, file)
}

#[test]
fn unsynced_writes_are_lost() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, &[1; 2000]);
    file.write_all_at(&[2; 100], 700).unwrap();
    file.write_all_at(&[3; 5000], 1990).unwrap();
    assert_eq!(vfs.contents(path).unwrap()[700], 2);
    let lost = vfs.crash(Crash::LoseAll);
    assert_eq!(lost.contents(path).unwrap(), [1; 2000]);
    assert!(
        file.read_exact_at(&mut [0], 0).is_err(),
        "the old boot is over"
    );
    assert!(vfs.list(Path::new("/a")).is_err());
}

#[test]
fn any_subset_of_blocks_survives() {
    let path = Path::new("/a/file");
    let mut seen = BTreeSet::new();
    let mut torn = 0;
    for seed in 0..300 {
        let (vfs, file) = disk_with(path, &[1; 8192]);
        file.write_all_at(&[2; 8192], 0).unwrap();
        let after = vfs.crash(Crash::Subset { seed, block: 4096 });
        let bytes = after.contents(path).unwrap();
        assert!(bytes.iter().all(|byte| [1, 2].contains(byte)));
        torn += bytes
            .chunks(512)
            .filter(|sector| sector.iter().any(|byte| *byte != sector[0]))
            .count();
        let whole = |block: &[u8]| block.iter().all(|byte| *byte == block[0]);
        if bytes.chunks(4096).all(whole) {
            seen.insert((bytes[0], bytes[4096]));
        }
    }
    assert_eq!(seen.len(), 4, "every combination: {seen:?}");
    assert!(torn > 50, "{torn} sectors torn");
}

#[test]
fn a_sector_may_be_as_it_was_between_two_writes() {
    let path = Path::new("/a/file");
    let seen = (0..200).map(|seed| {
        let (vfs, file) = disk_with(path, &[1; 512]);
        file.write_all_at(&[2; 512], 0).unwrap();
        file.write_all_at(&[3; 512], 0).unwrap();
        let after = vfs.crash(Crash::Subset { seed, block: 512 });
        let bytes = after.contents(path).unwrap();
        (bytes[0], bytes[511])
    });
    let seen = seen.collect::<BTreeSet<_>>();
    for whole in [(1, 1), (2, 2), (3, 3), (1, 2), (3, 2)] {
        assert!(seen.contains(&whole), "{whole:?} in {seen:?}");
    }
    assert!(!seen.contains(&(1, 3)), "torn between neighbours only");
}

#[test]
fn length_and_bytes_survive_each_for_itself() {
    let path = Path::new("/a/file");
    let seen = (0..200).map(|seed| {
        let (vfs, file) = disk_with(path, &[1; 100]);
        file.allocate(512).unwrap();
        file.write_all_at(&[2; 1024], 0).unwrap();
        let after = vfs.crash(Crash::Subset { seed, block: 1024 });
        let bytes = after.contents(path).unwrap();
        (bytes.len(), bytes[0])
    });
    let seen = seen.collect::<BTreeSet<_>>();
    let all = [100, 512, 1024]
        .into_iter()
        .flat_map(|len| [(len, 1), (len, 2)]);
    assert!(all.clone().all(|one| seen.contains(&one)), "{seen:?}");
}

#[test]
fn a_killed_process_leaves_what_is_unsynced_so() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, b"one");
    file.write_all_at(b"two", 0).unwrap();
    vfs.rename(path, Path::new("/a/new")).unwrap();
    let killed = vfs.crash(Crash::KeepAll);
    assert_eq!(killed.contents(Path::new("/a/new")).unwrap(), b"two");
    let cut = killed.crash(Crash::LoseAll);
    assert_eq!(cut.contents(path).unwrap(), b"one");
}

#[test]
fn names_need_their_folder_synced() {
    let (from, to) = (Path::new("/a/from"), Path::new("/a/to"));
    let (vfs, _file) = disk_with(from, b"x");
    vfs.rename(from, to).unwrap();
    assert_eq!(vfs.files(), [to]);
    assert_eq!(vfs.crash(Crash::LoseAll).files(), [from]);

    let (vfs, _file) = disk_with(from, b"x");
    vfs.rename(from, to).unwrap();
    vfs.create_dir(Path::new("/b")).unwrap();
    vfs.sync_dir(Path::new("/b")).unwrap();
    vfs.sync_dir(Path::new("/a")).unwrap();
    vfs.unlink(to).unwrap();
    assert_eq!(vfs.crash(Crash::LoseAll).files(), [to]);
}

#[test]
fn names_survive_each_for_itself_and_renames_whole() {
    let folder = Path::new("/a");
    let seen = (0..300).map(|seed| {
        let (vfs, _file) = disk_with(&folder.join("old"), b"x");
        vfs.create(&folder.join("tmp")).unwrap();
        vfs.rename(&folder.join("tmp"), &folder.join("new"))
            .unwrap();
        vfs.unlink(&folder.join("old")).unwrap();
        let after = vfs.crash(Crash::Subset { seed, block: 512 });
        after.list(folder).unwrap().join(" ")
    });
    let seen = seen.collect::<BTreeSet<_>>();
    let possible = ["", "new", "new old", "old", "old tmp", "tmp"];
    assert!(seen.iter().eq(possible), "{seen:?}");
}

#[test]
fn a_folder_needs_its_parent_synced() {
    let vfs = SimVfs::new(1);
    let folder = Path::new("/a/b");
    vfs.create_dir(folder).unwrap();
    vfs.create(&folder.join("file")).unwrap();
    vfs.sync_dir(folder).unwrap();
    vfs.sync_dir(Path::new("/a")).unwrap();
    assert!(vfs.create(Path::new("/c/file")).is_err());
    let after = vfs.crash(Crash::LoseAll);
    assert_eq!(after.files(), Vec::<PathBuf>::new());
    assert!(after.list(Path::new("/a")).is_err());
    vfs.sync_dir(Path::new("/")).unwrap_err();
}

#[test]
fn a_failed_sync_leaves_pages_clean_and_wrong() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, &[1; 8192]);
    file.write_all_at(&[2; 8192], 0).unwrap();
    vfs.fail_once(Op::Sync, 0);
    let error = file.sync().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert!(vfs.has_failed());
    file.sync().unwrap();
    assert_eq!(vfs.contents(path).unwrap(), [2; 8192], "as cached");
    file.drop_cache().unwrap();
    let bytes = vfs.contents(path).unwrap();
    assert!(
        bytes.contains(&1) && bytes.contains(&2),
        "as on the platter"
    );
    assert_eq!(vfs.crash(Crash::LoseAll).contents(path).unwrap(), bytes);
}

#[test]
fn a_failed_sync_of_a_folder_is_not_made_up_for_by_the_next() {
    let (one, two) = (Path::new("/a/one"), Path::new("/a/two"));
    let (vfs, _file) = disk_with(one, b"x");
    vfs.rename(one, two).unwrap();
    vfs.fail_once(Op::SyncDir, 0);
    vfs.sync_dir(Path::new("/a")).unwrap_err();
    vfs.sync_dir(Path::new("/a")).unwrap();
    assert_eq!(vfs.crash(Crash::LoseAll).files(), [one]);
    let (vfs, _file) = disk_with(one, b"x");
    vfs.rename(one, two).unwrap();
    vfs.fail_once(Op::SyncDir, 0);
    vfs.sync_dir(Path::new("/a")).unwrap_err();
    vfs.rename(two, one).unwrap();
    vfs.sync_dir(Path::new("/a")).unwrap();
    assert_eq!(vfs.crash(Crash::LoseAll).files(), [one]);
}

#[test]
fn the_history_can_be_cut_anywhere() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, b"one");
    vfs.keep_history();
    file.write_all_at(b"two", 0).unwrap();
    file.sync().unwrap();
    file.write_all_at(b"six", 0).unwrap();
    assert_eq!(vfs.history(), 3);
    let found = |changes, crash| vfs.cut_at(changes, crash, 1).contents(path).unwrap();
    assert_eq!(found(0, Crash::LoseAll), b"one");
    assert_eq!(found(1, Crash::LoseAll), b"one");
    assert_eq!(found(1, Crash::KeepAll), b"two");
    assert_eq!(found(3, Crash::LoseAll), b"two");
    assert!(vfs.is_on());
}

#[test]
fn a_disk_may_lie() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, b"one");
    vfs.ignore_syncs("file");
    vfs.ignore_dir_syncs("a");
    file.write_all_at(b"two", 0).unwrap();
    file.sync().unwrap();
    vfs.unlink(path).unwrap();
    vfs.sync_dir(Path::new("/a")).unwrap();
    assert_eq!(vfs.crash(Crash::LoseAll).contents(path).unwrap(), b"one");
}

#[test]
fn a_full_disk_keeps_what_it_got() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, &[1; 1000]);
    vfs.set_capacity(Some(1500));
    let error = file.allocate(4000).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(vfs.used(), 1500);
}

#[test]
fn the_power_goes_when_it_is_told_to() {
    let path = Path::new("/a/file");
    let (vfs, file) = disk_with(path, b"one");
    vfs.power_off_after(1);
    file.write_all_at(b"two", 0).unwrap();
    assert!(file.sync().is_err());
    assert!(!vfs.is_on());

    let (vfs, file) = disk_with(path, b"one");
    vfs.power_off_at_sync("other", 0);
    file.sync().unwrap();
    vfs.power_off_at_sync("file", 1);
    file.sync().unwrap();
    file.write_all_at(b"two", 0).unwrap();
    assert!(file.sync().is_err());
    assert_eq!(vfs.crash(Crash::KeepAll).contents(path).unwrap(), b"two");
}
