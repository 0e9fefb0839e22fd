//! Group commit: what waits in the ring is written in large pieces and shares one sync.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use crate::error::Fenced;
use crate::latency::Latency;
use crate::position::LogPosition;
use crate::ring::{CHUNK_BYTES, Extent, Ring};
use crate::segment::Segment;
use crate::sync::{lock, wait};

/// Most bytes that share one sync, so that the first of them doesn't wait for ever.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Told after each sync how far the log is durable, and once when it is fenced. It also runs when
/// a refused append is worth another try. Called on the store's threads: it must only wake others.
pub type OnDurable = Arc<dyn Fn(Result<LogPosition, Fenced>) + Send + Sync>;

/// What owner, flush thread and readers share.
pub(crate) struct Commit {
    ring: Mutex<Ring>,
    filled: Condvar,
    waiting: AtomicBool,
    stopped: AtomicBool,
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
        let notify = !ring.is_empty() && self.waiting.load(Ordering::Relaxed);
        drop(ring);
        if notify {
            self.filled.notify_one();
        }
        result
    }

    /// Writes and syncs what waits. `false` if nothing does.
    pub(crate) fn flush_once(&self) -> bool {
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
            // Only this thread sets it, and it stops at the first.
            let _ = self.fence.set(fenced);
            self.wake_owner();
            return false;
        }
        self.durable.store(end, Ordering::Release);
        self.latency.flushed();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        drop(group);
        self.wake_owner();
        true
    }

    fn write_and_sync(&self, group: &[Extent], end: u64) -> Result<(), Fenced> {
        let fence = |action, error: std::io::Error, segment: &Segment| Fenced {
            action,
            cause: format!("{}: {error}", segment.path().display()).into(),
            durable: self.durable(),
        };
        let generation = self.generation();
        for extent in group {
            let segment = &extent.to.segment;
            let mut position = extent.position;
            for piece in extent.bytes.chunks(CHUNK_BYTES) {
                extent
                    .to
                    .file
                    .write_all_at(piece, position - segment.base())
                    .map_err(|error| fence("write", error, segment))?;
                position += piece.len() as u64;
            }
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
            drop(ring);
            if !self.flush_once() {
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
