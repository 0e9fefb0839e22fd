//! An owner of a log that appends, takes snapshots and trims, as fast as the disk lets it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Sequence, ShardId, Term, Timestamp,
};
use tidegate_store::check::{FileReport, FileState, Offline};
use tidegate_store::header::stored_bytes;
use tidegate_store::sim::Random;
use tidegate_store::{
    AppendError, Appended, Batch, Kind, LogPosition, RealVfs, Store, StoreConfig, TrimRow, trim,
};

use crate::ledger::{Known, Ledger};

pub(crate) const SHARDS: u64 = 3;
/// Queues of each shard, beside the batches that no queue has.
pub(crate) const QUEUES: u64 = 3;
const SECTION_BYTES_MAX: u64 = 6_000;
/// Units that wait for the disk at most.
const WAITING_MAX: usize = 12;
/// One unit in so many is a trim.
const TRIM_ONE_IN: u64 = 150;

pub(crate) fn config() -> StoreConfig {
    StoreConfig {
        ring_bytes: 1 << 20,
        ring_bytes_max: 4 << 20,
        segment_bytes: 256 << 10,
        segment_bytes_max: 1 << 20,
        checkpoint_bytes: 512 << 10,
        checkpoint_factor: 0,
        checkpoint_interval_ms: 300,
        shards: 3,
        scrub_bytes_per_s: 0,
    }
}

/// Batches that were appended together.
#[derive(Default)]
pub(crate) struct Unit {
    pub(crate) batches: Vec<(u32, Known)>,
    end: LogPosition,
    /// Events of the disk that there had been when it was acknowledged.
    pub(crate) acknowledged: Option<usize>,
}

/// What a run left behind.
#[derive(Default)]
pub(crate) struct Done {
    /// In the order of the log.
    pub(crate) units: Vec<Unit>,
    pub(crate) snapshots: u64,
    pub(crate) segments_removed: u64,
}

/// The bytes of a batch follow from its queue and offset, so that whoever reads them can tell.
pub(crate) fn section_of(queue: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut random = Random(queue << 40 ^ offset);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn batch(shard: u32, queue: u64, section: &[u8]) -> Batch<'_> {
    let now = now();
    Batch {
        shard: ShardId(shard),
        term: Term(1),
        queue: QueueId(queue),
        kind: if queue == 0 { Kind::Group } else { Kind::Data },
        codec: 0,
        key_id: 0,
        flags: 0,
        producer: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
        sequence: Sequence(42),
        append_time: now,
        base_create_time: now,
        tag_bits: 0,
        count: u16::from(queue != 0),
        span: u16::from(queue != 0),
        section,
        section_crc: crc32c(section),
    }
}

fn known(queue: u64, appended: &Appended, section: &[u8]) -> Known {
    Known {
        seq: appended.seq.0,
        queue,
        base_offset: appended.base_offset.0,
        crc: crc32c(section),
    }
}

struct Owner {
    counter: PathBuf,
    store: Store,
    random: Random,
    units: Vec<Unit>,
    /// Units that are acknowledged.
    settled: usize,
    ledger: Ledger,
    /// Stored bytes of each queue's batches.
    bytes: BTreeMap<u64, Vec<u64>>,
    trimmed: BTreeMap<u64, u64>,
}

/// What a run is told.
pub(crate) struct Order {
    /// Where the log lies.
    pub(crate) dir: PathBuf,
    /// The file that tells how many events the disk has seen.
    pub(crate) counter: PathBuf,
    /// Where to leave what was done.
    pub(crate) result: PathBuf,
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
}

