//! Reading: in order from memory, and at random from the disk.

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate_model::{Codec, Offset, QueueId, Section, ShardId, Timestamp};
use tidegate_store::vfs::Vfs;
use tidegate_store::{AppendError, IndexEntry, RealVfs, Store};

use super::{BODY, Load, RECORDS, open};
use crate::cpu;
use crate::table::{Table, number, verdict};

const LOG_BYTES: u64 = 512 << 20;
const ROUNDS: usize = 5;
/// Index entries of a look-up: those that a consumer's fetch takes.
const ENTRIES: usize = 256;
/// Cold fetches, each of another place.
const FETCHES: u64 = 400;
const QUEUE: QueueId = QueueId(1);

pub(super) fn measure(folder: &Path, _: Duration) -> anyhow::Result<Table> {
    let folder = tempfile::tempdir_in(folder)?;
    let mut store = open(folder.path())?;
    fill(&mut store)?;
    let log = segments(folder.path())?;
    let mut table = Table::new(
        "Reading, 1 KiB messages in batches of 16",
        &["what", "figure", "limits", "target", ""],
    );
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        figures[0].push(sent(&store)?);
        figures[1].push(parsed(&store)?);
        figures[2].push(mapped(&log)?);
        figures[3].push(by_pread(&log)?);
    }
    let [consumed, parsed, mapped, pread] = figures.map(cpu::median);
    let gigabytes = |ns: f64| number(1.0 / ns);
    let beside = |ns: f64| {
        format!(
            "{} ({} of mapped, {} x pread)",
            gigabytes(ns),
            number(mapped / ns),
            number(pread / ns)
        )
    };
    table.row(vec![
        "warm sequential consume, GB per CPU second".to_owned(),
        beside(consumed),
        format!(
            "mapped {}, pread of 1 KiB {}",
            gigabytes(mapped),
            gigabytes(pread)
        ),
        ">= 0.6 of mapped, >= 5 x pread".to_owned(),
        verdict(mapped / consumed >= 0.6 && pread / consumed >= 5.0),
    ]);
    table.row(vec![
        "the same for a filter, all bodies copied out".to_owned(),
        beside(parsed),
        String::new(),
        "none".to_owned(),
        String::new(),
    ]);
    let (fetch, bare) = cold(store, folder.path(), &log)?;
    table.row(vec![
        "cold fetch of a batch at random, p50".to_owned(),
        format!("{} us ({} x)", number(fetch), number(fetch / bare)),
        format!("cold pread of 4 KiB, p50 {} us", number(bare)),
        "<= 1.5 x".to_owned(),
        verdict(fetch <= 1.5 * bare),
    ]);
    Ok(table)
}

fn fill(store: &mut Store) -> anyhow::Result<()> {
    let load = Load::new(RECORDS)?;
    while store.appender.tail().0 < LOG_BYTES {
        match store.appender.append(&[load.batch(ShardId(0), QUEUE)]) {
            Ok(_) => {}
            Err(AppendError::Full) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
        store.appender.settle()?;
        if store.appender.checkpoint_due(Timestamp(1)) {
            store.appender.checkpoint(Timestamp(1), Vec::new());
        }
    }
    while store.appender.settle()? < store.appender.tail() {
        std::thread::yield_now();
    }
    Ok(())
}

fn segments(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.join("log"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "seg") {
            found.push(path);
        }
    }
    found.sort();
    anyhow::ensure!(!found.is_empty(), "a log has segments");
    Ok(found)
}

/// Calls `take` with the index entries of all batches in order; `take` gives the bytes that it read.
/// CPU ns per byte.
fn consume(
    store: &Store,
    mut take: impl FnMut(&IndexEntry) -> anyhow::Result<usize>,
) -> anyhow::Result<f64> {
    cpu::per_item(|| {
        let (mut from, mut bytes) = (Offset(0), 0);
        let mut entries: Vec<IndexEntry> = Vec::with_capacity(ENTRIES);
        loop {
            entries.clear();
            store.reader.entries(QUEUE, from, ENTRIES, &mut entries)?;
            let Some(last) = entries.last() else {
                return Ok(bytes);
            };
            from = last.next_offset();
            for entry in &entries {
                bytes += take(entry)? as u64;
            }
        }
    })
}

