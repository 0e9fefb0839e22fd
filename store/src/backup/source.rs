//! What a running store hands out: everything that a folder needs at one durable position.
//!
//! A pin blocks nothing. Segments are mapped and snapshot files open, so that retention may remove
//! and rewriting may replace them under a backup; their space comes back when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_model::checksum::crc32c;
use tidegate_model::{BackupFile, FileId};

use crate::folder::{FORMAT_VERSION, PART};
use crate::position::LogPosition;
use crate::reader::{Reader, Shared};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::snapshot::Manifest;
use crate::vfs::{BLOCK_BYTES, VfsFile};

/// The log may grow a segment, or have one replaced, while it is pinned.
const TRIES_MAX: u32 = 8;

/// Why nothing can be pinned, or a piece not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The log changed faster than it could be looked at.
    #[error("the log's segments change too fast to take hold of them: try again")]
    Busy,
    /// A file that a folder can't do without can't be read.
    #[error(
        "the log can't be backed up: {0}; `tidegate store verify` on the stopped folder says what is left of it"
    )]
    Unreadable(String),
    /// No such file, or no such bytes of it.
    #[error("file {number} of the backup has no {len} bytes at {at}")]
    NoSuchPiece {
        /// The file.
        number: usize,
        /// First byte.
        at: u64,
        /// How many.
        len: u64,
    },
}

/// Everything that a folder needs, held so that it can be read whatever becomes of the names.
pub struct BackupSource {
    shared: Arc<Shared>,
    files: Vec<(BackupFile, Held)>,
    durable: LogPosition,
    snapshot: Option<Manifest>,
    damaged: Vec<(LogPosition, LogPosition)>,
}

enum Held {
    Segment(Arc<Segment>),
    File(Arc<dyn VfsFile>),
    Memory(Bytes),
}

/// Some bytes of a pinned file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes; what can't be read is zero.
    pub bytes: Bytes,
    /// Bytes that can't be read.
    pub unreadable: u64,
}

impl Reader {
    /// Takes hold of all that is durable now. Opens and maps every segment, and so waits.
    ///
    /// # Errors
    /// [`SourceError`]: nothing is held then.
    pub fn backup(&self) -> Result<BackupSource, SourceError> {
        // No generation is written meanwhile, so nothing from the floor on goes.
        let (generations, pinned) = self.shared.files.with_generations(|kept| {
            let generations = kept.iter().map(|manifest| self.open(manifest));
            let generations: Vec<_> = generations.collect();
            (generations, self.pin_segments(kept))
        });
        let (segments, durable) = pinned?;
        let (snapshot, parts) = whole(generations).map_err(SourceError::Unreadable)?;
        let mut files = Vec::new();
        for segment in segments.into_values() {
            let nonce = segment
                .nonce()
                .map_err(|error| SourceError::Unreadable(error.to_string()))?;
            let id = FileId::Segment {
                base: segment.base(),
                nonce,
            };
            let file = BackupFile {
                id,
                size: segment.size(),
                len: segment.end().min(durable.0) - segment.base(),
            };
            files.push((file, Held::Segment(segment)));
        }
        files.extend(parts);
        let damaged = self.shared.segments.quarantined_below(durable.0);
        let damaged = damaged
            .into_iter()
            .map(|(from, to)| (LogPosition(from), LogPosition(to)));
        tracing::info!(%durable, files = files.len(), "the log is held for a backup");
        Ok(BackupSource {
            shared: self.shared.clone(),
            files,
            durable,
            snapshot,
            damaged: damaged.collect(),
        })
    }

