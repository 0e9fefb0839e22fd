//! A full disk: messages are refused, acks and deletes go on, and it heals without a restart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tidegate_model::{Offset, QueueId, ShardId, Timestamp};
use tidegate_store::sim::{Crash, SimVfs};
use tidegate_store::{
    AppendError, Background, LogPosition, RealVfs, Store, StoreConfig, TrimRow, Vfs,
};

use crate::reclaim::{Stateless, section};
use crate::support::{batch, dir, small};

/// Capacity of the simulated disk: a handful of the segments of [`small`].
const CAPACITY: u64 = 1 << 20;

struct Node {
    vfs: SimVfs,
    store: Store,
    background: Background,
    now: i64,
}

impl Node {
    fn open(vfs: &SimVfs, now: i64) -> Self {
        Self::open_with(vfs, now, small())
    }

    fn open_with(vfs: &SimVfs, now: i64, config: StoreConfig) -> Self {
        let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
        let (store, background) =
            Store::open_manual(shared, dir(), config, Timestamp(now), &mut Stateless).unwrap();
        let vfs = vfs.clone();
        let mut node = Self {
            vfs,
            store,
            background,
            now,
        };
        node.pump();
        node
    }

    /// A second goes by, and all there is to do is done.
    fn pump(&mut self) {
        self.now += 1000;
        let now = Timestamp(self.now);
        self.store.appender.tick(now);
        self.background.run_all();
        self.store.appender.settle().unwrap();
        if self.store.appender.checkpoint_due(now) {
            self.store.appender.checkpoint(now, Vec::new());
        }
        self.background.run_all();
    }

    fn publish(&mut self, queue: u64) -> Result<(), AppendError> {
        let offset = self.store.appender.next_offset(QueueId(queue)).0;
        let section = section(queue, offset);
        let unit = [batch(0, queue, 1, self.now, &section)];
        self.store.appender.append(&unit).map(drop)
    }

