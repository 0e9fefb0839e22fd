//! Where a rebuilt index's queues go on backwards: as the indexes of the segments before say.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_model::QueueId;

use super::NO_SEGMENT;
use super::lookup::{Index, LOSSES_MAX};
use super::memory::MemoryIndex;
use super::sealed::{OpenIndex, SealedIndex};
use crate::sync::read;

/// Chains the queues of `index`, made anew from its segment, to the newest earlier segment that
/// holds each, so that its file has the bytes that it had.
///
/// `earlier` are the segments before it, newest first, and `open` gives the index of one, if it is
/// whole. One that is damaged too is not rebuilt for that: what it may hold is looked for from
/// there on when somebody reads.
pub(crate) fn chain_back(
    index: &mut MemoryIndex,
    earlier: impl IntoIterator<Item = u64>,
    mut open: impl FnMut(u64) -> Option<OpenIndex>,
) {
    let runs = index.runs_from(QueueId(0));
    let queues: Vec<_> = runs
        .map(|(queue, run)| (queue, run.entry(0).base_offset))
        .collect();
    let mut unchained = BTreeSet::new();
    for (queue, first) in queues {
        index.set_previous(queue, NO_SEGMENT);
        // Nothing lies before a queue's first offset.
        if first > 0 {
            unchained.insert(queue);
        }
    }
    for base in earlier {
        if unchained.is_empty() {
            return;
        }
        let whole = open(base);
        let found = unchained.iter().copied().filter(|queue| match &whole {
            Some(whole) => whole.run(*queue).is_some(),
            None => true,
        });
        for queue in found.collect::<Vec<_>>() {
            unchained.remove(&queue);
            index.set_previous(queue, base);
        }
    }
}

impl Index {
    /// See [`chain_back`].
    pub(super) fn chain(&self, index: &mut MemoryIndex) {
        let earlier: Vec<Arc<SealedIndex>> = {
            let state = read(&self.state);
            state
                .sealed
                .range(..index.base())
                .map(|(_, sealed)| sealed.clone())
                .collect()
        };
        let bases = earlier.iter().rev().map(|sealed| sealed.base());
        for _ in 0..LOSSES_MAX {
            let broken = self.vfs.broken_maps();
            chain_back(index, bases.clone(), |base| {
                let at = earlier.binary_search_by_key(&base, |sealed| sealed.base());
                self.open_whole(&earlier[at.ok()?])
            });
            if self.vfs.broken_maps() == broken {
                return;
            }
        }
        // Looked for from the segment before on, when somebody reads.
        chain_back(index, bases, |_| None);
    }

    /// The index, if it is in memory or its file is whole.
    fn open_whole(&self, sealed: &SealedIndex) -> Option<OpenIndex> {
        if let Some(open) = sealed.opened(self.commit.generation()) {
            return Some(open);
        }
        let nonce = self.segments.at_base(sealed.base())?.nonce().ok()?;
        let opened = sealed.open(
            self.vfs.as_ref(),
            &self.folder,
            nonce,
            self.commit.generation(),
            || Err(()),
        );
        opened.ok().map(|(open, _)| open)
    }
}
