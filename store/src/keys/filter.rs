//! Which keys a segment surely lacks: the split block Bloom filter that Apache Parquet specifies
//! (parquet-format, `BloomFilter.md`), over key hashes.
//!
//! One block answers a question, so it touches one line of memory or one page of a file.

use crate::bytes_at::u32_at;

/// Bytes of a block: eight words of 32 bits, and a key sets one bit in each.
pub(super) const BLOCK_BYTES: usize = 32;
/// Bits per key; about one key in a hundred that isn't there then seems to be.
const BITS_PER_KEY: usize = 10;
/// One odd number per word, as Parquet has them.
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// Blocks for this many different hashes.
pub(super) fn blocks_for(hashes: usize) -> usize {
    (hashes * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8)
}

/// The block that speaks for `hash`, of `blocks`, which is above zero.
pub(super) fn block_of(hash: u64, blocks: u32) -> u32 {
    let block = ((hash >> 32) * u64::from(blocks)) >> 32;
    u32::try_from(block).expect("below the number of blocks")
}

/// Puts `hash` into its block.
pub(super) fn insert(block: &mut [u8], hash: u64) {
    for (word, mask) in masks(hash).enumerate() {
        let at = word * 4;
        let bits = u32_at(block, at) | mask;
        block[at..at + 4].copy_from_slice(&bits.to_le_bytes());
    }
}

/// Whether `hash` may have been put into its block; `false` is certain.
pub(super) fn may_hold(block: &[u8], hash: u64) -> bool {
    masks(hash)
        .enumerate()
        .all(|(word, mask)| u32_at(block, word * 4) & mask != 0)
}

fn masks(hash: u64) -> impl Iterator<Item = u32> {
    #[expect(clippy::cast_possible_truncation, reason = "its lower half is meant")]
    let low = hash as u32;
    SALT.iter()
        .map(move |salt| 1 << (low.wrapping_mul(*salt) >> 27))
}

#[cfg(test)]
mod tests {
    use tidegate_model::hash::hash64;

    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let hash = |number: u32| hash64(&number.to_le_bytes());
        let blocks = u32::try_from(blocks_for(10_000)).unwrap();
        let mut filter = vec![0; blocks as usize * BLOCK_BYTES];
        let at = |number| block_of(hash(number), blocks) as usize * BLOCK_BYTES;
        for number in 0..10_000 {
            insert(&mut filter[at(number)..][..BLOCK_BYTES], hash(number));
        }
        let holds = |number: &u32| may_hold(&filter[at(*number)..][..BLOCK_BYTES], hash(*number));
        assert!((0..10_000).all(|number| holds(&number)));
        let wrong = (10_000..110_000).filter(holds).count();
        assert!(wrong < 2_500, "{wrong} of 100,000 seem to be there");
    }
}
