//! The names on the disk: which are durable, and what a power cut makes of those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    File(FileId),
    Folder,
}

type Map = BTreeMap<Arc<Path>, Named>;

#[derive(Clone, Default)]
pub(super) struct Names {
    seen: Arc<Map>,
    durable: Arc<Map>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
struct Change {
    what: What,
    /// A sync of the folder failed since: the next one is no proof.
    failed: bool,
}

#[derive(Clone)]
enum What {
    Link(Arc<Path>, Named),
    Unlink(Arc<Path>),
    /// One step, however the two names are written.
    Rename(Arc<Path>, Arc<Path>, Named),
}

impl What {
    fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        let (one, other) = match self {
            Self::Link(path, _) | Self::Unlink(path) => (path, None),
            Self::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }

    fn is_in(&self, folder: &Path) -> bool {
        self.paths().any(|path| path.parent() == Some(folder))
    }

    fn apply(&self, names: &mut Map) {
        match self {
            Self::Link(path, named) => {
                names.insert(path.clone(), *named);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, named) => {
                names.remove(from);
                names.insert(to.clone(), *named);
            }
        }
    }
}

impl Names {
    pub(super) fn files(&self) -> impl Iterator<Item = (&Arc<Path>, FileId)> {
        self.seen.iter().filter_map(|(path, named)| match named {
            Named::File(id) => Some((path, *id)),
            Named::Folder => None,
        })
    }

    pub(super) fn name_of(&self, id: FileId) -> Option<&Arc<Path>> {
        self.files()
            .find_map(|(path, named)| (named == id).then_some(path))
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<FileId> {
        match self.seen.get(path) {
            Some(Named::File(id)) => Ok(*id),
            Some(Named::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.check_folder(folder)?;
        Ok(self
            .files()
            .filter(|(path, _)| path.parent() == Some(folder))
            .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn check_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.parent().is_none() || self.seen.get(folder) == Some(&Named::Folder) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn change(&mut self, what: What) {
        what.apply(Arc::make_mut(&mut self.seen));
        self.unsynced.push(Change {
            what,
            failed: false,
        });
    }

    pub(super) fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        let Some(parent) = folder.parent() else {
            return Ok(());
        };
        self.create_folder(parent)?;
        match self.seen.get(folder) {
            Some(Named::Folder) => Ok(()),
            Some(Named::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.change(What::Link(folder.into(), Named::Folder));
                Ok(())
            }
        }
    }

    pub(super) fn link(&mut self, path: &Path, id: FileId) -> io::Result<()> {
        self.check_folder(path.parent().unwrap_or(path))?;
        self.change(What::Link(path.into(), Named::File(id)));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        self.check_folder(to.parent().unwrap_or(to))?;
        self.change(What::Rename(from.into(), to.into(), Named::File(id)));
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(What::Unlink(path.into()));
        Ok(())
    }

    /// Makes the folder's names durable. One whose sync failed before stays in doubt until it is
    /// changed again.
    pub(super) fn sync(&mut self, folder: &Path) -> io::Result<()> {
        self.check_folder(folder)?;
        let mut fresh = BTreeSet::new();
        let mut doubtful = Vec::new();
        let mut synced = Vec::new();
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            let trusted = change.what.is_in(folder)
                && (!change.failed || change.what.paths().any(|path| fresh.contains(path)));
            if trusted {
                fresh.extend(change.what.paths().cloned());
                synced.push(change);
            } else {
                doubtful.push(change);
            }
        }
        doubtful.reverse();
        self.unsynced = doubtful;
        let durable = Arc::make_mut(&mut self.durable);
        for change in synced.iter().rev() {
            change.what.apply(durable);
        }
        Ok(())
    }

    pub(super) fn fail_sync(&mut self, folder: &Path) {
        for change in &mut self.unsynced {
            change.failed |= change.what.is_in(folder);
        }
    }

    /// What is left after a power cut that keeps a change if `is_kept` says so and nothing that
    /// happened to one of its names before was lost. So each name has a state that it had at some
    /// time, of different names at different times, and a rename is never half done.
    pub(super) fn cut(&mut self, mut is_kept: impl FnMut() -> bool) {
        let mut names = (*self.durable).clone();
        let mut behind = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let follows = !change.what.paths().any(|path| behind.contains(path));
            if is_kept() && follows {
                change.what.apply(&mut names);
            } else {
                behind.extend(change.what.paths().cloned());
            }
        }
        let has_folder = |names: &Map, path: &Path| {
            let mut above = path.ancestors().skip(1);
            above.all(|folder| {
                folder.parent().is_none() || names.get(folder) == Some(&Named::Folder)
            })
        };
        let whole = names.clone();
        names.retain(|path, _| has_folder(&whole, path));
        self.seen = Arc::new(names);
        self.durable = self.seen.clone();
    }
}
