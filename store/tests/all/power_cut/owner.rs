//! An owner of the log that does what a seed says, and remembers what it promised when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidegate_model::{Message, Offset, QueueId, SectionBuilder, ShardId, Timestamp};
use tidegate_store::header::stored_bytes;
use tidegate_store::sim::{Random, SimVfs};
use tidegate_store::{
    AppendError, Background, CompactedRun, Compaction, Kind, LogPosition, Store, TrimRow, trim,
};

use super::check::check_bounds;
use crate::support::{COMPACTED, Ledger, Record, batch, record};

const STEPS_MAX: u64 = 150;
const SECTION_BYTES_MAX: usize = 9000;
/// Keys of messages in compacted queues.
const KEYS: u64 = 5;
const TOMBSTONE_MS: u64 = 100;

/// Appended together.
pub(super) struct Unit {
    pub(super) records: Vec<Record>,
    /// Where its first batch lies.
    pub(super) position: LogPosition,
    pub(super) end: LogPosition,
    /// Changes of the disk there had been when it was acknowledged.
    pub(super) acknowledged: Option<usize>,
}

/// What an owner believes to be on the disk.
pub(super) struct Believed {
    /// Acknowledged before the history of this boot began.
    pub(super) before: Ledger,
    /// In the order of the log.
    pub(super) units: Vec<Unit>,
    /// Changes that there had been when a snapshot was reported written, and its position.
    pub(super) snapshots: Vec<(usize, LogPosition)>,
}

impl Believed {
    /// Position of the newest snapshot written by then.
    pub(super) fn snapshot_written(&self, changes: usize) -> LogPosition {
        let written = self.snapshots.iter().filter(|(at, _)| *at <= changes);
        written
            .map(|(_, position)| *position)
            .max()
            .unwrap_or_default()
    }

    /// What a cut after `changes` may not lose, and all that it may have kept in the order of the
    /// log: where the next boot stands that found `recovered` of it. Its own history begins with
    /// the opening, during which only the first is promised yet.
    pub(super) fn after_cut(&self, changes: usize, recovered: &Ledger) -> Self {
        let mut before = self.before.clone();
        let mut units = Vec::new();
        let mut count = before.len();
        for unit in &self.units {
            if count == recovered.len() {
                break;
            }
            count += unit.records.len();
            if unit.acknowledged.is_some_and(|at| at <= changes) {
                for record in &unit.records {
                    before.apply(record.clone());
                }
            } else {
                units.push(Unit {
                    records: unit.records.clone(),
                    acknowledged: None,
                    ..*unit
                });
            }
        }
        Self {
            before,
            units,
            snapshots: vec![(0, self.snapshot_written(changes))],
        }
    }
}

/// When to call something acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledge {
    /// When the log says that it is durable.
    Durable,
    /// When it is written: what the checker must notice.
    Written,
}

pub(super) struct Owner<'a> {
    pub(super) vfs: &'a SimVfs,
    pub(super) store: Store,
    pub(super) background: Background,
    /// What the reader shows.
    pub(super) settled: Ledger,
    pub(super) believed: Believed,
    pub(super) random: &'a mut Random,
    pub(super) time: &'a mut i64,
    pub(super) acknowledge: Acknowledge,
    /// Units of `believed` that are settled.
    pub(super) settled_units: usize,
    /// Where trims that were appended let queues begin.
    pub(super) trimmed: BTreeMap<u64, u64>,
    /// The position of the snapshot that is being written.
    pub(super) checkpointing: Option<LogPosition>,
    pub(super) checkpoints: u64,
    pub(super) refused_for_space: u64,
}

