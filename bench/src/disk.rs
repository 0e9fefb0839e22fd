//! What the disk can do at best: the limit beside every durable figure.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Bytes of one write, those of the smallest block that the log writes.
const BLOCK: usize = 4096;
/// Bytes of the prepared file, written once before the clock starts.
const FILE: usize = 64 * 1024 * 1024;

/// The bare rate of write + fdatasync.
pub(crate) struct Bare {
    pub(crate) per_second: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// Writes 4 KiB and syncs, again and again, into blocks that were written before.
pub(crate) fn bare(folder: &Path, time: Duration) -> anyhow::Result<Bare> {
    let path = folder.join("bare");
    let file = File::create(&path)?;
    for at in (0..FILE).step_by(1024 * 1024) {
        file.write_all_at(&vec![0; 1024 * 1024], at as u64)?;
    }
    file.sync_all()?;
    let block = vec![7u8; BLOCK];
    let mut latencies = Histogram::<u64>::new(3)?;
    let start = Instant::now();
    let mut writes = 0usize;
    while start.elapsed() < time {
        let one = Instant::now();
        file.write_all_at(&block, ((writes * BLOCK) % FILE) as u64)?;
        file.sync_data()?;
        latencies.record(u64::try_from(one.elapsed().as_micros())?.max(1))?;
        writes += 1;
    }
    let per_second = writes as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(Bare {
        per_second,
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
    })
}
