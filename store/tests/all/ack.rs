//! When something counts as durable, and what ends that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_model::{QueueId, Timestamp};
use tidegate_store::sim::{Crash, Op, SimVfs};
use tidegate_store::{AppendError, LogPosition, Store};

use crate::support::{Ledger, batch, dir, open_manual, small};

/// Opens a store and waits until it has nothing to sync of its own accord.
fn open(vfs: &SimVfs) -> Store {
    let shared = Arc::new(vfs.clone());
    let store = Store::open(shared, dir(), small(), Timestamp(0), &mut Ledger::default()).unwrap();
    eventually("a spare", || segments(vfs) == 2);
    store
}

/// Holds syncs back until it is dropped; a failing test must not wait for them.
struct Held<'a>(&'a SimVfs);

impl<'a> Held<'a> {
    fn new(vfs: &'a SimVfs) -> Self {
        vfs.hold_syncs(true);
        Self(vfs)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.hold_syncs(false);
    }
}

fn segments(vfs: &SimVfs) -> usize {
    let files = vfs.files().into_iter();
    files
        .filter(|path| path.to_string_lossy().ends_with(".seg"))
        .count()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within 30 s");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_durable_before_its_sync() {
    let vfs = SimVfs::new(1);
    let mut store = open(&vfs);
    let reported = Arc::new(AtomicU64::new(0));
    let report = reported.clone();
    store.appender.on_durable(Arc::new(move |durable| {
        report.store(durable.unwrap().0, Ordering::SeqCst);
    }));
    let held = Held::new(&vfs);
    let before = store.appender.settle().unwrap();
    let unit = [batch(0, 5, 2, 10, b"held")];
    let end = store.appender.append(&unit).unwrap()[0].end;
    eventually("the sync", || vfs.syncs_waiting() == 1);
    assert_eq!(store.appender.written(), end, "written, yet not durable");
    assert_eq!(store.appender.settle().unwrap(), before);
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, 0);
    assert!(reported.load(Ordering::SeqCst) <= before.0);

    drop(held);
    eventually("durable", || store.appender.settle().unwrap() == end);
    eventually("the callback", || reported.load(Ordering::SeqCst) == end.0);
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, 2);
}

#[test]
fn a_power_cut_during_the_sync_loses_only_what_was_not_acknowledged() {
    let vfs = SimVfs::new(2);
    let mut store = open(&vfs);
    let first = store
        .appender
        .append(&[batch(0, 5, 1, 10, b"first")])
        .unwrap()[0]
        .end;
    eventually("durable", || store.appender.settle().unwrap() == first);
    let held = Held::new(&vfs);
    store
        .appender
        .append(&[batch(0, 5, 1, 11, b"second")])
        .unwrap();
    eventually("the sync", || vfs.syncs_waiting() == 1);
    assert_eq!(store.appender.settle().unwrap(), first);
    let rebooted = vfs.crash(Crash::LoseAll);
    drop(held);
    drop(store);
    let (_store, _background, ledger) = open_manual(&rebooted, small()).unwrap();
    let sections = ledger.all().map(|record| &record.section[..]);
    assert_eq!(sections.collect::<Vec<_>>(), [b"first"]);
}

#[test]
fn all_that_waits_shares_one_sync() {
    let vfs = SimVfs::new(3);
    let mut store = open(&vfs);
    let held = Held::new(&vfs);
    store
        .appender
        .append(&[batch(0, 5, 1, 10, b"opens")])
        .unwrap();
    eventually("the sync", || vfs.syncs_waiting() == 1);
    let before = store.reader.stats().syncs;
    for shard in 0..3 {
        for _ in 0..10 {
            store
                .appender
                .append(&[batch(shard, 5 + u64::from(shard), 1, 10, b"waits")])
                .unwrap();
        }
    }
    drop(held);
    let tail = store.appender.tail();
    eventually("durable", || store.appender.settle().unwrap() == tail);
    assert_eq!(store.reader.stats().syncs, before + 2);
}

#[test]
fn dropping_the_appender_writes_what_was_appended() {
    let vfs = SimVfs::new(4);
    let mut store = open(&vfs);
    for _ in 0..30 {
        store
            .appender
            .append(&[batch(1, 5, 1, 10, &[7; 500])])
            .unwrap();
    }
    drop(store);
    let (_store, _background, ledger) = open_manual(&vfs, small()).unwrap();
    assert_eq!(ledger.len(), 30);
}

