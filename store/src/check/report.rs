//! What was found, in the words of those who must act on it.

use tidegate_model::{Offset, QueueId, Seq, ShardId};

use crate::position::LogPosition;

/// Lost ranges that are listed, of seqs and of offsets each; [`Verified::more_lost`] counts on.
pub const LOSSES_MAX: usize = 10_000;

/// All that reading a whole folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Every file that was read, and those that should be there and aren't.
    pub files: Vec<FileReport>,
    /// Damaged ranges of the log, in its order. All were durable once.
    pub damaged: Vec<Damage>,
    /// Batches that the damage took, as far as their neighbours or headers tell.
    pub lost_seqs: Vec<LostSeqs>,
    /// The same as offsets of queues.
    pub lost_offsets: Vec<LostOffsets>,
    /// Lost ranges beyond [`LOSSES_MAX`], not listed.
    pub more_lost: u64,
    /// What the log holds.
    pub log: LogExtent,
    /// Generation of the snapshot that a start would use; `None` if none is whole.
    pub snapshot: Option<u64>,
}

impl Verified {
    /// Whether nothing is damaged, missing or lost.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let whole = |file: &FileReport| matches!(file.state, FileState::Whole | FileState::Unused);
        self.files.iter().all(whole)
            && self.damaged.is_empty()
            && self.lost_seqs.is_empty()
            && self.lost_offsets.is_empty()
    }

    /// Whether a broker can start on the folder: a snapshot is whole, or the log goes back to its
    /// beginning, with all of it.
    #[must_use]
    pub fn can_start(&self) -> bool {
        self.snapshot.is_some() || self.log.is_complete
    }
}

/// What the log holds, from the first segment to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogExtent {
    /// Base of the first segment; 0 if nothing was ever removed.
    pub first: LogPosition,
    /// End of the last whole unit, exclusive.
    pub end: LogPosition,
    /// Whether it goes back to its beginning without a gap: nothing was removed or rewritten.
    pub is_complete: bool,
    /// Whole batches; local records are not counted.
    pub batches: u64,
    /// The last batch's epoch: how often the log was opened.
    pub log_epoch: u32,
    /// Bytes behind the end that were appended and never were durable: a start cuts them.
    pub unsynced_bytes: u64,
}

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its path in the folder, as in `log/00000000000000000000.seg`.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes; 0 for one that isn't there.
    pub bytes: u64,
    /// How it stands.
    pub state: FileState,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Names the format's version.
    Format,
    /// A piece of the log.
    Segment,
    /// Made of a segment, and can be made again.
    QueueIndex,
    /// The same, by key.
    KeyIndex,
    /// A snapshot generation.
    Manifest,
    /// What a generation names.
    Part,
}

impl FileKind {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Segment => "segment",
            Self::QueueIndex => "index",
            Self::KeyIndex => "key index",
            Self::Manifest => "manifest",
            Self::Part => "part",
        }
    }
}

/// How a file stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Every byte is what it should be.
    Whole,
    /// Whole or not, nothing needs it.
    Unused,
    /// Some of it is not what it should be.
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// Something needs it and it isn't there.
    Missing {
        /// What needs it.
        what: String,
    },
}

/// A damaged range of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First damaged position.
    pub from: LogPosition,
    /// First good one after it, exclusive.
    pub to: LogPosition,
    /// The segment it lies in, as a path in the folder.
    pub file: String,
    /// Offset of `from` in that file.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// Batches of a shard that are gone, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostSeqs {
    /// The shard.
    pub shard: ShardId,
    /// First lost.
    pub first: Seq,
    /// Last lost, inclusive.
    pub last: Seq,
    /// The damage lies behind this position …
    pub after: LogPosition,
    /// … and before this one.
    pub before: LogPosition,
}

/// Offsets of a queue that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostOffsets {
    /// The queue.
    pub queue: QueueId,
    /// First lost.
    pub first: Offset,
    /// Last lost, inclusive.
    pub last: Offset,
    /// The damage lies behind this position …
    pub after: LogPosition,
    /// … and before this one.
    pub before: LogPosition,
}

/// How far a long run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the log that were read.
    pub done: u64,
    /// Bytes there are to read, at most.
    pub of: u64,
}
