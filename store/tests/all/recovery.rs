//! Torn tails are cut, rot is not; snapshots fall back; indexes are rebuilt.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_model::{QueueId, Seq, ShardId, Timestamp};
use tidegate_store::sim::{Crash, Op, SimVfs};
use tidegate_store::{
    AppendError, Background, Kind, LogPosition, OpenError, ReadError, Store, StoreConfig,
};

use crate::support::{Ledger, batch, check_reads, dir, open_manual, record, small};

const FIRST_SEGMENT: &str = "log/00000000000000000000.seg";

/// Appends one batch to (`shard`, `queue`), flushes and settles it.
fn append_durably(
    store: &mut Store,
    background: &Background,
    ledger: &mut Ledger,
    queue: (u32, u64),
    section: &[u8],
) -> LogPosition {
    let unit = [batch(queue.0, queue.1, 1, 10, section)];
    let appended = store.appender.append(&unit).unwrap()[0];
    background.run_all();
    assert_eq!(store.appender.settle().unwrap(), appended.end);
    ledger.apply(record(&unit[0], &appended));
    appended.position
}

#[test]
fn what_was_cut_never_comes_back() {
    let vfs = SimVfs::new(1);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"kept");
    // Two units that are written and not synced; the first is as long as the record of an opening.
    let torn = store.appender.append(&[batch(0, 0, 0, 11, b"")]).unwrap()[0].position;
    store
        .appender
        .append(&[batch(1, 6, 1, 11, b"behind it")])
        .unwrap();
    vfs.power_off_at_sync(".seg", 0);
    assert!(!background.flush());
    let vfs = vfs.crash(Crash::KeepAll);
    vfs.rot(&dir().join(FIRST_SEGMENT), torn.0 + 50, 1).unwrap();

    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    assert_eq!(store.report.tail, torn);
    assert!(store.report.cut_bytes >= 128 + 136);
    assert_eq!(store.report.quarantined, []);
    drop(store);

    // Behind the new opening stands, whole, what was behind the torn batch: right place, right
    // seq, of an older epoch.
    let (mut store, background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    append_durably(&mut store, &background, &mut ledger, (1, 6), b"goes on");
    check_reads(&store.reader, &ledger);
    let (_store, _background, recovered) =
        open_manual(&vfs.crash(Crash::LoseAll), small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
}

#[test]
fn rot_that_a_later_batch_proves_is_quarantined_and_never_cut() {
    for byte in [50, 128 + 40] {
        let vfs = SimVfs::new(2);
        let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
        append_durably(&mut store, &background, &mut ledger, (0, 5), &[1; 100]);
        let rotten = append_durably(&mut store, &background, &mut ledger, (0, 5), &[2; 100]);
        let after = append_durably(&mut store, &background, &mut ledger, (0, 5), &[3; 100]);
        drop(store);
        vfs.rot(&dir().join(FIRST_SEGMENT), rotten.0 + byte, 0x10)
            .unwrap();

        let (mut store, background, recovered) = open_manual(&vfs, small()).unwrap();
        assert_eq!(store.report.quarantined, [(rotten, after)]);
        assert_eq!(recovered.quarantined, [(rotten, after)]);
        assert_eq!(store.report.cut_bytes, 0);
        ledger.shards.get_mut(&0).unwrap().remove(1);
        assert_eq!(recovered.shards, ledger.shards);
        let read = store.reader.read(rotten);
        assert!(
            matches!(read, Err(ReadError::Quarantined { from, to }) if from == rotten && to == after)
        );
        assert_eq!(store.reader.read(after).unwrap().section[..], [3; 100]);
        assert_eq!(store.reader.position_of(ShardId(0), Seq(2)).unwrap(), None);
        append_durably(&mut store, &background, &mut ledger, (0, 5), b"goes on");
        assert_eq!(ledger.shards[&0].last().unwrap().seq, 4);
        drop(store);
        let (_store, _background, recovered) = open_manual(&vfs, small()).unwrap();
        assert_eq!(recovered.shards, ledger.shards);
    }
}

#[test]
fn a_durable_mark_covers_the_last_batch() {
    for marked in [true, false] {
        let vfs = SimVfs::new(3);
        let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
        let last = append_durably(&mut store, &background, &mut ledger, (0, 5), b"last");
        if marked {
            assert!(store.appender.needs_tick());
            for now in [0, 30, 60] {
                store.appender.tick(Timestamp(now));
            }
            assert!(!store.appender.needs_tick());
            background.run_all();
        }
        drop(store);
        vfs.rot(&dir().join(FIRST_SEGMENT), last.0 + 60, 1).unwrap();
        let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
        assert_eq!(recovered.len(), 0);
        assert_eq!(store.report.quarantined.len(), usize::from(marked));
        assert_eq!(
            store.report.tail > last,
            marked,
            "cut only where nothing tells"
        );
    }
}

#[test]
fn rot_before_the_snapshot_is_found_by_its_reader() {
    let vfs = SimVfs::new(4);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    let rotten = append_durably(&mut store, &background, &mut ledger, (0, 5), &[1; 100]);
    let good = append_durably(&mut store, &background, &mut ledger, (0, 5), &[2; 100]);
    assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
    background.run_all();
    drop(store);
    vfs.rot(&dir().join(FIRST_SEGMENT), rotten.0 + 130, 1)
        .unwrap();
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    assert_eq!(store.report.quarantined, []);
    assert!(matches!(
        store.reader.read(rotten),
        Err(ReadError::Quarantined { .. })
    ));
    assert_eq!(store.reader.read(good).unwrap().section[..], [2; 100]);
}

#[test]
fn rot_below_a_snapshot_that_cannot_be_used_is_still_rot() {
    let vfs = SimVfs::new(5);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    let last = append_durably(&mut store, &background, &mut ledger, (0, 5), b"the last");
    assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
    background.run_all();
    drop(store);
    // The manifest is whole and says what was durable, yet one of its parts is gone.
    let part = files_ending(&vfs, ".part")[0].clone();
    vfs.rot(&part, 0, 1).unwrap();
    vfs.rot(&dir().join(FIRST_SEGMENT), last.0 + 60, 1).unwrap();
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(store.report.damaged_snapshots, 1);
    assert_eq!(store.report.quarantined.len(), 1);
    assert_eq!(recovered.len(), 0);
    assert_eq!(store.report.cut_bytes, 0);
}

fn files_ending(vfs: &SimVfs, suffix: &str) -> Vec<PathBuf> {
    let files = vfs.files().into_iter();
    files
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect()
}

/// Fills several segments, with snapshots on the way, the last of them before the end.
fn filled(vfs: &SimVfs) -> Ledger {
    let (mut store, background, mut ledger) = open_manual(vfs, small()).unwrap();
    for number in 0..150_u32 {
        let section = vec![number.to_le_bytes()[0]; 1000 + number as usize];
        let queue = (number % 3, 5 + u64::from(number % 6));
        append_durably(&mut store, &background, &mut ledger, queue, &section);
        if number % 45 == 20 {
            assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
            background.run_all();
        }
    }
    check_reads(&store.reader, &ledger);
    ledger
}

#[test]
fn a_damaged_generation_falls_back_to_the_one_before() {
    for suffix in [".manifest", ".part"] {
        let vfs = SimVfs::new(6);
        let ledger = filled(&vfs);
        let newest = files_ending(&vfs, suffix).pop().unwrap();
        assert_eq!(
            files_ending(&vfs, ".manifest").len(),
            2,
            "two generations are kept"
        );
        let (store, _, _) = open_manual(&vfs, small()).unwrap();
        let undamaged = store.report.snapshot;
        drop(store);
        vfs.rot(&newest, 30, 4).unwrap();
        let (mut store, background, mut recovered) = open_manual(&vfs, small()).unwrap();
        assert_eq!(store.report.damaged_snapshots, 1);
        assert!(store.report.snapshot > LogPosition(0) && store.report.snapshot < undamaged);
        assert_eq!(recovered.shards, ledger.shards);
        check_reads(&store.reader, &recovered);
        for _ in 0..2 {
            append_durably(&mut store, &background, &mut recovered, (0, 5), b"more");
            assert!(store.appender.checkpoint(Timestamp(1), recovered.states()));
            background.run_all();
        }
        assert!(
            !vfs.files().contains(&newest),
            "the damaged one is gone in time"
        );
        drop(store);
        let (store, _background, again) = open_manual(&vfs, small()).unwrap();
        assert_eq!(store.report.damaged_snapshots, 0);
        assert_eq!(again.shards, recovered.shards);
    }
}

#[test]
fn without_any_snapshot_the_whole_log_is_replayed() {
    let vfs = SimVfs::new(7);
    let ledger = filled(&vfs);
    for manifest in files_ending(&vfs, ".manifest") {
        vfs.rot(&manifest, 30, 4).unwrap();
    }
    let (store, background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    background.run_all();
    check_reads(&store.reader, &recovered);
}

#[test]
fn a_log_that_lost_its_beginning_and_its_snapshots_is_refused() {
    let vfs = SimVfs::new(8);
    filled(&vfs);
    for manifest in files_ending(&vfs, ".manifest") {
        vfs.rot(&manifest, 30, 4).unwrap();
    }
    tidegate_store::Vfs::unlink(&vfs, &dir().join(FIRST_SEGMENT)).unwrap();
    let error = open_manual(&vfs, small()).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    let said = error.to_string();
    let remedies = ["`tidegate store repair`", "from a backup"].map(|remedy| said.find(remedy));
    assert!(remedies[0].is_some() && remedies[0] < remedies[1], "{said}");
}

#[test]
fn missing_and_damaged_indexes_are_rebuilt() {
    let vfs = SimVfs::new(9);
    let ledger = filled(&vfs);
    let indexes = files_ending(&vfs, ".qix");
    assert!(indexes.len() >= 3);
    let whole = vfs.contents(&indexes[1]).unwrap();
    tidegate_store::Vfs::unlink(&vfs, &indexes[0]).unwrap();
    vfs.rot(&indexes[1], 77, 1).unwrap();
    let (store, background, recovered) = open_manual(&vfs, small()).unwrap();
    check_reads(&store.reader, &recovered);
    assert_eq!(recovered.shards, ledger.shards);
    background.run_all();
    drop(store);
    assert_eq!(files_ending(&vfs, ".qix"), indexes, "written again");
    assert_eq!(vfs.contents(&indexes[1]).unwrap(), whole);
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    check_reads(&store.reader, &recovered);
}

#[test]
fn old_generations_and_their_parts_are_removed() {
    let vfs = SimVfs::new(10);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    for number in 0..40 {
        append_durably(&mut store, &background, &mut ledger, (0, 5), b"little");
        // Only the shard that changed is given.
        let states = if number % 2 == 0 {
            ledger.states()
        } else {
            Vec::new()
        };
        let applied = ledger.clone();
        if number % 2 == 0 {
            assert!(store.appender.checkpoint(Timestamp(number), states));
            background.run_all();
        }
        assert_eq!(applied, ledger);
    }
    assert_eq!(files_ending(&vfs, ".manifest").len(), 2);
    assert!(files_ending(&vfs, ".part").len() < 30, "{:?}", vfs.files());
    drop(store);
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    check_reads(&store.reader, &recovered);
}

#[test]
fn an_unchanged_shard_keeps_its_state() {
    let vfs = SimVfs::new(11);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"zero");
    append_durably(&mut store, &background, &mut ledger, (1, 6), b"one");
    assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
    assert!(
        !store.appender.checkpoint(Timestamp(1), ledger.states()),
        "one at a time"
    );
    background.run_all();
    append_durably(&mut store, &background, &mut ledger, (1, 6), b"another");
    let mut states = ledger.states();
    states.remove(0);
    assert!(store.appender.checkpoint(Timestamp(2), states));
    background.run_all();
    drop(store);
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(store.report.batches, 0, "all of it comes from the snapshot");
    assert_eq!(recovered.shards, ledger.shards);
}

#[test]
fn a_snapshot_that_failed_is_made_up_for_by_the_next() {
    let vfs = SimVfs::new(12);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"zero");
    append_durably(&mut store, &background, &mut ledger, (1, 6), b"one");
    vfs.fail(Op::Write, true);
    assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
    background.run_all();
    assert_eq!(store.reader.stats().file_failures, 1);
    vfs.fail(Op::Write, false);
    append_durably(&mut store, &background, &mut ledger, (1, 6), b"two");
    let mut states = ledger.states();
    states.remove(0);
    assert!(store.appender.checkpoint(Timestamp(2), states));
    background.run_all();
    assert_eq!(store.reader.stats().checkpoints, 1);
    drop(store);
    let (store, _background, recovered) = open_manual(&vfs, small()).unwrap();
    assert_eq!(store.report.batches, 0);
    assert_eq!(recovered.shards, ledger.shards);
    check_reads(&store.reader, &ledger);
}

