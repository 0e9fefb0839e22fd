//! Writing a segment anew in its slot, with what is live of it.
//!
//! The new file has the same base and keeps order and numbers, so every chain of the index goes
//! on to hold; a rename puts it in the old one's place, so a crash finds either whole.

use std::io;
use std::sync::Arc;

use super::Space;
use super::sieve::{Outcome, Sieve};
use crate::batch::Kind;
use crate::error::ReadError;
use crate::files::Job;
use crate::folder::TEMPORARY;
use crate::header::{ALIGN, BatchHeader, HeaderError};
use crate::id_map::QueueMap;
use crate::index::{Entry, MemoryIndex, OpenIndex, SealedIndex};
use crate::position::LogPosition;
use crate::recovery::Scanner;
use crate::segment::{CLASS_REWRITTEN, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, is_full};
use crate::sync::{read, write};
use crate::vfs::{BLOCK_BYTES, VfsFile};

/// Bytes that are written at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that are synced at once: the log's own syncs wait for them.
const SYNC_BYTES: u64 = 8 << 20;

/// Why a segment was not rewritten. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    /// Something of it can't be read: it is kept as it is.
    #[error("it is damaged behind position {0}")]
    Damaged(LogPosition),
    /// So can't its index, or its file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It gives no space back any more.
    #[error("it is worth no rewriting any more")]
    Worthless,
    /// The store is being closed.
    #[error("the store is being closed")]
    Stopped,
    /// The disk failed or is full.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes of the file of a rewritten segment with so many stored bytes of batches.
pub(super) fn rewritten_size(live: u64) -> u64 {
    (SEGMENT_HEADER_BYTES as u64 + live).next_multiple_of(BLOCK_BYTES)
}

/// What compaction leaves out of a segment.
pub(super) struct Sieving<'a> {
    pub(super) sieve: Sieve<'a>,
    /// Stored bytes that go, by queue: what the sieve takes off of what is live, or less.
    pub(super) dropped: &'a QueueMap<u64>,
    /// Stored bytes of what was live before that was found out.
    pub(super) live: u64,
}

impl Space {
    /// Puts a file with what is live, and passes the sieve if there is one, in the place of
    /// `segment`'s. Stored bytes of what was kept.
    pub(super) fn rewrite(
        &self,
        segment: &Arc<Segment>,
        sieving: Option<&Sieving<'_>>,
    ) -> Result<u64, RewriteError> {
        let written = self.write_anew(segment, sieving);
        match written {
            Err(RewriteError::Io(error))
                if is_full(&error) && self.preparer.reserve().release() =>
            {
                self.write_anew(segment, sieving)
            }
            written => written,
        }
    }

    fn write_anew(
        &self,
        segment: &Arc<Segment>,
        sieving: Option<&Sieving<'_>>,
    ) -> Result<u64, RewriteError> {
        let index = &self.shared.index;
        let base = segment.base();
        let sealed = read(&index.state).sealed.get(&base).cloned();
        let Some(sealed) = sealed.filter(|sealed| !sealed.is_in_memory()) else {
            return Err(RewriteError::Worthless);
        };
        // Whoever holds the segment must find this file behind it, whatever gets its name.
        segment.map()?;
        let live = match sieving {
            Some(sieving) => sieving.live - sieving.dropped.values().sum::<u64>(),
            None => self.live_bytes(base)?,
        };
        let size = rewritten_size(live);
        if size >= segment.size() {
            return Err(RewriteError::Worthless);
        }
        let temporary = index.folder.log_file(base, TEMPORARY);
        let broken = index.vfs.broken_maps();
        let header = SegmentHeader {
            size,
            nonce: index.vfs.random()?,
            class: CLASS_REWRITTEN,
            ..segment.header()?
        };
        let copied = index
            .vfs
            .create(&temporary)
            .map_err(RewriteError::from)
            .and_then(|file| {
                let old = index.open(&sealed)?;
                if matches!(old, OpenIndex::Memory(_)) {
                    // Made anew meanwhile: its file is still to be written, for the segment that is there.
                    return Err(RewriteError::Worthless);
                }
                let sieve = sieving.map(|sieving| sieving.sieve);
                Copying::new(self, segment, &old, file, header)?.run(sieve)
            });
        // What the old index says of lost pages is that nothing of theirs is live.
        let copied = if index.vfs.broken_maps() == broken {
            copied
        } else {
            Err(io::Error::other("pages of maps were lost meanwhile").into())
        };
        let copied = copied.and_then(|copied| {
            index.vfs.rename(&temporary, segment.path())?;
            Ok(copied)
        });
        let (memory, bytes) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                // What is left of it is removed at the next start if it can't be now.
                let _ = index.vfs.unlink(&temporary);
                return Err(error);
            }
        };
        let path = segment.path().clone();
        let anew = Arc::new(Segment::written(index.vfs.clone(), path, header));
        let sealed = Arc::new(SealedIndex::in_memory(memory));
        {
            // At once, so that who looks an entry up again finds it where it is.
            let mut state = write(&index.state);
            self.shared.segments.add(anew);
            state.sealed.insert(base, sealed.clone());
            for (queue, bytes) in sieving.iter().flat_map(|sieving| sieving.dropped) {
                let left = state.queues.get(*queue).map(|queue| queue.bytes);
                state.set_bytes(*queue, left.unwrap_or(0).saturating_sub(*bytes));
            }
        }
        if let Err(error) = index.vfs.sync_dir(&index.folder.log) {
            // A crash finds the old file or the new one; both hold what is live.
            tracing::warn!(base, %error, "the name of a rewritten segment may not be durable");
        }
        self.shared.files.add(Job::Index(sealed));
        self.shared.files.add_keys(self.shared.keys.of(base));
        tracing::debug!(
            base,
            from = segment.size(),
            to = size,
            "a log segment is rewritten"
        );
        Ok(bytes)
    }
}

