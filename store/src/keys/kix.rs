//! The key index file of a sealed segment. Byte table: `docs/formats/segment.md`.
//!
//! It consists of pages that carry a checksum each, so that a question reads the one or two pages
//! that answer it, from the disk if need be, and trusts nothing else of the file.

use std::io;

use bytes::Bytes;
use tidegate_model::checksum::crc32c_with_nonce;

use super::filter::{self, BLOCK_BYTES};
use crate::bytes_at::{put, u32_at, u64_at};
use crate::vfs::VfsFile;

const MAGIC: [u8; 8] = *b"TGKIX\0\0\x01";
/// Bytes of a page: one block of any common disk.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page before its checksum.
const PAYLOAD_BYTES: usize = PAGE_BYTES - 8;
const ROW_BYTES: usize = 12;
const ROWS_PER_PAGE: usize = PAYLOAD_BYTES / ROW_BYTES;
const BLOCKS_PER_PAGE: usize = PAYLOAD_BYTES / BLOCK_BYTES;
/// Pages that are guessed by interpolation; hashes are spread evenly, so the second is nearly always
/// right. After that the pages left are halved, whatever the rows are.
const GUESSES_MAX: u32 = 4;

/// Rows of one file; batches that would need more are not indexed and looked at one by one.
pub(super) const ROWS_MAX: usize = 1 << 22;
/// Stands in [`KixInfo::covered`] where every batch is indexed.
pub(super) const COVERS_ALL: u32 = u32::MAX;

/// Why a file is no key index, or not that of its segment. It is made again then.
#[derive(Debug, thiserror::Error)]
pub enum KixError {
    /// Something else, or of another version.
    #[error("this is no key index of version 1")]
    Magic,
    /// It belongs to another segment, or to an earlier use of it.
    #[error("the key index belongs to another segment")]
    Segment,
    /// A page's checksum is wrong.
    #[error("page {page} of the key index is damaged")]
    Page {
        /// Its number, from 0.
        page: u32,
    },
    /// The length contradicts the counts.
    #[error("the key index has {found} bytes; its counts make {expected}")]
    Length {
        /// Bytes it has.
        found: u64,
        /// Bytes it should have.
        expected: u64,
    },
    /// Rows out of order, or missing in the filter.
    #[error("the rows of the key index contradict themselves")]
    Rows,
    /// The disk or file system failed.
    #[error("reading the key index: {0}")]
    Io(#[from] io::Error),
}

/// What a key index says of its segment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KixInfo {
    /// Base of the segment.
    pub base: u64,
    /// The segment's nonce.
    pub nonce: u64,
    /// Data batches at this place or later are not indexed: there are too many keys.
    pub covered: u32,
    /// Batches that could not be read when the index was made, and damaged ranges that may have
    /// held some.
    pub unreadable: u32,
}

/// One row: the batch at `place` has a key of this hash, in the queue that seeds it.
pub type KixRow = (u64, u32);

/// A key index of which the first page has been checked; others are when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kix {
    info: KixInfo,
    rows: u32,
    blocks: u32,
}

/// Where pages come from.
pub(super) trait Pages {
    fn size(&self) -> io::Result<u64>;
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Pages for &dyn VfsFile {
    fn size(&self) -> io::Result<u64> {
        VfsFile::size(*self)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        VfsFile::read_exact_at(*self, buf, offset)
    }
}

impl Pages for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl Kix {
    /// Checks all of a file's bytes: every page, the order of the rows, and the filter.
    ///
    /// # Errors
    /// [`KixError`] says what is wrong.
    pub fn check(bytes: &Bytes, nonce: u64) -> Result<Self, KixError> {
        let kix = Self::open(bytes, nonce)?;
        let blocks = kix.filter(bytes)?;
        let mut last = None;
        for page in 0..kix.row_pages() {
            let rows = kix.row_page(bytes, page)?;
            for row in rows.iter() {
                let ordered = last.is_none_or(|last| last < row);
                if !ordered || !kix.may_hold(&blocks, row.0) {
                    return Err(KixError::Rows);
                }
                last = Some(row);
            }
        }
        Ok(kix)
    }