#[test]
fn checkpoints_are_due_by_bytes_and_by_time() {
    let vfs = SimVfs::new(13);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    assert!(
        !store.appender.checkpoint_due(Timestamp(1_000_000)),
        "nothing to keep"
    );
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"little");
    assert!(!store.appender.checkpoint_due(Timestamp(5999)));
    assert!(store.appender.checkpoint_due(Timestamp(6000)));
    assert!(store.appender.checkpoint(Timestamp(6000), ledger.states()));
    assert!(
        !store.appender.checkpoint_due(Timestamp(60_000)),
        "one is being written"
    );
    background.run_all();
    assert!(
        !store.appender.checkpoint_due(Timestamp(60_000)),
        "nothing new"
    );
    for _ in 0..8 {
        append_durably(&mut store, &background, &mut ledger, (0, 5), &[0; 4096]);
    }
    assert!(store.appender.checkpoint_due(Timestamp(6001)));
}

#[test]
fn restart_reads_at_most_two_checkpoint_intervals() {
    const INTERVAL: u64 = 16 << 20;
    let vfs = SimVfs::new(14);
    let config = StoreConfig {
        ring_bytes: 1 << 20,
        ring_bytes_max: 8 << 20,
        segment_bytes: 4 << 20,
        segment_bytes_max: 16 << 20,
        checkpoint_bytes: INTERVAL,
        ..small()
    };
    let (mut store, background, _) = open_manual(&vfs, config.clone()).unwrap();
    let section = vec![7; 256 << 10];
    let mut checkpointing = 0;
    for _ in 0..220 {
        store
            .appender
            .append(&[batch(0, 5, 1, 1, &section)])
            .unwrap();
        while background.flush() | background.prepare() {}
        store.appender.settle().unwrap();
        if store.appender.checkpoint_due(Timestamp(1)) {
            assert!(store.appender.checkpoint(Timestamp(1), Vec::new()));
            checkpointing = 8;
        }
        // Writing a snapshot takes as long as eight appends.
        checkpointing -= 1;
        if checkpointing == 0 {
            while background.write_file() {}
        }
    }
    drop(store);
    let (store, _background, ledger) = open_manual(&vfs, config).unwrap();
    assert!(store.report.tail.0 > 3 * INTERVAL);
    assert!(ledger.len() > 0 && ledger.len() < 130, "{}", ledger.len());
    assert!(
        store.report.log_bytes_read <= 2 * INTERVAL,
        "{:?}",
        store.report
    );
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, 220);
    assert_eq!(
        store.reader.stats().recovery_bytes_read,
        store.report.log_bytes_read
    );
}