/// A segment being copied.
struct Copying<'a> {
    space: &'a Space,
    old: &'a OpenIndex,
    scanner: Scanner,
    file: Arc<dyn VfsFile>,
    header: SegmentHeader,
    memory: MemoryIndex,
    /// Not written yet; goes to `at`.
    piece: Vec<u8>,
    at: u64,
    unsynced: u64,
}

impl<'a> Copying<'a> {
    fn new(
        space: &'a Space,
        segment: &Arc<Segment>,
        old: &'a OpenIndex,
        file: Arc<dyn VfsFile>,
        header: SegmentHeader,
    ) -> Result<Self, RewriteError> {
        file.allocate(header.size)?;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        piece.extend_from_slice(&header.encode());
        Ok(Self {
            space,
            old,
            scanner: Scanner::open(segment.clone())?,
            file,
            header,
            memory: MemoryIndex::new(segment.base()),
            piece,
            at: 0,
            unsynced: 0,
        })
    }

    /// Copies all that is live and passes the sieve. The index of the copy, and the stored bytes of
    /// its batches.
    fn run(mut self, sieve: Option<Sieve<'_>>) -> Result<(MemoryIndex, u64), RewriteError> {
        let segment = self.scanner.segment().clone();
        let mut at = segment.first();
        while !segment.is_full_at(at) {
            let damaged = || RewriteError::Damaged(LogPosition(at));
            let newer = |_: HeaderError| damaged();
            let Some(header) = self.scanner.header(at).map_err(newer)? else {
                // One that was rewritten before ends with its last batch; else something is missing.
                let next = self.scanner.next_header(at + ALIGN as u64, segment.end());
                if next.map_err(newer)?.is_some() || segment.header()?.class != CLASS_REWRITTEN {
                    return Err(damaged());
                }
                break;
            };
            at = if header.kind == Kind::Pad {
                segment.end()
            } else {
                header.end().0
            };
            if self.is_live(&header, segment.base()) {
                let damaged = RewriteError::Damaged(header.position);
                let section = self.scanner.section(&header).ok_or(damaged)?;
                match sieve.map(|sieve| sieve.verdict(&header, &section).outcome) {
                    Some(Outcome::Drop) => {}
                    Some(Outcome::Replace(smaller, section)) => self.copy(smaller, &section)?,
                    Some(Outcome::Keep) | None => self.copy(header, &section)?,
                }
            }
        }
        self.write_piece()?;
        let end = self.at;
        let rest = self.header.size - end;
        self.file
            .write_all_at(&vec![0; usize::try_from(rest).expect("checked")], end)?;
        self.file.sync()?;
        Ok((self.memory, end - SEGMENT_HEADER_BYTES as u64))
    }

    fn is_live(&self, header: &BatchHeader, base: u64) -> bool {
        if header.kind.is_local() || header.queue.0 == 0 || header.span == 0 {
            return false;
        }
        let entry = Entry::of(header, base);
        let state = self.space.shared.index.queue_state(header.queue);
        // One that a higher term replaced has another place.
        state.is_some_and(|state| entry.end_offset() > state.start)
            && self.old.place(header.shard, entry.seq) == Some(entry.place)
    }

    fn copy(&mut self, mut header: BatchHeader, section: &[u8]) -> Result<(), RewriteError> {
        let damaged = RewriteError::Damaged(header.position);
        let base = self.header.base.0;
        header.position = LogPosition(base + self.at + self.piece.len() as u64);
        if header.end().0 > base + self.header.size {
            // More than was counted: a queue's start never falls, so the index contradicts itself.
            return Err(damaged);
        }
        self.piece
            .extend_from_slice(&header.encode(self.header.nonce));
        self.piece.extend_from_slice(section);
        self.piece
            .resize(self.piece.len().next_multiple_of(ALIGN), 0);
        let entry = Entry::of(&header, base);
        let previous = self.old.run(header.queue).map(|run| run.previous());
        let previous = previous.ok_or(damaged)?;
        self.memory.put_seq(header.shard, entry.seq, entry.place);
        self.memory.put(header.queue, previous, entry);
        if self.piece.len() >= PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(())
    }

    fn write_piece(&mut self) -> Result<(), RewriteError> {
        if self.space.nudge.is_stopped() {
            return Err(RewriteError::Stopped);
        }
        self.file.write_all_at(&self.piece, self.at)?;
        self.at += self.piece.len() as u64;
        self.unsynced += self.piece.len() as u64;
        self.piece.clear();
        if self.unsynced >= SYNC_BYTES {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}
