use std::path::Path;
use std::sync::Arc;

use super::*;

fn disk_with(path: &Path, synced: &[u8]) -> (SimVfs, Arc<dyn VfsFile>) {
    let vfs = SimVfs::new(1);
    let file = vfs.create(path).unwrap();
    file.write_all_at(synced, 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(path.parent().unwrap()).unwrap();
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
fn a_subset_of_blocks_survives_whole() {
    let path = Path::new("/a/file");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (vfs, file) = disk_with(path, &[1; 8192]);
        file.write_all_at(&[2; 8192], 0).unwrap();
        let after = vfs.crash(Crash::Subset { seed, block: 4096 });
        let bytes = after.contents(path).unwrap();
        assert!(
            bytes
                .chunks(4096)
                .all(|block| block.iter().all(|byte| *byte == block[0]))
        );
        seen.insert((bytes[0], bytes[4096]));
    }
    assert_eq!(seen.len(), 4, "every combination: {seen:?}");
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
    vfs.sync_dir(Path::new("/b")).unwrap();
    vfs.sync_dir(Path::new("/a")).unwrap();
    vfs.unlink(to).unwrap();
    assert_eq!(vfs.crash(Crash::LoseAll).files(), [to]);
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
