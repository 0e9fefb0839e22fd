//! What is on the platter, and what is only in the cache above it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::{Contents, Fate};
use super::names::{FileId, Names};
use super::{Crash, Random};

/// A disk. A copy shares what neither it nor the original changes later.
#[derive(Clone, Default)]
pub(super) struct Disk {
    files: BTreeMap<FileId, Arc<Contents>>,
    pub(super) names: Names,
    next_id: u64,
    pub(super) capacity: Option<u64>,
}

impl Disk {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.names
            .files()
            .map(|(path, _)| path.to_path_buf())
            .collect()
    }

    pub(super) fn contents(&self, id: FileId) -> io::Result<&Contents> {
        let file = self.files.get(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    pub(super) fn contents_mut(&mut self, id: FileId) -> io::Result<&mut Contents> {
        let file = self.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::make_mut(file))
    }

    pub(super) fn used(&self) -> u64 {
        let named = self.names.files().filter_map(|(_, id)| self.files.get(&id));
        named.map(|file| file.len() as u64).sum()
    }

    /// An empty file of that name; the one that has it is emptied.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<FileId> {
        if let Ok(id) = self.names.find(path) {
            self.contents_mut(id)?.empty();
            return Ok(id);
        }
        let id = FileId(self.next_id);
        self.names.link(path, id)?;
        self.next_id += 1;
        self.files.insert(id, Arc::default());
        Ok(id)
    }

    /// Grows the file to `len`, or as far as the disk's capacity goes, as ext4 does.
    pub(super) fn grow(&mut self, id: FileId, len: u64) -> io::Result<()> {
        let have = self.contents(id)?.len() as u64;
        if len <= have {
            return Ok(());
        }
        let free = self
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let grown = have + (len - have).min(free);
        let to = usize::try_from(grown).map_err(io::Error::other)?;
        self.contents_mut(id)?.grow(to);
        if grown < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, id: FileId, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.grow(id, offset + bytes.len() as u64)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.contents_mut(id)?.write(bytes, at);
        Ok(())
    }

    /// What the next boot finds.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let mut disk = self.clone();
        match crash {
            // The cache outlives the process, and what was unsynced still is.
            Crash::KeepAll => return disk,
            Crash::LoseAll => {
                disk.names.cut(|| false);
                for file in disk.files.values_mut() {
                    Arc::make_mut(file).cut(Fate::Lost);
                }
            }
            Crash::Subset { seed, block } => {
                let mut coin = Random(seed);
                let eighths = bias(&mut coin);
                disk.names.cut(|| coin.below(8) < eighths);
                for file in disk.files.values_mut() {
                    let fate = Fate::Tossed {
                        eighths: bias(&mut coin),
                        coin: Random(coin.next()),
                        block,
                    };
                    Arc::make_mut(file).cut(fate);
                }
            }
        }
        let named = disk.names.files().map(|(_, id)| id);
        let named = named.collect::<BTreeSet<_>>();
        disk.files.retain(|id, _| named.contains(id));
        disk
    }
}

/// The chance of something unsynced to survive, in eighths: often none or all, so that one file
/// loses what came before another file's latest.
fn bias(coin: &mut Random) -> u64 {
    [0, 1, 4, 7, 8][usize::try_from(coin.below(5)).expect("below five")]
}
