//! Why something can't be done with a backup folder.

use std::io;
use std::path::PathBuf;

use crate::check::CheckError;
use crate::error::OpenError;

/// Version of everything in a backup folder.
pub(super) const BACKUP_VERSION: u32 = 1;

/// Why something can't be done with a backup folder, or with what should come of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It holds something else.
    #[error(
        "{} holds no backups: there is no file in it that says so; name a folder that `tidegate backup create` made, or a new one to make backups in",
        dir.display()
    )]
    NoBackups {
        /// The folder.
        dir: PathBuf,
    },
    /// It is for the backups of another node.
    #[error(
        "{} holds backups of the node with pin {found}, and this one has pin {node}: make backups of this node in another folder",
        dir.display()
    )]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// The node that it is for.
        found: String,
        /// The node that a backup was to be made of.
        node: String,
    },
    /// Another version made it.
    #[error(
        "backup folder {} has format version {found}; this program reads version {BACKUP_VERSION}: use the matching release",
        dir.display()
    )]
    Version {
        /// The folder.
        dir: PathBuf,
        /// Version it has.
        found: u32,
    },
    /// Someone holds its lock.
    #[error(
        "backup folder {} is in use by another process: wait until that has ended",
        dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// It has no backup of that number, or none at all.
    #[error("{} holds no {what}: `tidegate backup ls` lists those that there are", dir.display())]
    NoSuchBackup {
        /// The folder.
        dir: PathBuf,
        /// What was looked for.
        what: String,
    },
    /// A file of the folder is not what it should be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Where a data folder was to be made there is something.
    #[error(
        "{} is not empty: name a folder that is empty, or isn't there yet",
        dir.display()
    )]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// The node says what can't be.
    #[error("the node's answer can't be right: {what}")]
    Source {
        /// What is wrong with it.
        what: String,
    },
    /// What was restored can't be checked.
    #[error("checking what was restored: {0}")]
    Check(#[from] CheckError),
    /// The disk or file system failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl BackupError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(super) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            what: what.into(),
        }
    }
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        Self::Check(CheckError::Open(error))
    }
}
