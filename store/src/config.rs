//! What can be tuned.

use crate::error::OpenError;
use crate::header::HEADER_BYTES;
use crate::segment::SEGMENT_HEADER_BYTES;

/// Smallest segment; only tests want one.
pub const SEGMENT_BYTES_MIN: u64 = 32 * 1024;
/// Largest segment: positions in its index are 32 bits of 8-byte units, and pads 32 bits of bytes.
pub const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;
/// Most bytes of one atomic unit, headers and padding included, however large ring and segments.
pub const UNIT_BYTES_MAX: u64 = 12 * 1024 * 1024;

/// Tunables of a store. Sizes in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Ring memory that an idle store keeps.
    pub ring_bytes: usize,
    /// Ring memory under load; appends are refused beyond it until the disk has caught up.
    pub ring_bytes_max: usize,
    /// Size of the first segment; each next one is twice as large, up to the maximum.
    pub segment_bytes: u64,
    /// Size that segments grow to.
    pub segment_bytes_max: u64,
    /// A checkpoint is due after this much log, or after `checkpoint_factor` times what the last one
    /// wrote if that is more, up to 1 GiB.
    pub checkpoint_bytes: u64,
    /// See `checkpoint_bytes`.
    pub checkpoint_factor: u64,
    /// A checkpoint is due after this time if anything was appended.
    pub checkpoint_interval_ms: u64,
    /// Shards that may append: ids from 0 on, this many.
    pub shards: u32,
    /// Bytes of full segments that are read again and checked per second; 0 for none. At the
    /// default 100 GB take 13 hours.
    pub scrub_bytes_per_s: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 8 << 20,
            ring_bytes_max: 64 << 20,
            segment_bytes: 16 << 20,
            segment_bytes_max: 256 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_factor: 4,
            checkpoint_interval_ms: 5000,
            shards: 8,
            scrub_bytes_per_s: 2 << 20,
        }
    }
}

impl StoreConfig {
    /// Most bytes of one atomic unit, headers and padding included.
    #[must_use]
    pub fn unit_bytes_max(&self) -> u64 {
        (self.segment_bytes - SEGMENT_HEADER_BYTES as u64)
            .min(self.ring_bytes_max as u64 - HEADER_BYTES as u64)
            .min(UNIT_BYTES_MAX)
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |field, rule| Err(OpenError::Config { field, rule });
        if self.segment_bytes < SEGMENT_BYTES_MIN || !self.segment_bytes.is_multiple_of(4096) {
            return wrong(
                "segment_bytes",
                "must be a multiple of 4096 of at least 32768",
            );
        }
        if self.segment_bytes_max < self.segment_bytes
            || self.segment_bytes_max > SEGMENT_BYTES_LIMIT
            || !self.segment_bytes_max.is_multiple_of(4096)
        {
            return wrong(
                "segment_bytes_max",
                "must be a multiple of 4096 from segment_bytes to 1 GiB",
            );
        }
        if self.ring_bytes == 0 || self.ring_bytes_max < self.ring_bytes.max(4096) {
            return wrong(
                "ring_bytes_max",
                "must be at least ring_bytes, and that above zero",
            );
        }
        if self.shards == 0 || self.shards > 1024 {
            return wrong("shards", "must be from 1 to 1024");
        }
        Ok(())
    }
}
