//! Space comes back: segments go or are rewritten, and nothing live goes with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};
use tidegate_store::check::Offline;
use tidegate_store::sim::{Crash, Random, SimVfs};
use tidegate_store::{
    Background, Expiry, IndexEntry, ReadError, Reader, Replay, ReplayError, Rule, Store,
    StoreConfig, StoredBatch, TrimRow, Vfs,
};

use crate::support::{batch, dir, small};

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 8760 * HOUR;
/// Queues below this are kept for an hour, the others for a year.
const YEAR_QUEUES: u64 = 100;

/// What a batch must hold, known without remembering it.
pub(crate) fn section(queue: u64, offset: u64) -> Vec<u8> {
    let mut random = Random(queue << 40 | offset);
    let len = 100 + usize::try_from(random.below(600)).unwrap();
    let mut bytes = vec![0; len];
    for piece in bytes.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    bytes
}

/// A broker without state.
pub(crate) struct Stateless;

impl Replay for Stateless {
    fn restore(&mut self, _: ShardId, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn batch(&mut self, _: &StoredBatch) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// What is known of a queue: append times of its batches by offset, from its start on.
#[derive(Clone, Default)]
struct Queue {
    times: BTreeMap<u64, i64>,
    next: u64,
    /// Below this all was reported durable.
    durable: u64,
    /// Trimmed at least to here, and at most to there.
    start: (u64, u64),
}

struct World {
    vfs: SimVfs,
    store: Store,
    background: Background,
    queues: BTreeMap<u64, Queue>,
    now: i64,
    /// Appended and not reported durable.
    in_flight: Vec<u64>,
    trims_in_flight: Vec<TrimRow>,
}

fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes: 64 << 10,
        segment_bytes_max: 128 << 10,
        checkpoint_bytes: 128 << 10,
        ..small()
    }
}

fn open(vfs: &SimVfs, now: i64) -> Option<(Store, Background)> {
    let opened = Store::open_manual(
        Arc::new(vfs.clone()),
        dir(),
        config(),
        Timestamp(now),
        &mut Stateless,
    );
    match opened {
        Ok(opened) => Some(opened),
        Err(error) => {
            assert!(!vfs.is_on(), "only a power cut ends it: {error}");
            None
        }
    }
}

