//! Group commit: what waits in the ring is written in large pieces and shares one sync.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::error::Fenced;
use crate::latency::Latency;
use crate::position::LogPosition;
use crate::ring::{CHUNK_BYTES, Extent, Ring};
use crate::segment::Segment;
use crate::sync::{lock, wait};
use crate::vfs::BLOCK_BYTES;

/// Most bytes that share one sync, so that the first of them doesn't wait for ever.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Up to so many bytes are copied to go out in one write together with the rest of their last block.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Up to so many bytes are written by the owner itself where [`crate::Appender::flush`] lets it.
const OWNER_BYTES_MAX: usize = 16 << 10;
/// The owner waits for no disk whose last sync took longer.
const OWNER_SYNC_MAX: Duration = Duration::from_millis(1);

/// Told after each sync how far the log is durable, and once when it is fenced. It also runs when
/// a refused append is worth another try. Called on the store's threads: it must only wake others.
pub type OnDurable = Arc<dyn Fn(Result<LogPosition, Fenced>) + Send + Sync>;

/// What owner, flush thread and readers share.
pub(crate) struct Commit {
    ring: Mutex<Ring>,
    filled: Condvar,
    waiting: AtomicBool,
    stopped: AtomicBool,
    /// See [`Commit::flush_by_owner`].
    by_owner: AtomicBool,
    /// Held from taking a group until it is durable: groups become durable in order.
    flushing: Mutex<()>,
    written: AtomicU64,
    durable: AtomicU64,
    fence: OnceLock<Fenced>,
    on_durable: Mutex<Option<OnDurable>>,
    syncs: AtomicU64,
    latency: Latency,
    /// Counts up every few seconds; see [`Segment::is_hot`].
    generation: AtomicU32,
}

impl Commit {
    pub(crate) fn new(ring: Ring) -> Self {
        let durable = ring.tail();
        Self {
            ring: Mutex::new(ring),
            filled: Condvar::new(),
            waiting: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            by_owner: AtomicBool::new(false),
            flushing: Mutex::new(()),
            written: AtomicU64::new(durable),
            durable: AtomicU64::new(durable),
            fence: OnceLock::new(),
            on_durable: Mutex::new(None),
            syncs: AtomicU64::new(0),
            latency: Latency::new(),
            generation: AtomicU32::new(1),
        }
    }