    /// Maps all segments up to a durable position that they cover.
    ///
    /// The position is read behind the segments: a trim by which one was removed or rewritten lies
    /// below it.
    fn pin_segments(
        &self,
        generations: &[Manifest],
    ) -> Result<(Segments, LogPosition), SourceError> {
        let needed = generations.iter().map(|m| m.newest_segment.0).min();
        let segments = &self.shared.segments;
        for _ in 0..TRIES_MAX {
            let mut pinned = Segments::new();
            let mut replaced = false;
            for segment in segments.below(u64::MAX) {
                let base = segment.base();
                match segment.map() {
                    Ok(_) => {
                        pinned.insert(base, segment);
                    }
                    Err(error) => match segments.at_base(base) {
                        None => {}
                        Some(now) if !Arc::ptr_eq(&now, &segment) => replaced = true,
                        // Recovery doesn't look into it, so the rest of the log does without.
                        Some(_) if needed.is_some_and(|needed| base < needed) => {
                            tracing::error!(%error, base, "a log segment is left out of a backup");
                            segments.quarantine(base, segment.end());
                        }
                        Some(_) => return Err(SourceError::Unreadable(error.to_string())),
                    },
                }
            }
            let durable = self.durable();
            let end = pinned.last_entry().map_or(0, |last| last.get().end());
            if !replaced && durable.0 <= end {
                pinned.retain(|base, _| *base + SEGMENT_HEADER_BYTES as u64 <= durable.0);
                return Ok((pinned, durable));
            }
        }
        Err(SourceError::Busy)
    }

    /// Opens the files of a generation.
    fn open(&self, manifest: &Manifest) -> Result<Opened, String> {
        let index = &self.shared.index;
        let bytes = Bytes::from(manifest.encode());
        let mut files = vec![(
            BackupFile {
                id: FileId::Manifest {
                    generation: manifest.generation,
                    crc: crc32c(&bytes),
                },
                size: bytes.len() as u64,
                len: bytes.len() as u64,
            },
            Held::Memory(bytes),
        )];
        for part in manifest.parts() {
            let path = index.folder.snapshot_file(part.file, PART);
            let file = index
                .vfs
                .open(&path)
                .map_err(|error| format!("opening {}: {error}", path.display()))?;
            let id = FileId::Part {
                number: part.file,
                crc: part.crc,
            };
            let described = BackupFile {
                id,
                size: part.len,
                len: part.len,
            };
            files.push((described, Held::File(file)));
        }
        Ok((manifest.clone(), files))
    }
}

type Segments = BTreeMap<u64, Arc<Segment>>;
type Files = Vec<(BackupFile, Held)>;
type Opened = (Manifest, Files);

/// The newest generation whose parts are what they should be; none if there is none at all.
fn whole(generations: Vec<Result<Opened, String>>) -> Result<(Option<Manifest>, Files), String> {
    let mut wrong = None;
    for opened in generations {
        let read = opened.and_then(|(manifest, files)| {
            for (file, held) in &files {
                let Held::File(part) = held else { continue };
                check_part(file, part.as_ref())?;
            }
            Ok((manifest, files))
        });
        match read {
            Ok((manifest, files)) => return Ok((Some(manifest), files)),
            Err(what) => {
                tracing::error!(%what, "a snapshot is left out of a backup");
                wrong = Some(what);
            }
        }
    }
    match wrong {
        None => Ok((None, Vec::new())),
        Some(what) => Err(what),
    }
}

fn check_part(file: &BackupFile, part: &dyn VfsFile) -> Result<(), String> {
    let name = file.id.file_name();
    let len = usize::try_from(file.len).map_err(|error| error.to_string())?;
    let size = part.size().map_err(|error| format!("{name}: {error}"))?;
    if size != file.len {
        return Err(format!("{name} has {size} bytes instead of {len}"));
    }
    let mut bytes = vec![0; len];
    part.read_exact_at(&mut bytes, 0)
        .map_err(|error| format!("{name}: {error}"))?;
    if Some(crc32c(&bytes)) != file.id.crc() {
        return Err(format!("the checksum of {name} is wrong"));
    }
    Ok(())
}

