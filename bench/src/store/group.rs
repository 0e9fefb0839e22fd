//! Group commit: many that wait share a sync.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidegate_model::{QueueId, ShardId, Timestamp};
use tidegate_store::{AppendError, LogPosition, Store};

use super::{Load, RECORDS, open};
use crate::table::{Table, number, verdict};
use crate::{cpu, disk, machine};

const ROUNDS: u32 = 5;
/// Bytes a second of the appends whose own latency is looked at.
const PACED_BYTES: u64 = 100_000_000;
/// Between two looks at what is written.
const OS_PACE: Duration = Duration::from_micros(20);
/// The longest that making a segment may take.
const SPARE_WITHIN: Duration = Duration::from_secs(60);
/// The longest sleep of the owner while the log says nothing.
const PATIENCE: Duration = Duration::from_millis(100);

pub(super) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Table> {
    let data = tempfile::tempdir_in(folder)?;
    let mut log = Log::open(data.path())?;
    let mut table = Table::new(
        "Group commit, 1 KiB messages, one a batch",
        &["what", "figure", "limit", "target", ""],
    );
    let mut one = 0.0;
    for producers in [1, 64, 512] {
        let (mut bares, mut runs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bares.push(disk::bare(data.path(), time / ROUNDS)?);
            runs.push(log.closed_loop(producers, Level::Disk, time / ROUNDS)?);
        }
        let of = |by: fn(&Run) -> f64| cpu::median(runs.iter().map(by).collect());
        let bare = cpu::median(bares.iter().map(|bare| bare.per_second).collect());
        let bare_p50 = cpu::median(bares.iter().map(|bare| bare.p50_us as f64).collect());
        let ratios = bares.iter().zip(&runs);
        let ratio = cpu::median(ratios.map(|(b, r)| r.per_second / b.per_second).collect());
        let rate = of(|run| run.per_second);
        let limit = format!("{} bare syncs/s", number(bare));
        if producers == 1 {
            one = rate;
            table.row(vec![
                "1 producer, acks/s".to_owned(),
                format!("{} ({} of bare)", number(rate), number(ratio)),
                limit,
                ">= 0.85 of bare".to_owned(),
                verdict(ratio >= 0.85),
            ]);
            continue;
        }
        let least = if producers == 64 { 25.0 } else { 90.0 };
        table.row(vec![
            format!("{producers} producers, acks/s"),
            format!("{} ({} x one)", number(rate), number(rate / one)),
            limit,
            format!(">= {least} x one"),
            verdict(rate >= least * one),
        ]);
        let shared = of(|run| run.acks as f64 / run.syncs.max(1) as f64);
        table.row(vec![
            format!("{producers} producers, acks per sync"),
            number(shared),
            producers.to_string(),
            format!(">= {}", number(0.45 * producers as f64)),
            verdict(shared >= 0.45 * producers as f64),
        ]);
        if producers == 512 {
            let p99 = of(|run| run.p99_us);
            table.row(vec![
                "512 producers, ack p99".to_owned(),
                format!("{} us ({} x)", number(p99), number(p99 / bare_p50)),
                format!("bare p50 {} us", number(bare_p50)),
                "<= 8 x".to_owned(),
                verdict(p99 <= 8.0 * bare_p50),
            ]);
        }
    }
    let mut levels = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (at, level) in [Level::Memory, Level::Os, Level::Disk]
            .into_iter()
            .enumerate()
        {
            levels[at].push(log.closed_loop(512, level, time / ROUNDS)?.per_second);
        }
    }
    let [memory, os, durable] = levels.map(cpu::median);
    table.row(vec![
        "512 producers, acks/s at memory : os : disk".to_owned(),
        format!("{} : {} : {}", number(memory), number(os), number(durable)),
        "memory".to_owned(),
        "disk >= 50 % of memory".to_owned(),
        verdict(durable >= 0.5 * memory),
    ]);
    let paced = log.paced(time.max(Duration::from_secs(3)))?;
    table.row(vec![
        "append call while 100 MB/s are written back, p99.9 / max".to_owned(),
        format!(
            "{:.1} / {:.0} us",
            paced.p999_ns / 1000.0,
            paced.max_ns / 1000.0
        ),
        "none".to_owned(),
        "<= 5 us / <= 1 ms".to_owned(),
        verdict(paced.p999_ns <= 5000.0 && paced.max_ns <= 1_000_000.0),
    ]);
    log.amplification(data.path(), &mut table)?;
    Ok(table)
}

