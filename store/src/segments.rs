//! All segments by position, and the damaged ranges among them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::ReadError;
use crate::position::LogPosition;
use crate::segment::Segment;
use crate::sync::{read, write};

/// Ranges that are remembered as damaged; further ones are found again by each reader's checksum.
const QUARANTINED_MAX: usize = 65_536;

#[derive(Default)]
pub(crate) struct Segments {
    by_base: RwLock<BTreeMap<u64, Arc<Segment>>>,
    quarantined: RwLock<BTreeMap<u64, u64>>,
    quarantined_count: AtomicUsize,
}

impl Segments {
    pub(crate) fn add(&self, segment: Arc<Segment>) {
        write(&self.by_base).insert(segment.base(), segment);
    }

    pub(crate) fn len(&self) -> usize {
        read(&self.by_base).len()
    }

    pub(crate) fn at_base(&self, base: u64) -> Option<Arc<Segment>> {
        read(&self.by_base).get(&base).cloned()
    }

    /// Takes a segment out. Who holds it can go on reading it.
    pub(crate) fn remove(&self, base: u64) {
        let Some(segment) = write(&self.by_base).remove(&base) else {
            return;
        };
        let mut ranges = write(&self.quarantined);
        ranges.retain(|from, to| *to <= segment.base() || *from >= segment.end());
        self.quarantined_count
            .store(ranges.len(), Ordering::Relaxed);
    }

    /// Those with a base below `floor`, oldest first.
    pub(crate) fn below(&self, floor: u64) -> Vec<Arc<Segment>> {
        let segments = read(&self.by_base);
        segments.range(..floor).map(|(_, s)| s.clone()).collect()
    }

    /// Bytes of the newest one's file.
    pub(crate) fn newest_bytes(&self) -> u64 {
        let segments = read(&self.by_base);
        segments.values().next_back().map_or(0, |s| s.size())
    }

    /// Bytes of all their files.
    pub(crate) fn bytes(&self) -> u64 {
        read(&self.by_base).values().map(|s| s.size()).sum()
    }

    /// Whether anything of the segment is known to be damaged.
    pub(crate) fn is_damaged(&self, segment: &Segment) -> bool {
        let ranges = read(&self.quarantined);
        let before_end = ranges.range(..segment.end()).next_back();
        before_end.is_some_and(|(_, to)| *to > segment.base())
    }

    /// The segment that `position` lies in.
    pub(crate) fn at(&self, position: u64) -> Option<Arc<Segment>> {
        read(&self.by_base)
            .range(..=position)
            .next_back()
            .map(|(_, segment)| segment)
            .filter(|segment| position < segment.end())
            .cloned()
    }

    /// The first segment from `base` on that is full, and durable up to `durable`.
    pub(crate) fn full_from(&self, base: u64, durable: u64) -> Option<Arc<Segment>> {
        let segments = read(&self.by_base);
        let (_, segment) = segments.range(base..).next()?;
        (segment.end() <= durable).then(|| segment.clone())
    }

    /// Remembers that the positions from `from` to `to` (exclusive) are damaged.
    pub(crate) fn quarantine(&self, from: u64, to: u64) {
        let mut ranges = write(&self.quarantined);
        if ranges.len() < QUARANTINED_MAX && ranges.insert(from, to).is_none() {
            self.quarantined_count.fetch_add(1, Ordering::Relaxed);
            tracing::error!(from, to, "a range of the log is damaged and quarantined");
        }
    }

    /// The damaged ranges that begin before `end`: from, and to exclusive.
    pub(crate) fn quarantined_below(&self, end: u64) -> Vec<(u64, u64)> {
        let ranges = read(&self.quarantined);
        ranges.range(..end).map(|(from, to)| (*from, *to)).collect()
    }

    pub(crate) fn quarantined_count(&self) -> usize {
        self.quarantined_count.load(Ordering::Relaxed)
    }

    /// The error for `position` if it is damaged.
    pub(crate) fn check(&self, position: u64) -> Result<(), ReadError> {
        if self.quarantined_count() == 0 {
            return Ok(());
        }
        match read(&self.quarantined).range(..=position).next_back() {
            Some((from, to)) if position < *to => Err(ReadError::Quarantined {
                from: LogPosition(*from),
                to: LogPosition(*to),
            }),
            _ => Ok(()),
        }
    }
}
