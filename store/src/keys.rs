//! Finding messages by their keys and by time, newest or oldest first, page by page.
//!
//! Each sealed segment has a `.kix` file beside its `.qix`: which batches hold a key. It is derived
//! like that one, made in the background and never on the way of a publish. The keys of the newest
//! segment are gathered when somebody asks. What an index says is only ever a hint: a message is
//! found when its batch was read, its checksum held, and its key is the one asked for.

mod build;
mod filter;
mod find;
mod kix;
mod memory;
mod sealed;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::folder::Folder;
use crate::segment::Segment;
use crate::segments::Segments;
use crate::sync::lock;
use crate::vfs::Vfs;
use memory::{Filters, Recent};
use sealed::Shelf;

pub(crate) use build::{build as build_kix, messages};
pub use find::{Find, Found, FoundBatch};
pub use kix::{Kix, KixError, KixInfo, KixRow};
pub(crate) use sealed::SealedKeys;

/// The key indexes of all segments.
pub(crate) struct Keys {
    shelf: Arc<Shelf>,
    segments: Arc<Segments>,
    sealed: Mutex<BTreeMap<u64, Arc<SealedKeys>>>,
    recent: Mutex<Recent>,
}

impl Keys {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, folder: Folder, segments: Arc<Segments>) -> Self {
        Self {
            shelf: Arc::new(Shelf {
                vfs,
                folder,
                filters: Filters::default(),
            }),
            segments,
            sealed: Mutex::new(BTreeMap::new()),
            recent: Mutex::default(),
        }
    }

    /// The key index of the sealed segment at `base`, opened or not; `None` if it has gone.
    pub(crate) fn of(&self, base: u64) -> Option<Arc<SealedKeys>> {
        let segment = self.segments.at_base(base);
        let mut sealed = lock(&self.sealed);
        let Some(segment) = segment else {
            sealed.remove(&base);
            return None;
        };
        Some(self.of_segment(&mut sealed, &segment))
    }

    /// Forgets what is known of segments other than these, whose bases rise.
    fn retain(&self, bases: &[u64]) {
        let mut sealed = lock(&self.sealed);
        if sealed.keys().any(|base| bases.binary_search(base).is_err()) {
            sealed.retain(|base, _| bases.binary_search(base).is_ok());
            self.shelf
                .filters
                .retain(|base| bases.binary_search(&base).is_ok());
        }
    }

    fn of_segment(
        &self,
        sealed: &mut BTreeMap<u64, Arc<SealedKeys>>,
        segment: &Arc<Segment>,
    ) -> Arc<SealedKeys> {
        match sealed.get(&segment.base()) {
            Some(keys) if keys.is_of(segment) => keys.clone(),
            _ => {
                let keys = Arc::new(SealedKeys::new(self.shelf.clone(), segment.clone()));
                sealed.insert(segment.base(), keys.clone());
                keys
            }
        }
    }
}
