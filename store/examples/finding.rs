//! What finding costs: making key indexes, their size, and lookups cold and warm.
//!
//! `cargo run --release -p tidegate-store --example finding [MIB] [KEYS-PER-MESSAGE]`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that measures and prints"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Message, Order, ProducerEpoch, ProducerId, QueueId, SectionBuilder, Sequence, ShardId, Term,
    Timestamp,
};
use tidegate_store::{
    Background, Batch, Find, Kind, Reader, RealVfs, Replay, ReplayError, Store, StoreConfig,
    StoredBatch, Vfs,
};

const QUEUES: u64 = 8;
const RECORDS: u64 = 16;
const BODY_BYTES: usize = 1024;
const SEGMENT_BYTES: u64 = 16 << 20;
const QUESTIONS: u64 = 200;

struct Nothing;

impl Replay for Nothing {
    fn restore(&mut self, _: ShardId, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn batch(&mut self, _: &StoredBatch) -> Result<(), ReplayError> {
        Ok(())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(default, |text| text.parse().unwrap())
    };
    let (mib, keys) = (number(700), number(1));
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let (mut store, background) = open(&vfs, dir.path());
    let (count, building) = fill(&mut store, &background, mib << 20, keys);
    let log: u64 = bytes_of(dir.path(), "seg");
    let (qix, kix) = (bytes_of(dir.path(), "qix"), bytes_of(dir.path(), "kix"));
    let segments = files_of(dir.path(), "kix").len() as u64;
    let full = segments * SEGMENT_BYTES;
    println!(
        "log: {} MiB, {count} messages of {BODY_BYTES} B in batches of {RECORDS}, {keys} key(s) each",
        log >> 20
    );
    println!("full segments: {segments} of {} MiB", SEGMENT_BYTES >> 20);
    println!(
        "making both index files, synced: {:.1} ms per segment of 16 MiB, {:.0} MiB/s",
        building.as_secs_f64() * 1e3 / segments as f64,
        (full >> 20) as f64 / building.as_secs_f64()
    );
    let per_message = full as f64 / (count as f64 * full as f64 / log as f64);
    println!(
        "index bytes: .qix {:.3} %, .kix {:.3} % of the log; {:.1} B of {per_message:.0} per message",
        100.0 * qix as f64 / full as f64,
        100.0 * kix as f64 / full as f64,
        (qix + kix) as f64 / full as f64 * per_message
    );

    drop((store, background));
    for path in files_of(dir.path(), "seg")
        .into_iter()
        .chain(files_of(dir.path(), "kix"))
        .chain(files_of(dir.path(), "qix"))
    {
        vfs.open(&path).unwrap().sync().unwrap();
        vfs.open(&path).unwrap().drop_cache().unwrap();
    }
    let (store, _background) = open(&vfs, dir.path());
    let reader = &store.reader;
    println!(
        "first question after a start, cold: {:?}",
        ask(reader, 1, 1).0[0]
    );
    for (name, from) in [
        ("cold rows", 1_000_000),
        ("warm", 1_000_000),
        ("absent key", 1 << 40),
    ] {
        let (mut times, found) = ask(reader, from, QUESTIONS);
        times.sort_unstable();
        let at = |of: u64| times[(times.len() as u64 * of / 100) as usize];
        println!(
            "{name}: p50 {:?}, p99 {:?}, {found} of {QUESTIONS} found",
            at(50),
            at(99)
        );
    }
}

fn open(vfs: &Arc<dyn Vfs>, dir: &Path) -> (Store, Background) {
    let config = StoreConfig {
        segment_bytes: SEGMENT_BYTES,
        segment_bytes_max: SEGMENT_BYTES,
        ..StoreConfig::default()
    };
    Store::open_manual(vfs.clone(), dir, config, Timestamp(0), &mut Nothing).unwrap()
}

/// Appends until the log has that many bytes. Gives the number of messages, and the time that
/// making key indexes took.
fn fill(store: &mut Store, background: &Background, bytes: u64, keys: u64) -> (u64, Duration) {
    let (mut count, mut number, mut building) = (0, 0, Duration::ZERO);
    while store.appender.tail().0 < bytes {
        let queue = 1 + number % QUEUES;
        number += 1;
        let mut builder = SectionBuilder::new();
        for _ in 0..RECORDS {
            let mut message = Message::new(vec![b'x'; BODY_BYTES]);
            for key in 0..keys {
                message = message.key(key_of(count * keys + key));
            }
            builder.push(&message).unwrap();
            count += 1;
        }
        let section = builder.finish().unwrap();
        let unit = [Batch {
            shard: ShardId(0),
            term: Term(1),
            queue: QueueId(queue),
            kind: Kind::Data,
            codec: 0,
            key_id: 0,
            flags: 0,
            producer: ProducerId(0),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            append_time: Timestamp(i64::try_from(number).unwrap()),
            base_create_time: Timestamp(0),
            tag_bits: 0,
            count: RECORDS as u16,
            span: RECORDS as u16,
            section: &section,
            section_crc: crc32c(&section),
        }];
        while store.appender.append(&unit).is_err() {
            while background.flush() | background.prepare() {}
        }
        if number.is_multiple_of(64) {
            while background.flush() | background.prepare() {}
            store.appender.settle().unwrap();
            let begun = Instant::now();
            // First the queue index, which is small beside what comes next.
            let mut jobs = 0;
            while background.write_file() {
                jobs += 1;
            }
            if jobs > 0 {
                building += begun.elapsed();
            }
            let position = Timestamp(i64::try_from(number).unwrap());
            if number.is_multiple_of(4096) {
                store.appender.checkpoint(position, Vec::new());
            }
        }
    }
    while background.flush() | background.prepare() {}
    store.appender.settle().unwrap();
    let now = Timestamp(i64::try_from(number).unwrap());
    store.appender.checkpoint(now, Vec::new());
    background.run_all();
    (count, building)
}

fn key_of(number: u64) -> Vec<u8> {
    format!("order-{number:012}").into_bytes()
}

/// Asks for keys spread over the log; how long each question took, and how many had an answer.
fn ask(reader: &Reader, seed: u64, questions: u64) -> (Vec<Duration>, u64) {
    let queues: Vec<QueueId> = (1..=QUEUES).map(QueueId).collect();
    let (mut times, mut found) = (Vec::new(), 0);
    for question in 0..questions {
        let key = if seed > 1 << 39 {
            key_of(seed + question)
        } else {
            key_of((seed + question * 7919) % 500_000)
        };
        let mut find = Find {
            queues: &queues,
            key: Some(&key),
            from: Timestamp(i64::MIN),
            to: Timestamp(i64::MAX),
            order: Order::NewestFirst,
            page: None,
            max_messages: 10,
            max_bytes: 1 << 20,
        };
        let begun = Instant::now();
        let mut messages = 0;
        loop {
            let page = reader.find(&find).unwrap();
            messages += page.batches.len() as u64;
            find.page = page.next;
            if page.next.is_none() {
                break;
            }
        }
        times.push(begun.elapsed());
        found += messages.min(1);
    }
    (times, found)
}

fn files_of(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|name| name == extension) {
            files.insert(path.clone(), path);
        }
    }
    files.into_values().collect()
}

fn bytes_of(dir: &Path, extension: &str) -> u64 {
    let files = files_of(dir, extension);
    files
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum()
}
