//! What a running store says of its disk: rot that nobody reads, and writes that wait.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_model::Timestamp;
use tidegate_store::sim::SimVfs;
use tidegate_store::{Background, LogPosition, ReadError, Store, StoreConfig, Vfs};

use crate::support::{Ledger, batch, dir, open_manual, small};

/// How long a test waits for what surely comes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Fills several segments and gives where each batch lies.
fn fill(store: &mut Store, background: &Background) -> Vec<LogPosition> {
    let mut positions = Vec::new();
    for _ in 0..80 {
        let unit = [batch(0, 5, 1, 10, &[7; 1000])];
        positions.push(store.appender.append(&unit).unwrap()[0].position);
        background.run_all();
        store.appender.settle().unwrap();
    }
    positions
}

fn first_segment(vfs: &SimVfs) -> PathBuf {
    let mut files = vfs.files().into_iter();
    files
        .find(|path| path.to_string_lossy().ends_with(".seg"))
        .unwrap()
}

#[test]
fn scrubbing_finds_rot_sets_it_apart_and_finds_it_once() {
    let vfs = SimVfs::new(1);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    assert!(!background.scrub(), "no segment is full");
    let positions = fill(&mut store, &background);
    while background.scrub() {}
    let stats = store.reader.stats();
    assert_eq!((stats.scrub.rounds, stats.scrub.found), (1, 0));
    assert!(stats.scrub.bytes > 64 << 10, "{stats:?}");

    // A section, a header, and the pad that closes the segment.
    let segment = first_segment(&vfs);
    let in_first = positions.iter().filter(|position| position.0 < 32 << 10);
    let pad = in_first.max().unwrap().0 + 1128;
    let (section, header) = (positions[3], positions[7]);
    for offset in [section.0 + 500, header.0 + 45, pad + 20] {
        vfs.rot(&segment, offset, 0x20).unwrap();
    }
    assert_eq!(store.reader.stats().quarantined, 0);
    while background.scrub() {}
    let stats = store.reader.stats();
    assert_eq!((stats.scrub.rounds, stats.scrub.found), (2, 3));
    assert_eq!(stats.quarantined, 3);
    for (position, next) in [(section, positions[4]), (header, positions[8])] {
        let read = store.reader.read(position);
        let Err(ReadError::Quarantined { from, to }) = read else {
            panic!("a damaged batch isn't served: {read:?}");
        };
        assert_eq!((from, to), (position, next));
        assert!(store.reader.read(next).is_ok());
    }
    while background.scrub() {}
    let stats = store.reader.stats();
    assert_eq!((stats.scrub.rounds, stats.scrub.found), (3, 3));
}

#[test]
fn scrubbing_goes_on_behind_what_cannot_be_read() {
    let vfs = SimVfs::new(2);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    let positions = fill(&mut store, &background);
    let segment = first_segment(&vfs);
    vfs.fail_reads(&segment, positions[5].0..positions[5].0 + 10);
    while background.scrub() {}
    assert_eq!(store.reader.stats().scrub.rounds, 1);
    assert!(store.reader.stats().scrub.found > 0);
    let read = store.reader.read(positions[5]);
    assert!(
        matches!(read, Err(ReadError::Quarantined { .. })),
        "{read:?}"
    );
    assert!(store.reader.read(positions[60]).is_ok());
}

#[test]
fn a_segment_that_goes_away_while_it_is_read_is_no_damage() {
    let vfs = SimVfs::new(3);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    fill(&mut store, &background);
    // The step before holds the first segment open.
    assert!(background.scrub());
    for path in vfs.files() {
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".seg") && !name.ends_with("0000.seg") {
            Vfs::unlink(&vfs, &path).unwrap();
        }
    }
    while background.scrub() {}
    assert_eq!(store.reader.stats().quarantined, 0);
}

#[test]
fn a_thread_scrubs_at_its_rate_and_stops_with_the_store() {
    let vfs = SimVfs::new(4);
    let config = StoreConfig {
        scrub_bytes_per_s: u64::MAX,
        ..small()
    };
    let store = Store::open(
        Arc::new(vfs),
        dir(),
        config,
        Timestamp(1000),
        &mut Ledger::default(),
    );
    // It pauses before its first step; stopping ends the pause.
    let began = Instant::now();
    drop(store.unwrap());
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn a_disk_that_hangs_shows_as_a_write_that_waits_and_heals() {
    let vfs = SimVfs::new(5);
    let mut store = Store::open(
        Arc::new(vfs.clone()),
        dir(),
        small(),
        Timestamp(1000),
        &mut Ledger::default(),
    )
    .unwrap();
    let until = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < DEADLINE, "{what}");
            std::thread::yield_now();
        }
    };
    let reader = store.reader.clone();
    until("the store is idle", &mut || reader.oldest_wait().is_zero());
    vfs.hold_syncs(true);
    store
        .appender
        .append(&[batch(0, 5, 1, 1, b"held")])
        .unwrap();
    until("it waits", &mut || {
        reader.oldest_wait() > Duration::from_millis(20)
    });
    // More that comes meanwhile doesn't make the oldest one younger.
    let waited = reader.oldest_wait();
    store
        .appender
        .append(&[batch(0, 5, 1, 1, b"more")])
        .unwrap();
    assert!(reader.oldest_wait() >= waited);
    vfs.hold_syncs(false);
    until("it heals", &mut || reader.oldest_wait().is_zero());
    let times = reader.stats().sync_times;
    // The sync began a little after what waited for it was appended.
    assert!(times.recent_max_us >= 10_000, "{times:?}");
    assert!(times.buckets.iter().sum::<u64>() >= 2);
    assert!(times.total_us >= times.recent_max_us);
}
