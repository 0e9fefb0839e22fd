//! The RAM ring between owner and disk: chunks that are filled, written out and used again.
//!
//! A unit lies whole in one chunk, so each write-out ends with a unit. Chunks are allocated as the
//! disk falls behind and given back beyond what an idle store keeps.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::segment::WritableSegment;

/// Bytes of a chunk; a larger unit gets a chunk of its own size. Also the largest single write.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of one segment, ready to be written out.
pub(crate) struct Extent {
    pub(crate) to: WritableSegment,
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
    /// Where the log goes on: behind the bytes, or at the end of the segment that they pad out.
    pub(crate) end: u64,
}

impl Extent {
    /// The positions of the bytes.
    pub(crate) fn written(&self) -> Range<u64> {
        self.position..self.position + self.bytes.len() as u64
    }
}

pub(crate) struct Ring {
    /// The chunk being filled; its bytes go to `to` from `position` on.
    chunk: BytesMut,
    chunk_capacity: usize,
    to: WritableSegment,
    position: u64,
    ready: VecDeque<Extent>,
    ready_bytes: usize,
    /// Emptied handles of chunks, usable again once their extents are written, with capacities.
    retired: Vec<(BytesMut, usize)>,
    allocated: usize,
    keep: usize,
    max: usize,
}

impl Ring {
    pub(crate) fn new(to: WritableSegment, position: u64, keep: usize, max: usize) -> Self {
        Self {
            chunk: BytesMut::new(),
            chunk_capacity: 0,
            to,
            position,
            ready: VecDeque::new(),
            ready_bytes: 0,
            retired: Vec::new(),
            allocated: 0,
            keep,
            max,
        }
    }

    /// Position after the last byte put.
    pub(crate) fn tail(&self) -> u64 {
        self.position + self.chunk.len() as u64
    }

    /// Bytes of memory taken.
    pub(crate) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Makes room for `need` contiguous bytes. `false` if there is none until the disk catches up.
    pub(crate) fn reserve(&mut self, need: usize) -> bool {
        if self.chunk.capacity() - self.chunk.len() >= need {
            return true;
        }
        if self.chunk.is_empty()
            && self.chunk_capacity >= need
            && self.chunk.try_reclaim(self.chunk_capacity)
        {
            return true;
        }
        let found = self
            .retired
            .iter_mut()
            .position(|(chunk, capacity)| *capacity >= need && chunk.try_reclaim(*capacity));
        let (chunk, capacity) = match found {
            Some(at) => self.retired.swap_remove(at),
            None => {
                let capacity = need.max(CHUNK_BYTES).min(self.max);
                if self.allocated + capacity > self.max {
                    self.release(self.keep.min(self.max - capacity));
                }
                if capacity < need || self.allocated + capacity > self.max {
                    return false;
                }
                self.allocated += capacity;
                (BytesMut::with_capacity(capacity), capacity)
            }
        };
        self.close_extent(self.tail());
        let old = std::mem::replace(&mut self.chunk, chunk);
        let old_capacity = std::mem::replace(&mut self.chunk_capacity, capacity);
        if old_capacity > 0 {
            self.retired.push((old, old_capacity));
        }
        true
    }

    /// Gives written-out chunks back until no more than `keep` bytes are taken, where possible.
    pub(crate) fn release(&mut self, keep: usize) {
        let allocated = &mut self.allocated;
        self.retired.retain_mut(|(chunk, capacity)| {
            if *allocated > keep && chunk.try_reclaim(*capacity) {
                *allocated -= *capacity;
                return false;
            }
            true
        });
    }

    /// Gives back what an idle store doesn't keep.
    pub(crate) fn shrink(&mut self) {
        self.release(self.keep);
    }

    /// Puts bytes behind the tail; the caller has reserved room for them.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.chunk.extend_from_slice(bytes);
    }

    /// Puts `len` zero bytes behind the tail; the caller has reserved room for them.
    pub(crate) fn put_zeros(&mut self, len: usize) {
        let to = self.chunk.len() + len;
        self.chunk.resize(to, 0);
    }

    /// What follows goes to another segment, from `position` on.
    pub(crate) fn switch(&mut self, to: WritableSegment, position: u64) {
        self.close_extent(self.to.segment.end());
        self.to = to;
        self.position = position;
    }

    fn close_extent(&mut self, end: u64) {
        if self.chunk.is_empty() {
            return;
        }
        let bytes = self.chunk.split().freeze();
        let position = self.position;
        self.position += bytes.len() as u64;
        self.ready_bytes += bytes.len();
        self.ready.push_back(Extent {
            to: self.to.clone(),
            position,
            bytes,
            end,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.chunk.is_empty()
    }

    /// Bytes that nobody took yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.ready_bytes + self.chunk.len()
    }

    /// The oldest extents, of `most` bytes or one extent.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Extent> {
        if self.ready_bytes < most {
            self.close_extent(self.tail());
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(extent) = self.ready.front() {
            if !taken.is_empty() && bytes + extent.bytes.len() > most {
                break;
            }
            bytes += extent.bytes.len();
            taken.extend(self.ready.pop_front());
        }
        self.ready_bytes -= bytes;
        taken
    }
}
