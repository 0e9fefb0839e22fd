//! What is on the platter, and what is only in the cache above it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Crash, Random};

/// Unsynced writes are remembered in blocks of this many bytes, the smallest that may tear.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

#[derive(Clone, Default)]
pub(super) struct Disk {
    files: BTreeMap<FileId, Contents>,
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    unsynced_names: Vec<NameChange>,
    next_id: u64,
    pub(super) capacity: Option<u64>,
}

#[derive(Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    synced_len: usize,
    /// What the platter holds in sectors that were written since the last sync.
    undo: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, FileId),
    Unlink(PathBuf),
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => path,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Link(path, id) => names.insert(path, id),
            Self::Unlink(path) => names.remove(&path),
        };
    }
}

impl Disk {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn name_of(&self, id: FileId) -> Option<&PathBuf> {
        self.names
            .iter()
            .find_map(|(path, named)| (*named == id).then_some(path))
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<String> {
        self.names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<FileId> {
        Ok(*self.names.get(path).ok_or(io::ErrorKind::NotFound)?)
    }

    pub(super) fn contents(&self, id: FileId) -> &[u8] {
        self.files.get(&id).map_or(&[], |file| &file.bytes)
    }

    pub(super) fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|id| self.files.get(id));
        named.map(|file| file.bytes.len() as u64).sum()
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn create(&mut self, path: &Path) -> FileId {
        let id = FileId(self.next_id);
        self.next_id += 1;
        self.files.insert(id, Contents::default());
        self.change_name(NameChange::Link(path.to_owned(), id));
        id
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        self.change_name(NameChange::Link(to.to_owned(), id));
        self.change_name(NameChange::Unlink(from.to_owned()));
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let (synced, rest) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition(|change| change.path().parent() == Some(dir));
        self.unsynced_names = rest;
        for change in Vec::from_iter::<Vec<NameChange>>(synced) {
            change.apply(&mut self.durable_names);
        }
    }

    /// Grows the file to `len`, or as far as the disk's capacity goes, as ext4 does.
    fn grow(&mut self, id: FileId, len: u64) -> io::Result<()> {
        let have = self.contents(id).len() as u64;
        if len <= have {
            return Ok(());
        }
        let free = self
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let grown = have + (len - have).min(free);
        let file = self.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        file.bytes
            .resize(usize::try_from(grown).map_err(io::Error::other)?, 0);
        if grown < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: FileId, len: u64) -> io::Result<()> {
        self.grow(id, len)
    }

    pub(super) fn write(&mut self, id: FileId, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.grow(id, offset + bytes.len() as u64)?;
        let file = self.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(file.bytes.len());
            file.undo
                .entry(sector)
                .or_insert_with(|| file.bytes[from..to].to_vec());
        }
        file.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn sync(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.undo.clear();
            file.synced_len = file.bytes.len();
        }
    }

    pub(super) fn rot(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let id = self.find(path)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let byte = self
            .files
            .get_mut(&id)
            .and_then(|file| file.bytes.get_mut(at))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        *byte ^= mask;
        Ok(())
    }

    /// What the next boot finds.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let mut disk = self.clone();
        let (mut coin, block) = match crash {
            Crash::KeepAll => (None, SECTOR),
            Crash::LoseAll => (None, SECTOR),
            Crash::Subset { seed, block } => (Some(Random(seed)), block.max(SECTOR)),
        };
        let names_kept = match (&mut coin, crash) {
            (Some(coin), _) => {
                usize::try_from(coin.below(disk.unsynced_names.len() as u64 + 1)).unwrap_or(0)
            }
            (None, Crash::KeepAll) => disk.unsynced_names.len(),
            (None, _) => 0,
        };
        for change in std::mem::take(&mut disk.unsynced_names)
            .into_iter()
            .take(names_kept)
        {
            change.apply(&mut disk.durable_names);
        }
        disk.names = disk.durable_names.clone();
        let linked = disk.names.values().copied().collect::<Vec<_>>();
        disk.files.retain(|id, _| linked.contains(id));
        for file in disk.files.values_mut() {
            let mut tossed = None;
            for (sector, old) in std::mem::take(&mut file.undo) {
                let kept = match &mut coin {
                    Some(coin) => {
                        let number = sector * SECTOR / block;
                        match tossed {
                            Some((last, kept)) if last == number => kept,
                            _ => {
                                let kept = coin.below(2) == 0;
                                tossed = Some((number, kept));
                                kept
                            }
                        }
                    }
                    None => crash == Crash::KeepAll,
                };
                if !kept {
                    file.bytes[sector * SECTOR..][..old.len()].copy_from_slice(&old);
                }
            }
            let keep_len = match &mut coin {
                Some(coin) => coin.below(2) == 0,
                None => crash == Crash::KeepAll,
            };
            if !keep_len {
                file.bytes.truncate(file.synced_len);
            }
            file.synced_len = file.bytes.len();
        }
        disk
    }
}