    /// All before this survives a power cut.
    pub(crate) fn durable(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::Acquire))
    }

    /// All before this survives a crash of the process.
    pub(crate) fn written(&self) -> LogPosition {
        LogPosition(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    pub(crate) fn fenced(&self) -> Option<&Fenced> {
        self.fence.get()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn next_generation(&self) {
        // Zero says never; the counter needs centuries to come round to it.
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_on_durable(&self, f: OnDurable) {
        *lock(&self.on_durable) = Some(f);
    }

    /// Has the owner look again, be it at a new durable position or at a refused append.
    pub(crate) fn wake_owner(&self) {
        let callback = lock(&self.on_durable).clone();
        if let Some(callback) = callback {
            callback(match self.fence.get() {
                Some(fenced) => Err(fenced.clone()),
                None => Ok(self.durable()),
            });
        }
    }

    /// Works on the ring, then has the flush thread look at it.
    pub(crate) fn with_ring<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        let mut ring = lock(&self.ring);
        let result = f(&mut ring);
        if !ring.is_empty() {
            self.latency.filled();
        }
        let is_due = if self.by_owner.load(Ordering::Relaxed) {
            ring.waiting_bytes() > OWNER_BYTES_MAX
        } else {
            !ring.is_empty()
        };
        let notify = is_due && self.waiting.load(Ordering::Relaxed);
        drop(ring);
        if notify {
            self.filled.notify_one();
        }
        result
    }

    /// From now on little that is appended waits for the owner to say that it goes out.
    pub(crate) fn set_by_owner(&self) {
        self.by_owner.store(true, Ordering::Relaxed);
    }

    /// Has what waits flushed: here if it is little, the flush thread has nothing to do and the disk
    /// is quick, and `may_wait`; else by the flush thread. Whether it was flushed here.
    ///
    /// Two wake-ups of another thread take about as long as half a sync.
    pub(crate) fn flush_by_owner(&self, may_wait: bool) -> bool {
        let ring = lock(&self.ring);
        if ring.is_empty() || !self.waiting.load(Ordering::Relaxed) {
            // The flush thread looks by itself once it is done.
            return false;
        }
        let here = may_wait
            && ring.waiting_bytes() <= OWNER_BYTES_MAX
            && self.latency.last_sync() <= OWNER_SYNC_MAX;
        drop(ring);
        if !here {
            self.filled.notify_one();
            return false;
        }
        self.flush_group()
    }

    /// Writes and syncs what waits. `false` if nothing does, or nothing can be.
    pub(crate) fn flush_once(&self) -> bool {
        let flushed = self.flush_group();
        if flushed || self.fence.get().is_some() {
            self.wake_owner();
        }
        flushed
    }

    fn flush_group(&self) -> bool {
        let _order = lock(&self.flushing);
        let mut ring = lock(&self.ring);
        let group = ring.take(GROUP_BYTES_MAX);
        let Some(end) = group.last().map(|extent| extent.end) else {
            return false;
        };
        self.latency.taken(ring.is_empty());
        drop(ring);
        if self.fence.get().is_some() {
            return false;
        }
        if let Err(fenced) = self.write_and_sync(&group, end) {
            tracing::error!(%fenced, "the log takes nothing more");
            // Groups go one after another, and none after the first that failed.
            let _ = self.fence.set(fenced);
            return false;
        }
        self.durable.store(end, Ordering::Release);
        self.latency.flushed();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn write_and_sync(&self, group: &[Extent], end: u64) -> Result<(), Fenced> {
        let fence = |action, error: io::Error, segment: &Segment| Fenced {
            action,
            cause: format!("{}: {error}", segment.path().display()).into(),
            durable: self.durable(),
        };
        let generation = self.generation();
        for extent in group {
            let segment = &extent.to.segment;
            write(extent).map_err(|error| fence("write", error, segment))?;
            segment.mark_written(&extent.written(), generation);
        }
        self.written.store(end, Ordering::Release);
        let mut synced = None;
        let syncing = Instant::now();
        for extent in group {
            let segment = &extent.to.segment;
            if synced != Some(segment.base()) {
                extent
                    .to
                    .file
                    .sync()
                    .map_err(|error| fence("sync", error, segment))?;
                synced = Some(segment.base());
            }
        }
        self.latency.synced(syncing.elapsed());
        Ok(())
    }

    /// Flushes whatever comes, until [`Commit::stop`] and all before it is flushed, or a fence.
    pub(crate) fn run(&self) {
        loop {
            let mut ring = lock(&self.ring);
            while ring.is_empty() && !self.stopped.load(Ordering::Relaxed) {
                self.waiting.store(true, Ordering::Relaxed);
                ring = wait(&self.filled, ring);
                self.waiting.store(false, Ordering::Relaxed);
            }
            let is_done = ring.is_empty();
            drop(ring);
            if is_done {
                return;
            }
            self.flush_once();
            if self.fence.get().is_some() {
                return;
            }
        }
    }

    pub(crate) fn stop(&self) {
        let ring = lock(&self.ring);
        self.stopped.store(true, Ordering::Relaxed);
        drop(ring);
        self.filled.notify_all();
    }
}

/// Writes an extent, and zeros for what its last block lacks: nothing of the log lies there yet.
///
/// A write that ends in the middle of a block makes the kernel read that block from the disk first,
/// unless it is cached: after a start, or where a prepared segment waited for long, it is not.
fn write(extent: &Extent) -> io::Result<()> {
    let mut at = extent.position - extent.to.segment.base();
    let end = at + extent.bytes.len() as u64;
    let block = usize::try_from(BLOCK_BYTES).expect("a block is small");
    let in_last_block = usize::try_from(end % BLOCK_BYTES).expect("below a block");
    let copied = if extent.bytes.len() <= COPIED_BYTES_MAX {
        extent.bytes.len()
    } else {
        in_last_block
    };
    let (whole, rest) = extent.bytes.split_at(extent.bytes.len() - copied);
    for piece in whole.chunks(CHUNK_BYTES) {
        extent.to.file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    if in_last_block == 0 {
        return extent.to.file.write_all_at(rest, at);
    }
    let mut rest = rest.to_vec();
    rest.resize(copied + block - in_last_block, 0);
    extent.to.file.write_all_at(&rest, at)
}
