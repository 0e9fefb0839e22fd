//! Reading a segment forward with plain reads, where an error is a value and never a signal.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_model::checksum::crc32c;

use crate::batch::Kind;
use crate::bytes_at::u32_at;
use crate::error::ReadError;
use crate::header::{ALIGN, BatchHeader, HEADER_BYTES, HeaderError, MAGIC};
use crate::index::{Entry, MemoryIndex, NO_SEGMENT};
use crate::segment::Segment;
use crate::vfs::{BLOCK_BYTES, VfsFile};

/// Bytes read ahead at once.
const WINDOW_BYTES: u64 = 1 << 20;

pub(crate) struct Scanner {
    segment: Arc<Segment>,
    file: Arc<dyn VfsFile>,
    nonce: u64,
    class: u32,
    window: Bytes,
    window_at: u64,
    bytes_read: u64,
}

impl Scanner {
    pub(crate) fn open(segment: Arc<Segment>) -> Result<Self, ReadError> {
        let (file, header) = segment.open_file()?;
        Ok(Self {
            segment,
            file,
            nonce: header.nonce,
            class: header.class,
            window: Bytes::new(),
            window_at: 0,
            bytes_read: 0,
        })
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn class(&self) -> u32 {
        self.class
    }

    pub(crate) fn file(&self) -> &Arc<dyn VfsFile> {
        &self.file
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// `len` bytes from `position` on, or fewer at the segment's end. Unreadable blocks are zero,
    /// which is no valid batch.
    fn bytes(&mut self, position: u64, len: u64) -> Bytes {
        let end = (position + len).min(self.segment.end());
        let window_end = self.window_at + self.window.len() as u64;
        if position < self.window_at || end > window_end {
            let to = position.saturating_add(len.max(WINDOW_BYTES));
            self.read_window(position, to.min(self.segment.end()));
        }
        let at = |position: u64| {
            usize::try_from(position - self.window_at).expect("segments end at 1 GiB")
        };
        self.window.slice(at(position)..at(end))
    }

    fn read_window(&mut self, from: u64, to: u64) {
        let len = usize::try_from(to - from).expect("segments end at 1 GiB");
        let mut window = BytesMut::zeroed(len);
        let offset = from - self.segment.base();
        self.bytes_read += to - from;
        if let Err(error) = self.file.read_exact_at(&mut window, offset) {
            tracing::warn!(segment = %self.segment.path().display(), offset, %error, "reading block by block");
            window.fill(0);
            let block = usize::try_from(BLOCK_BYTES).expect("a small number");
            for (number, piece) in window.chunks_mut(block).enumerate() {
                let at = offset + number as u64 * BLOCK_BYTES;
                if self.file.read_exact_at(piece, at).is_err() {
                    piece.fill(0);
                }
            }
        }
        self.window = window.freeze();
        self.window_at = from;
    }

    /// The header at `position`, if a valid one of this segment and place is there.
    ///
    /// # Errors
    /// [`HeaderError::Kind`]: whole and valid, but of a newer program.
    pub(crate) fn header(&mut self, position: u64) -> Result<Option<BatchHeader>, HeaderError> {
        let bytes = self.bytes(position, HEADER_BYTES as u64);
        match BatchHeader::decode(&bytes, self.nonce) {
            Ok(header) => {
                let fits = header.end().0 <= self.segment.end();
                Ok(Some(header).filter(|header| fits && header.position.0 == position))
            }
            Err(error @ HeaderError::Kind { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The section after `header`, if its checksum holds; that of a pad is never read.
    pub(crate) fn section(&mut self, header: &BatchHeader) -> Option<Bytes> {
        if header.kind == Kind::Pad {
            return Some(Bytes::new());
        }
        let at = header.position.0 + HEADER_BYTES as u64;
        let section = self.bytes(at, u64::from(header.section_len));
        (crc32c(&section) == header.section_crc).then_some(section)
    }

    /// Whether the segment holds nothing from `from` on.
    pub(crate) fn is_zero(&mut self, from: u64) -> bool {
        let end = self.segment.end();
        let mut at = from;
        while at < end {
            let block = self.bytes(at, BLOCK_BYTES);
            if block.iter().any(|byte| *byte != 0) {
                return false;
            }
            at += BLOCK_BYTES;
        }
        true
    }

    /// The first valid header from `from` on that begins before `until`.
    pub(crate) fn next_header(
        &mut self,
        from: u64,
        until: u64,
    ) -> Result<Option<BatchHeader>, HeaderError> {
        let until = until.min(self.segment.end());
        let mut at = from;
        while at < until {
            let block = self.bytes(at, (until - at).min(BLOCK_BYTES));
            if block.iter().any(|byte| *byte != 0) {
                for step in (0..block.len().saturating_sub(3)).step_by(ALIGN) {
                    if u32_at(&block, step) == MAGIC
                        && let Some(header) = self.header(at + step as u64)?
                    {
                        return Ok(Some(header));
                    }
                }
            }
            at += BLOCK_BYTES;
        }
        Ok(None)
    }
}

/// Makes a sealed segment's index anew from its batches, its queues not chained to earlier ones.
/// With it come the [gaps](for_each_batch): what was there is in no index any more.
pub(crate) fn rebuild_index(
    segment: &Arc<Segment>,
) -> Result<(MemoryIndex, Vec<Range<u64>>), ReadError> {
    let mut index = MemoryIndex::new(segment.base());
    let gaps = for_each_batch(segment, |_, header| {
        let entry = Entry::of(header, segment.base());
        index.put_seq(header.shard, entry.seq, entry.place);
        if header.queue.0 != 0 && entry.span > 0 {
            index.put(header.queue, NO_SEGMENT, entry);
        }
    })?;
    Ok((index, gaps))
}

/// Visits the batches of a segment that nothing is appended to any more, in order, local records
/// and what was cut left out. Their sections are not looked at.
///
/// Gives the gaps between them: one batch begins where the one before ends, so what lies in between
/// had a header that can't be read now.
pub(crate) fn for_each_batch(
    segment: &Arc<Segment>,
    mut visit: impl FnMut(&mut Scanner, &BatchHeader),
) -> Result<Vec<Range<u64>>, ReadError> {
    let mut scanner = Scanner::open(segment.clone())?;
    let mut gaps = Vec::new();
    let mut at = segment.first();
    let mut end = at;
    let mut epoch = 0;
    while !segment.is_full_at(at) {
        let newer = |_| segment.quarantined(segment.base(), segment.end());
        let header = match scanner.header(at).map_err(newer)? {
            Some(header) => header,
            None => match scanner
                .next_header(at + ALIGN as u64, segment.end())
                .map_err(newer)?
            {
                Some(header) => header,
                None => break,
            },
        };
        if header.log_epoch < epoch {
            // Left over from before a cut.
            at = header.position.0 + ALIGN as u64;
            continue;
        }
        if at == end && header.position.0 > end {
            gaps.push(end..header.position.0);
        }
        at = header.end().0;
        end = at;
        epoch = header.log_epoch;
        if !header.kind.is_local() {
            visit(&mut scanner, &header);
        }
    }
    Ok(gaps)
}
