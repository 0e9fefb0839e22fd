//! Body-block compression. The producer's client compresses; whoever reads bodies decompresses.

use alloc::vec::Vec;

use crate::section::{Codec, Section, SectionError};

/// `block` as one LZ4 block.
#[must_use]
pub fn lz4(block: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress(block)
}

/// The uncompressed body block of a section, at most [`crate::limits::BODY_BLOCK_BYTES_MAX`] bytes
/// (checked when the section was parsed).
///
/// # Errors
/// [`SectionError::Compression`] if the block does not decompress to exactly its announced length.
pub fn raw_bodies(section: &Section<'_>, codec: Codec) -> Result<Vec<u8>, SectionError> {
    let expected = section.raw_body_len();
    match codec {
        Codec::None => Ok(section.stored_body_bytes().to_vec()),
        Codec::Lz4 => {
            let raw = lz4_flex::block::decompress(section.stored_body_bytes(), expected)
                .map_err(|_| SectionError::Compression { expected })?;
            if raw.len() == expected {
                Ok(raw)
            } else {
                Err(SectionError::Compression { expected })
            }
        }
    }
}
