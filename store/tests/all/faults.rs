//! An input/output error at each operation of a workload in turn, once: what the store does then is
//! the table in `docs/durability.md`.

use std::collections::BTreeMap;

use tidegate_model::Timestamp;
use tidegate_store::sim::{Crash, Op, SimVfs};
use tidegate_store::{AppendError, LogPosition, OpenError, ReadError, Store};

use crate::support::{Ledger, Record, batch, check_reads, open_manual, record, small};

/// How an error showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    /// The folder was not opened; the next try did.
    Refused,
    /// The log takes nothing more until a restart.
    Fenced,
    /// An index file or snapshot was not written.
    FileFailed,
    /// A read was refused, its range quarantined.
    Quarantined,
    /// Another way was found, or it was done again later.
    Retried,
}

struct Outcome {
    shown: Shown,
    acknowledged: Ledger,
    /// Appended behind it.
    pending: Vec<Record>,
}

fn run(vfs: &SimVfs, what: &str) -> Outcome {
    let mut refused = false;
    let (mut store, background, mut acknowledged) = match open_manual(vfs, small()) {
        Ok(opened) => opened,
        Err(error) => {
            refused = true;
            assert!(matches!(error, OpenError::Io { .. }), "{what}: {error}");
            assert!(error.to_string().contains("os error 5"), "{what}: {error}");
            open_manual(vfs, small()).unwrap_or_else(|error| panic!("{what}: again: {error}"))
        }
    };
    background.run_all();
    let mut pending = Vec::<(LogPosition, Record)>::new();
    let mut positions = Vec::new();
    let mut fenced = None;
    let mut quarantined = 0;
    for step in 0..70_i64 {
        // A second each: what failed and is tried again every second is.
        let now = Timestamp(step * 1100);
        let section = vec![step.to_le_bytes()[0]; 1700];
        let shard = u32::try_from(step % 3).unwrap();
        let unit = [
            batch(shard, 3 + u64::from(shard), 1, now.0, &section),
            batch(shard, 0, 0, now.0, b"what became of it"),
        ];
        match store.appender.append(&unit) {
            Ok(appended) => {
                for (batch, at) in unit.iter().zip(appended) {
                    pending.push((at.end, record(batch, at)));
                    positions.push((at.position, at.end, record(batch, at)));
                }
            }
            Err(AppendError::Full) => {}
            Err(AppendError::Fenced(_)) => assert!(fenced.is_some(), "{what}"),
            Err(error) => panic!("{what}: {error}"),
        }
        background.run_all();
        let durable = match store.appender.settle() {
            Ok(durable) => durable,
            Err(error) => {
                let durable = error.durable;
                fenced = Some(error);
                durable
            }
        };
        while pending.first().is_some_and(|(end, _)| *end <= durable) {
            acknowledged.apply(pending.remove(0).1);
        }
        if step % 9 == 8 {
            store.appender.checkpoint(now, acknowledged.states());
            background.run_all();
        }
        store.appender.tick(now);
        // Reading goes on, fenced or not.
        for (position, end, record) in positions.iter().rev().take(5) {
            if *end <= durable {
                quarantined += read(&store, *position, record, what);
            }
        }
    }
    // The open log is read from again, from its beginning: indexes are opened.
    for (position, end, record) in &positions {
        if *end <= store.reader.durable() {
            quarantined += read(&store, *position, record, what);
        }
    }
    let stats = store.reader.stats();
    if fenced.is_none() {
        assert!(pending.is_empty(), "{what}: all was acknowledged");
        assert!(acknowledged.len() >= 2 * 65, "{what}: it went on");
    }
    let shown = match &fenced {
        _ if refused => Shown::Refused,
        Some(fenced) => {
            assert!(["write", "sync"].contains(&fenced.action), "{what}");
            assert!(fenced.cause.contains("os error 5"), "{what}: {fenced}");
            Shown::Fenced
        }
        None if quarantined > 0 => Shown::Quarantined,
        None if stats.file_failures > 0 => Shown::FileFailed,
        None => Shown::Retried,
    };
    Outcome {
        shown,
        acknowledged,
        pending: pending.into_iter().map(|(_, record)| record).collect(),
    }
}

/// Reads a durable batch: right, or refused as quarantined, which counts.
fn read(store: &Store, position: LogPosition, record: &Record, what: &str) -> usize {
    match store.reader.read(position) {
        Ok(stored) => {
            assert_eq!(Record::of(&stored), *record, "{what}");
            0
        }
        Err(ReadError::Quarantined { .. } | ReadError::Io { .. }) => 1,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Nothing acknowledged is lost, and of the rest whole units or nothing.
fn check_restart(vfs: &SimVfs, outcome: &Outcome, what: &str) {
    let (store, _background, recovered) =
        open_manual(vfs, small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut expected = outcome.acknowledged.clone();
    for unit in outcome.pending.chunks(2) {
        if expected.len() < recovered.len() {
            for record in unit {
                expected.apply(record.clone());
            }
        }
    }
    assert_eq!(recovered.len(), expected.len(), "{what}");
    assert!(recovered.shards == expected.shards, "{what}");
    assert_eq!(store.report.quarantined, [], "{what}");
    check_reads(&store.reader, &recovered);
}

#[test]
fn an_error_at_each_operation_in_turn() {
    let mut shown = BTreeMap::<Op, BTreeMap<Shown, u64>>::new();
    for op in Op::ALL {
        for others in 0.. {
            let vfs = SimVfs::new(others);
            vfs.fail_once(op, others);
            let what = format!("{op:?} {others}");
            let outcome = run(&vfs, &what);
            if !vfs.has_failed() {
                break;
            }
            *shown
                .entry(op)
                .or_default()
                .entry(outcome.shown)
                .or_default() += 1;
            let crashes = [
                Crash::KeepAll,
                Crash::LoseAll,
                Crash::Subset {
                    seed: others,
                    block: 512,
                },
            ];
            // A folder that could not be made durable must be made anew, not opened again.
            let refused = op == Op::SyncDir && outcome.shown == Shown::Refused;
            for crash in crashes.into_iter().take(if refused { 1 } else { 3 }) {
                check_restart(&vfs.crash(crash), &outcome, &format!("{what} {crash:?}"));
            }
        }
    }
    eprintln!("{shown:#?}");
    let all = |op: Op| shown.get(&op).cloned().unwrap_or_default();
    let fences = |op: Op| all(op).contains_key(&Shown::Fenced);
    for op in Op::ALL {
        assert_eq!(fences(op), matches!(op, Op::Write | Op::Sync), "{op:?}");
        let quarantines = all(op).contains_key(&Shown::Quarantined);
        assert_eq!(quarantines, op == Op::Read || op == Op::Open, "{op:?}");
    }
    for op in [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Rename] {
        assert!(all(op).contains_key(&Shown::FileFailed), "{op:?}");
        assert!(all(op).contains_key(&Shown::Refused), "{op:?}");
    }
}
