//! Preparing segments ahead of need: space reserved, zeroed in large pieces, durable, then named.
//!
//! Small writes into blocks that were written before cost one block each and no journal commit;
//! large zero writes keep the page cache's folios large (`docs/formats/segment.md`).

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tidegate_model::Timestamp;

use super::{CLASS_LOG, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, WritableSegment};
use crate::config::SEGMENT_BYTES_MIN;
use crate::folder::{Folder, SEGMENT, TEMPORARY};
use crate::position::LogPosition;
use crate::space::Reserve;
use crate::sync::{lock, wait};
use crate::vfs::{BLOCK_BYTES, Vfs, VfsFile};

const ZERO_PIECE_BYTES: usize = 1 << 20;
/// So much of a segment is written between two syncs. What is dirty at a sync is what the log's own
/// syncs may have to wait behind: with a whole segment at once they stood still for 74 ms.
const DIRTY_BYTES_MAX: u64 = 4 << 20;

/// Makes the segment at `base`: on return it is whole, zero and durable under its name.
///
/// After an error nothing is left of it, or at worst a temporary file that the next start removes.
pub(crate) fn prepare(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    base: u64,
    size: u64,
    now: Timestamp,
) -> io::Result<WritableSegment> {
    let temporary = folder.log_file(base, TEMPORARY);
    let path = folder.log_file(base, SEGMENT);
    let written = write(vfs.as_ref(), &temporary, base, size, now)
        .and_then(|done| vfs.rename(&temporary, &path).map(|()| done));
    let (file, header) = match written {
        Ok(done) => done,
        Err(error) => {
            // The space must not stay taken; if even this fails, the next start removes the file.
            let _ = vfs.unlink(&temporary);
            return Err(error);
        }
    };
    vfs.sync_dir(&folder.log)?;
    Ok(WritableSegment {
        segment: Arc::new(Segment::written(vfs.clone(), path, header)),
        file,
        nonce: header.nonce,
    })
}

/// Like [`prepare`], in half the size again and again where the disk has no space, down to `min`.
pub(crate) fn prepare_fitting(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
    base: u64,
    sizes: RangeInclusive<u64>,
    now: Timestamp,
) -> io::Result<WritableSegment> {
    let (min, mut size) = sizes.into_inner();
    loop {
        let made = prepare(vfs, folder, base, size, now);
        match made {
            Err(error) if is_full(&error) && size > min => {
                size = (size / 2 / BLOCK_BYTES * BLOCK_BYTES).max(min);
            }
            made => return made,
        }
    }
}