/// What an ack waits for.
#[derive(Clone, Copy)]
enum Level {
    Memory,
    Os,
    Disk,
}

struct Run {
    acks: u64,
    syncs: u64,
    per_second: f64,
    p99_us: f64,
}

struct Paced {
    p999_ns: f64,
    max_ns: f64,
}

/// A store whose owner sleeps until the log has something to say.
struct Log {
    folder: PathBuf,
    store: Store,
    bell: Arc<(Mutex<bool>, Condvar)>,
    one: Load,
    many: Load,
}

impl Log {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let store = open(&folder.join("log"))?;
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = Arc::clone(&bell);
        store.appender.on_durable(Arc::new(move |_| {
            *ring.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            ring.1.notify_one();
        }));
        Ok(Self {
            folder: folder.join("log/log"),
            store,
            bell,
            one: Load::new(1)?,
            many: Load::new(RECORDS)?,
        })
    }

    fn wait(&self) {
        let mut rung = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            rung = self
                .bell
                .1
                .wait_timeout(rung, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *rung = false;
    }

    /// As many as `producers` appends are under way at any time.
    fn closed_loop(
        &mut self,
        producers: usize,
        level: Level,
        time: Duration,
    ) -> anyhow::Result<Run> {
        self.quiesce()?;
        self.spare()?;
        let mut under_way: VecDeque<(LogPosition, Instant)> = VecDeque::new();
        let mut latencies = Histogram::<u64>::new(3)?;
        let syncs = self.store.reader.stats().syncs;
        let start = Instant::now();
        while start.elapsed() < time {
            while under_way.len() < producers {
                let batch = self.one.batch(ShardId(0), QueueId(1));
                match self.store.appender.append(&[batch]) {
                    Ok(appended) => under_way.push_back((appended[0].end, Instant::now())),
                    Err(AppendError::Full) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let durable = self.store.appender.settle()?;
            let reached = match level {
                Level::Memory => self.store.appender.tail(),
                Level::Os => self.store.appender.written(),
                Level::Disk => durable,
            };
            let mut any = false;
            while let Some((_, since)) = under_way.pop_front_if(|(end, _)| *end <= reached) {
                latencies.record(u64::try_from(since.elapsed().as_micros())?.max(1))?;
                any = true;
            }
            if !any {
                match level {
                    // Nothing rings for what was written and not synced.
                    Level::Os => std::thread::sleep(OS_PACE), // paces: a write takes about as long
                    Level::Memory | Level::Disk => self.wait(),
                }
            }
            self.checkpoint();
        }
        let acks = latencies.len();
        let per_second = acks as f64 / start.elapsed().as_secs_f64();
        let syncs = self.store.reader.stats().syncs - syncs;
        self.quiesce()?;
        Ok(Run {
            acks,
            syncs,
            per_second,
            p99_us: latencies.value_at_quantile(0.99) as f64,
        })
    }

    fn checkpoint(&mut self) {
        let stats = self.store.reader.stats();
        let now = Timestamp(i64::try_from(stats.durable.0 >> 20).unwrap_or(i64::MAX));
        if self.store.appender.checkpoint_due(now) {
            self.store.appender.checkpoint(now, Vec::new());
        }
    }

    /// Waits until the next segment is ready, so that no round pays for what the one before it used up.
    fn spare(&self) -> anyhow::Result<()> {
        let tail = self.store.appender.tail().0;
        let deadline = Instant::now() + SPARE_WITHIN;
        while Instant::now() < deadline {
            for file in std::fs::read_dir(&self.folder)? {
                let path = file?.path();
                let base = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                let is_segment = path.extension().is_some_and(|ending| ending == "seg");
                if is_segment && base.is_some_and(|base: u64| base >= tail) {
                    return Ok(());
                }
            }
            std::thread::sleep(OS_PACE); // paces: making a segment takes far longer
        }
        anyhow::bail!("no next segment within {SPARE_WITHIN:?}")
    }

    /// Waits until all that was appended is durable.
    fn quiesce(&mut self) -> anyhow::Result<()> {
        while self.store.appender.settle()? < self.store.appender.tail() {
            self.wait();
        }
        Ok(())
    }

    /// One message at a time at a steady rate; how long each call takes.
    fn paced(&mut self, time: Duration) -> anyhow::Result<Paced> {
        let mut calls = Histogram::<u64>::new(3)?;
        let start = Instant::now();
        let mut appended = 0u64;
        while start.elapsed() < time {
            let due = u128::from(PACED_BYTES) * start.elapsed().as_nanos() / 1_000_000_000;
            while u128::from(appended) < due {
                let batch = self.one.batch(ShardId(0), QueueId(1));
                let before = Instant::now();
                let outcome = self.store.appender.append(&[batch]);
                let took = u64::try_from(before.elapsed().as_nanos())?;
                match outcome {
                    Ok(_) => {
                        calls.record(took.max(1))?;
                        appended += self.one.section.len() as u64;
                    }
                    Err(AppendError::Full) => self.wait(),
                    Err(error) => return Err(error.into()),
                }
            }
            self.store.appender.settle()?;
            self.checkpoint();
            std::thread::yield_now();
        }
        self.quiesce()?;
        Ok(Paced {
            p999_ns: calls.value_at_quantile(0.999) as f64,
            max_ns: calls.max() as f64,
        })
    }

    /// What the device and the index files get for each byte of the log, in batches of 16 KiB.
    fn amplification(&mut self, folder: &Path, table: &mut Table) -> anyhow::Result<()> {
        let log_bytes = 768u64 << 20;
        self.quiesce()?;
        let before = machine::device_bytes(folder)?;
        let start = self.store.appender.tail().0;
        while self.store.appender.tail().0 - start < log_bytes {
            let batch = self.many.batch(ShardId(0), QueueId(2));
            match self.store.appender.append(&[batch]) {
                Ok(_) => {}
                Err(AppendError::Full) => self.wait(),
                Err(error) => return Err(error.into()),
            }
            self.store.appender.settle()?;
            self.checkpoint();
        }
        self.quiesce()?;
        let written = self.store.appender.tail().0 - start;
        let device = match (before, machine::device_bytes(folder)?) {
            (Some(before), Some(after)) => Some((after - before) as f64 / written as f64),
            _ => None,
        };
        table.row(vec![
            "device bytes / log bytes, all writers of the disk counted".to_owned(),
            device.map_or("no counter".to_owned(), number),
            "1".to_owned(),
            "<= 2.1 (1.1, and 1.0 for zeroing ahead)".to_owned(),
            device.map_or(String::new(), |ratio| verdict(ratio <= 2.1)),
        ]);
        let index = machine::bytes_of(&folder.join("log"), ".qix")?;
        let log = machine::bytes_of(&folder.join("log"), ".seg")?;
        // Single messages before, batches of 16 now: the mix is worse than the target's batches.
        let of_batches = 48.0 / written as f64 * (written as f64 / self.many.section.len() as f64);
        table.row(vec![
            "index bytes / log bytes: files of this mix; batches of 16".to_owned(),
            format!(
                "{} %; {} %",
                number(index as f64 * 100.0 / log.max(1) as f64),
                number(of_batches * 100.0)
            ),
            "none".to_owned(),
            "<= 2 % in batches of 16".to_owned(),
            verdict(of_batches <= 0.02),
        ]);
        Ok(())
    }
}
