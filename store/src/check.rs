//! Looking at a data folder that no process has open, and trusting none of it.
//!
//! Opening a store reads little: a snapshot and the log behind it. Here everything is read, from
//! the first segment's header to the last index, with the rules that recovery has, and nothing is
//! changed; but for a repair, which says before what it will change.

mod dump;
mod folder;
mod index;
mod log;
mod losses;
pub(crate) mod pass;
mod raw;
mod repair;
mod report;
mod snapshots;
mod verify;

use std::path::Path;
use std::sync::Arc;

use crate::error::OpenError;
use crate::folder::Folder;
use crate::segment::Segment;
use crate::vfs::{LockGuard, Vfs};

pub use dump::{Batches, DeltaRow, Dumped, FileDump, IndexRow, PartDump, SegmentSeqs};
pub use repair::{LeftDamaged, RepairAction, RepairPlan, RepairStep};
pub use report::{
    Damage, FileKind, FileReport, FileState, LOSSES_MAX, LogExtent, LostOffsets, LostSeqs,
    Progress, Verified,
};

/// Why a folder can't be looked at. What is wrong inside of it is not an error but a finding.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is in use, of another version, or can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing there looks like a store.
    #[error("{} holds no store: there is neither a FORMAT file nor a log in it", dir.display())]
    NoStore {
        /// The folder.
        dir: std::path::PathBuf,
    },
    /// No such file belongs to a store.
    #[error("{name} is no file of a store: name one as `verify` lists it")]
    NoSuchFile {
        /// What was asked for.
        name: String,
    },
    /// The file can't be read as what its name says.
    #[error("{name} can't be read: {what}")]
    Unreadable {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A repair can't be taken back.
    #[error("repair {number} can't be undone: {what}; nothing was changed")]
    NotUndone {
        /// Its number.
        number: u32,
        /// What stands in the way.
        what: String,
    },
    /// Whole and valid, but of a newer program.
    #[error("{} holds what this version doesn't know: {what}", path.display())]
    Newer {
        /// The segment.
        path: std::path::PathBuf,
        /// Which thing.
        what: String,
    },
}

/// A data folder that no process has open; locked for as long as this lives, where it has a lock.
pub struct Offline {
    vfs: Arc<dyn Vfs>,
    folder: Folder,
    /// `None` where no lock file is: nothing ever opened the folder, and making one would be a
    /// change.
    lock: Option<LockGuard>,
}

impl Offline {
    /// Takes the folder's lock. Nothing in it is created or changed.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while a process has it open, [`OpenError::Version`] for a format of
    /// another program, [`CheckError::NoStore`] if it is none, else errors of the file system.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, CheckError> {
        let (folder, lock) = folder::lock(vfs.as_ref(), dir)?;
        Ok(Self { vfs, folder, lock })
    }

    /// Takes the lock of a folder that had none, before something in it is changed.
    fn take_lock(&mut self) -> Result<(), CheckError> {
        if self.lock.is_none() {
            self.lock = Some(self.folder.lock(self.vfs.as_ref())?);
        }
        Ok(())
    }

    /// All segments by their names, oldest first; contents are looked at later.
    fn segments(&self) -> Result<Vec<Arc<Segment>>, CheckError> {
        folder::segments(&self.vfs, &self.folder)
    }
}