/// Whether an error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn write(
    vfs: &dyn Vfs,
    path: &Path,
    base: u64,
    size: u64,
    now: Timestamp,
) -> io::Result<(Arc<dyn VfsFile>, SegmentHeader)> {
    let nonce = vfs.random()?;
    let file = vfs.create(path)?;
    file.allocate(size)?;
    let header = SegmentHeader {
        base: LogPosition(base),
        size,
        nonce,
        created: now,
        class: CLASS_LOG,
    };
    file.write_all_at(&header.encode(), 0)?;
    let piece = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .min(ZERO_PIECE_BYTES);
    let zeros = vec![0; piece];
    let mut at = SEGMENT_HEADER_BYTES as u64;
    let mut synced = 0;
    while at < size {
        let len = piece.min(usize::try_from(size - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
        if at - synced >= DIRTY_BYTES_MAX {
            file.sync()?;
            synced = at;
        }
    }
    file.sync()?;
    Ok((file, header))
}

/// Keeps one segment ready beyond the one that is appended to.
pub(crate) struct Preparer {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    reserve: Arc<Reserve>,
    state: Mutex<State>,
    changed: Condvar,
    when_done: Box<dyn Fn() + Send + Sync>,
}

struct State {
    wanted: Option<Wanted>,
    /// What was asked for last, to be asked for again.
    last: Option<Wanted>,
    spare: Spare,
    stopped: bool,
}

/// The segment that is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) base: u64,
    /// The size that it should have.
    pub(crate) size: u64,
    /// The size that it may have where the disk is full.
    pub(crate) size_min: u64,
    pub(crate) now: Timestamp,
    /// The reserve is given up for it.
    pub(crate) of_reserve: bool,
}

/// How it stands with the next segment.
#[derive(Clone)]
pub(crate) enum Spare {
    /// Being made.
    Pending,
    /// Ready.
    Ready(WritableSegment),
    /// It could not be made; ask again later.
    Failed {
        /// There is no space for it.
        is_full: bool,
    },
}

impl Preparer {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        folder: Folder,
        reserve: Arc<Reserve>,
        spare: Option<WritableSegment>,
        when_done: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            vfs,
            folder,
            reserve,
            state: Mutex::new(State {
                wanted: None,
                last: None,
                spare: spare.map_or(Spare::Pending, Spare::Ready),
                stopped: false,
            }),
            changed: Condvar::new(),
            when_done,
        }
    }

    pub(crate) fn reserve(&self) -> &Arc<Reserve> {
        &self.reserve
    }

    /// Asks for a segment, in place of what was ready before.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut state = lock(&self.state);
        state.spare = Spare::Pending;
        state.wanted = Some(wanted);
        state.last = Some(wanted);
        self.changed.notify_one();
    }

    /// Asks again for what could not be made, since space may have come back.
    pub(crate) fn retry(&self) {
        let mut state = lock(&self.state);
        if matches!(state.spare, Spare::Failed { .. }) {
            state.spare = Spare::Pending;
            state.wanted = state.last;
            self.changed.notify_one();
        }
    }

    /// Whether the disk has no space for what is wanted.
    pub(crate) fn is_tight(&self) -> bool {
        let spare = &lock(&self.state).spare;
        self.reserve.is_broken() || matches!(spare, Spare::Failed { is_full: true })
    }

    /// Has the reserve given up for a segment that no messages may be appended to; only half of it
    /// unless `all`. `false` if it has no such space.
    pub(crate) fn break_reserve(&self, all: bool) -> bool {
        let mut state = lock(&self.state);
        let Some(last) = state.last else { return false };
        // The smallest that does, since the rest is for what comes then.
        let size = self.reserve.spares(SEGMENT_BYTES_MIN..=last.size_min, all);
        let Some(size) = size.filter(|_| self.reserve.release()) else {
            return false;
        };
        state.spare = Spare::Pending;
        state.wanted = Some(Wanted {
            size,
            size_min: SEGMENT_BYTES_MIN,
            of_reserve: true,
            ..last
        });
        self.changed.notify_one();
        true
    }

    /// How it stands with the next segment.
    pub(crate) fn spare(&self) -> Spare {
        lock(&self.state).spare.clone()
    }

    /// Makes the wanted segment, if one is wanted.
    pub(crate) fn run_once(&self) -> bool {
        let Some(wanted) = lock(&self.state).wanted.take() else {
            return false;
        };
        let made = if self.reserve.is_broken() && !wanted.of_reserve {
            // What comes back is the reserve's first: without it nothing gives more back.
            Err(io::ErrorKind::StorageFull.into())
        } else {
            prepare_fitting(
                &self.vfs,
                &self.folder,
                wanted.base,
                wanted.size_min.min(wanted.size)..=wanted.size,
                wanted.now,
            )
        };
        let spare = match made {
            Ok(segment) => Spare::Ready(segment),
            Err(error) => {
                tracing::warn!(base = wanted.base, bytes = wanted.size, %error, "preparing a log segment failed");
                Spare::Failed {
                    is_full: is_full(&error),
                }
            }
        };
        lock(&self.state).spare = spare;
        if self.reserve.is_broken() {
            // What is left of it is taken again at once.
            self.reserve.fill(wanted.size);
        }
        (self.when_done)();
        true
    }

    /// Waits for work and does it until [`Preparer::stop`].
    pub(crate) fn run(&self) {
        loop {
            let mut state = lock(&self.state);
            while state.wanted.is_none() && !state.stopped {
                state = wait(&self.changed, state);
            }
            if state.stopped {
                return;
            }
            drop(state);
            self.run_once();
        }
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }
}
