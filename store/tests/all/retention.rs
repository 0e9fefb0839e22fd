//! What goes by which rule, and what it leaves behind.

use std::collections::BTreeMap;

use tidegate_model::{Offset, QueueId, ShardId, Timestamp};
use tidegate_store::header::stored_bytes;
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    AppendError, Appended, Background, Batch, Expiry, Kind, QUEUE_REMOVED, Reader, Rule, Store,
    TrimError, TrimRow, Trims, trim,
};

use crate::support::{Ledger, Record, batch, check_reads, open_manual, record, small};

/// A store, its threads' work, and what it must hold.
struct Bench {
    store: Store,
    background: Background,
    ledger: Ledger,
}

impl Bench {
    fn open(vfs: &SimVfs) -> Self {
        let (store, background, ledger) = open_manual(vfs, small()).unwrap();
        let bench = Self {
            store,
            background,
            ledger,
        };
        bench.background.run_all();
        bench
    }

    fn settle(&mut self, end: tidegate_store::LogPosition) {
        self.background.run_all();
        assert!(self.store.appender.settle().unwrap() >= end);
        self.background.run_all();
    }

    fn append(&mut self, shard: u32, queue: u64, time: i64, len: usize) -> Appended {
        let section = vec![time.to_le_bytes()[0]; len];
        let unit = [batch(shard, queue, 2, time, &section)];
        let appended = self.store.appender.append(&unit).unwrap()[0];
        self.ledger.apply(record(&unit[0], &appended));
        self.settle(appended.end);
        appended
    }

    fn trim(&mut self, trims: &Trims) {
        for (shard, rows) in trims {
            let now = Timestamp(0);
            let appended = self.store.appender.trim(*shard, now, rows).unwrap();
            self.ledger.apply(Record {
                kind: Kind::Trim as u8,
                shard: shard.0,
                seq: appended.seq.0,
                queue: 0,
                base_offset: appended.base_offset.0,
                span: 0,
                append_time: 0,
                section: trim::encode(rows).unwrap(),
            });
            self.settle(appended.end);
        }
    }

    fn checkpoint(&mut self) {
        let states = self.ledger.states();
        assert!(self.store.appender.checkpoint(Timestamp(0), states));
        self.background.run_all();
    }

    fn reader(&self) -> &Reader {
        &self.store.reader
    }

    /// Starts of the queues 1 to 9.
    fn starts(&self) -> Vec<u64> {
        let start = |queue| self.reader().bounds(QueueId(queue)).start.0;
        (1..=9).map(start).collect()
    }

    fn reopened(self, vfs: &SimVfs) -> (Self, SimVfs) {
        let vfs = vfs.crash(Crash::LoseAll);
        let Self { ledger, .. } = self;
        let bench = Self::open(&vfs);
        assert_eq!(bench.ledger.shards, ledger.shards);
        check_reads(bench.reader(), &ledger);
        (bench, vfs)
    }
}

/// All that a whole pass finds under one rule for every queue.
fn expired(reader: &Reader, pass: &mut Expiry, rule: Rule) -> Trims {
    let mut trims = Trims::new();
    while !pass.is_done() {
        for (shard, rows) in reader.expire(pass, &|_| Some(rule)).unwrap() {
            trims.entry(shard).or_default().extend(rows);
        }
    }
    trims
}

fn before(time: i64) -> Rule {
    Rule {
        before: Some(Timestamp(time)),
        ..Rule::default()
    }
}

/// Nine queues of three shards over several segments, one batch of each per round.
fn filled(vfs: &SimVfs, rounds: i64) -> Bench {
    let mut bench = Bench::open(vfs);
    for round in 0..rounds {
        for queue in 1..=9_u64 {
            let shard = u32::try_from(queue % 3).unwrap();
            let len = 400 + usize::try_from(queue).unwrap() * 16;
            bench.append(shard, queue, 1000 * (1 + round), len);
        }
    }
    bench
}