fn rule(now: i64, queue: QueueId) -> Rule {
    let keep = if queue.0 < YEAR_QUEUES { HOUR } else { YEAR };
    Rule {
        before: Some(Timestamp(now - keep)),
        ..Rule::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let vfs = SimVfs::new(seed);
        let (store, background) = open(&vfs, 0).unwrap();
        Self {
            vfs,
            store,
            background,
            queues: BTreeMap::new(),
            now: 0,
            in_flight: Vec::new(),
            trims_in_flight: Vec::new(),
        }
    }

    fn append(&mut self, number: u64) {
        let queue = self.queues.entry(number).or_default();
        let section = section(number, queue.next);
        let shard = u32::try_from(number % 3).unwrap();
        let unit = [batch(shard, number, 1, self.now, &section)];
        loop {
            match self.store.appender.append(&unit) {
                Ok(appended) => {
                    assert_eq!(appended[0].base_offset.0, queue.next);
                    queue.times.insert(queue.next, self.now);
                    queue.next += 1;
                    self.in_flight.push(number);
                    return;
                }
                Err(_) if !self.vfs.is_on() => return,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            let _ = self.background.flush() | self.background.prepare();
            let _ = self.background.write_file();
        }
    }

    fn settle(&mut self) {
        while self.background.flush() | self.background.prepare() {}
        let tail = self.store.appender.tail();
        let settled = self.store.appender.settle();
        if settled.is_ok_and(|settled| settled == tail) {
            for number in std::mem::take(&mut self.in_flight) {
                let queue = self.queues.get_mut(&number).unwrap();
                queue.durable = queue.next;
            }
            for row in std::mem::take(&mut self.trims_in_flight) {
                let queue = self.queues.get_mut(&row.queue.0).unwrap();
                queue.start.0 = row.start.0;
            }
        }
        if self.store.appender.checkpoint_due(Timestamp(self.now)) {
            self.store
                .appender
                .checkpoint(Timestamp(self.now), Vec::new());
        }
        while self.background.write_file() {}
    }

    fn expire(&mut self) {
        let now = self.now;
        let mut pass = Expiry::new(Timestamp(now), Some(Timestamp(now - HOUR)), 0);
        while !pass.is_done() && self.vfs.is_on() {
            let found = self
                .store
                .reader
                .expire(&mut pass, &|queue| Some(rule(now, queue)));
            let Ok(trims) = found else { continue };
            for (shard, rows) in trims {
                if self
                    .store
                    .appender
                    .trim(shard, Timestamp(now), &rows)
                    .is_ok()
                {
                    for row in &rows {
                        let queue = self.queues.get_mut(&row.queue.0).unwrap();
                        queue.start.1 = row.start.0;
                    }
                    self.trims_in_flight.extend(rows);
                }
                self.settle();
            }
        }
    }

    fn reclaim(&mut self) {
        while self.background.reclaim() {}
        while self.background.write_file() | self.background.prepare() {}
    }

    /// Every live batch is there, byte for byte, and nothing else.
    fn check(&self) {
        for (number, queue) in &self.queues {
            check_queue(&self.store.reader, *number, queue);
        }
    }

    fn crash(&mut self, crash: Crash) {
        self.vfs = self.vfs.crash(crash);
        let (store, background) = open(&self.vfs, self.now).unwrap();
        self.store = store;
        self.background = background;
        self.in_flight.clear();
        self.trims_in_flight.clear();
        for (number, queue) in &mut self.queues {
            let bounds = self.store.reader.bounds(QueueId(*number));
            let (least, most) = queue.start;
            assert!(bounds.next.0 >= queue.durable, "queue {number}: {bounds:?}");
            assert!((least..=most).contains(&bounds.start.0), "queue {number}");
            queue.next = bounds.next.0;
            queue.durable = bounds.next.0;
            queue.start = (bounds.start.0, bounds.start.0);
            queue.times.split_off(&bounds.next.0);
        }
        self.check();
    }

    /// Bytes of all files for each live byte, in hundredths.
    fn ratio(&self) -> u64 {
        self.vfs.used() * 100 / self.store.reader.stats().live_bytes.max(1)
    }
}

fn check_queue(reader: &Reader, number: u64, queue: &Queue) {
    let id = QueueId(number);
    let bounds = reader.bounds(id);
    let mut at = bounds.start;
    let mut bytes = 0;
    while at < bounds.next {
        let mut entries = Vec::new();
        reader.entries(id, at, 64, &mut entries).unwrap();
        assert!(!entries.is_empty(), "queue {number} from {at}");
        for entry in entries {
            assert_eq!(entry.base_offset, at);
            assert_eq!(entry.append_time.0, queue.times[&at.0]);
            let stored = reader.read_entry(&entry).unwrap();
            assert_eq!(stored.section[..], section(number, at.0), "{number} {at}");
            assert_eq!(stored.header.queue, id);
            bytes += stored.header.stored_bytes();
            at = entry.next_offset();
        }
    }
    assert_eq!(bounds.bytes, bytes, "queue {number}");
    let mut none = Vec::new();
    reader.entries(id, bounds.next, 1, &mut none).unwrap();
    assert_eq!(none, []);
}

/// Four of five batches belong to topics of an hour, the fifth to one of a year, in all segments.
/// A log in which segments were rewritten, since one of two queues went, with two generations since.
pub(crate) fn rewritten(vfs: &SimVfs) -> (Store, Background) {
    let (mut store, background) = Store::open_manual(
        Arc::new(vfs.clone()),
        dir(),
        small(),
        Timestamp(0),
        &mut Stateless,
    )
    .unwrap();
    let settle = |store: &mut Store| {
        background.run_all();
        store.appender.settle().unwrap();
        background.run_all();
    };
    for number in 0..400_i64 {
        let queue = if number % 4 == 0 { 1 } else { 2 };
        let unit = [batch(0, queue, 1, number, &[7; 900])];
        store.appender.append(&unit).unwrap();
        settle(&mut store);
        if number % 40 == 39 {
            assert!(store.appender.checkpoint(Timestamp(number), Vec::new()));
            background.run_all();
        }
    }
    let rule = Rule {
        before: Some(Timestamp(399)),
        ..Rule::default()
    };
    let row = store.reader.expire_queue(QueueId(2), &rule).unwrap();
    let (shard, row) = row.unwrap();
    store.appender.trim(shard, Timestamp(400), &[row]).unwrap();
    for _ in 0..3 {
        settle(&mut store);
        assert!(store.appender.checkpoint(Timestamp(500), Vec::new()));
        background.run_all();
    }
    assert!(store.reader.stats().segments_rewritten > 2);
    (store, background)
}

#[test]
fn a_rewritten_segment_is_whole_for_scrubber_and_verification() {
    let vfs = SimVfs::new(31);
    let (store, background) = rewritten(&vfs);
    while background.scrub() {}
    assert_eq!(store.reader.stats().quarantined, 0);
    drop((store, background));
    let offline = Offline::open(Arc::new(vfs.clone()), dir()).unwrap();
    let verified = offline.verify(&mut |_| {}).unwrap();
    assert!(verified.is_clean(), "{verified:#?}");
}

#[test]
fn an_hour_and_a_year_interleaved_take_twice_what_is_live() {
    let mut world = World::new(1);
    let mut worst = 0;
    let mut steady = 0;
    for hour in 0..10_500_i64 {
        world.now = hour * HOUR;
        for number in [1, 2, 101, 3, 4] {
            world.append(number);
        }
        if hour % 10 == 0 {
            world.settle();
            world.expire();
            world.reclaim();
        }
        if hour % 500 == 0 && hour >= 1000 {
            let stats = world.store.reader.stats();
            eprintln!(
                "hour {hour}: {} % of {} live bytes on disk, {} segments, {} removed, {} rewritten, {} bytes moved",
                world.ratio(),
                stats.live_bytes,
                stats.segments,
                stats.segments_removed,
                stats.segments_rewritten,
                stats.moved_bytes
            );
        }
        if hour % 10 == 0 && hour >= YEAR / HOUR {
            worst = worst.max(world.ratio());
            steady += 1;
        }
    }
    world.check();
    let stats = world.store.reader.stats();
    eprintln!(
        "steady state over {steady} looks: at most {}.{:02} bytes on disk for each live byte; {} bytes moved for {} appended",
        worst / 100,
        worst % 100,
        stats.moved_bytes,
        stats.tail
    );
    assert!(worst <= 200, "{worst} %");
    assert!(stats.segments_rewritten > 10);
    world.crash(Crash::LoseAll);
}

/// Cuts power at random moments of appending, trimming, removing and rewriting.
#[test]
fn nothing_live_goes_in_a_crash() {
    let seeds = std::env::var("TIDEGATE_RECLAIM_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let (mut rewritten, mut removed) = (0, 0);
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| crash_run(seed));
        let (more_rewritten, more_removed) = run.unwrap_or_else(|_| panic!("failing seed: {seed}"));
        rewritten += more_rewritten;
        removed += more_removed;
    }
    eprintln!("{seeds} seeds: {rewritten} segments rewritten, {removed} removed");
    assert!(rewritten > seeds / 4 && removed > seeds / 4);
}

