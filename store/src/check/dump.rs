//! What files hold, one thing after another, for people who look for a cause.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_model::{Offset, QueueId, ShardId};

use super::index::INDEX_BYTES_MAX;
use super::pass::{Pass, Piece};
use super::{CheckError, Offline};
use crate::batch::{IndexEntry, StoredBatch};
use crate::folder::{KEY_INDEX, MANIFEST, PART, QUEUE_INDEX, SEGMENT, parse_file_name, read_whole};
use crate::index::{DELTA_BYTES, Delta, ENTRY_BYTES, Entry, Qix, Table};
use crate::keys::{Kix, KixInfo};
use crate::position::LogPosition;
use crate::segment::{Segment, SegmentHeader};
use crate::snapshot::{MANIFEST_BYTES_MAX, Manifest};

/// Bytes of a part at most: a state of a shard or table that a dump still takes into memory.
const PART_BYTES_MAX: u64 = 1 << 32;

/// What lies in the log at a place.
#[derive(Clone, Debug)]
pub enum Dumped {
    /// A batch or local record, whole.
    Batch(StoredBatch),
    /// No valid batch from `from` to `to`, exclusive; the end of the log looks so, too.
    Bad {
        /// First position.
        from: LogPosition,
        /// First position behind it that holds a batch, or the segment's end.
        to: LogPosition,
    },
}

/// The log from a position on; an iterator.
pub struct Batches {
    segments: std::vec::IntoIter<Arc<Segment>>,
    pass: Option<Pass>,
    from: u64,
    log_epoch: u32,
}

/// What one file holds.
#[derive(Debug)]
pub enum FileDump {
    /// The header page of a segment; [`Offline::batches_of`] gives the rest.
    Segment(SegmentHeader),
    /// A queue index: base of its segment, rows by queue.
    QueueIndex {
        /// Base of the segment.
        base: LogPosition,
        /// Entries by rising queue id and offset.
        rows: Vec<IndexRow>,
    },
    /// A key index: what it says of itself, and how many rows it has.
    KeyIndex(KixInfo, u32),
    /// A snapshot generation.
    Manifest(Manifest),
    /// A part of a generation.
    Part(PartDump),
}

/// A batch in an index or delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The queue; 0 for a batch without one, which only deltas name.
    pub queue: QueueId,
    /// The batch.
    pub entry: IndexEntry,
}

/// A row of a delta part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaRow {
    /// A batch of the newest segment; its position is relative to that.
    Batch(IndexRow),
    /// A queue's start was raised.
    Trim {
        /// The queue.
        queue: QueueId,
        /// Its new start; all ones for a queue that was removed.
        start: Offset,
        /// Stored bytes of the batches that went.
        bytes: u64,
    },
}

/// What a table knows of a full segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSeqs {
    /// Its base.
    pub base: LogPosition,
    /// Per shard its first and last seq, both inclusive.
    pub shards: Vec<(ShardId, u64, u64)>,
}

/// A part, as far as the store knows what is in it.
#[derive(Debug)]
pub enum PartDump {
    /// The table of queues and segments.
    Table {
        /// Id, first offset, next offset.
        queues: Vec<(QueueId, u64, u64)>,
        /// Full segments, oldest first.
        segments: Vec<SegmentSeqs>,
    },
    /// What came to the newest segment.
    Delta(Vec<DeltaRow>),
    /// A shard's state, which the store doesn't look into.
    State {
        /// Whose; `None` if no manifest names the part.
        shard: Option<ShardId>,
        /// Its bytes.
        bytes: u64,
    },
}

impl Offline {
    /// The log from the first batch at or behind `from`, damaged ranges included, to the end of the
    /// last segment. Batches that a cut left behind don't come.
    ///
    /// # Errors
    /// [`CheckError`] if the folder can't be listed.
    pub fn batches(&self, from: LogPosition) -> Result<Batches, CheckError> {
        let mut segments = self.segments()?;
        segments.retain(|segment| segment.end() > from.0);
        Ok(Batches::new(segments, from.0))
    }

    /// The batches of one segment, named by its base.
    ///
    /// # Errors
    /// [`CheckError::NoSuchFile`] if there is none.
    pub fn batches_of(&self, base: LogPosition) -> Result<Batches, CheckError> {
        let mut segments = self.segments()?;
        segments.retain(|segment| segment.base() == base.0);
        if segments.is_empty() {
            return Err(CheckError::NoSuchFile {
                name: super::log::name_of(base.0, SEGMENT),
            });
        }
        Ok(Batches::new(segments, base.0))
    }