#[test]
fn a_checkpoint_that_writes_much_puts_the_next_one_off() {
    let vfs = SimVfs::new(16);
    let config = StoreConfig {
        checkpoint_factor: 4,
        ..small()
    };
    let (mut store, background, _) = open_manual(&vfs, config.clone()).unwrap();
    let interval = small().checkpoint_bytes;
    let unit = [batch(0, 5, 1, 1, &[7; 1024])];
    let mut log_until_due = |state: usize| {
        let states = vec![(ShardId(0), vec![0; state])];
        assert!(store.appender.checkpoint(Timestamp(1), states));
        background.run_all();
        let from = store.appender.tail().0;
        loop {
            store.appender.append(&unit).unwrap();
            background.run_all();
            store.appender.settle().unwrap();
            if store.appender.checkpoint_due(Timestamp(1)) {
                return store.appender.tail().0 - from;
            }
        }
    };
    let little = log_until_due(128);
    assert!((interval..interval + 8192).contains(&little), "{little}");
    let state = 3 * interval;
    let much = log_until_due(usize::try_from(state).unwrap());
    assert!(much >= 4 * state && much < 6 * state, "{much}");
    drop(store);
    let (store, _background, _) = open_manual(&vfs, config).unwrap();
    assert!(
        store.report.log_bytes_read <= 2 * much + small().segment_bytes_max,
        "{:?}",
        store.report
    );
}