fn crash_run(seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let mut world = World::new(seed);
    let (mut rewritten, mut removed) = (0, 0);
    for _ in 0..8 {
        world.vfs.power_off_after(200 + random.below(1500));
        // Some boots leave segments without anything of a year.
        let kinds = if random.below(2) == 0 { 3 } else { 5 };
        for _ in 0..400 {
            world.now += i64::try_from(random.below(u64::try_from(HOUR / 4).unwrap())).unwrap();
            for _ in 0..1 + random.below(6) {
                let number = [1, 2, 3, 101, 102][usize::try_from(random.below(kinds)).unwrap()];
                world.append(number);
            }
            match random.below(8) {
                0..3 => world.settle(),
                3..5 => {
                    world.settle();
                    world.expire();
                }
                5..7 => {
                    for _ in 0..random.below(20) {
                        let _ = world.background.reclaim();
                    }
                }
                _ => world.reclaim(),
            }
            if !world.vfs.is_on() {
                break;
            }
        }
        let stats = world.store.reader.stats();
        rewritten += stats.segments_rewritten;
        removed += stats.segments_removed;
        let crash = match random.below(4) {
            0 => Crash::LoseAll,
            1 => Crash::KeepAll,
            _ => Crash::Subset {
                seed: random.next(),
                block: 512 << random.below(4),
            },
        };
        world.crash(crash);
    }
    (rewritten, removed)
}