impl BackupSource {
    /// What there is to read, segments by rising position first.
    pub fn files(&self) -> impl ExactSizeIterator<Item = BackupFile> + '_ {
        self.files.iter().map(|(file, _)| *file)
    }

    /// End of the log in it, exclusive: all before is durable.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.durable
    }

    /// The snapshot in it; `None` while none was written.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Manifest> {
        self.snapshot.as_ref()
    }

    /// Damaged ranges of the log that are known: from, and to exclusive.
    #[must_use]
    pub fn damaged(&self) -> &[(LogPosition, LogPosition)] {
        &self.damaged
    }

    /// Format version of the data folder.
    #[must_use]
    pub const fn format(&self) -> u32 {
        FORMAT_VERSION
    }

    /// `len` bytes from `at` on of the file with this number, counted from 0 in the order of
    /// [`BackupSource::files`]. Waits for the disk.
    ///
    /// # Errors
    /// [`SourceError::NoSuchPiece`]; [`SourceError::Unreadable`] for a file that is no segment. What
    /// can't be read of a segment is zero, and counted.
    pub fn read(&self, number: usize, at: u64, len: u64) -> Result<Piece, SourceError> {
        let missing = || SourceError::NoSuchPiece { number, at, len };
        let (file, held) = self.files.get(number).ok_or_else(missing)?;
        let end = at.checked_add(len).filter(|end| *end <= file.len);
        let end = end.ok_or_else(missing)?;
        let small = |value: u64| usize::try_from(value).map_err(|_| missing());
        match held {
            Held::Memory(bytes) => Ok(Piece {
                bytes: bytes.slice(small(at)?..small(end)?),
                unreadable: 0,
            }),
            Held::File(file) => {
                let mut bytes = BytesMut::zeroed(small(len)?);
                file.read_exact_at(&mut bytes, at)
                    .map_err(|error| SourceError::Unreadable(error.to_string()))?;
                Ok(Piece {
                    bytes: bytes.freeze(),
                    unreadable: 0,
                })
            }
            Held::Segment(_) if len == 0 => Ok(Piece::default()),
            Held::Segment(segment) => Ok(self.read_segment(segment, at, end)),
        }
    }

    fn read_segment(&self, segment: &Segment, at: u64, end: u64) -> Piece {
        let page = SEGMENT_HEADER_BYTES as u64;
        let mut bytes = BytesMut::new();
        let mut unreadable = 0;
        let mut from = at;
        // The page may have rotted since it was read. The file is known by what it said, and a repair
        // writes it under the same name: a backup must not keep another one for that name.
        if at < page
            && let Ok(header) = segment.header()
        {
            from = end.min(page);
            let small = |value: u64| usize::try_from(value).expect("within a page");
            bytes.extend_from_slice(&header.encode()[small(at)..small(from)]);
        }
        if from < end
            && let Some(rest) = self.mapped(segment, from, end)
        {
            bytes.extend_from_slice(&rest);
            from = end;
        }
        let mut file = None;
        while from < end {
            let to = (from + 1).next_multiple_of(BLOCK_BYTES).min(end);
            let len = usize::try_from(to - from).expect("at most a block");
            match self.mapped(segment, from, to) {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => {
                    let mut piece = vec![0; len];
                    let is_read = match file.get_or_insert_with(|| segment.open_file().ok()) {
                        Some((file, _)) => file.read_exact_at(&mut piece, from).is_ok(),
                        None => self.left(segment, from, &mut piece),
                    };
                    if !is_read {
                        piece.fill(0);
                        unreadable += to - from;
                    }
                    bytes.extend_from_slice(&piece);
                }
            }
            from = to;
        }
        Piece {
            bytes: bytes.freeze(),
            unreadable,
        }
    }

    /// Fills `block` with what a broken map still has of a file that is gone. `false` for zeros, which may
    /// be those of a lost page.
    fn left(&self, segment: &Segment, from: u64, block: &mut [u8]) -> bool {
        let from = segment.base() + from;
        let generation = self.shared.commit.generation();
        let Ok(bytes) = segment.bytes(from..from + block.len() as u64, generation) else {
            return false;
        };
        block.copy_from_slice(&bytes);
        block.iter().any(|byte| *byte != 0)
    }

    /// A copy of a part of a segment's file; `None` if it can't be read through the map, or its map has
    /// lost pages: which of its zeros are such ones can't be told.
    fn mapped(&self, segment: &Segment, from: u64, to: u64) -> Option<Bytes> {
        let base = segment.base();
        let generation = self.shared.commit.generation();
        let bytes = segment.bytes(base + from..base + to, generation).ok()?;
        let copy = Bytes::copy_from_slice(&bytes);
        segment.map().ok()?.is_whole().then_some(copy)
    }
}

impl Drop for BackupSource {
    fn drop(&mut self) {
        tracing::info!(durable = %self.durable, "the log is no longer held for a backup");
    }
}
