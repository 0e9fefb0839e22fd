//! Bytes waiting to be sent on one stream, in chunks that a transport likes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

/// What a stream with little to send allocates.
const SMALL_BYTES: usize = 1024;

/// Joins small frames into chunks and cuts large payloads into chunks; a payload is copied at most
/// once, a large one never. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub(crate) struct OutBuffer {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl OutBuffer {
    /// Bytes waiting.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes, copied.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES_MAX - self.tail.len()));
            self.make_room(now.len());
            self.tail.extend_from_slice(now);
            if self.tail.len() == CHUNK_BYTES_MAX {
                self.seal();
            }
            bytes = rest;
        }
    }

    /// Adds a payload: copied if it is small, else as it is in chunks.
    pub(crate) fn put_bytes(&mut self, mut payload: Bytes) {
        if payload.len() < CHUNK_BYTES_MIN {
            self.put(&payload);
            return;
        }
        self.seal();
        self.len += payload.len();
        while !payload.is_empty() {
            let chunk = payload.split_to(payload.len().min(CHUNK_BYTES_MAX));
            self.chunks.push_back(chunk);
        }
    }

    /// The next chunk.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let chunk = self.chunks.pop_front()?;
        self.len -= chunk.len();
        Some(chunk)
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A few frames get a small buffer, more than that a whole chunk: what grew step by step would be
    /// copied at each step.
    fn make_room(&mut self, len: usize) {
        let whole = self.tail.len() + len;
        if self.tail.capacity() < whole {
            let wanted = if whole <= SMALL_BYTES {
                SMALL_BYTES
            } else {
                CHUNK_BYTES_MAX
            };
            self.tail.reserve(wanted - self.tail.len());
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut OutBuffer) -> Vec<Bytes> {
        std::iter::from_fn(|| out.take()).collect()
    }

    #[test]
    fn small_frames_share_a_chunk_and_large_payloads_are_not_copied() {
        let mut out = OutBuffer::default();
        for _ in 0..100 {
            out.put(&[1; 72]);
            out.put_bytes(Bytes::from(vec![2; 100]));
        }
        assert_eq!(out.len(), 17_200);
        assert_eq!(drain(&mut out).len(), 1);
        let payload = Bytes::from(vec![3; 150_000]);
        out.put(&[1; 72]);
        out.put_bytes(payload.clone());
        let chunks = drain(&mut out);
        assert_eq!(
            chunks.iter().map(Bytes::len).collect::<Vec<_>>(),
            [72, 65_536, 65_536, 18_928]
        );
        assert_eq!(chunks[1].as_ptr(), payload.as_ptr());
        assert_eq!(out.len(), 0);
    }

    #[test]
    fn chunks_are_never_larger_than_announced() {
        let mut out = OutBuffer::default();
        for _ in 0..20 {
            out.put(&[0; 15_000]);
        }
        let chunks = drain(&mut out);
        assert!(chunks.iter().all(|c| c.len() <= CHUNK_BYTES_MAX));
        assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), 300_000);
    }
}
