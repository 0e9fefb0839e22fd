//! What may go of a queue.

use tidegate_model::{Offset, Timestamp};

use crate::index::{Entry, QueueState};

/// What may go of a queue. A batch goes as soon as one of these says so, and takes all before it
/// along; only whole batches go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Batches appended before this, exclusive.
    pub before: Option<Timestamp>,
    /// The oldest batches, until what is left has at most so many stored bytes. The newest batch
    /// stays, however large.
    pub max_bytes: Option<u64>,
    /// Batches whose offsets all are below this.
    pub consumed: Option<Offset>,
    /// All of it, and the queue with it: its topic is gone.
    pub remove: bool,
}

/// A queue's oldest batches, taken one by one.
#[derive(Clone, Copy)]
pub(super) struct Front {
    pub(super) start: u64,
    /// Stored bytes of what was taken.
    pub(super) taken: u64,
}

impl Rule {
    /// Whether `entry` goes, if it is the oldest of a queue from which `front` was taken already.
    pub(super) fn takes(&self, entry: &Entry, queue: &QueueState, front: &Front) -> bool {
        let end = entry.end_offset();
        let is_old = self
            .before
            .is_some_and(|before| entry.append_time < before.0);
        let is_consumed = self.consumed.is_some_and(|offset| end <= offset.0);
        let left = queue.bytes.saturating_sub(front.taken);
        let is_too_much = end < queue.next && self.max_bytes.is_some_and(|max| left > max);
        is_old || is_consumed || is_too_much
    }

    /// Whether it can take anything of `queue`, as far as can be told without an index.
    pub(super) fn may_take(&self, queue: &QueueState) -> bool {
        queue.start < queue.next
            && (self.before.is_some()
                || self.max_bytes.is_some_and(|max| queue.bytes > max)
                || self.consumed.is_some_and(|offset| offset.0 > queue.start))
    }
}