    /// The bytes of a key index; `rows` come in any order.
    ///
    /// # Panics
    /// Beyond 2^32 rows, which no segment has.
    #[must_use]
    pub fn encode(info: &KixInfo, mut rows: Vec<KixRow>) -> Vec<u8> {
        rows.sort_unstable();
        rows.dedup();
        let hashes = rows.chunk_by(|a, b| a.0 == b.0).count();
        let count = |count: usize| u32::try_from(count).expect("a segment has under 2^32 rows");
        let blocks = filter::blocks_for(hashes);
        let kix = Self {
            info: *info,
            rows: count(rows.len()),
            blocks: count(blocks),
        };
        let pages = 1 + kix.filter_pages() as usize + kix.row_pages() as usize;
        let mut bytes = vec![0; pages * PAGE_BYTES];
        kix.put_header(&mut bytes);
        for same in rows.chunk_by(|a, b| a.0 == b.0) {
            let block = filter::block_of(same[0].0, kix.blocks) as usize;
            let page = 1 + block / BLOCKS_PER_PAGE;
            let at = page * PAGE_BYTES + block % BLOCKS_PER_PAGE * BLOCK_BYTES;
            filter::insert(&mut bytes[at..at + BLOCK_BYTES], same[0].0);
        }
        let first = 1 + kix.filter_pages() as usize;
        for (page, rows) in rows.chunks(ROWS_PER_PAGE).enumerate() {
            for (index, (hash, place)) in rows.iter().enumerate() {
                let at = (first + page) * PAGE_BYTES + index * ROW_BYTES;
                put(&mut bytes, at, &hash.to_le_bytes());
                put(&mut bytes, at + 8, &place.to_le_bytes());
            }
        }
        for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            let crc = page_crc(info.nonce, count(number), page);
            put(page, PAYLOAD_BYTES, &crc.to_le_bytes());
        }
        bytes
    }

    fn put_header(&self, page: &mut [u8]) {
        put(page, 0, &MAGIC);
        put(page, 8, &self.info.base.to_le_bytes());
        put(page, 16, &self.info.nonce.to_le_bytes());
        put(page, 24, &self.rows.to_le_bytes());
        put(page, 28, &self.blocks.to_le_bytes());
        put(page, 32, &self.info.covered.to_le_bytes());
        put(page, 36, &self.info.unreadable.to_le_bytes());
    }

    /// Reads and checks the first page, and the length against it.
    pub(super) fn open(source: &impl Pages, nonce: u64) -> Result<Self, KixError> {
        let mut page = Box::new([0; PAGE_BYTES]);
        source.read_exact_at(&mut page[..], 0)?;
        let own = u64_at(&page[..], 16);
        if page[..8] != MAGIC {
            return Err(KixError::Magic);
        }
        if u32_at(&page[..], PAYLOAD_BYTES) != page_crc(own, 0, &page[..]) {
            return Err(KixError::Page { page: 0 });
        }
        if own != nonce {
            return Err(KixError::Segment);
        }
        let kix = Self {
            info: KixInfo {
                base: u64_at(&page[..], 8),
                nonce,
                covered: u32_at(&page[..], 32),
                unreadable: u32_at(&page[..], 36),
            },
            rows: u32_at(&page[..], 24),
            blocks: u32_at(&page[..], 28),
        };
        let pages = 1 + u64::from(kix.filter_pages()) + u64::from(kix.row_pages());
        let (found, expected) = (source.size()?, pages * PAGE_BYTES as u64);
        if found != expected {
            return Err(KixError::Length { found, expected });
        }
        if (kix.rows == 0) != (kix.blocks == 0) {
            return Err(KixError::Rows);
        }
        Ok(kix)
    }

    /// What it says of its segment as a whole.
    #[must_use]
    pub fn info(&self) -> &KixInfo {
        &self.info
    }

    /// Rows: one per batch and different key in it.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of the filter in memory.
    pub(super) fn filter_bytes(&self) -> usize {
        self.blocks as usize * BLOCK_BYTES
    }

    fn filter_pages(&self) -> u32 {
        pages_for(self.blocks, BLOCKS_PER_PAGE)
    }

    fn row_pages(&self) -> u32 {
        pages_for(self.rows, ROWS_PER_PAGE)
    }

    /// The blocks of the filter, one after another.
    pub(super) fn filter(&self, source: &impl Pages) -> Result<Vec<u8>, KixError> {
        let mut blocks = Vec::with_capacity(self.filter_bytes());
        for number in 0..self.filter_pages() {
            let page = page(source, self.info.nonce, 1 + number)?;
            let left = self.filter_bytes() - blocks.len();
            let here = left.min(BLOCKS_PER_PAGE * BLOCK_BYTES);
            blocks.extend_from_slice(&page[..here]);
        }
        Ok(blocks)
    }

    /// Whether a key of this hash may be there, by the blocks of [`Kix::filter`].
    pub(super) fn may_hold(&self, blocks: &[u8], hash: u64) -> bool {
        if self.blocks == 0 {
            return false;
        }
        let at = filter::block_of(hash, self.blocks) as usize * BLOCK_BYTES;
        filter::may_hold(&blocks[at..at + BLOCK_BYTES], hash)
    }

