//! What headers tell of the nonce of their segment, where its header page is lost.
//!
//! The local checksum is a CRC, and linear: what the nonce adds to it is the same for every header
//! of a segment, and is known from any of them. It has 32 bits of the nonce's 64; nonces that agree
//! in it verify the same headers.

use super::{BatchHeader, HEADER_BYTES, local_crc};
use crate::bytes_at::{put, u32_at};

/// What a nonce adds to the local checksum of every header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NonceMark(u32);

impl NonceMark {
    pub(crate) fn of(nonce: u64) -> Self {
        let none = [0; HEADER_BYTES];
        Self(local_crc(&none, nonce) ^ local_crc(&none, 0))
    }

    /// The only nonce below 2^32 with this mark.
    pub(crate) fn nonce(self) -> u64 {
        // By highest bit: a mark, and the bits of the nonce that make it.
        let mut rows = [(0_u32, 0_u64); 32];
        for bit in 0..32 {
            let (mut mark, mut nonce) = (Self::of(1 << bit).0, 1_u64 << bit);
            while mark != 0 {
                let row = &mut rows[mark.ilog2() as usize];
                if row.0 == 0 {
                    *row = (mark, nonce);
                    break;
                }
                mark ^= row.0;
                nonce ^= row.1;
            }
        }
        let (mut mark, mut nonce) = (self.0, 0);
        while mark != 0 {
            let row = rows[mark.ilog2() as usize];
            debug_assert_ne!(row.0, 0, "a CRC tells 32 bits in one place apart");
            mark ^= row.0;
            nonce ^= row.1;
        }
        nonce
    }
}

impl BatchHeader {
    /// Reads a header whose segment's nonce isn't known, and what it says of that. Only the logical
    /// part is checked by this: the local one is as good as the mark is believed.
    pub(crate) fn decode_without_nonce(bytes: &[u8]) -> Option<(Self, NonceMark)> {
        let mut copy: [u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let with_zero = local_crc(&copy, 0);
        let mark = NonceMark(u32_at(&copy, 4) ^ with_zero);
        put(&mut copy, 4, &with_zero.to_le_bytes());
        Some((Self::decode(&copy, 0).ok()?, mark))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Kind;
    use crate::position::LogPosition;

    proptest! {
        #[test]
        fn the_nonce_found_verifies_what_the_nonce_lost_did(nonce: u64, position: u64, epoch: u32) {
            let at = LogPosition(position);
            let header = BatchHeader::local(Kind::Open, at, at, epoch);
            let bytes = header.encode(nonce);
            let (read, mark) = BatchHeader::decode_without_nonce(&bytes).unwrap();
            prop_assert_eq!(read, header);
            prop_assert_eq!(mark, NonceMark::of(nonce));
            let found = mark.nonce();
            prop_assert!(u32::try_from(found).is_ok());
            prop_assert_eq!(BatchHeader::decode(&bytes, found), Ok(header));
            // It is no other segment's.
            prop_assert!(BatchHeader::decode(&bytes, found ^ 1).is_err());
        }
    }
}