    /// What the file of that name holds: a path as in [`super::FileReport::name`], or its last part.
    ///
    /// # Errors
    /// [`CheckError::NoSuchFile`] if none has that name, [`CheckError::Unreadable`] if it isn't
    /// what its name says.
    pub fn file(&self, name: &str) -> Result<FileDump, CheckError> {
        let no_such = || CheckError::NoSuchFile {
            name: name.to_owned(),
        };
        let last = name.rsplit('/').next().unwrap_or(name);
        let (number, extension) = parse_file_name(last).ok_or_else(no_such)?;
        let dir = match extension {
            SEGMENT | QUEUE_INDEX | KEY_INDEX => &self.folder.log,
            MANIFEST | PART => &self.folder.snapshot,
            _ => return Err(no_such()),
        };
        let path = dir.join(last);
        let read = |max| {
            read_whole(self.vfs.as_ref(), &path, max).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => no_such(),
                _ => unreadable(name, &error),
            })
        };
        match extension {
            SEGMENT => {
                let all = self.segments()?;
                let segment = all.iter().find(|segment| segment.base() == number);
                let segment = segment.ok_or_else(no_such)?;
                super::folder::header_of(segment, self.vfs.as_ref())
                    .map(FileDump::Segment)
                    .map_err(|what| unreadable(name, &what))
            }
            QUEUE_INDEX => {
                let bytes = Bytes::from(read(INDEX_BYTES_MAX)?);
                let qix = Qix::decode(bytes).map_err(|error| unreadable(name, &error))?;
                let base = qix.base();
                let mut rows = Vec::new();
                for (queue, _, entries) in qix.runs_from(QueueId(0)) {
                    let entries = entries.chunks_exact(ENTRY_BYTES).map(Entry::decode);
                    rows.extend(entries.map(|entry| IndexRow {
                        queue,
                        entry: entry.public(base),
                    }));
                }
                Ok(FileDump::QueueIndex {
                    base: LogPosition(base),
                    rows,
                })
            }
            KEY_INDEX => {
                let segments = self.segments()?;
                let segment = segments.iter().find(|segment| segment.base() == number);
                let header =
                    super::folder::header_of(segment.ok_or_else(no_such)?, self.vfs.as_ref())
                        .map_err(|what| unreadable(name, &what))?;
                let kix = Kix::check(&Bytes::from(read(INDEX_BYTES_MAX)?), header.nonce)
                    .map_err(|error| unreadable(name, &error))?;
                Ok(FileDump::KeyIndex(*kix.info(), kix.rows()))
            }
            MANIFEST => Manifest::decode(&read(MANIFEST_BYTES_MAX)?)
                .map(FileDump::Manifest)
                .map_err(|error| unreadable(name, &error)),
            _ => Ok(FileDump::Part(self.part(number, &read(PART_BYTES_MAX)?)?)),
        }
    }

    /// What a part holds is known from who names it.
    fn part(&self, number: u64, bytes: &[u8]) -> Result<PartDump, CheckError> {
        let snapshots = super::snapshots::check(self.vfs.as_ref(), &self.folder)?;
        for (manifest, _) in &snapshots.generations {
            if manifest.table.file == number
                && let Ok(table) = Table::decode(bytes)
            {
                return Ok(table_dump(table));
            }
            if manifest.deltas.iter().any(|part| part.file == number) {
                let row = |delta: Delta| match delta {
                    Delta::Batch { queue, entry } => DeltaRow::Batch(IndexRow {
                        queue,
                        entry: entry.public(0),
                    }),
                    Delta::Trim(row) => DeltaRow::Trim {
                        queue: row.queue,
                        start: row.start,
                        bytes: row.bytes,
                    },
                };
                let rows = bytes.chunks_exact(DELTA_BYTES).map(Delta::decode).map(row);
                return Ok(PartDump::Delta(rows.collect()));
            }
            let shards = manifest.shards.iter();
            if let Some(shard) = shards.into_iter().find(|s| s.state.file == number) {
                return Ok(PartDump::State {
                    shard: Some(shard.shard),
                    bytes: bytes.len() as u64,
                });
            }
        }
        Ok(PartDump::State {
            shard: None,
            bytes: bytes.len() as u64,
        })
    }
}

fn table_dump(table: Table) -> PartDump {
    let queues = table.queues.iter();
    let segments = table.segments.into_iter();
    PartDump::Table {
        queues: queues.map(|(id, q)| (id, q.start, q.next)).collect(),
        segments: segments
            .map(|row| {
                let seqs = row.seqs.into_iter().map(|s| (s.shard, s.first, s.last));
                SegmentSeqs {
                    base: LogPosition(row.base),
                    shards: seqs.collect(),
                }
            })
            .collect(),
    }
}

fn unreadable(name: &str, what: &dyn std::fmt::Display) -> CheckError {
    CheckError::Unreadable {
        name: name.to_owned(),
        what: what.to_string(),
    }
}

impl Batches {
    fn new(segments: Vec<Arc<Segment>>, from: u64) -> Self {
        Self {
            segments: segments.into_iter(),
            pass: None,
            from,
            log_epoch: 0,
        }
    }

    fn piece(&mut self) -> Result<Option<Piece>, CheckError> {
        loop {
            if self.pass.is_none() {
                let Some(segment) = self.segments.next() else {
                    return Ok(None);
                };
                let (base, end) = (segment.base(), segment.end());
                match Pass::open(segment, self.from, self.log_epoch) {
                    Ok(pass) => self.pass = Some(pass),
                    Err(_) => {
                        return Ok(Some(Piece::Bad {
                            from: base,
                            to: end,
                            header: None,
                        }));
                    }
                }
            }
            let Some(pass) = &mut self.pass else { continue };
            let piece = pass.next().map_err(|error| CheckError::Newer {
                path: pass.segment().path().clone(),
                what: error.to_string(),
            })?;
            match piece {
                Some(piece) => return Ok(Some(piece)),
                None => self.pass = None,
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Dumped, CheckError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return match self.piece() {
                Err(error) => Some(Err(error)),
                Ok(None) => None,
                // No batch begins where the caller asked: the first behind it comes.
                Ok(Some(Piece::Bad { from, .. })) if from == self.from && from > 0 => continue,
                Ok(Some(Piece::Bad { from, to, .. })) => Some(Ok(Dumped::Bad {
                    from: LogPosition(from),
                    to: LogPosition(to),
                })),
                Ok(Some(Piece::Batch(batch))) => {
                    self.log_epoch = batch.header.log_epoch;
                    Some(Ok(Dumped::Batch(batch)))
                }
            };
        }
    }
}