#[test]
fn messages_wait_for_a_checkpoint_that_takes_long() {
    let vfs = SimVfs::new(15);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    let interval = small().checkpoint_bytes;
    let unit = [batch(0, 5, 1, 1, &[7; 1024])];
    let woken = Arc::new(AtomicU64::new(0));
    let count = woken.clone();
    store.appender.on_durable(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let mut appended = 0;
    let error = loop {
        while background.flush() | background.prepare() {}
        store.appender.settle().unwrap();
        if store.appender.checkpoint_due(Timestamp(1)) {
            assert!(store.appender.checkpoint(Timestamp(1), Vec::new()));
        }
        match store.appender.append(&unit) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full), "{error}");
    assert!(appended * 1024 < 2 * interval, "{appended}");
    let mut ack = batch(0, 0, 0, 1, b"an ack");
    ack.kind = Kind::Group;
    store.appender.append(&[ack]).unwrap();

    let before = woken.load(Ordering::Relaxed);
    while background.write_file() {}
    assert!(woken.load(Ordering::Relaxed) > before, "worth another try");
    store.appender.append(&unit).unwrap();
    background.run_all();
    drop(store);
    let (store, _background, _) = open_manual(&vfs, small()).unwrap();
    assert!(store.report.log_bytes_read <= 2 * interval + small().segment_bytes_max);
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, appended + 1);
}