impl Owner<'_> {
    /// Does what the seed says, and leaves what waits where it is.
    pub(super) fn run(&mut self) {
        let written = Arc::new(Mutex::new(Vec::new()));
        if self.acknowledge == Acknowledge::Written {
            let (seen, vfs, reader) =
                (written.clone(), self.vfs.clone(), self.store.reader.clone());
            self.vfs.before_sync(move || {
                let at = (vfs.history(), reader.stats().written);
                seen.lock().unwrap().push(at);
            });
        }
        for _ in 0..self.random.below(STEPS_MAX) {
            self.step();
        }
        self.vfs.before_sync(|| {});
        self.vfs.set_capacity(None);
        for (at, position) in written.lock().unwrap().iter() {
            for unit in &mut self.believed.units {
                if unit.end <= *position {
                    let sooner = unit.acknowledged.unwrap_or(usize::MAX).min(*at);
                    unit.acknowledged = Some(sooner);
                }
            }
        }
    }

    fn step(&mut self) {
        *self.time += i64::try_from(self.random.below(30)).unwrap();
        if self.random.below(40) == 0 {
            // Long enough for what is done every second or every five.
            *self.time += 6000;
        }
        match self.random.below(20) {
            0 => self.trim(),
            1..9 => self.append(),
            9..11 => {
                let _ = self.background.flush();
            }
            11..13 => {
                let _ = self.background.prepare();
            }
            13..15 => self.write_file(),
            15 => self.store.appender.tick(Timestamp(*self.time)),
            16 => match self.random.below(4) {
                0 | 1 => {
                    let room = self.random.below(8 << 10);
                    self.vfs.set_capacity(Some(self.vfs.used() + room));
                }
                2 => self.vfs.set_capacity(None),
                _ => {}
            },
            17 => {
                for _ in 0..self.random.below(4) {
                    let _ = self.background.reclaim();
                }
                self.compact();
            }
            _ => self.settle(),
        }
    }

    fn append(&mut self) {
        let shard = u32::try_from(self.random.below(3)).unwrap();
        let mut section = vec![0; SECTION_BYTES_MAX];
        for byte in &mut section {
            *byte = self.random.next().to_le_bytes()[0];
        }
        let mut unit = Vec::new();
        let keyed = self.messages();
        for at in 0..1 + self.random.below(3) {
            let len = (1 << self.random.below(13)) + self.random.below(40);
            let at = usize::try_from(at).unwrap();
            let section = &section[at..at + usize::try_from(len).unwrap()];
            // Queue 0: what became of messages, in a batch that no queue has.
            let (queue, span, section) = match self.random.below(7) {
                0 => (0, 0, section),
                5.. => (COMPACTED.start + u64::from(shard), keyed.0, &keyed.1[..]),
                queue => (queue * 3 + u64::from(shard), 1 + at as u16, section),
            };
            unit.push(batch(shard, queue, span, *self.time, section));
        }
        match self.store.appender.append(&unit) {
            Ok(appended) => {
                let records = unit.iter().zip(appended);
                let records = records.map(|(batch, at)| record(batch, at)).collect();
                self.believed.units.push(Unit {
                    records,
                    position: appended[0].position,
                    end: appended[0].end,
                    acknowledged: None,
                });
            }
            Err(AppendError::NoSpace) => self.refused_for_space += 1,
            Err(AppendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Messages of a compacted queue: how many, and their section.
    fn messages(&mut self) -> (u16, Vec<u8>) {
        let mut builder = SectionBuilder::new();
        for _ in 0..1 + self.random.below(4) {
            let key = self.random.below(KEYS);
            let len = usize::try_from(self.random.below(1500)).unwrap();
            let mut message = Message::new(vec![key.to_le_bytes()[0]; len]);
            if self.random.below(6) == 0 {
                message.body = None;
            }
            builder.push(&message.key(format!("key {key}"))).unwrap();
        }
        let count = u16::try_from(builder.count()).unwrap();
        (count, builder.finish().unwrap())
    }

    fn compact(&mut self) {
        self.store.reader.compact(Compaction {
            runs: vec![CompactedRun {
                first: QueueId(COMPACTED.start),
                last: QueueId(COMPACTED.end - 1),
                tombstone_ms: TOMBSTONE_MS,
            }],
            now: Timestamp(*self.time),
        });
        for _ in 0..self.random.below(20) {
            let _ = self.background.compact();
        }
    }

    /// Lets a queue begin behind one of its settled batches, or all queues of its shard behind
    /// their last ones.
    fn trim(&mut self) {
        let end_of = |record: &Record| record.base_offset + u64::from(record.span);
        let start_of = |queue: u64| self.trimmed.get(&queue).copied().unwrap_or(0);
        let live = self
            .settled
            .all()
            .filter(|record| record.span > 0 && end_of(record) > start_of(record.queue))
            .collect::<Vec<_>>();
        if live.is_empty() {
            return;
        }
        let drawn = live[usize::try_from(self.random.below(live.len() as u64)).unwrap()];
        let all = self.random.below(2) == 0;
        let mut rows = BTreeMap::<u64, TrimRow>::new();
        for record in &live {
            let goes = if all {
                record.shard == drawn.shard
            } else {
                record.queue == drawn.queue && end_of(record) <= end_of(drawn)
            };
            if goes {
                let row = rows.entry(record.queue).or_insert(TrimRow {
                    queue: QueueId(record.queue),
                    start: Offset(0),
                    bytes: 0,
                });
                row.start = Offset(end_of(record).max(row.start.0));
                // How much of it compaction has left is not known here.
                if !COMPACTED.contains(&record.queue) {
                    row.bytes += stored_bytes(record.section.len());
                }
            }
        }
        let rows = rows.into_values().collect::<Vec<_>>();
        let (now, shard) = (Timestamp(*self.time), drawn.shard);
        match self.store.appender.trim(ShardId(shard), now, &rows) {
            Ok(appended) => {
                let starts = rows.iter().map(|row| (row.queue.0, row.start.0));
                self.trimmed.extend(starts);
                self.believed.units.push(Unit {
                    records: vec![Record {
                        kind: Kind::Trim as u8,
                        shard,
                        seq: appended.seq.0,
                        queue: 0,
                        base_offset: appended.base_offset.0,
                        span: 0,
                        append_time: now.0,
                        section: trim::encode(&rows).unwrap(),
                    }],
                    position: appended.position,
                    end: appended.end,
                    acknowledged: None,
                });
            }
            Err(AppendError::NoSpace | AppendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn write_file(&mut self) {
        let _ = self.background.write_file();
        let checkpoints = self.store.reader.stats().checkpoints;
        if checkpoints > self.checkpoints {
            self.checkpoints = checkpoints;
            let position = self.checkpointing.take().expect("it was asked for");
            let at = (self.vfs.history(), position);
            self.believed.snapshots.push(at);
        }
    }

    fn settle(&mut self) {
        let position = self.store.appender.settle().unwrap();
        let now = self.vfs.history();
        while let Some(unit) = self.believed.units.get_mut(self.settled_units)
            && unit.end <= position
        {
            unit.acknowledged.get_or_insert(now);
            for record in &unit.records {
                self.settled.apply(record.clone());
            }
            self.settled_units += 1;
        }
        check_bounds(&self.store.reader, &self.settled);
        let due = self.store.appender.checkpoint_due(Timestamp(*self.time));
        if self.random.below(4) == 0 || due {
            let states = self.settled.states();
            if self
                .store
                .appender
                .checkpoint(Timestamp(*self.time), states)
            {
                self.checkpointing = Some(position);
            }
        }
    }
}
