//! HMAC-SHA256 (RFC 2104), with which the host knows its own compiled code again.

use sha2::{Digest, Sha256};

/// Bytes of a key and of a MAC.
pub(crate) const MAC_BYTES: usize = 32;
/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// The MAC of `parts`, one after the other.
pub(crate) fn mac(key: &[u8; MAC_BYTES], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        for (padded, key) in block.iter_mut().zip(key) {
            *padded ^= key;
        }
        block
    };
    let mut inner = Sha256::new_with_prefix(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    Sha256::new_with_prefix(pad(0x5c))
        .chain_update(inner.finalize())
        .finalize()
        .into()
}

/// Whether two MACs are the same, in a time that doesn't tell where they differ.
pub(crate) fn is_same(a: &[u8; MAC_BYTES], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn it_is_the_mac_of_rfc_4231() {
        // Test case 1; a shorter key is the same as one filled up with zeros (RFC 2104, section 2).
        let mut key = [0; MAC_BYTES];
        key[..20].fill(0x0b);
        let found = mac(&key, &[b"Hi ", b"There"]);
        assert_eq!(
            hex(&found),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert!(is_same(&found, &mac(&key, &[b"Hi There"])));
        assert!(!is_same(&found, &mac(&key, &[b"Hi there"])));
        assert!(!is_same(&found, b""));
    }
}