#[test]
fn what_was_appended_before_an_instant_goes() {
    let vfs = SimVfs::new(1);
    let mut bench = filled(&vfs, 20);
    let batches = |bench: &Bench| bench.reader().bounds(QueueId(4)).bytes / stored_bytes(464);
    assert_eq!(batches(&bench), 20);
    for (time, gone) in [(1000, 0), (1001, 1), (9000, 8), (20_000, 19), (30_000, 20)] {
        let mut pass = Expiry::new(Timestamp(time), Some(Timestamp(time)), 0);
        let trims = expired(bench.reader(), &mut pass, before(time));
        bench.trim(&trims);
        assert_eq!(bench.starts(), [2 * gone; 9]);
        assert_eq!(batches(&bench), 20 - gone);
        check_reads(bench.reader(), &bench.ledger);
        let mut pass = Expiry::new(Timestamp(time), Some(Timestamp(time)), 0);
        let again = expired(bench.reader(), &mut pass, before(time));
        assert_eq!(again, Trims::new());
        if gone == 8 {
            bench.checkpoint();
        }
    }
    let (mut bench, _vfs) = bench.reopened(&vfs);
    assert_eq!(bench.starts(), [40; 9]);
    let appended = bench.append(1, 4, 40_000, 100);
    assert_eq!(appended.base_offset, Offset(40), "offsets go on");
    check_reads(bench.reader(), &bench.ledger);
}

#[test]
fn rows_survive_in_the_deltas_of_snapshots() {
    let vfs = SimVfs::new(2);
    let mut bench = filled(&vfs, 6);
    bench.checkpoint();
    for time in [2500, 3500] {
        let mut pass = Expiry::new(Timestamp(time), None, 0);
        let trims = expired(bench.reader(), &mut pass, before(time));
        bench.trim(&trims);
        bench.append(1, 4, 9000, 100);
        bench.checkpoint();
    }
    let (bench, vfs) = bench.reopened(&vfs);
    assert_eq!(bench.store.report.batches, 0, "all from the snapshot");
    assert_eq!(bench.starts(), [6; 9]);
    bench.reopened(&vfs);
}

#[test]
fn size_keeps_the_newest() {
    let vfs = SimVfs::new(3);
    let mut bench = filled(&vfs, 12);
    let each = stored_bytes(400 + 5 * 16);
    for (max, kept) in [(100 * each, 12), (7 * each + 1, 7), (each, 1), (0, 1)] {
        let rule = Rule {
            max_bytes: Some(max),
            ..Rule::default()
        };
        if let Some((shard, row)) = bench.reader().expire_queue(QueueId(5), &rule).unwrap() {
            assert_eq!(shard, ShardId(2));
            bench.trim(&Trims::from([(shard, vec![row])]));
        }
        let bounds = bench.reader().bounds(QueueId(5));
        assert_eq!(bounds.bytes, kept * each, "{max}");
        assert_eq!(bounds.start.0, 2 * (12 - kept));
    }
    check_reads(bench.reader(), &bench.ledger);
}

#[test]
fn what_is_consumed_goes_by_whole_batches() {
    let vfs = SimVfs::new(4);
    let mut bench = filled(&vfs, 12);
    for (consumed, start) in [(0, 0), (1, 0), (2, 2), (9, 8), (24, 24), (99, 24)] {
        let rule = Rule {
            consumed: Some(Offset(consumed)),
            ..Rule::default()
        };
        let mut pass = Expiry::new(Timestamp(0), None, 0);
        let trims = expired(bench.reader(), &mut pass, rule);
        bench.trim(&trims);
        assert_eq!(bench.starts(), [start; 9]);
    }
    check_reads(bench.reader(), &bench.ledger);
    bench.reopened(&vfs);
}

#[test]
fn a_queue_that_is_removed_is_forgotten() {
    let vfs = SimVfs::new(5);
    let mut bench = filled(&vfs, 12);
    let total = |bench: &Bench| bench.reader().stats().live_bytes;
    let before = total(&bench);
    let gone = bench.reader().bounds(QueueId(7)).bytes;
    let rule = |queue: QueueId| {
        (queue.0 == 7).then_some(Rule {
            remove: true,
            ..Rule::default()
        })
    };
    let mut pass = Expiry::new(Timestamp(0), None, 0);
    let trims = bench.reader().expire(&mut pass, &rule).unwrap();
    assert!(pass.is_done());
    assert_eq!(
        trims,
        Trims::from([(ShardId(1), vec![TrimRow::removal(QueueId(7))])])
    );
    bench.trim(&trims);
    assert_eq!(bench.reader().bounds(QueueId(7)).next, Offset(0));
    assert_eq!(total(&bench), before - gone);
    let mut entries = Vec::new();
    bench
        .reader()
        .entries(QueueId(7), Offset(0), 10, &mut entries)
        .unwrap();
    assert_eq!(entries, []);
    assert_eq!(bench.store.appender.next_offset(QueueId(7)), Offset(0));
    bench.checkpoint();
    let vfs = vfs.crash(Crash::LoseAll);
    let again = Bench::open(&vfs);
    assert_eq!(total(&again), before - gone);
    assert_eq!(again.reader().bounds(QueueId(7)).next, Offset(0));
}