/// A world with many sealed segments, half of whose bytes are dead and nothing reclaimed yet.
fn half_dead() -> World {
    let mut world = World::new(7);
    for round in 0..1500 {
        world.now = round * 60_000;
        world.append(1);
        world.append(2);
        world.append(101);
        if round % 20 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.now += 6000;
    for _ in 0..2 {
        world.now += 6000;
        world.settle();
    }
    world
}

fn entry_of(reader: &Reader, queue: u64, offset: u64) -> IndexEntry {
    let mut entries = Vec::new();
    reader
        .entries(QueueId(queue), Offset(offset), 1, &mut entries)
        .unwrap();
    entries[0]
}

#[test]
fn readers_follow_a_batch_that_moves_and_see_one_that_goes() {
    let mut world = half_dead();
    let live = entry_of(&world.store.reader, 101, 30);
    let dead = entry_of(&world.store.reader, 1, 30);
    let held = world.store.reader.read_entry(&live).unwrap();
    world.expire();
    world.reclaim();
    let stats = world.store.reader.stats();
    assert!(stats.segments_rewritten > 3, "{stats:?}");
    assert_eq!(held.section[..], section(101, 30), "what is held stays");
    let reader = &world.store.reader;
    let moved = entry_of(reader, 101, 30);
    assert_ne!(moved.position, live.position);
    for entry in [&live, &moved] {
        let batch = reader.read_entry(entry).unwrap();
        assert_eq!(batch.section[..], section(101, 30));
    }
    let found = reader.batch(live.shard, live.seq).unwrap().unwrap();
    assert_eq!(found.header.base_offset, Offset(30));
    assert!(matches!(
        reader.read_entry(&dead),
        Err(ReadError::NotFound { .. })
    ));
    assert_eq!(reader.position_of(dead.shard, dead.seq).unwrap(), None);
    assert!(reader.batch(dead.shard, dead.seq).unwrap().is_none());
    assert_eq!(reader.stats().quarantined, 0);
    // Trimmed, though its segment is still there.
    let next = reader.bounds(QueueId(101)).next;
    let last = entry_of(reader, 101, next.0 - 1);
    let row = TrimRow {
        queue: QueueId(101),
        start: next,
        bytes: 0,
    };
    world
        .store
        .appender
        .trim(ShardId(2), Timestamp(0), &[row])
        .unwrap();
    world.trims_in_flight.push(row);
    world.settle();
    let reader = &world.store.reader;
    assert!(reader.position_of(last.shard, last.seq).unwrap().is_some());
    assert!(reader.batch(last.shard, last.seq).unwrap().is_none());
    assert!(reader.batch(ShardId(2), Seq(1 << 40)).unwrap().is_none());
}

#[test]
fn a_stale_index_of_a_rewritten_segment_is_made_anew() {
    let mut world = half_dead();
    let is_index = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".qix");
    let indexes = world.vfs.files().into_iter().filter(is_index);
    let old = indexes
        .map(|path| (path.clone(), world.vfs.contents(&path).unwrap()))
        .collect::<Vec<_>>();
    world.expire();
    world.reclaim();
    let mut stale = 0;
    for (path, bytes) in old {
        if let Ok(file) = world.vfs.open(&path) {
            stale += u32::from(world.vfs.contents(&path).unwrap() != bytes);
            file.write_all_at(&bytes, 0).unwrap();
            file.sync().unwrap();
        }
    }
    assert!(stale > 3);
    world.crash(Crash::KeepAll);
    world.check();
}

/// A generation that can't be read back keeps all of the log behind it.
#[test]
fn nothing_goes_behind_a_damaged_snapshot() {
    let mut world = half_dead();
    let is_part = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".part");
    let parts = world.vfs.files().into_iter().filter(is_part);
    for part in parts {
        if !world.vfs.contents(&part).unwrap().is_empty() {
            world.vfs.rot(&part, 0, 1).unwrap();
        }
    }
    let before = world.store.reader.stats();
    world.expire();
    world.reclaim();
    let stats = world.store.reader.stats();
    assert_eq!(stats.segments_removed + stats.segments_rewritten, 0);
    assert_eq!(stats.segments, before.segments);
    assert!(stats.live_bytes < before.live_bytes / 2 * 3 / 2);
}

/// Rot in a live batch: its segment stays as it is, what is whole in it is served.
#[test]
fn a_damaged_segment_is_not_rewritten() {
    let mut world = half_dead();
    let entry = entry_of(&world.store.reader, 101, 30);
    let file = dir().join("log/00000000000000000000.seg");
    world.vfs.rot(&file, entry.position.0 + 140, 1).unwrap();
    let size = world.vfs.contents(&file).unwrap().len();
    world.expire();
    world.reclaim();
    assert_eq!(world.vfs.contents(&file).unwrap().len(), size);
    assert!(world.store.reader.stats().segments_rewritten > 2);
    let reader = &world.store.reader;
    assert!(matches!(
        reader.read_entry(&entry_of(reader, 101, 30)),
        Err(ReadError::Quarantined { .. })
    ));
    let whole = reader.read_entry(&entry_of(reader, 101, 31)).unwrap();
    assert_eq!(whole.section[..], section(101, 31));
}

/// Nothing but what consumers did: none of it is needed once the snapshots have it.
#[test]
fn control_records_go_when_snapshots_hold_what_they_said() {
    let mut world = World::new(9);
    for _ in 0..4000 {
        let unit = [batch(1, 0, 0, world.now, &[5; 200])];
        while let Err(error) = world.store.appender.append(&unit) {
            assert!(error.is_retryable());
            world.settle();
        }
        world.now += 100;
    }
    world.settle();
    world.reclaim();
    let stats = world.store.reader.stats();
    assert!(stats.segments_removed > 3, "{stats:?}");
    assert!(stats.log_bytes < 640 << 10, "{stats:?}");
    // A quiet log still gets the checkpoints that let full segments go.
    let mut checkpoints = 0;
    for _ in 0..20 {
        world.now += 5000;
        if world.store.appender.checkpoint_due(Timestamp(world.now)) {
            checkpoints += 1;
        }
        world.settle();
        world.reclaim();
    }
    assert!((1..=4).contains(&checkpoints), "{checkpoints}");
    assert!(world.store.reader.stats().segments <= 3);
}