impl Order {
    /// Has a process of its own carry it out.
    pub(crate) fn run(&self) -> Result<Done> {
        let status = Command::new(std::env::current_exe()?)
            .arg("work")
            .args([&self.dir, &self.counter, &self.result])
            .args([self.seed.to_string(), self.seconds.to_string()])
            .status()?;
        ensure!(status.success(), "the process that works ended: {status}");
        Done::parse(&std::fs::read_to_string(&self.result)?)
    }

    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let [dir, counter, result, seed, seconds] = args else {
            return None;
        };
        Some(Self {
            dir: dir.into(),
            counter: counter.into(),
            result: result.into(),
            seed: seed.parse().ok()?,
            seconds: seconds.parse().ok()?,
        })
    }

    /// Carries it out.
    pub(crate) fn carry_out(&self) -> Result<()> {
        let time = Duration::from_secs(self.seconds);
        let done = run(&self.dir, &self.counter, self.seed, time)?;
        let offline = Offline::open(Arc::new(RealVfs), &self.dir)?;
        let verified = offline.verify(&mut |_| {})?;
        // An index that isn't there is made when it is needed.
        let is_damaged = |file: &&FileReport| matches!(file.state, FileState::Damaged { .. });
        let damaged = verified.files.iter().find(is_damaged);
        ensure!(damaged.is_none(), "damaged before any cut: {damaged:?}");
        Ok(std::fs::write(&self.result, done.text())?)
    }
}