#[test]
fn a_failed_sync_fences_and_is_never_retried() {
    fences(|vfs, fail| vfs.fail(Op::Sync, fail), "sync");
}

#[test]
fn a_failed_write_fences_and_is_never_retried() {
    fences(|vfs, fail| vfs.fail(Op::Write, fail), "write");
}

fn fences(fail: impl Fn(&SimVfs, bool), action: &str) {
    let vfs = SimVfs::new(5);
    let (mut store, background, _) = open_manual(&vfs, small()).unwrap();
    background.run_all();
    store
        .appender
        .append(&[batch(0, 5, 1, 10, b"good")])
        .unwrap();
    assert!(background.flush());
    store
        .appender
        .append(&[batch(0, 5, 1, 11, b"bad")])
        .unwrap();
    fail(&vfs, true);
    assert!(!background.flush());
    fail(&vfs, false);
    let good = store.appender.settle().unwrap_err().durable;
    assert!(good > LogPosition(0));
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, 1);
    let error = store
        .appender
        .append(&[batch(0, 5, 1, 12, b"more")])
        .unwrap_err();
    assert!(matches!(&error, AppendError::Fenced(fenced) if fenced.action == action));
    assert!(!error.is_retryable());
    let changes = vfs.changes();
    assert!(!background.flush());
    assert_eq!(vfs.changes(), changes, "nothing is written any more");

    let rebooted = vfs.crash(Crash::LoseAll);
    let (_store, _background, ledger) = open_manual(&rebooted, small()).unwrap();
    let found = ledger.all().map(|record| &record.section[..]);
    let found = found.collect::<Vec<_>>();
    // What the failed sync was for may have reached the platter all the same.
    assert!(found == [b"good" as &[u8]] || found == [b"good" as &[u8], b"bad"]);
}

#[test]
fn an_owner_that_flushes_by_hand_syncs_what_is_little_itself() {
    let vfs = SimVfs::new(11);
    let mut store = open(&vfs);
    let calls = Arc::new(AtomicU64::new(0));
    let count = calls.clone();
    store.appender.on_durable(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    store.appender.flush_by_hand();
    assert!(!store.appender.flush(true), "nothing waits");

    let end = store
        .appender
        .append(&[batch(0, 5, 2, 10, b"little")])
        .unwrap()[0]
        .end;
    assert!(store.appender.written() < end, "it waits for the owner");
    // The flush thread may not have gone to sleep yet; then it takes what waits itself.
    let here = store.appender.flush(true);
    eventually("durable", || store.appender.settle().unwrap() == end);
    if here {
        assert_eq!(calls.load(Ordering::SeqCst), 0, "the owner knows already");
    }

    let end = store
        .appender
        .append(&[batch(0, 5, 2, 10, b"more")])
        .unwrap()[0]
        .end;
    assert!(!store.appender.flush(false), "the flush thread does it");
    eventually("durable", || store.appender.settle().unwrap() == end);
    eventually("the callback", || calls.load(Ordering::SeqCst) > 0);

    // Too much for the owner: nobody has to say anything.
    let much = [7; 20 << 10];
    let end = store.appender.append(&[batch(0, 5, 2, 10, &much)]).unwrap()[0].end;
    eventually("durable", || store.appender.settle().unwrap() == end);
}

#[test]
fn what_is_flushed_by_hand_is_acknowledged_after_its_sync_and_fenced_like_all_else() {
    let vfs = SimVfs::new(12);
    let mut store = open(&vfs);
    store.appender.flush_by_hand();
    let mut here = 0;
    for round in 0..200_u32 {
        let end = store
            .appender
            .append(&[batch(0, 5, 1, 10, &round.to_le_bytes())])
            .unwrap()[0]
            .end;
        if store.appender.flush(true) {
            here += 1;
            assert_eq!(store.appender.settle().unwrap(), end, "at once");
        }
        eventually("durable", || store.appender.settle().unwrap() == end);
    }
    assert!(here > 0, "the flush thread slept at no time of 200");
    drop(store);
    let rebooted = vfs.crash(Crash::LoseAll);
    let mut ledger = Ledger::default();
    let shared = Arc::new(rebooted);
    let store = Store::open(shared, dir(), small(), Timestamp(0), &mut ledger).unwrap();
    assert_eq!(store.reader.bounds(QueueId(5)).next.0, 200);
}