#[test]
fn a_pass_goes_on_where_it_stopped_and_skips_what_is_not_due() {
    let vfs = SimVfs::new(6);
    let mut bench = Bench::open(&vfs);
    // More queues than a call finds rows for, most of them in the segment that is appended to.
    let queues = 2500_u64;
    for queue in 1..=queues {
        let section = [1; 8];
        let unit = [batch(0, queue, 1, 1000, &section)];
        loop {
            match bench.store.appender.append(&unit) {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, AppendError::Full), "{error}"),
            }
            bench.background.run_all();
            bench.store.appender.settle().unwrap();
        }
    }
    bench.settle(bench.store.appender.tail());
    let asked = std::cell::Cell::new(0);
    let rule = |time| {
        let asked = &asked;
        move |_| {
            asked.set(asked.get() + 1);
            Some(before(time))
        }
    };
    let now = Timestamp(500);
    let mut pass = Expiry::new(now, Some(now), 7);
    while !pass.is_done() {
        let trims = bench.reader().expire(&mut pass, &rule(500)).unwrap();
        assert_eq!(trims, Trims::new());
    }
    let newest_only = asked.replace(0);
    assert!(
        newest_only < 400,
        "sealed segments are too new: {newest_only}"
    );

    // Looked at once, then known to be quiet until 1001.
    for (rules, looked) in [(7, true), (7, false), (8, true)] {
        let mut pass = Expiry::new(now, Some(Timestamp(5000)), rules);
        while !pass.is_done() {
            bench.reader().expire(&mut pass, &rule(500)).unwrap();
        }
        assert_eq!(asked.replace(0) > newest_only, looked);
    }
    let mut found = BTreeMap::new();
    let mut pass = Expiry::new(Timestamp(1001), Some(Timestamp(1001)), 8);
    let mut calls = 0;
    while !pass.is_done() {
        let trims = bench.reader().expire(&mut pass, &rule(1001)).unwrap();
        for row in trims.values().flatten() {
            assert_eq!(found.insert(row.queue.0, row.start.0), None);
        }
        bench.trim(&trims);
        calls += 1;
    }
    assert!(calls >= 3, "{calls}");
    assert_eq!(found.len() as u64, queues);
    assert_eq!(bench.reader().stats().live_bytes, 0);
}

#[test]
fn trims_that_can_not_be_are_refused() {
    let vfs = SimVfs::new(7);
    let mut bench = filled(&vfs, 2);
    let row = |queue, start| TrimRow {
        queue: QueueId(queue),
        start: Offset(start),
        bytes: 0,
    };
    let mut trim = |rows: &[TrimRow]| {
        let trimmed = bench.store.appender.trim(ShardId(0), Timestamp(0), rows);
        trimmed.map(drop).unwrap_err()
    };
    assert!(matches!(
        trim(&[]),
        AppendError::BadTrim(TrimError::Rows { rows: 0 })
    ));
    assert!(matches!(
        trim(&[row(3, 1), row(3, 2)]),
        AppendError::BadTrim(TrimError::Order)
    ));
    let ahead = trim(&[row(3, 5)]);
    assert!(
        matches!(
            ahead,
            AppendError::TrimAhead {
                next: Offset(4),
                ..
            }
        ),
        "{ahead}"
    );
    assert!(!ahead.is_retryable());
    let section = [0; 5];
    let garbage = Batch {
        kind: Kind::Trim,
        ..batch(0, 0, 0, 1, &section)
    };
    let refused = bench.store.appender.append(&[garbage]).map(drop);
    assert!(matches!(
        refused,
        Err(AppendError::BadTrim(TrimError::Length))
    ));
    let unknown = TrimRow {
        queue: QueueId(4000),
        start: QUEUE_REMOVED,
        bytes: 3,
    };
    bench.trim(&Trims::from([(ShardId(0), vec![unknown])]));
    check_reads(bench.reader(), &bench.ledger);
}
