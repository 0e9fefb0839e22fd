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

/// CRC-32C of bytes that come piece by piece.
#[derive(Clone)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all pieces so far.
    #[must_use]
    pub fn value(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a 32-bit CRC in a 64-bit return"
        )]
        let crc = self.0.finalize() as u32;
        crc
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Crc32c({:08x})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn pieces_are_as_good_as_the_whole() {
        let mut crc = Crc32c::new();
        crc.update(b"1234");
        crc.update(b"");
        crc.update(b"56789");
        assert_eq!(crc.value(), crc32c(b"123456789"));
        assert_eq!(Crc32c::default().value(), crc32c(b""));
    }

    #[test]
    fn a_nonce_is_a_prefix() {
        let whole = [7u64.to_le_bytes().as_slice(), b"abc", b"def"].concat();
        assert_eq!(crc32c_with_nonce(7, &[b"abc", b"def"]), crc32c(&whole));
    }
}
