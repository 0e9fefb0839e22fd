//! One pass over what a segment holds, batch by batch, section checksums included.
//!
//! The rules of a single batch are [`Scanner`]'s. What a pass adds is going on behind damage
//! without asking whether it is damage or a torn tail: that is for whoever knows the whole log.

use std::sync::Arc;

use crate::batch::{Kind, StoredBatch};
use crate::error::ReadError;
use crate::header::{ALIGN, BatchHeader, HeaderError};
use crate::recovery::Scanner;
use crate::segment::{CLASS_LOG, Segment};
use crate::vfs::VfsFile;

/// What lies at a place.
pub(crate) enum Piece {
    /// A batch or local record, whole.
    Batch(StoredBatch),
    /// No valid batch from `from` to `to`, exclusive.
    Bad {
        from: u64,
        to: u64,
        /// The header, if that is whole: its section is not.
        header: Option<BatchHeader>,
    },
}

/// Reads a segment forward from a position to its end.
pub(crate) struct Pass {
    scanner: Scanner,
    at: u64,
    until: u64,
    log_epoch: u32,
}

impl Pass {
    /// From `from` on, a position in `segment` where a batch may begin; batches of an epoch below
    /// `log_epoch` were left behind by a cut and don't count.
    pub(crate) fn open(
        segment: Arc<Segment>,
        from: u64,
        log_epoch: u32,
    ) -> Result<Self, ReadError> {
        let until = segment.end();
        let at = from.max(segment.first());
        Ok(Self {
            scanner: Scanner::open(segment)?,
            at,
            until,
            log_epoch,
        })
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        self.scanner.segment()
    }

    pub(crate) fn file(&self) -> &Arc<dyn VfsFile> {
        self.scanner.file()
    }

    /// Bytes that were asked of the file.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.scanner.bytes_read()
    }

    /// Where the next piece begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, HeaderError> {
        if self.at >= self.until || self.segment().is_full_at(self.at) {
            return Ok(None);
        }
        let from = self.at;
        let header = self.scanner.header(from)?;
        let Some(header) = header.filter(|header| header.log_epoch >= self.log_epoch) else {
            let next = self.next_valid(from + ALIGN as u64)?;
            let to = next.unwrap_or(self.until);
            self.at = to;
            // A rewritten segment ends with its last batch, and zeros up to the block's end.
            if next.is_none() && self.scanner.class() != CLASS_LOG && self.scanner.is_zero(from) {
                return Ok(None);
            }
            let header = None;
            return Ok(Some(Piece::Bad { from, to, header }));
        };
        self.log_epoch = header.log_epoch;
        self.at = header.end().0;
        if header.kind == Kind::Pad {
            self.at = self.until;
        }
        Ok(Some(match self.scanner.section(&header) {
            Some(section) => Piece::Batch(StoredBatch { header, section }),
            None => Piece::Bad {
                from,
                to: self.at,
                header: Some(header),
            },
        }))
    }

    /// Where the next valid header begins, from `from` on.
    fn next_valid(&mut self, from: u64) -> Result<Option<u64>, HeaderError> {
        let mut at = from;
        while let Some(header) = self.scanner.next_header(at, self.until)? {
            if header.log_epoch >= self.log_epoch {
                return Ok(Some(header.position.0));
            }
            at = header.position.0 + ALIGN as u64;
        }
        Ok(None)
    }

    /// The highest durable mark of a batch from here on, read no further than to the first above
    /// `above`. Headers alone count, as in recovery.
    pub(crate) fn mark_above(&mut self, above: u64) -> Result<bool, HeaderError> {
        while let Some(header) = self.scanner.next_header(self.at, self.until)? {
            self.at = header.position.0 + ALIGN as u64;
            if header.log_epoch < self.log_epoch {
                continue;
            }
            if header.durable_mark.0 > above {
                return Ok(true);
            }
            self.at = header.end().0;
        }
        Ok(false)
    }
}
