//! The first page of a segment. Byte table: `docs/formats/segment.md`.

#[cfg(test)]
mod tests;

use tidegate_model::Timestamp;
use tidegate_model::checksum::crc32c_with_nonce;

use crate::bytes_at::{i64_at, put, u32_at, u64_at};
use crate::folder::FORMAT_VERSION;
use crate::position::LogPosition;

/// Bytes of the header page: one block of any common disk.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"TGSEGMNT";

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Position of the file's first byte.
    pub base: LogPosition,
    /// Bytes of the file.
    pub size: u64,
    /// Begins the local checksum of each batch, so that bytes of another segment never verify.
    pub nonce: u64,
    /// When it was prepared.
    pub created: Timestamp,
    /// 0: the log as it was appended. 1: rewritten, with only what was live then; recovery doesn't
    /// replay it.
    pub class: u32,
}

/// Why a page is no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// Fewer bytes than a page.
    #[error("a segment header has {SEGMENT_HEADER_BYTES} bytes; there are {len}")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// Something else.
    #[error("this is no segment of a log")]
    Magic,
    /// A version from the future or past.
    #[error("the segment has format version {found}; this program reads {FORMAT_VERSION}")]
    Version {
        /// Version it has.
        found: u32,
    },
    /// Damaged.
    #[error("the segment header's checksum is wrong")]
    Crc,
}

impl SegmentHeader {
    /// Reads a header page.
    ///
    /// # Errors
    /// [`SegmentHeaderError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(SegmentHeaderError::Short { len: bytes.len() });
        };
        if bytes[..8] != MAGIC {
            return Err(SegmentHeaderError::Magic);
        }
        let found = u32_at(bytes, 8);
        if found != FORMAT_VERSION {
            return Err(SegmentHeaderError::Version { found });
        }
        if u32_at(bytes, 12) != crc(bytes) {
            return Err(SegmentHeaderError::Crc);
        }
        Ok(Self {
            base: LogPosition(u64_at(bytes, 16)),
            size: u64_at(bytes, 24),
            nonce: u64_at(bytes, 32),
            created: Timestamp(i64_at(bytes, 40)),
            class: u32_at(bytes, 48),
        })
    }

    /// The header page.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.base.0.to_le_bytes());
        put(&mut bytes, 24, &self.size.to_le_bytes());
        put(&mut bytes, 32, &self.nonce.to_le_bytes());
        put(&mut bytes, 40, &self.created.0.to_le_bytes());
        put(&mut bytes, 48, &self.class.to_le_bytes());
        let crc = crc(&bytes);
        put(&mut bytes, 12, &crc.to_le_bytes());
        bytes
    }
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c_with_nonce(0, &[&bytes[..12], &bytes[16..SEGMENT_HEADER_BYTES]])
}
