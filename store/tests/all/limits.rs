//! Full buffers, full disks, wrong folders, impossible requests.

use std::path::Path;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Timestamp};
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::vfs::{Vfs, VfsFile};
use tidegate_store::{
    AppendError, Kind, OpenError, ReadError, RealVfs, Store, StoreConfig, UNIT_BYTES_MAX,
};

use crate::support::{Ledger, batch, check_reads, dir, open_manual, record, small};

#[test]
fn a_full_ring_refuses_and_recovers() {
    let vfs = SimVfs::new(1);
    let config = StoreConfig {
        segment_bytes: 1 << 20,
        segment_bytes_max: 1 << 20,
        ..small()
    };
    let (mut store, background, _) = open_manual(&vfs, config.clone()).unwrap();
    background.run_all();
    let unit = [batch(0, 5, 1, 10, &[1; 4000])];
    let mut appended = 0;
    let error = loop {
        match store.appender.append(&unit) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full) && error.is_retryable());
    assert!(appended > 30, "{appended} of 4 KiB fill a ring of 256 KiB");
    assert_eq!(store.appender.next_offset(QueueId(5)), Offset(appended));
    assert!(store.reader.stats().ring_bytes <= config.ring_bytes_max as u64);
    assert!(background.flush());
    store.appender.append(&unit).unwrap();
    background.run_all();
    store.appender.tick(Timestamp(100_000));
    assert!(store.reader.stats().ring_bytes <= 256 << 10);
}

#[test]
fn a_full_disk_refuses_appends_and_serves_reads() {
    let vfs = SimVfs::new(2);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    vfs.set_capacity(Some(200 << 10));
    let section = [3; 3000];
    let unit = [batch(2, 9, 1, 10, &section)];
    let mut now = Timestamp(0);
    let error = loop {
        background.run_all();
        match store.appender.append(&unit) {
            Ok(appended) => ledger.apply(record(&unit[0], &appended[0])),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::NoSpace) && error.is_retryable());
    assert!(store.appender.is_out_of_space());
    let left_over = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".tmp");
    assert!(!vfs.files().iter().any(left_over), "{:?}", vfs.files());
    assert!(vfs.used() <= 200 << 10);
    store.appender.settle().unwrap();
    check_reads(&store.reader, &ledger);

    vfs.set_capacity(None);
    now = now.plus_ms(5000);
    store.appender.tick(now);
    background.run_all();
    assert!(!store.appender.is_out_of_space());
    let appended = store.appender.append(&unit).unwrap();
    ledger.apply(record(&unit[0], &appended[0]));
    background.run_all();
    store.appender.settle().unwrap();
    check_reads(&store.reader, &ledger);

    let rebooted = vfs.crash(Crash::LoseAll);
    let (_store, _background, recovered) = open_manual(&rebooted, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
}

#[test]
fn what_can_never_be_appended_is_refused_whole() {
    let vfs = SimVfs::new(3);
    let (mut store, _background, _) = open_manual(&vfs, small()).unwrap();
    let tail = store.appender.tail();
    let large = vec![0; 40 << 10];
    let error = store
        .appender
        .append(&[batch(0, 5, 1, 1, b"fits"), batch(0, 5, 1, 1, &large)]);
    assert!(matches!(error, Err(AppendError::TooLarge { .. })));
    let error = store.appender.append(&[batch(3, 5, 1, 1, b"")]);
    assert!(matches!(
        error,
        Err(AppendError::UnknownShard {
            shard: 3,
            shards: 3
        })
    ));
    let mut pad = batch(0, 0, 0, 1, b"");
    pad.kind = Kind::Pad;
    let error = store.appender.append(&[pad]);
    assert!(matches!(error, Err(AppendError::LocalKind)));
    assert_eq!(store.appender.tail(), tail);
    assert_eq!(store.appender.next_offset(QueueId(5)), Offset(0));
}

#[test]
fn the_largest_unit_of_the_default_configuration_fits() {
    let config = StoreConfig::default();
    assert_eq!(config.unit_bytes_max(), UNIT_BYTES_MAX);
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let (mut store, background) = Store::open_manual(
        Arc::new(RealVfs),
        folder.path(),
        config,
        Timestamp(0),
        &mut ledger,
    )
    .unwrap();
    let section = vec![9; usize::try_from(UNIT_BYTES_MAX).unwrap() - 128];
    for _ in 0..3 {
        let unit = [batch(0, 5, 1, 10, &section)];
        let appended = store.appender.append(&unit).unwrap()[0];
        ledger.apply(record(&unit[0], &appended));
        background.run_all();
    }
    store.appender.settle().unwrap();
    check_reads(&store.reader, &ledger);
}

#[test]
fn a_folder_in_use_is_refused_until_its_owner_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        Store::open(
            Arc::new(RealVfs),
            folder.path(),
            small(),
            Timestamp(0),
            &mut Ledger::default(),
        )
    };
    let store = open().unwrap();
    let error = open().err().unwrap();
    assert!(matches!(&error, OpenError::InUse { dir } if dir == folder.path()));
    assert!(error.to_string().contains("in use by another process"));
    let reader = store.reader.clone();
    drop(store);
    open().unwrap();
    assert_eq!(reader.bounds(QueueId(1)).next, Offset(0));
}

