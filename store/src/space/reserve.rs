//! Space that is kept for a full disk: acks, trims and deletes need some to give more back.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::config::SEGMENT_BYTES_MIN;
use crate::folder::{Folder, RESERVE};
use crate::sync::lock;
use crate::vfs::{BLOCK_BYTES, Vfs};

/// The reserve has the size of so many segments of the current size …
const SEGMENTS: u64 = 2;
/// … but takes no more than this part of the space that is free when it is first made.
const FREE_SHARE: u64 = 8;

/// A file without content that can be given up at any time.
pub(crate) struct Reserve {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    path: PathBuf,
    state: Mutex<State>,
    bytes: AtomicU64,
    broken: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The size that it had before it was given up, and must have again.
    whole: u64,
}

impl Reserve {
    pub(crate) fn open(vfs: Arc<dyn Vfs>, folder: Folder) -> Self {
        let path = folder.log.join(RESERVE);
        let found = vfs.open(&path).and_then(|file| file.size()).unwrap_or(0);
        Self {
            vfs,
            folder,
            path,
            state: Mutex::new(State { whole: found }),
            bytes: AtomicU64::new(found),
            broken: AtomicBool::new(false),
        }
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was given up and isn't whole again: until then new messages are refused.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Gives its space back to the disk, for what can't do without. `false` if it holds none.
    pub(crate) fn release(&self) -> bool {
        let _state = lock(&self.state);
        if self.bytes() == 0 {
            return false;
        }
        // From here on messages are refused, so that they don't take what is freed for others.
        self.broken.store(true, Ordering::Release);
        if let Err(error) = self.vfs.unlink(&self.path) {
            tracing::error!(%error, "the space reserve can't be given up");
            return false;
        }
        tracing::warn!(
            bytes = self.bytes(),
            "the disk is full: the space reserve is given up"
        );
        self.bytes.store(0, Ordering::Relaxed);
        true
    }

    /// The largest size from `sizes`, by halves, that a segment for control batches may take of it.
    /// Half of the reserve is for what gives space back: deletes, which may take `all`, snapshots
    /// and rewriting.
    pub(crate) fn spares(&self, sizes: RangeInclusive<u64>, all: bool) -> Option<u64> {
        let kept = if all { 0 } else { lock(&self.state).whole / 2 };
        let (min, mut size) = sizes.into_inner();
        let most = self.bytes().saturating_sub(kept);
        while size > most && size > min {
            size = (size / 2 / BLOCK_BYTES * BLOCK_BYTES).max(min);
        }
        (size <= most).then_some(size)
    }

    /// Makes it as large as it should be beside segments of `segment_bytes`, or as large as fits.
    /// `false` if there was nothing to do or nothing could be done.
    pub(crate) fn fill(&self, segment_bytes: u64) -> bool {
        let mut state = lock(&self.state);
        let have = self.bytes();
        let Ok(free) = self.vfs.free_space(&self.folder.log) else {
            return false;
        };
        let wanted = if self.is_broken() {
            state.whole
        } else {
            let most = SEGMENTS.saturating_mul(segment_bytes);
            most.min(free.saturating_add(have) / FREE_SHARE)
        };
        let wanted = wanted / BLOCK_BYTES * BLOCK_BYTES;
        if wanted <= have || wanted < SEGMENT_BYTES_MIN {
            self.broken.fetch_and(wanted > have, Ordering::AcqRel);
            return false;
        }
        let fits = free.saturating_add(have) / BLOCK_BYTES * BLOCK_BYTES;
        let size = wanted.min(fits);
        // A partly filled reserve grows only where it becomes whole: no churn on a full disk.
        if size <= have || size < SEGMENT_BYTES_MIN || (have > 0 && size < wanted) {
            return false;
        }
        match self.make(size) {
            Ok(()) => {
                self.bytes.store(size, Ordering::Relaxed);
                if size >= wanted {
                    state.whole = size;
                    if self.broken.swap(false, Ordering::AcqRel) {
                        tracing::info!(bytes = size, "the space reserve is whole again");
                    }
                }
                true
            }
            Err(error) => {
                self.bytes.store(0, Ordering::Relaxed);
                let _ = self.vfs.unlink(&self.path);
                tracing::debug!(%error, bytes = size, "the space reserve can't be made");
                false
            }
        }
    }

    /// Nothing is synced: a reserve that a crash takes away is made again.
    fn make(&self, size: u64) -> io::Result<()> {
        self.vfs.create(&self.path)?.allocate(size)
    }
}