/// As batches go out whole: verified, and each section copied out once.
fn sent(store: &Store) -> anyhow::Result<f64> {
    let mut out = vec![0; usize::from(RECORDS) * 2 * BODY];
    consume(store, |entry| {
        let batch = store.reader.map_entry(entry)?;
        let len = batch.section().len();
        out[..len].copy_from_slice(batch.section());
        black_box(&out);
        Ok(len)
    })
}

/// As a filter reads them: copied, verified, and each body copied out once more.
fn parsed(store: &Store) -> anyhow::Result<f64> {
    let mut body = [0u8; BODY];
    consume(store, |entry| {
        let batch = store.reader.read_entry(entry)?;
        let count = usize::from(entry.count);
        for record in Section::parse_trusted(&batch.section, count, Codec::None)?.records() {
            body.copy_from_slice(record.body().unwrap_or_default());
            black_box(&body);
        }
        Ok(batch.section.len())
    })
}

/// 1 KiB after another copied out of a map; CPU ns per byte.
fn mapped(log: &[PathBuf]) -> anyhow::Result<f64> {
    let mut body = [0u8; BODY];
    cpu::per_item(|| {
        let mut all = 0;
        for path in log {
            let file = RealVfs.open(path)?;
            let len = usize::try_from(file.size()?)?;
            let map = file.map(len)?;
            map.populate(0..len)?;
            let bytes = map.bytes(0..len);
            for piece in bytes.chunks_exact(BODY) {
                body.copy_from_slice(piece);
                black_box(&body);
            }
            all += len as u64;
        }
        Ok(all)
    })
}

fn by_pread(log: &[PathBuf]) -> anyhow::Result<f64> {
    let mut body = [0u8; BODY];
    cpu::per_item(|| {
        let mut all = 0;
        for path in log {
            let file = std::fs::File::open(path)?;
            let len = file.metadata()?.len();
            for at in (0..len - BODY as u64).step_by(BODY) {
                file.read_exact_at(&mut body, at)?;
                black_box(&body);
            }
            all += len;
        }
        Ok(all)
    })
}

/// Median µs of a fetch through the store, and of a bare read of 4 KiB, with the cache dropped.
fn cold(store: Store, folder: &Path, log: &[PathBuf]) -> anyhow::Result<(f64, f64)> {
    drop(store);
    for path in log {
        RealVfs.open(path)?.sync()?;
        RealVfs.open(path)?.drop_cache()?;
    }
    let store = open(folder)?;
    // Opening has read some of it again.
    for path in log {
        RealVfs.open(path)?.drop_cache()?;
    }
    let messages = super::held(store.reader.bounds(QUEUE));
    let mut fetches = Vec::new();
    let mut entries = Vec::new();
    // The index is looked at first: it is small and stays in memory.
    store.reader.entries(QUEUE, Offset(0), 1, &mut entries)?;
    let stride = messages / FETCHES;
    for number in 0..FETCHES {
        // Steps of 7 places, so that the next fetch is never where the disk reads ahead.
        let from = Offset(number * 7 % FETCHES * stride);
        entries.clear();
        store.reader.entries(QUEUE, from, 1, &mut entries)?;
        let entry = entries[0];
        let len = tidegate_store::header::stored_bytes(entry.section_len as usize);
        if store.reader.is_hot(entry.position, len) {
            continue;
        }
        let start = Instant::now();
        black_box(store.reader.read(entry.position)?);
        fetches.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let file = std::fs::File::open(&log[0])?;
    RealVfs.open(&log[0])?.drop_cache()?;
    let pages = file.metadata()?.len() / 4096;
    let mut block = [0u8; 4096];
    let mut bare = Vec::new();
    for number in 0..FETCHES {
        let page = number * 7 % FETCHES * (pages / FETCHES) + pages / FETCHES / 2;
        let start = Instant::now();
        file.read_exact_at(&mut block, page * 4096)?;
        bare.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok((cpu::median(fetches), cpu::median(bare)))
}
