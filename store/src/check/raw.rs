//! The headers of a segment whose own header page can't be believed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::Timestamp;

use crate::batch::Kind;
use crate::bytes_at::u32_at;
use crate::header::{ALIGN, BatchHeader, HEADER_BYTES, MAGIC, NonceMark};
use crate::segment::Segment;
use crate::vfs::{Vfs, VfsFile};

/// Bytes that are read at once where the next header is looked for.
const BLOCK_BYTES: usize = 64 * 1024;

/// What the headers of a segment say together.
#[derive(Debug, Default)]
pub(super) struct Headers {
    /// How many have which mark.
    pub(super) marks: BTreeMap<NonceMark, u64>,
    /// When the first batch was appended.
    pub(super) first_append: Option<Timestamp>,
    /// There are local records or batches of no queue: what a rewritten segment never has.
    pub(super) of_log: bool,
    /// Something could not be read, so there may be more.
    pub(super) unreadable: bool,
}

impl Headers {
    /// Goes from header to header, never into a section but behind damage. One counts if its logical
    /// checksum holds and it names its own place; what the marks say is for the caller to weigh.
    pub(super) fn of(segment: &Segment, vfs: &dyn Vfs) -> Self {
        let mut found = Self::default();
        let Ok(file) = vfs.open(segment.path()) else {
            found.unreadable = true;
            return found;
        };
        let mut at = segment.first();
        while !segment.is_full_at(at) {
            match found.header(&file, segment, at) {
                Some((header, mark)) => {
                    found.add(&header, mark);
                    at = if header.kind == Kind::Pad {
                        segment.end()
                    } else {
                        header.end().0
                    };
                }
                None => match found.next_magic(&file, segment, at + ALIGN as u64) {
                    Some(next) => at = next,
                    None => break,
                },
            }
        }
        found
    }

    pub(super) fn count(&self) -> u64 {
        self.marks.values().sum()
    }

    /// The mark that most headers have, and how many.
    pub(super) fn most(&self) -> Option<(NonceMark, u64)> {
        let marks = self.marks.iter().map(|(mark, count)| (*mark, *count));
        marks.max_by_key(|(_, count)| *count)
    }

    fn add(&mut self, header: &BatchHeader, mark: NonceMark) {
        *self.marks.entry(mark).or_default() += 1;
        if header.kind.is_local() || header.queue.0 == 0 {
            self.of_log = true;
        }
        if !header.kind.is_local() && self.first_append.is_none() {
            self.first_append = Some(header.append_time);
        }
    }

    fn header(
        &mut self,
        file: &Arc<dyn VfsFile>,
        segment: &Segment,
        at: u64,
    ) -> Option<(BatchHeader, NonceMark)> {
        let mut bytes = [0; HEADER_BYTES];
        if file.read_exact_at(&mut bytes, at - segment.base()).is_err() {
            self.unreadable = true;
            return None;
        }
        let found = BatchHeader::decode_without_nonce(&bytes);
        found.filter(|(header, _)| header.position.0 == at && header.end().0 <= segment.end())
    }

    /// Where a header may begin, from `from` on.
    fn next_magic(&mut self, file: &Arc<dyn VfsFile>, segment: &Segment, from: u64) -> Option<u64> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = from;
        while !segment.is_full_at(at) {
            let left = usize::try_from(segment.end() - at).unwrap_or(BLOCK_BYTES);
            let block = &mut block[..left.min(BLOCK_BYTES)];
            if file.read_exact_at(block, at - segment.base()).is_err() {
                self.unreadable = true;
            } else {
                let mut steps = (0..block.len().saturating_sub(3)).step_by(ALIGN);
                if let Some(step) = steps.find(|step| u32_at(block, *step) == MAGIC) {
                    return Some(at + step as u64);
                }
            }
            at += block.len() as u64;
        }
        None
    }
}
