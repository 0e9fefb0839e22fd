//! Errors by what the caller would do about them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_model::{Offset, QueueId};

use crate::folder::FORMAT_VERSION;
use crate::position::LogPosition;
use crate::trim::TrimError;

/// Why a data folder can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another version wrote it.
    #[error(
        "data folder {} has format version {found}; this program reads version {supported}: use the matching release or another folder",
        dir.display()
    )]
    Version {
        /// The folder.
        dir: PathBuf,
        /// Version it has.
        found: u32,
        /// Version this program reads.
        supported: u32,
    },
    /// Someone holds its lock.
    #[error(
        "data folder {} is in use by another process: stop that one or choose another folder",
        dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A file that recovery can't do without is damaged or missing.
    #[error(
        "{} is damaged: {what}; `tidegate store repair` may mend the data folder, else restore it from a backup",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A tunable out of its range.
    #[error("{field} {rule}")]
    Config {
        /// Which one.
        field: &'static str,
        /// Its range.
        rule: &'static str,
    },
    /// The state that was rebuilt refuses a batch or snapshot.
    #[error("recovery stopped at position {position}: {source}")]
    Replay {
        /// Where in the log.
        position: LogPosition,
        /// What it said.
        source: ReplayError,
    },
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

impl OpenError {
    pub(crate) fn io(
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

    pub(crate) fn version(dir: impl Into<PathBuf>, found: u32) -> Self {
        Self::Version {
            dir: dir.into(),
            found,
            supported: FORMAT_VERSION,
        }
    }
}

/// The state that is rebuilt from the log can't take a snapshot or batch.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub String);

/// Why a unit was not appended. Nothing of it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is behind: the ring is full or the next segment not ready.
    #[error("the log's buffer is full: try again once the disk has caught up")]
    Full,
    /// No space for another segment.
    #[error(
        "no space left for another log segment: free disk space or delete topics; reading and acknowledging go on"
    )]
    NoSpace,
    /// The log takes nothing more.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The unit can never fit.
    #[error("a unit of {bytes} bytes is over the log's limit of {max}: send less at once")]
    TooLarge {
        /// Bytes it would take.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A shard that the store was not opened with.
    #[error("shard {shard} is not one of the {shards} shards of this log")]
    UnknownShard {
        /// The shard asked for.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// Rows that are no trim record.
    #[error("a trim can't be appended: {0}")]
    BadTrim(#[from] TrimError),
    /// A trim of what is not durable yet, or was never appended.
    #[error("queue {queue} can't begin at {start}: it goes to {next}, exclusive")]
    TrimAhead {
        /// The queue.
        queue: QueueId,
        /// Where it was to begin.
        start: Offset,
        /// The first offset that isn't durable.
        next: Offset,
    },
    /// A pad, mark or open record, which only the store itself writes.
    #[error("a local record can't be appended")]
    LocalKind,
}

impl AppendError {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::NoSpace)
    }
}

/// The first failed write or sync ends appending: what a retry says can't be trusted.
///
/// ("fsyncgate": after a failed fsync Linux marks the pages clean, so the next one succeeds.)
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the log is fenced after a failed {action}: {cause}; nothing past position {durable} is durable: check the disk, then restart"
)]
pub struct Fenced {
    /// What failed: a write or a sync.
    pub action: &'static str,
    /// What the system said.
    pub cause: Arc<str>,
    /// The last durable position.
    pub durable: LogPosition,
}

/// Why a batch can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No durable batch begins there.
    #[error("no batch begins at log position {position}")]
    NotFound {
        /// Where.
        position: LogPosition,
    },
    /// The bytes are damaged; they are kept, and everything around them is served.
    #[error(
        "the log is damaged from position {from} to {to}: its messages need a replica or backup"
    )]
    Quarantined {
        /// First damaged position.
        from: LogPosition,
        /// First good one after it.
        to: LogPosition,
    },
    /// The disk or file system failed otherwise.
    #[error("reading {}: {source}", path.display())]
    Io {
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
