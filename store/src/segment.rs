//! A piece of the log: one preallocated file, mapped for reading when first read.

mod header;
mod prepare;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::error::ReadError;
use crate::header::HEADER_BYTES;
use crate::vfs::{Vfs, VfsFile, VfsMap};

pub use header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError};
pub(crate) use prepare::{Preparer, Spare, Wanted, is_full, prepare, prepare_fitting};

/// The class of a segment of the log as it was appended.
pub(crate) const CLASS_LOG: u32 = 0;
/// The class of a segment that holds no more than what was live of it.
pub(crate) const CLASS_REWRITTEN: u32 = 1;
/// Bytes that are brought into memory together, and remembered as being there.
///
/// Small enough that a reader of one queue among many doesn't map its neighbours' batches, large
/// enough that a system call per granule is little beside reading it.
const GRANULE_BYTES: u64 = 64 * 1024;
/// A granule counts as in memory for this many generations after it was last brought in.
const HOT_GENERATIONS: u32 = 2;

/// A segment as readers see it. Its writer holds the file beside it, see [`WritableSegment`].
pub(crate) struct Segment {
    base: u64,
    size: u64,
    path: PathBuf,
    vfs: Arc<dyn Vfs>,
    header: OnceLock<SegmentHeader>,
    /// Its header page is damaged, and the header is known from elsewhere.
    mended: bool,
    map: OnceLock<Box<dyn VfsMap>>,
    /// Per granule the generation in which it was brought into memory, 0 for never; not there for
    /// segments that nobody reads or writes.
    granules: OnceLock<Box<[AtomicU32]>>,
}

/// A segment that is or will be appended to.
#[derive(Clone)]
pub(crate) struct WritableSegment {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) nonce: u64,
}

