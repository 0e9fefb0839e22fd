//! What a search looks at next: segments and batches by the best place that they may hold.

use std::sync::Arc;

use tidegate_model::{Bookmark, Offset, QueueId, Timestamp};

use crate::index::Entry;

/// Something that may hold the next message, with the best place that it can be at.
pub(super) struct Next {
    pub(super) rank: Rank,
    pub(super) work: Work,
}

/// A bookmark as a number that is higher the sooner its message comes.
pub(super) type Rank = (i64, u64, u64);

pub(super) enum Work {
    Segment(Segment),
    Batch(Stream),
}

#[derive(Clone, Copy)]
pub(super) enum Segment {
    Sealed(u64),
    Newest(u64),
}

impl Segment {
    pub(super) fn base(&self) -> u64 {
        match self {
            Self::Sealed(base) | Self::Newest(base) => *base,
        }
    }
}

/// Batches of one queue in one segment.
pub(super) struct Stream {
    pub(super) segment: Segment,
    /// What its places are places in: the segment may be rewritten meanwhile.
    pub(super) file: File,
    pub(super) queue: QueueId,
    pub(super) places: Places,
    /// The index entry of the last place.
    pub(super) entry: Entry,
}

/// A segment as it was looked up; `None` if it was gone.
pub(super) type File = Option<Arc<crate::segment::Segment>>;

/// Messages between two places, the second exclusive.
pub(super) type Range = (Bookmark, Bookmark);

/// Places of batches, the next one last.
#[derive(Default)]
pub(super) struct Places {
    pub(super) places: Vec<u32>,
    /// There are more behind them.
    pub(super) more: bool,
}

/// Before the first message of a batch.
pub(super) fn begin_of(queue: QueueId, entry: &Entry) -> Bookmark {
    Bookmark {
        time: Timestamp(entry.append_time),
        queue,
        offset: Offset(entry.base_offset),
    }
}

/// Behind the last message of a batch.
pub(super) fn end_of(queue: QueueId, entry: &Entry) -> Bookmark {
    Bookmark {
        offset: Offset(entry.end_offset()),
        ..begin_of(queue, entry)
    }
}

/// Behind all messages appended at `time`.
pub(super) fn after(time: Timestamp) -> Bookmark {
    match time.0.checked_add(1) {
        Some(next) => Bookmark::at(Timestamp(next)),
        None => Bookmark {
            time,
            queue: QueueId(u64::MAX),
            offset: Offset(u64::MAX),
        },
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Where both may be next, a segment is opened before a batch is taken.
        let is_segment = |next: &Self| matches!(next.work, Work::Segment(_));
        self.rank
            .cmp(&other.rank)
            .then_with(|| is_segment(self).cmp(&is_segment(other)))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}