impl Done {
    /// A line of totals, then one per batch; its unit's number and acknowledgement come first.
    fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.snapshots, self.segments_removed);
        for (number, unit) in self.units.iter().enumerate() {
            let acknowledged = unit.acknowledged.unwrap_or(usize::MAX);
            for (shard, known) in &unit.batches {
                let Known {
                    seq,
                    queue,
                    base_offset,
                    crc,
                } = known;
                let _ = writeln!(
                    text,
                    "{number} {acknowledged} {shard} {seq} {queue} {base_offset} {crc}"
                );
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self> {
        let mut done = Self::default();
        for (line, text) in text.lines().enumerate() {
            let numbers = text.split_whitespace().map(str::parse);
            let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
            match numbers[..] {
                [snapshots, removed] if line == 0 => {
                    done.snapshots = snapshots;
                    done.segments_removed = removed;
                }
                [number, acknowledged, shard, seq, queue, base_offset, crc] => {
                    let number = usize::try_from(number)?;
                    done.units.resize_with(number + 1, Unit::default);
                    let unit = &mut done.units[number];
                    unit.acknowledged = usize::try_from(acknowledged).ok();
                    let known = Known {
                        seq,
                        queue,
                        base_offset,
                        crc: u32::try_from(crc)?,
                    };
                    unit.batches.push((u32::try_from(shard)?, known));
                }
                _ => anyhow::bail!("line {line} of what was done is no such line"),
            }
        }
        Ok(done)
    }
}

/// Works on the log in `dir` for that long.
fn run(dir: &Path, counter: &Path, seed: u64, time: Duration) -> Result<Done> {
    let mut ledger = Ledger::default();
    let store = Store::open(Arc::new(RealVfs), dir, config(), now(), &mut ledger)
        .context("the log can't be opened")?;
    let mut owner = Owner {
        counter: counter.to_owned(),
        store,
        random: Random(seed),
        units: Vec::new(),
        settled: 0,
        ledger,
        bytes: BTreeMap::new(),
        trimmed: BTreeMap::new(),
    };
    let until = Instant::now() + time;
    while Instant::now() < until {
        owner.step()?;
    }
    // All that was appended becomes durable, and a mark says so.
    while owner.settled < owner.units.len() || owner.store.appender.needs_tick() {
        owner.store.appender.tick(now());
        owner.settle()?;
        std::thread::yield_now();
    }
    let stats = owner.store.reader.stats();
    Ok(Done {
        units: owner.units,
        snapshots: stats.checkpoints,
        segments_removed: stats.segments_removed,
    })
}

impl Owner {
    fn step(&mut self) -> Result<()> {
        self.settle()?;
        self.store.appender.tick(now());
        if self.units.len() - self.settled >= WAITING_MAX {
            std::thread::yield_now();
            return Ok(());
        }
        match self.random.below(TRIM_ONE_IN) {
            0 => self.trim(),
            _ => self.append(),
        }
    }

    fn settle(&mut self) -> Result<()> {
        let durable = self.store.appender.settle()?;
        let waits = self.units.get(self.settled);
        if waits.is_none_or(|unit| unit.end > durable) {
            return self.checkpoint();
        }
        let events = std::fs::read_to_string(&self.counter)?.parse()?;
        while let Some(unit) = self.units.get_mut(self.settled)
            && unit.end <= durable
        {
            unit.acknowledged = Some(events);
            for (shard, known) in &unit.batches {
                self.ledger.add(*shard, *known);
            }
            self.settled += 1;
        }
        self.checkpoint()
    }

    fn checkpoint(&mut self) -> Result<()> {
        if self.store.appender.checkpoint_due(now()) {
            self.store.appender.checkpoint(now(), self.ledger.states());
        }
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        let shard = u32::try_from(self.random.below(SHARDS))?;
        let mut sections = Vec::new();
        for number in 0..1 + self.random.below(2) {
            let queue = match self.random.below(QUEUES + 1) {
                0 => 0,
                // Each queue once in a unit, so that the offset is known before.
                queue => 10 * u64::from(shard + 1) + (queue + number) % QUEUES + 1,
            };
            let offset = match queue {
                0 => self.store.appender.next_seq(ShardId(shard)).0 + number,
                queue => self.store.appender.next_offset(QueueId(queue)).0,
            };
            let len = usize::try_from(16 + self.random.below(SECTION_BYTES_MAX))?;
            if queue == 0 || sections.iter().all(|(other, _)| *other != queue) {
                sections.push((queue, section_of(queue, offset, len)));
            }
        }
        let unit: Vec<_> = sections
            .iter()
            .map(|(queue, section)| batch(shard, *queue, section))
            .collect();
        let appended = match self.store.appender.append(&unit) {
            Ok(appended) => appended.to_vec(),
            Err(AppendError::Full | AppendError::NoSpace) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut batches = Vec::new();
        for ((queue, section), appended) in sections.iter().zip(&appended) {
            batches.push((shard, known(*queue, appended, section)));
            if *queue != 0 {
                let bytes = self.bytes.entry(*queue).or_default();
                bytes.push(stored_bytes(section.len()));
            }
        }
        self.units.push(Unit {
            batches,
            end: appended.last().context("a unit has a batch")?.end,
            acknowledged: None,
        });
        Ok(())
    }

    /// Lets a queue begin in the middle of what is left of it.
    fn trim(&mut self) -> Result<()> {
        let at = usize::try_from(self.random.below(SHARDS * QUEUES))?;
        let Some((queue, bytes)) = self.bytes.iter().nth(at) else {
            return Ok(());
        };
        let queue = QueueId(*queue);
        let bounds = self.store.reader.bounds(queue);
        let start = self.trimmed.get(&queue.0).copied().unwrap_or(0);
        let middle = start + (bounds.next.0.saturating_sub(start)) * 9 / 10;
        if middle <= start {
            return Ok(());
        }
        let gone = usize::try_from(start)?..usize::try_from(middle)?;
        let rows = [TrimRow {
            queue,
            start: Offset(middle),
            bytes: bytes[gone].iter().sum(),
        }];
        let shard = u32::try_from(queue.0 / 10 - 1)?;
        let appended = match self.store.appender.trim(ShardId(shard), now(), &rows) {
            Ok(appended) => appended,
            Err(AppendError::Full | AppendError::NoSpace) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.trimmed.insert(queue.0, middle);
        let section = trim::encode(&rows)?;
        self.units.push(Unit {
            batches: vec![(shard, known(0, &appended, &section))],
            end: appended.end,
            acknowledged: None,
        });
        Ok(())
    }
}