    /// The places of batches with a key of this hash, rising, in an index that is in memory.
    ///
    /// # Errors
    /// [`KixError`] if a page that it reads is damaged.
    pub fn look_up(&self, bytes: &Bytes, hash: u64) -> Result<Vec<u32>, KixError> {
        self.places(bytes, hash)
    }

    /// The places of batches with a key of this hash, rising.
    pub(super) fn places(&self, source: &impl Pages, hash: u64) -> Result<Vec<u32>, KixError> {
        let mut places = Vec::new();
        let Some((mut number, mut rows)) = self.first_page(source, hash)? else {
            return Ok(places);
        };
        loop {
            let from = rows.partition_point(|row| row.0 < hash);
            places.extend(
                (from..rows.count)
                    .map(|at| rows.row(at))
                    .take_while(|row| row.0 == hash)
                    .map(|row| row.1),
            );
            number += 1;
            if rows.last().0 != hash || number == self.row_pages() {
                return Ok(places);
            }
            rows = self.row_page(source, number)?;
        }
    }

    /// The page in which rows of this hash begin, if there are any.
    fn first_page(
        &self,
        source: &impl Pages,
        hash: u64,
    ) -> Result<Option<(u32, RowPage)>, KixError> {
        // Pages from `low` to `high` (exclusive) are not known yet; those before end below `hash`,
        // those after begin at or above it, and `found` is the first of them.
        let (mut low, mut high) = (0, self.row_pages());
        let (mut below, mut above) = (0, u64::MAX);
        let mut found = None;
        let mut guesses = 0;
        while low < high {
            guesses += 1;
            let number = if guesses > GUESSES_MAX {
                low + (high - low) / 2
            } else {
                interpolate(hash, (below, above), (low, high))
            };
            let rows = self.row_page(source, number)?;
            let (first, last) = (rows.row(0).0, rows.last().0);
            if last < hash {
                (low, below) = (number + 1, last);
            } else if first < hash {
                return Ok(Some((number, rows)));
            } else {
                (high, above) = (number, first);
                found = Some((number, rows));
            }
        }
        Ok(found.filter(|(_, rows)| rows.row(0).0 == hash))
    }

    fn row_page(&self, source: &impl Pages, number: u32) -> Result<RowPage, KixError> {
        let page = page(source, self.info.nonce, 1 + self.filter_pages() + number)?;
        let left = self.rows as usize - number as usize * ROWS_PER_PAGE;
        Ok(RowPage {
            page,
            count: left.min(ROWS_PER_PAGE),
        })
    }
}

/// Where `hash` would lie if hashes were spread evenly over the pages from `low` to `high`.
fn interpolate(hash: u64, (below, above): (u64, u64), (low, high): (u32, u32)) -> u32 {
    let pages = u128::from(high - low);
    let span = u128::from(above.saturating_sub(below)) + 1;
    let at = u128::from(hash.saturating_sub(below)) * pages / span;
    low + u32::try_from(at.min(pages - 1)).expect("below the number of pages")
}

fn pages_for(count: u32, per_page: usize) -> u32 {
    let per_page = u32::try_from(per_page).expect("below a page's bytes");
    count.div_ceil(per_page)
}

/// A checked page of rows, never empty.
struct RowPage {
    page: Box<[u8; PAGE_BYTES]>,
    count: usize,
}

impl RowPage {
    fn row(&self, at: usize) -> KixRow {
        let at = at * ROW_BYTES;
        (u64_at(&self.page[..], at), u32_at(&self.page[..], at + 8))
    }

    fn last(&self) -> KixRow {
        self.row(self.count - 1)
    }

    fn iter(&self) -> impl Iterator<Item = KixRow> {
        (0..self.count).map(|at| self.row(at))
    }

    /// How many leading rows fulfil `is_before`, which holds for a prefix of them.
    fn partition_point(&self, is_before: impl Fn(KixRow) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(self.row(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn page(source: &impl Pages, nonce: u64, number: u32) -> Result<Box<[u8; PAGE_BYTES]>, KixError> {
    let mut page = Box::new([0; PAGE_BYTES]);
    source.read_exact_at(&mut page[..], u64::from(number) * PAGE_BYTES as u64)?;
    if u32_at(&page[..], PAYLOAD_BYTES) != page_crc(nonce, number, &page[..]) {
        return Err(KixError::Page { page: number });
    }
    Ok(page)
}

/// The segment's nonce and the page's number go first: a page of another file or place fails.
fn page_crc(nonce: u64, number: u32, page: &[u8]) -> u32 {
    crc32c_with_nonce(nonce, &[&number.to_le_bytes(), &page[..PAYLOAD_BYTES]])
}
