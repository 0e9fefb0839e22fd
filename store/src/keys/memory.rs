//! What finding keeps in memory: filters of sealed segments, and keys of the newest one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidegate_model::QueueId;

use super::kix::KixError;
use super::sealed::Candidates;
use crate::id_map::QueueMap;
use crate::sync::lock;

/// Bytes of filters in memory: those of some 13 million keys. The newest segments' come first; a
/// question to another segment reads a page of its file instead.
const FILTER_BYTES_MAX: usize = 16 << 20;
/// Keys of the newest segment that are remembered, some 32 MiB of them; batches beyond are looked
/// at one by one.
const RECENT_ROWS_MAX: usize = 1 << 20;
/// Queues of the newest segment whose keys are remembered.
const RECENT_QUEUES_MAX: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Filters {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    by_base: BTreeMap<u64, (u64, Arc<[u8]>)>,
}

impl Filters {
    /// The filter of a segment, loaded if it has a place here; `None` if it has none.
    pub(super) fn get_or_load(
        &self,
        base: u64,
        nonce: u64,
        len: usize,
        load: impl FnOnce() -> Result<Vec<u8>, KixError>,
    ) -> Result<Option<Arc<[u8]>>, KixError> {
        {
            let mut kept = lock(&self.kept);
            match kept.by_base.get(&base) {
                Some((of, blocks)) if *of == nonce => return Ok(Some(blocks.clone())),
                Some(_) => kept.remove(base),
                None => {}
            }
            if !kept.has_place(base, len) {
                return Ok(None);
            }
        }
        let blocks: Arc<[u8]> = load()?.into();
        lock(&self.kept).add(base, nonce, blocks.clone());
        Ok(Some(blocks))
    }

    /// Forgets the filters of segments that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(u64) -> bool) {
        let mut kept = lock(&self.kept);
        kept.by_base.retain(|base, _| is_there(*base));
        kept.bytes = kept.by_base.values().map(|(_, blocks)| blocks.len()).sum();
    }
}

impl Kept {
    /// Whether there is room once filters of older segments have gone.
    fn has_place(&self, base: u64, len: usize) -> bool {
        let newer = self.by_base.range(base..);
        let taken: usize = newer.map(|(_, (_, blocks))| blocks.len()).sum();
        taken + len <= FILTER_BYTES_MAX
    }

    fn add(&mut self, base: u64, nonce: u64, blocks: Arc<[u8]>) {
        self.remove(base);
        self.bytes += blocks.len();
        self.by_base.insert(base, (nonce, blocks));
        while self.bytes > FILTER_BYTES_MAX {
            let Some((oldest, _)) = self.by_base.first_key_value() else {
                return;
            };
            let oldest = *oldest;
            self.remove(oldest);
        }
    }

    fn remove(&mut self, base: u64) {
        if let Some((_, blocks)) = self.by_base.remove(&base) {
            self.bytes -= blocks.len();
        }
    }
}

/// The keys of the segment that is appended to, as far as somebody has asked for them.
#[derive(Default)]
pub(super) struct Recent {
    base: u64,
    rows: BTreeSet<(u64, u32)>,
    queues: QueueMap<Scanned>,
}

/// How far a queue's batches have been looked at.
#[derive(Clone, Copy, Default)]
pub(super) struct Scanned {
    /// Batches before this place have.
    pub(super) until: u32,
    /// Those among them that could not be read.
    pub(super) unreadable: u32,
}

impl Recent {
    /// Begins anew if another segment is the newest now.
    pub(super) fn turn_to(&mut self, base: u64) {
        if self.base != base {
            *self = Self {
                base,
                ..Self::default()
            };
        }
    }

    pub(super) fn scanned(&self, queue: QueueId) -> Scanned {
        self.queues.get(&queue).copied().unwrap_or_default()
    }

    /// Takes in the key hashes of the queue's batch at `place`, unless there is no room.
    pub(super) fn add(
        &mut self,
        queue: QueueId,
        place: u32,
        hashes: &[u64],
        is_readable: bool,
    ) -> bool {
        let has_room = self.rows.len() + hashes.len() <= RECENT_ROWS_MAX
            && (self.queues.len() < RECENT_QUEUES_MAX || self.queues.contains_key(&queue));
        if has_room {
            self.rows.extend(hashes.iter().map(|hash| (*hash, place)));
            let scanned = self.queues.entry(queue).or_default();
            scanned.until = place + 1;
            scanned.unreadable += u32::from(!is_readable);
        }
        has_room
    }

    pub(super) fn candidates(&self, queue: QueueId, hash: u64) -> Candidates {
        Candidates {
            places: self
                .rows
                .range((hash, 0)..=(hash, u32::MAX))
                .map(|row| row.1)
                .collect(),
            covered: self.scanned(queue).until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_the_newest_segments_stay() {
        let filters = Filters::default();
        let third = FILTER_BYTES_MAX / 3;
        let get = |base, len| {
            let load = || Ok(vec![1; len]);
            filters.get_or_load(base, 7, len, load).unwrap().is_some()
        };
        for base in 1..=3 {
            assert!(get(base, third), "{base}");
        }
        assert!(!get(0, third), "an older one finds no place");
        assert!(get(4, third), "a newer one does");
        assert!(!get(1, third), "instead of the oldest");
        assert!(
            !get(5, FILTER_BYTES_MAX + 1),
            "one that is too large does not"
        );
        filters.retain(|base| base > 3);
        assert!(get(1, third));
        assert_eq!(lock(&filters.kept).bytes, 2 * third);
    }

    #[test]
    fn a_rewritten_segment_has_another_filter() {
        let filters = Filters::default();
        let get = |nonce: u64, fill: u8| {
            let load = || Ok(vec![fill; 4]);
            filters.get_or_load(9, nonce, 4, load).unwrap().unwrap()[0]
        };
        assert_eq!(get(1, 5), 5);
        assert_eq!(get(1, 6), 5, "kept");
        assert_eq!(get(2, 7), 7, "of another segment");
    }

    #[test]
    fn keys_beyond_the_limit_are_not_kept() {
        let mut recent = Recent::default();
        recent.turn_to(4096);
        let queue = QueueId(1);
        let many: Vec<u64> = (0..RECENT_ROWS_MAX as u64).collect();
        assert!(recent.add(queue, 10, &many, true));
        assert!(!recent.add(queue, 20, &[5], true));
        let found = recent.candidates(queue, 5);
        assert_eq!((found.places, found.covered), (vec![10], 11));
        recent.turn_to(8192);
        let found = recent.candidates(queue, 5);
        assert_eq!((found.places, found.covered), (vec![], 0));
    }
}
