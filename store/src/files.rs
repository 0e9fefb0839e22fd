//! Work with files that the owner doesn't wait for: index files and snapshots, in order; key indexes
//! when there is nothing else to do.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::folder::Folder;
use crate::index::SealedIndex;
use crate::keys::SealedKeys;
use crate::segment::is_full;
use crate::segments::Segments;
use crate::snapshot::{Checkpoint, Manifest, Snapshots};
use crate::space::{Nudge, Reserve};
use crate::sync::{lock, wait};
use crate::vfs::Vfs;

/// Sealed segments whose index file may wait to be written; beyond it no new segment is begun.
const INDEXES_WAITING_MAX: usize = 8;

/// Sealed segments whose key index may wait to be made; those beyond are when somebody asks.
const KEYS_WAITING_MAX: usize = 64;

pub(crate) enum Job {
    /// Write a sealed segment's index file.
    Index(Arc<SealedIndex>),
    /// Write a snapshot generation.
    Checkpoint(Checkpoint),
}

pub(crate) struct Files {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    state: Mutex<State>,
    changed: Condvar,
    segments: Arc<Segments>,
    reserve: Arc<Reserve>,
    snapshots: Mutex<Snapshots>,
    /// See [`Snapshots::floor`].
    floor: AtomicU64,
    /// Told after each checkpoint: what is below the floor may go.
    nudge: Arc<Nudge>,
    /// Told after each job: an append that was refused because of it is worth another try.
    when_done: Box<dyn Fn() + Send + Sync>,
    checkpoints: AtomicU64,
    failures: AtomicU64,
}

struct State {
    jobs: VecDeque<Job>,
    keys: VecDeque<Arc<SealedKeys>>,
    /// A checkpoint is waiting or being written.
    checkpointing: bool,
    stopped: bool,
}

impl Files {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        folder: Folder,
        segments: Arc<Segments>,
        reserve: Arc<Reserve>,
        nudge: Arc<Nudge>,
        snapshots: Snapshots,
        when_done: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            when_done,
            floor: AtomicU64::new(snapshots.floor()),
            segments,
            reserve,
            nudge,
            vfs,
            folder,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                keys: VecDeque::new(),
                checkpointing: false,
                stopped: false,
            }),
            changed: Condvar::new(),
            snapshots: Mutex::new(snapshots),
            checkpoints: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, job: Job) {
        let mut state = lock(&self.state);
        state.checkpointing |= matches!(job, Job::Checkpoint(_));
        state.jobs.push_back(job);
        self.changed.notify_one();
    }

    /// Has a segment's key index made, some time.
    pub(crate) fn add_keys(&self, keys: Option<Arc<SealedKeys>>) {
        let mut state = lock(&self.state);
        if state.keys.len() < KEYS_WAITING_MAX {
            state.keys.extend(keys);
            self.changed.notify_one();
        }
    }

    /// Whether a checkpoint is waiting or being written; there is never a second one.
    pub(crate) fn is_checkpointing(&self) -> bool {
        lock(&self.state).checkpointing
    }

    /// Whether so many index files wait that no new segment should be begun.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.state).jobs.len() >= INDEXES_WAITING_MAX
    }

    /// Snapshot generations written since the store was opened.
    pub(crate) fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// Index files and snapshots that could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Does the oldest job, if there is one, else makes a key index.
    pub(crate) fn run_once(&self) -> bool {
        let (job, keys) = {
            let mut state = lock(&self.state);
            let job = state.jobs.pop_front();
            let keys = match job {
                Some(_) => None,
                None => state.keys.pop_front(),
            };
            (job, keys)
        };
        if let Some(keys) = &keys
            && let Err(error) = keys.ensure()
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(segment = keys.base(), %error, "making a key index failed");
        }
        let Some(job) = job else {
            return keys.is_some();
        };
        match job {
            Job::Index(index) => {
                if let Err(error) = self.write_index(&index) {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(segment = index.base(), %error, "writing a queue index failed");
                }
            }
            Job::Checkpoint(checkpoint) => {
                let (written, floor) = {
                    let mut snapshots = lock(&self.snapshots);
                    let written = snapshots.write(self.vfs.as_ref(), &self.reserve, checkpoint);
                    (written, snapshots.floor())
                };
                self.floor.store(floor, Ordering::Release);
                self.nudge.nudge();
                match written {
                    Ok(()) => self.checkpoints.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        tracing::warn!(%error, "writing a snapshot failed; the next one holds all of it");
                        self.failures.fetch_add(1, Ordering::Relaxed)
                    }
                };
                lock(&self.state).checkpointing = false;
            }
        }
        (self.when_done)();
        true
    }

    fn write_index(&self, index: &SealedIndex) -> io::Result<()> {
        // Without its segment nobody looks for it.
        let Some(segment) = self.segments.at_base(index.base()) else {
            return Ok(());
        };
        let nonce = segment.nonce().map_err(io::Error::other)?;
        let write = || index.write(self.vfs.as_ref(), &self.folder, nonce);
        match write() {
            Err(error) if is_full(&error) && self.reserve.release() => write(),
            written => written,
        }
    }

    /// Segments with a base below this are not needed to open the folder, whichever of the two
    /// kept generations it is opened from.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Runs `f` with the generations that are kept, newest first: none is written meanwhile, no
    /// file of theirs is removed, and the floor stays.
    pub(crate) fn with_generations<R>(&self, f: impl FnOnce(&[Manifest]) -> R) -> R {
        f(lock(&self.snapshots).kept())
    }

    /// See [`Snapshots::verify`].
    pub(crate) fn verify_snapshots(&self) -> io::Result<()> {
        lock(&self.snapshots).verify(self.vfs.as_ref())
    }

    /// Does what comes until [`Files::stop`] and all before it is done.
    pub(crate) fn run(&self) {
        loop {
            let mut state = lock(&self.state);
            while state.jobs.is_empty() && state.keys.is_empty() && !state.stopped {
                state = wait(&self.changed, state);
            }
            if state.stopped {
                // They are made when somebody asks; a stop needn't wait for them.
                state.keys.clear();
            }
            drop(state);
            if !self.run_once() {
                return;
            }
        }
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }
}