#[test]
fn another_format_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        Store::open(
            Arc::new(RealVfs),
            folder.path(),
            small(),
            Timestamp(0),
            &mut Ledger::default(),
        )
    };
    drop(open().unwrap());
    let format = folder.path().join("FORMAT");
    std::fs::write(&format, "tidegate store format 1\n").unwrap();
    let error = open().err().unwrap();
    assert!(matches!(
        error,
        OpenError::Version {
            found: 1,
            supported: 2,
            ..
        }
    ));
    std::fs::write(&format, "something else\n").unwrap();
    assert!(matches!(open().err(), Some(OpenError::Corrupt { .. })));
    std::fs::remove_file(&format).unwrap();
    assert!(matches!(open().err(), Some(OpenError::Corrupt { .. })));
}

#[test]
fn a_configuration_out_of_range_names_the_field() {
    for (config, field) in [
        (
            StoreConfig {
                segment_bytes: 5000,
                ..small()
            },
            "segment_bytes",
        ),
        (
            StoreConfig {
                segment_bytes_max: 4096,
                ..small()
            },
            "segment_bytes_max",
        ),
        (
            StoreConfig {
                ring_bytes_max: 0,
                ..small()
            },
            "ring_bytes_max",
        ),
        (
            StoreConfig {
                shards: 0,
                ..small()
            },
            "shards",
        ),
    ] {
        let error = open_manual(&SimVfs::new(1), config).err().unwrap();
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn an_unreadable_range_is_an_error_and_its_neighbours_are_served() {
    let vfs = SimVfs::new(6);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    let mut positions = Vec::new();
    for number in 0..3 {
        let appended = store
            .appender
            .append(&[batch(0, 5, 1, 10, &[number; 5000])])
            .unwrap();
        positions.push(appended[0].position);
    }
    background.run_all();
    store.appender.settle().unwrap();
    store.reader.read(positions[1]).unwrap();
    assert!(store.reader.is_hot(positions[1], 5128), "just read");
    drop(store);

    let (store, _background, _) = open_manual(&vfs, small()).unwrap();
    assert!(!store.reader.is_hot(positions[1], 5128), "not read yet");
    let bad = positions[1].0 + 3000;
    let segment = dir().join("log/00000000000000000000.seg");
    vfs.fail_reads(&segment, bad..bad + 1);
    for (at, position) in positions.iter().enumerate() {
        let read = store.reader.read(*position);
        if at == 1 {
            assert!(matches!(read, Err(ReadError::Quarantined { from, .. }) if from == *position));
        } else {
            assert_eq!(read.unwrap().section[..], [at as u8; 5000]);
        }
    }
    assert_eq!(store.reader.stats().quarantined, 1);
}

#[test]
fn positions_without_a_batch_are_not_found() {
    let vfs = SimVfs::new(7);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    let position = store
        .appender
        .append(&[batch(0, 5, 1, 10, b"one")])
        .unwrap()[0]
        .position;
    let not_found = |at: u64| {
        let read = store.reader.read(tidegate_store::LogPosition(at));
        assert!(
            matches!(read, Err(ReadError::NotFound { .. })),
            "{at}: {read:?}"
        );
    };
    not_found(position.0);
    assert!(background.flush());
    assert_eq!(&store.reader.read(position).unwrap().section[..], b"one");
    not_found(0);
    not_found(4096);
    not_found(position.0 + 1);
    not_found(1 << 40);
    not_found(u64::MAX);
}

/// The real file system keeps what the simulated one promises.
#[test]
fn both_file_systems_agree() {
    let folder = tempfile::tempdir().unwrap();
    agree(&RealVfs, folder.path());
    agree(&SimVfs::new(1), Path::new("/sim"));
}

fn agree(vfs: &dyn Vfs, dir: &Path) {
    let sub = dir.join("a/b");
    vfs.create_dir(&sub).unwrap();
    vfs.create_dir(&sub).unwrap();
    let (one, two) = (sub.join("one"), sub.join("two"));
    let kind = |error: std::io::Error| error.kind();
    assert_eq!(
        vfs.open(&one).map(|_| ()).map_err(kind),
        Err(std::io::ErrorKind::NotFound)
    );
    let file: Arc<dyn VfsFile> = vfs.create(&one).unwrap();
    file.write_all_at(b"tide", 6).unwrap();
    file.allocate(4).unwrap();
    assert_eq!(file.size().unwrap(), 10, "allocating never shortens");
    file.allocate(8192).unwrap();
    assert_eq!(file.size().unwrap(), 8192);
    let mut bytes = [9; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0\0tide");
    assert_eq!(
        file.read_exact_at(&mut bytes, 8190).map_err(kind),
        Err(std::io::ErrorKind::UnexpectedEof)
    );
    assert!(file.map(8193).is_err());
    let map = file.map(8192).unwrap();
    file.write_all_at(b"gate", 4096).unwrap();
    map.populate(4096..4100).unwrap();
    assert_eq!(map.bytes(4096..4100), "gate");
    file.sync().unwrap();
    file.drop_cache().unwrap();
    vfs.rename(&one, &two).unwrap();
    vfs.sync_dir(&sub).unwrap();
    assert_eq!(vfs.list(&sub).unwrap(), ["two"]);
    let guard = vfs.lock(&sub.join("lock")).unwrap();
    assert!(guard.is_some());
    assert!(vfs.lock(&sub.join("lock")).unwrap().is_none());
    drop(guard);
    assert!(vfs.lock(&sub.join("lock")).unwrap().is_some());
    vfs.unlink(&two).unwrap();
    assert!(vfs.unlink(&two).is_err());
    assert!(vfs.rename(&two, &one).is_err());
    assert_eq!(map.bytes(4096..4100), "gate", "a map outlives the name");
    assert_ne!(vfs.random().unwrap(), vfs.random().unwrap());
}