#[test]
fn a_group_may_end_where_its_segment_does() {
    let config = StoreConfig {
        ring_bytes: 1 << 20,
        ring_bytes_max: 32 << 20,
        segment_bytes: 8 << 20,
        segment_bytes_max: 8 << 20,
        ..small()
    };
    for more in [false, true] {
        let vfs = SimVfs::new(15);
        let (mut store, background, mut ledger) = open_manual(&vfs, config.clone()).unwrap();
        background.run_all();
        // Three of these share a sync, six fill a segment.
        let section = vec![1; 1_350_000];
        let units = [batch(0, 5, 1, 1, &section)];
        for _ in 0..7 {
            let appended = store.appender.append(&units).unwrap()[0];
            if ledger.len() < 6 {
                ledger.apply(record(&units[0], &appended));
            }
        }
        assert!(background.flush() && background.flush());
        assert_eq!(store.appender.settle().unwrap(), LogPosition(8 << 20));
        assert_eq!(store.reader.bounds(QueueId(5)).next.0, 6);
        assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
        while background.write_file() {}
        if more {
            assert!(background.flush());
            ledger.apply(following(&ledger, &section));
        }
        let vfs = vfs.crash(Crash::LoseAll);
        let (mut store, background, recovered) = open_manual(&vfs, config.clone()).unwrap();
        assert_eq!(store.report.quarantined, []);
        assert_eq!(store.report.batches, u64::from(more));
        assert_eq!(recovered.shards, ledger.shards);
        append_durably(&mut store, &background, &mut ledger, (0, 5), b"goes on");
        check_reads(&store.reader, &ledger);
    }
}

/// The batch that follows the last one of shard 0 in queue 5.
fn following(ledger: &Ledger, section: &[u8]) -> crate::support::Record {
    let mut next = ledger.shards[&0].last().unwrap().clone();
    next.seq += 1;
    next.base_offset += u64::from(next.span);
    next.section = section.to_vec();
    next
}

#[test]
fn a_folder_in_new_folders_is_there_after_a_power_cut() {
    let vfs = SimVfs::new(16);
    let dir = std::path::Path::new("/new/newer/newest");
    let open = |vfs: &SimVfs| {
        let mut ledger = Ledger::default();
        let vfs = Arc::new(vfs.clone());
        let opened = Store::open_manual(vfs, dir, small(), Timestamp(0), &mut ledger);
        opened.map(|(store, background)| (store, background, ledger))
    };
    vfs.keep_history();
    let (mut store, background, mut ledger) = open(&vfs).unwrap();
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"durable");
    let (_store, _background, recovered) = open(&vfs.crash(Crash::LoseAll)).unwrap();
    assert_eq!(recovered.shards, ledger.shards);
    // Wherever making it was cut off, it can be opened.
    for changes in 0..vfs.history() {
        for seed in 0..20 {
            let cut = vfs.cut_at(changes, Crash::Subset { seed, block: 512 }, seed);
            open(&cut).unwrap();
        }
    }
}

#[test]
fn a_manifest_is_never_there_before_its_parts() {
    let vfs = SimVfs::new(17);
    let (mut store, background, mut ledger) = open_manual(&vfs, small()).unwrap();
    append_durably(&mut store, &background, &mut ledger, (0, 5), b"durable");
    vfs.keep_history();
    assert!(store.appender.checkpoint(Timestamp(1), ledger.states()));
    background.run_all();
    for changes in 0..=vfs.history() {
        for seed in 0..50 {
            let cut = vfs.cut_at(changes, Crash::Subset { seed, block: 512 }, seed);
            let (store, _background, recovered) = open_manual(&cut, small()).unwrap();
            assert_eq!(store.report.damaged_snapshots, 0);
            assert_eq!(recovered.shards, ledger.shards);
        }
    }
}