impl Segment {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, path: PathBuf, base: u64, size: u64) -> Self {
        Self {
            base,
            size,
            path,
            vfs,
            header: OnceLock::new(),
            mended: false,
            map: OnceLock::new(),
            granules: OnceLock::new(),
        }
    }

    /// A segment whose file was just written with this header.
    pub(crate) fn written(vfs: Arc<dyn Vfs>, path: PathBuf, header: SegmentHeader) -> Self {
        let segment = Self::new(vfs, path, header.base.0, header.size);
        let _ = segment.header.set(header);
        segment
    }

    /// A segment whose header page is damaged, and should be this one.
    pub(crate) fn mended(vfs: Arc<dyn Vfs>, path: PathBuf, header: SegmentHeader) -> Self {
        Self {
            mended: true,
            ..Self::written(vfs, path, header)
        }
    }

    /// The header of [`Segment::mended`].
    pub(crate) fn mended_header(&self) -> Option<SegmentHeader> {
        self.header.get().copied().filter(|_| self.mended)
    }

    /// Position of the file's first byte.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of the file, header page included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Position of the first batch.
    pub(crate) fn first(&self) -> u64 {
        self.base + SEGMENT_HEADER_BYTES as u64
    }

    /// Position after the last byte. The next segment begins there, or later where this one was
    /// rewritten in its slot.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Whether not even a header fits between `position` and the end.
    pub(crate) fn is_full_at(&self, position: u64) -> bool {
        self.end().saturating_sub(position) < HEADER_BYTES as u64
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Opens the file and checks its header page. One that took the place of the file that this
    /// is about is refused.
    pub(crate) fn open_file(&self) -> Result<(Arc<dyn VfsFile>, SegmentHeader), ReadError> {
        let file = self
            .vfs
            .open(&self.path)
            .map_err(ReadError::io(&self.path))?;
        if let Some(header) = self.mended_header() {
            return Ok((file, header));
        }
        let mut page = [0; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut page, 0)
            .map_err(ReadError::io(&self.path))?;
        let header = SegmentHeader::decode(&page)
            .ok()
            .filter(|header| header.base.0 == self.base && header.size == self.size)
            .filter(|header| *self.header.get_or_init(|| *header) == *header)
            .ok_or_else(|| self.quarantined(self.base, self.end()))?;
        Ok((file, header))
    }

    pub(crate) fn quarantined(&self, from: u64, to: u64) -> ReadError {
        ReadError::Quarantined {
            from: crate::LogPosition(from),
            to: crate::LogPosition(to),
        }
    }

    /// The file's map. Once it is open, the file may be unlinked or another put in its place.
    pub(crate) fn map(&self) -> Result<&dyn VfsMap, ReadError> {
        if let Some(map) = self.map.get() {
            return Ok(map.as_ref());
        }
        let (file, _) = self.open_file()?;
        let len = usize::try_from(self.size).expect("segments end at 1 GiB");
        let map = file.map(len).map_err(ReadError::io(&self.path))?;
        // Two readers may have mapped it at once; one map stays.
        let _ = self.map.set(map);
        Ok(self.map.get().expect("just set").as_ref())
    }

    pub(crate) fn header(&self) -> Result<SegmentHeader, ReadError> {
        match self.header.get() {
            Some(header) => Ok(*header),
            None => Ok(self.open_file()?.1),
        }
    }

    pub(crate) fn nonce(&self) -> Result<u64, ReadError> {
        Ok(self.header()?.nonce)
    }

    fn granules_of(&self, range: &Range<u64>) -> &[AtomicU32] {
        let index = |position: u64| {
            usize::try_from((position - self.base) / GRANULE_BYTES).expect("segments end at 1 GiB")
        };
        let granules = self.granules.get_or_init(|| {
            let count = self.size.div_ceil(GRANULE_BYTES);
            (0..count).map(|_| AtomicU32::new(0)).collect()
        });
        &granules[index(range.start)..=index(range.end.max(range.start + 1) - 1)]
    }

    /// Notes that `range` was just written. A granule that began cold stays so: what lies before
    /// the range may not be in memory.
    pub(crate) fn mark_written(&self, range: &Range<u64>, generation: u32) {
        let aligned = (range.start - self.base).next_multiple_of(GRANULE_BYTES) + self.base;
        let whole_first = range.start <= self.first() || aligned == range.start;
        if whole_first || self.is_hot(&(range.start..range.start + 1), generation) {
            self.mark_hot(range, generation);
        } else if aligned < range.end {
            self.mark_hot(&(aligned..range.end), generation);
        }
    }

    fn mark_hot(&self, range: &Range<u64>, generation: u32) {
        for granule in self.granules_of(range) {
            granule.store(generation, Ordering::Relaxed);
        }
    }

    /// Whether `range` can be touched without waiting for a disk, as far as we know.
    pub(crate) fn is_hot(&self, range: &Range<u64>, generation: u32) -> bool {
        self.granules_of(range).iter().all(|granule| {
            let brought_in = granule.load(Ordering::Relaxed);
            brought_in != 0 && generation.wrapping_sub(brought_in) < HOT_GENERATIONS
        })
    }

    /// The bytes of `range` (positions), brought into memory first unless `hot`.
    ///
    /// An error of the disk quarantines `range`. Where the disk fails later, when the kernel has taken a
    /// page back, the page reads as zeros: see [`crate::vfs::Vfs::broken_maps`].
    pub(crate) fn bytes(&self, range: Range<u64>, generation: u32) -> Result<Bytes, ReadError> {
        let map = self.map()?;
        if !self.is_hot(&range, generation) {
            self.populate(map, &range, generation)?;
        }
        let at =
            |position: u64| usize::try_from(position - self.base).expect("segments end at 1 GiB");
        Ok(map.bytes(at(range.start)..at(range.end)))
    }

    fn populate(
        &self,
        map: &dyn VfsMap,
        range: &Range<u64>,
        generation: u32,
    ) -> Result<(), ReadError> {
        let at = |position: u64| usize::try_from(position).expect("segments end at 1 GiB");
        let start = (range.start - self.base) / GRANULE_BYTES * GRANULE_BYTES;
        let end = (range.end - self.base)
            .next_multiple_of(GRANULE_BYTES)
            .min(self.size);
        if map.populate(at(start)..at(end)).is_ok() {
            self.mark_hot(range, generation);
            return Ok(());
        }
        // Something near is unreadable; what was asked for may still be whole.
        map.populate(at(range.start - self.base)..at(range.end - self.base))
            .map_err(|error| {
                tracing::error!(
                    segment = %self.path.display(), from = range.start, to = range.end, %error,
                    "a range of the log can't be read"
                );
                self.quarantined(range.start, range.end)
            })
    }
}
