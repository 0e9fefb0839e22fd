//! CRC-32C (Castagnoli, RFC 3720), the checksum of sections, headers and files.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a 32-bit CRC in a 64-bit return"
    )]
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    crc
}

/// CRC-32C of `parts` one after another, begun with the eight little-endian bytes of `nonce`.
#[must_use]
pub fn crc32c_with_nonce(nonce: u64, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&nonce.to_le_bytes());
    for part in parts {
        digest.update(part);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a 32-bit CRC in a 64-bit return"
    )]
    let crc = digest.finalize() as u32;
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_nonce_is_a_prefix() {
        let whole = [7u64.to_le_bytes().as_slice(), b"abc", b"def"].concat();
        assert_eq!(crc32c_with_nonce(7, &[b"abc", b"def"]), crc32c(&whole));
    }
}
