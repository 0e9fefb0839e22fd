//! Cutting a stream of bytes into frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::{Frame, PREFIX_BYTES, Prefix};
use crate::refusal::WireError;

/// Bytes that a frame in the making gets before its peer has sent as many: an announced length alone
/// costs no memory. After that it gets at most twice what has come.
const FIRST_RESERVE_BYTES: usize = 64 * 1024;

/// Takes chunks as they arrive, gives whole frames.
///
/// A frame that lies in one chunk is a slice of it. One that doesn't is copied together once, so that
/// small chunks don't pin the large buffers that they were cut from.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    chunks: VecDeque<Bytes>,
    /// Bytes in `chunks`.
    waiting: usize,
    /// The beginning of a frame whose end isn't there yet.
    partial: BytesMut,
    failed: bool,
}

impl FrameDecoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk. What it holds is bounded by the caller, who takes all frames (or stops reading)
    /// before it adds the next chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() && !self.failed {
            self.waiting += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// [`WireError`] for a prefix with impossible lengths, checked before anything is allocated. The
    /// decoder has lost its place then and gives nothing more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(prefix) = self.prefix() else {
            return Ok(None);
        };
        let prefix = prefix.inspect_err(|_| {
            self.failed = true;
            self.chunks.clear();
            self.waiting = 0;
            self.partial = BytesMut::new();
        })?;
        let len = prefix.len as usize;
        if self.partial.is_empty()
            && let Some(front) = self.chunks.front_mut()
            && front.len() >= len
        {
            let bytes = front.split_to(len);
            self.waiting -= len;
            if front.is_empty() {
                self.chunks.pop_front();
            }
            return Ok(Some(Frame { prefix, bytes }));
        }
        self.gather(len);
        if self.partial.len() < len {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.partial).freeze();
        Ok(Some(Frame { prefix, bytes }))
    }

    /// Bytes of a frame that has begun and not ended.
    #[must_use]
    pub fn partial_len(&self) -> usize {
        self.partial.len() + self.waiting
    }

    /// Bytes that are missing from the frame that has begun; 0 between frames.
    #[must_use]
    pub fn missing_len(&self) -> u64 {
        if self.partial_len() == 0 {
            return 0;
        }
        let whole = match self.prefix() {
            Some(Ok(prefix)) => prefix.len as usize,
            _ => PREFIX_BYTES,
        };
        whole.saturating_sub(self.partial_len()) as u64
    }

    /// The prefix of the next frame, if all its bytes are there.
    fn prefix(&self) -> Option<Result<Prefix, WireError>> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut have = 0;
        let parts = std::iter::once(&self.partial[..]).chain(self.chunks.iter().map(|c| &c[..]));
        for part in parts {
            let take = part.len().min(PREFIX_BYTES - have);
            prefix[have..have + take].copy_from_slice(&part[..take]);
            have += take;
            if have == PREFIX_BYTES {
                return Some(Prefix::decode(prefix));
            }
        }
        None
    }

    /// Moves bytes of the frame of `len` bytes out of the chunks.
    fn gather(&mut self, len: usize) {
        while self.partial.len() < len
            && let Some(front) = self.chunks.front_mut()
        {
            let take = front.len().min(len - self.partial.len());
            if self.partial.capacity() < self.partial.len() + take {
                let whole = if self.partial.len() < FIRST_RESERVE_BYTES {
                    len.min(FIRST_RESERVE_BYTES).max(self.partial.len() + take)
                } else {
                    len.min(self.partial.len() * 2)
                        .max(self.partial.len() + take)
                };
                self.partial.reserve(whole - self.partial.len());
            }
            self.partial.extend_from_slice(&front[..take]);
            front.advance(take);
            self.waiting -= take;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}
