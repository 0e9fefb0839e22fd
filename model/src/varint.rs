//! Numbers that take as many bytes as they need: LEB128, seven bits a byte, the lowest first, the
//! top bit set on all bytes but the last.

use alloc::vec::Vec;

/// Bytes of the longest number.
pub const BYTES_MAX: usize = 10;

/// Why no number begins at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VarintError {
    /// The bytes end before it does.
    End,
    /// It has more than 64 bits.
    TooLong,
}

/// Appends a number, in at most [`BYTES_MAX`] bytes.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front of `bytes`. After an error nothing is taken.
///
/// # Errors
/// [`VarintError`].
pub fn take(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0;
    for (at, shift) in (0..64).step_by(7).enumerate() {
        let byte = *bytes.get(at).ok_or(VarintError::End)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(VarintError::TooLong)
}

/// A signed number as one that is small where it is near zero.
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// What [`zigzag`] was given.
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_numbers_are_short_and_what_ends_or_overflows_is_refused() {
        let mut out = Vec::new();
        put(&mut out, 127);
        put(&mut out, 128);
        put(&mut out, u64::MAX);
        assert_eq!(out.len(), 1 + 2 + BYTES_MAX);
        let mut rest = &[0x80; 3][..];
        assert_eq!(take(&mut rest), Err(VarintError::End));
        assert_eq!(rest.len(), 3, "nothing was taken");
        let mut more = out[3..].to_vec();
        more[BYTES_MAX - 1] = 2;
        assert_eq!(take(&mut &more[..]), Err(VarintError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(values in prop::collection::vec(any::<u64>(), 0..20), shift in 0..64_u32) {
            let mut out = Vec::new();
            for value in &values {
                put(&mut out, value >> shift);
            }
            let mut rest = &out[..];
            for value in &values {
                prop_assert_eq!(take(&mut rest), Ok(value >> shift));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn zigzag_turns_back(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
            prop_assert!(zigzag(value) / 2 <= value.unsigned_abs());
        }
    }
}