    /// Publishes until the disk is full and stays so.
    fn fill(&mut self) {
        let mut refused = 0;
        for number in 0..20_000 {
            match self.publish(5 + number % 2) {
                Ok(()) => refused = 0,
                Err(AppendError::NoSpace) => refused += 1,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            if refused == 20 {
                return;
            }
            if number % 8 == 0 || refused > 0 {
                self.pump();
            }
        }
        panic!("the disk is never full: {:?}", self.store.reader.stats());
    }

    /// Appends an ack, with a few tries while space is looked for. `false` if there is none.
    fn ack(&mut self) -> bool {
        let unit = [batch(0, 0, 0, self.now, &[7; 300])];
        for _ in 0..10 {
            match self.store.appender.append(&unit) {
                Ok(_) => return true,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            self.pump();
        }
        false
    }

    /// Appends acks until not even the reserve has space for them. Where snapshots let segments
    /// of acks go, they can go on for ever.
    fn ack_all(&mut self) -> usize {
        (0..300).take_while(|_| self.ack()).count()
    }

    fn remove_queue(&mut self, queue: u64) {
        let row = TrimRow::removal(QueueId(queue));
        for _ in 0..10 {
            let now = Timestamp(self.now);
            match self.store.appender.trim(ShardId(0), now, &[row]) {
                Ok(_) => return,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            self.pump();
        }
        panic!("a delete is refused: {:?}", self.store.reader.stats());
    }

    /// Messages are taken again within so many seconds, for good.
    fn heals(&mut self, queue: u64) {
        let mut taken = 0;
        for _ in 0..60 {
            self.pump();
            match self.publish(queue) {
                Ok(()) => taken += 1,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
        self.pump();
        let stats = self.store.reader.stats();
        assert!(taken >= 20, "{taken} of 60: {stats:?}");
        assert!(!stats.reserve_broken, "{stats:?}");
        assert!(stats.reserve_bytes >= 32 << 10, "{stats:?}");
        assert!(self.vfs.used() <= CAPACITY);
    }

    fn check(&self, queue: u64) {
        let reader = &self.store.reader;
        let bounds = reader.bounds(QueueId(queue));
        let mut at = bounds.start;
        while at < bounds.next {
            let mut entries = Vec::new();
            reader
                .entries(QueueId(queue), at, 16, &mut entries)
                .unwrap();
            assert!(!entries.is_empty(), "queue {queue} from {at}");
            for entry in entries {
                assert_eq!(entry.base_offset, at);
                let stored = reader.read_entry(&entry).unwrap();
                assert_eq!(stored.section[..], section(queue, at.0));
                at = entry.next_offset();
            }
        }
    }
}

#[test]
fn acks_and_deletes_go_on_and_messages_again_once_a_topic_is_gone() {
    let vfs = SimVfs::new(1);
    vfs.set_capacity(Some(CAPACITY));
    let mut node = Node::open(&vfs, 0);
    node.fill();
    let full = node.store.reader.stats();
    assert!(full.log_bytes > CAPACITY * 6 / 10, "most is log: {full:?}");
    assert_eq!(full.file_failures, 0, "snapshots and indexes have space");
    node.check(5);
    let acks = node.ack_all();
    let stats = node.store.reader.stats();
    eprintln!("{acks} acks on the full disk: {stats:?}");
    assert!(acks >= 60, "more than a segment of the reserve has: {acks}");
    assert_eq!(stats.file_failures, 0, "{stats:?}");
    assert!(stats.reserve_broken, "{stats:?}");
    assert!(matches!(node.publish(5), Err(AppendError::NoSpace)));
    let left_over = |path: &PathBuf| path.to_string_lossy().ends_with(".tmp");
    assert!(!vfs.files().iter().any(left_over), "{:?}", vfs.files());
    node.check(6);

    let next = node.store.reader.bounds(QueueId(6)).next;
    node.remove_queue(5);
    node.heals(6);
    assert!(node.store.reader.bounds(QueueId(6)).next > next);
    assert_eq!(node.store.reader.bounds(QueueId(5)).next, Offset(0));
    node.check(6);

    let rebooted = vfs.crash(Crash::LoseAll);
    rebooted.set_capacity(Some(CAPACITY));
    let again = Node::open(&rebooted, node.now);
    let bounds = node.store.reader.bounds(QueueId(6));
    assert_eq!(again.store.reader.bounds(QueueId(6)), bounds);
    again.check(6);
}

#[test]
fn a_full_disk_waits_for_no_checkpoint_interval() {
    let vfs = SimVfs::new(1);
    vfs.set_capacity(Some(CAPACITY));
    let config = StoreConfig {
        checkpoint_bytes: 1 << 30,
        checkpoint_interval_ms: 3_600_000,
        ..small()
    };
    let mut node = Node::open_with(&vfs, 0, config);
    node.fill();
    node.remove_queue(5);
    // Within a minute, where two checkpoints would take two hours.
    node.heals(6);
    node.check(6);
}

#[test]
fn a_folder_opens_on_a_full_disk_and_heals_there() {
    for (seed, acks) in [(2, 0), (3, 30), (4, 300)] {
        let vfs = SimVfs::new(seed);
        vfs.set_capacity(Some(CAPACITY));
        let mut node = Node::open(&vfs, 0);
        node.fill();
        let _ = (0..acks).take_while(|_| node.ack()).count();
        node.pump();
        let bounds = node.store.reader.bounds(QueueId(6));
        let vfs = vfs.crash(Crash::KeepAll);
        vfs.set_capacity(Some(vfs.used()));
        let mut node = Node::open(&vfs, node.now);
        assert_eq!(node.store.reader.bounds(QueueId(6)), bounds);
        node.remove_queue(5);
        node.heals(6);
        node.check(6);
    }
}

/// Another program takes all that is free, and gives it back.
#[test]
fn space_that_others_give_back_is_taken() {
    let vfs = SimVfs::new(5);
    let mut node = Node::open(&vfs, 0);
    for _ in 0..10 {
        node.publish(6).unwrap();
    }
    node.pump();
    vfs.set_capacity(Some(vfs.used()));
    node.fill();
    assert!(node.ack_all() > 20);
    vfs.set_capacity(Some(CAPACITY));
    node.heals(6);
    node.check(6);
}

/// The same on a file system of the kernel, 64 MiB small, with threads. It is mounted in a name
/// space of its own, so that nobody needs to be root.
#[test]
fn a_real_file_system_of_64_mib() {
    let may_mount = Command::new("unshare").args(["-Urm", "true"]).output();
    if !may_mount.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: unshare -Urm is not possible here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=64m tidegate \"$1\" && exec \"$2\" --exact full_disk::inside_a_small_file_system --nocapture";
    let done = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .arg(program)
        .env(SMALL_FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("healed"), "{said}");
    eprintln!("{}", said.trim());
}

const SMALL_FOLDER: &str = "TIDEGATE_TEST_SMALL_FOLDER";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn inside_a_small_file_system() {
    if let Some(folder) = std::env::var_os(SMALL_FOLDER) {
        fill_and_heal(Path::new(&folder));
    }
}

struct Real {
    store: Store,
    wakes: mpsc::Receiver<()>,
    begun: Instant,
}

impl Real {
    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.begun.elapsed().as_millis()).unwrap())
    }

    fn turn(&mut self) {
        // A wake, or the time of the next tick.
        let _ = self.wakes.recv_timeout(Duration::from_millis(20));
        let now = self.now();
        self.store.appender.tick(now);
        self.store.appender.settle().unwrap();
        if self.store.appender.checkpoint_due(now) {
            self.store.appender.checkpoint(now, Vec::new());
        }
        assert!(
            self.begun.elapsed() < PATIENCE,
            "{:?}",
            self.store.reader.stats()
        );
    }

    /// Tries until it is done or the disk has been full for so long.
    fn append(&mut self, queue: u64, section: &[u8], patience: Duration) -> Option<LogPosition> {
        let begun = Instant::now();
        let span = u16::from(queue != 0);
        loop {
            let unit = [batch(0, queue, span, self.now().0, section)];
            match self.store.appender.append(&unit) {
                Ok(appended) => return Some(appended[0].end),
                Err(AppendError::NoSpace) if begun.elapsed() > patience => return None,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            self.turn();
        }
    }
}

fn fill_and_heal(folder: &Path) {
    let config = StoreConfig {
        checkpoint_interval_ms: 500,
        ..StoreConfig::default()
    };
    let store = Store::open(
        Arc::new(RealVfs),
        &folder.join("data"),
        config,
        Timestamp(0),
        &mut Stateless,
    )
    .unwrap();
    let (wake, wakes) = mpsc::sync_channel(1);
    store.appender.on_durable(Arc::new(move |durable| {
        durable.unwrap();
        let _ = wake.try_send(());
    }));
    let mut real = Real {
        store,
        wakes,
        begun: Instant::now(),
    };
    let body = vec![3; 64 << 10];
    let mut messages = 0;
    while real.append(5, &body, Duration::from_secs(3)).is_some() {
        messages += 1;
    }
    let full = real.store.reader.stats();
    assert!(messages > 200, "{messages} of 64 KiB: {full:?}");
    for _ in 0..5000 {
        real.append(0, &[7; 300], PATIENCE).unwrap();
    }
    let last = real.store.reader.bounds(QueueId(5)).next.0 - 1;
    let mut entries = Vec::new();
    real.store
        .reader
        .entries(QueueId(5), Offset(last), 1, &mut entries)
        .unwrap();
    assert_eq!(
        real.store.reader.read_entry(&entries[0]).unwrap().section,
        body
    );

    let row = TrimRow::removal(QueueId(5));
    while let Err(error) = real.store.appender.trim(ShardId(0), Timestamp(0), &[row]) {
        assert!(error.is_retryable(), "{error}");
        real.turn();
    }
    let removed = real.begun.elapsed();
    for _ in 0..100 {
        real.append(6, &body, PATIENCE).unwrap();
    }
    let healed = real.begun.elapsed().saturating_sub(removed);
    let tail = real.store.appender.tail();
    while real.store.appender.settle().unwrap() < tail {
        real.turn();
    }
    let stats = real.store.reader.stats();
    assert_eq!(stats.quarantined, 0);
    eprintln!(
        "64 MiB tmpfs: {messages} messages of 64 KiB, then 5000 acks on the full disk; healed {} ms after the topic was removed, 100 messages more; {stats:?}",
        healed.as_millis()
    );
}
