//! Preparing segments ahead of need: space reserved, zeroed in large pieces, durable, then named.
//!
//! Small writes into blocks that were written before cost one block each and no journal commit;
//! large zero writes keep the page cache's folios large (`docs/formats/segment.md`).

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tidegate_model::Timestamp;

use super::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, WritableSegment};
use crate::folder::{Folder, SEGMENT, TEMPORARY};
use crate::position::LogPosition;
use crate::sync::{lock, wait};
use crate::vfs::{Vfs, VfsFile};

const ZERO_PIECE_BYTES: usize = 1 << 20;

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
    let (file, nonce) = match written {
        Ok(done) => done,
        Err(error) => {
            // The space must not stay taken; if even this fails, the next start removes the file.
            let _ = vfs.unlink(&temporary);
            return Err(error);
        }
    };
    vfs.sync_dir(&folder.log)?;
    Ok(WritableSegment {
        segment: Arc::new(Segment::new(vfs.clone(), path, base, size)),
        file,
        nonce,
    })
}

fn write(
    vfs: &dyn Vfs,
    path: &Path,
    base: u64,
    size: u64,
    now: Timestamp,
) -> io::Result<(Arc<dyn VfsFile>, u64)> {
    let nonce = vfs.random()?;
    let file = vfs.create(path)?;
    file.allocate(size)?;
    let header = SegmentHeader {
        base: LogPosition(base),
        size,
        nonce,
        created: now,
        class: 0,
    };
    file.write_all_at(&header.encode(), 0)?;
    let piece = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .min(ZERO_PIECE_BYTES);
    let zeros = vec![0; piece];
    let mut at = SEGMENT_HEADER_BYTES as u64;
    while at < size {
        let len = piece.min(usize::try_from(size - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
    }
    file.sync()?;
    Ok((file, nonce))
}

/// Keeps one segment ready beyond the one that is appended to.
pub(crate) struct Preparer {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    state: Mutex<State>,
    changed: Condvar,
    when_done: Box<dyn Fn() + Send + Sync>,
}

struct State {
    wanted: Option<Wanted>,
    spare: Spare,
    stopped: bool,
}

#[derive(Clone, Copy)]
struct Wanted {
    base: u64,
    size: u64,
    now: Timestamp,
}

/// How it stands with the next segment.
#[derive(Clone)]
pub(crate) enum Spare {
    /// Being made.
    Pending,
    /// Ready.
    Ready(WritableSegment),
    /// It could not be made; ask again later.
    Failed(io::ErrorKind),
}

impl Preparer {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        folder: Folder,
        spare: Option<WritableSegment>,
        when_done: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            vfs,
            folder,
            state: Mutex::new(State {
                wanted: None,
                spare: spare.map_or(Spare::Pending, Spare::Ready),
                stopped: false,
            }),
            changed: Condvar::new(),
            when_done,
        }
    }

    /// Asks for the segment at `base`, in place of what was ready before.
    pub(crate) fn want(&self, base: u64, size: u64, now: Timestamp) {
        let mut state = lock(&self.state);
        state.spare = Spare::Pending;
        state.wanted = Some(Wanted { base, size, now });
        self.changed.notify_one();
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
        let made = prepare(
            &self.vfs,
            &self.folder,
            wanted.base,
            wanted.size,
            wanted.now,
        );
        let spare = match made {
            Ok(segment) => Spare::Ready(segment),
            Err(error) => {
                tracing::warn!(base = wanted.base, bytes = wanted.size, %error, "preparing a log segment failed");
                Spare::Failed(error.kind())
            }
        };
        lock(&self.state).spare = spare;
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
