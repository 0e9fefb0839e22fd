//! Maps keyed by queue id: the server numbers queues, so nobody can choose ids that collide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tidegate_model::QueueId;

pub(crate) type QueueMap<V> = HashMap<QueueId, V, BuildHasherDefault<IdHasher>>;

/// One multiplication (Fibonacci hashing, Knuth 6.4), folded so that low bits depend on all.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
